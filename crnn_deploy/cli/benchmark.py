"""`crnn-deploy benchmark`: how fast models are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import (
    MODEL,
    images_option,
    json_options,
    max_images_option,
    plot_option,
    precision_option,
    refuse_given,
    refuse_images,
)
from crnn_deploy.cli.outputs import check_report, put_report
from crnn_deploy.cli.say import progress_bar
from crnn_deploy.cli.values import OneOf

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
@click.argument("models", metavar="MODEL...", nargs=-1, required=True, type=MODEL)
@images_option(default="drawn images (--synthetic)")
@click.option(
    "--synthetic",
    type=OneOf(["words", "lines"]),
    default="words",
    show_default=True,
    help="Measure the stages on drawn JPEG files of words or of whole lines.",
)
@max_images_option(200)
@click.option(
    "--batches",
    metavar="N,N,...",
    default="1,8",
    show_default=True,
    callback=_numbers,
    help="Measure batches of these sizes.",
)
@click.option(
    "--widths",
    metavar="N,N,...",
    default="64,104,200",
    show_default=True,
    callback=_numbers,
    help="Measure images of these widths, in pixels.",
)
@click.option(
    "--threads",
    metavar="N,N,...",
    default="1",
    show_default=True,
    callback=_numbers,
    help="Measure with these numbers of threads in one run of the network.",
)
@click.option(
    "--rounds",
    metavar="N",
    type=click.IntRange(min=2),
    default=30,
    show_default=True,
    help="Run each combination this many times.",
)
@precision_option(several=True)
@json_options
@plot_option
def benchmark(
    models: tuple[Path, ...],
    images: str | None,
    synthetic: str,
    max_images: int,
    batches: list[int],
    widths: list[int],
    threads: list[int],
    rounds: int,
    precisions: tuple[Any, ...],
    as_json: bool,
    json_file: Path | None,
    plot: Path | None,
) -> None:
    """Measure the speed and memory of models.

    All models run in turn in one process. Latency and throughput are those of the network alone, for every
    combination of --batches, --widths and --threads. The stages from a file to its text (read, decode,
    preprocess, infer, ctc) are measured on images.

    \b
    crnn-deploy benchmark model.onnx
    crnn-deploy benchmark model.onnx --precision fp32 --precision int8
    crnn-deploy benchmark a.onnx b.onnx --batches 1,4,8 --widths 64,128 --images crops --json
    """
    if images is not None:
        refuse_given(("synthetic",), "draws images in place of --images; leave one of the two out")

    refuse_images(*models)
    from contextlib import ExitStack, closing
    from itertools import chain, islice, product

    from crnn_deploy.evaluation import speed as core
    from crnn_deploy.files import check_outputs
    from crnn_deploy.runtime.images import sources
    from crnn_deploy.runtime.opening import opening

    check_report(json_file, plot)
    found = () if images is None else sources.find([images], ())
    check_outputs([json_file, plot], chain(models, found))
    files: list[Path | bytes]
    if images is not None:
        sources.check([images])
        files = [Path(path) for path in islice(sources.find([images], ()), max_images)]
    else:
        files = [*core.draw_images("words" if synthetic == "words" else "lines", max_images)]
    with ExitStack() as stack:
        files_of: dict[str, Path] = {}
        backends = {}
        for model, precision in product(models, precisions or (None,)):
            name = f"{model} ({precision})" if precision else str(model)
            for number in threads:
                given = opening(model, precision=precision, threads=number)
                backends[name, number] = stack.enter_context(closing(given.open()))
                files_of[name] = given.path
        first = threads[0]
        stages = {}
        with progress_bar(len(batches) * len(widths) + len(files_of), "benchmark") as bar:
            cells = core.measure_grid(backends, batches, widths, rounds, lambda: bar.update(1))
            for name in files_of if cells else ():
                stages[name] = core.measure_stages(backends[name, first], files)
                bar.update(1)
        if not cells:
            raise click.UsageError("no model takes any of these --widths (crnn-deploy inspect tells which)")
        memory, peak = core.peak_memory(), core.measure_peak()
        counted = {
            name: core.operations(path, backends[name, first].manifest, widths)
            for name, path in files_of.items()
        }
    report = core.SpeedReport(cells, stages, peak, counted, memory)
    if plot is not None:
        from crnn_deploy.evaluation.speed_plot import draw

        draw(report, plot)
    plain = {**core.header("benchmark"), **report.to_plain()}
    put_report(report.table(), plain, as_json=as_json, json_file=json_file)
