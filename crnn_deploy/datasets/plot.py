"""The width histogram of a dataset as a picture."""

from __future__ import annotations

import io
from pathlib import Path

from crnn_deploy.datasets.check import DatasetReport
from crnn_deploy.errors import LibraryMissing
from crnn_deploy.files import OutputUnwritable, write

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise LibraryMissing("a plot", "matplotlib", "train") from error

__all__ = ["plot_widths"]


def plot_widths(report: DatasetReport, path: Path) -> None:
    """Write the histogram of `DatasetReport.histogram`; the suffix tells the format, as .png or .svg.

    Raises OutputUnwritable.
    """
    histogram = report.histogram()
    figure = Figure(figsize=(8, 4), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.bar(
        [first for first, _, _ in histogram],
        [count for _, _, count in histogram],
        width=[last + 1 - first for first, last, _ in histogram],
        align="edge",
        edgecolor="white",
    )
    axes.set_xlim(left=0)
    axes.set_xlabel(f"width at height {report.height} (pixels)")
    axes.set_ylabel("images")
    axes.set_title(f"{sum(report.widths.values()):,} images")
    picture = io.BytesIO()
    try:
        figure.savefig(picture, format=path.suffix[1:] or "png")
    except ValueError as error:  # a format that it does not know
        raise OutputUnwritable(path, str(error)) from error
    write(path, picture.getvalue())
