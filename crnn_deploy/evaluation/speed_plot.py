"""What `crnn-deploy benchmark` measured as a picture (matplotlib)."""

from __future__ import annotations

import io
from pathlib import Path

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.evaluation.speed import SpeedReport
from crnn_deploy.files import write

__all__ = ["PlotUnwritable", "draw"]


class PlotUnwritable(CrnnDeployError, OSError):
    """A picture that cannot be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot write {path}: {reason}")


def draw(report: SpeedReport, path: Path) -> None:
    """Images per CPU-second over the width, a line for each model, batch and number of threads.

    The suffix tells the format. Raises PlotUnwritable, OutputUnwritable.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    series: dict[tuple[str, int, int], list[tuple[int, float]]] = {}
    for cell in report.cells:
        point = cell.width, 1e3 / cell.cpu_ms_per_image.median
        series.setdefault((cell.model, cell.batch, cell.threads), []).append(point)
    for (model, batch, threads), points in series.items():
        label = f"{Path(model).name}, batch {batch}, {threads} threads"
        axes.plot(*zip(*sorted(points), strict=True), marker="o", label=label)
    axes.set(xlabel="width (pixels)", ylabel="images per CPU-second", ylim=(0, None))
    axes.legend()
    picture = io.BytesIO()
    try:
        figure.savefig(picture, format=path.suffix[1:] or "png")
    except ValueError as error:  # a format that it does not know
        raise PlotUnwritable(path, str(error)) from error
    write(path, picture.getvalue())
