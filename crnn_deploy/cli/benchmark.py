"""`crnn-deploy benchmark`: how fast models are on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from crnn_deploy.cli.outputs import check_reports
from crnn_deploy.cli.say import say, say_json

__all__ = ["benchmark"]


def _numbers(_: click.Context, parameter: click.Parameter, value: str) -> list[int]:
    try:
        numbers = [int(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is not whole numbers with commas between", param=parameter
        ) from None
    if min(numbers) < 1:
        raise click.BadParameter("every number must be at least 1", param=parameter)
    return numbers


@click.command()
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--images", metavar="DIR", help="Split the stages on these images.")
@click.option(
    "--synthetic",
    type=click.Choice(["words", "lines"]),
    default="words",
    show_default=True,
    help="Split the stages on drawn JPEG files of these widths.",
)
@click.option(
    "--batch", "batches", default="1,8", show_default=True, callback=_numbers, help="Images in a run."
)
@click.option("--widths", default="64,104,200", show_default=True, callback=_numbers, help="Pixels.")
@click.option("--threads", default="1", show_default=True, callback=_numbers, help="Threads inside one run.")
@click.option(
    "--rounds", type=click.IntRange(min=2), default=30, show_default=True, help="Runs of each cell."
)
@click.option(
    "--count", type=click.IntRange(min=1), default=200, show_default=True, help="Images for the stages."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--plot", metavar="FILE", type=click.Path(path_type=Path), help="Draw the grid: a .png or .svg file."
)
def benchmark(
    models: tuple[Path, ...],
    images: str | None,
    synthetic: str,
    batches: list[int],
    widths: list[int],
    threads: list[int],
    rounds: int,
    count: int,
    as_json: bool,
    plot: Path | None,
) -> None:
    """Measure latency, throughput, stages and memory of models, all of them in turn in one process.

    \b
    crnn-deploy benchmark model.onnx
    crnn-deploy benchmark a.onnx b.onnx --batch 1,4,8 --widths 64,128 --images crops --json
    """
    from contextlib import ExitStack, closing
    from itertools import chain, islice

    from crnn_deploy.evaluation import speed as core
    from crnn_deploy.files import check_outputs
    from crnn_deploy.runtime.backends.backend import open_backend
    from crnn_deploy.runtime.images import sources

    check_reports(plot)
    found = () if images is None else sources.find([images], ())
    check_outputs([plot], chain(models, found))
    files: list[Path | bytes]
    if images is not None:
        sources.check([images])
        files = [Path(path) for path in islice(sources.find([images], ()), count)]
    else:
        files = [*core.draw_images("words" if synthetic == "words" else "lines", count)]
    with ExitStack() as stack:
        backends = {
            (str(model), number): stack.enter_context(closing(open_backend(model, threads=number)))
            for model in models
            for number in threads
        }
        cells = core.measure_grid(backends, batches, widths, rounds)
        if not cells:
            raise click.UsageError("no model takes any of these --widths (crnn-deploy inspect tells which)")
        first = threads[0]
        stages = {str(m): core.measure_stages(backends[str(m), first], files) for m in models}
        memory, peak = core.peak_memory(), core.measure_peak()
        counted = {str(m): core.operations(m, backends[str(m), first].manifest, widths) for m in models}
    report = core.SpeedReport(cells, stages, peak, counted, memory)
    if plot is not None:
        from crnn_deploy.evaluation.speed_plot import draw

        draw(report, plot)
    if as_json:
        say_json({**core.header("benchmark"), **report.to_plain()}, indent=1)
    else:
        say(report.table())
