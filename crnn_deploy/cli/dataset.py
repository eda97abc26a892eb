"""`crnn-deploy dataset`: labelled images, checked and packed."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import alphabet_of, data_options, open_data

__all__ = ["dataset"]

_CLEAR_LINE = "\r\033[K"  # of the progress bar


@click.group()
def dataset() -> None:
    """Check and pack labelled images.

    DATA is an LMDB, a file of labels (CSV, TSV, labels.json, or lines of a name and a text) or a folder that
    holds one.
    """


@dataset.command()
@click.argument("data")
@data_options
@click.option("--recipe", metavar="NAME|FILE.toml", help="Height, width rule and alphabet of the network.")
@click.option(
    "--model",
    metavar="FILE.onnx",
    type=click.Path(path_type=Path),
    help="Height, width rule, time steps and alphabet of this model.",
)
@click.option(
    "--alphabet",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="UTF-8: its only line, or one token a line; spaces count.",
)
@click.option("--alphabet-string", metavar="TEXT", help="The characters themselves.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--plot", metavar="FILE.png", type=click.Path(path_type=Path), help="Draw the widths.")
def check(
    data: str,
    recipe: str | None,
    model: Path | None,
    alphabet: Path | None,
    alphabet_string: str | None,
    as_json: bool,
    plot: Path | None,
    **source: Any,
) -> None:
    """Report what a training on DATA would stumble over.

    Unreadable images, characters outside the alphabet, labels that need more time steps than their image
    gives (CTC: one for each character, one more between equal neighbours), empty labels, and images that are
    there twice. Without --model and --recipe the network is the paper's: height 32, width in proportion and
    at least 100, width // 4 + 1 time steps.

    \b
    crnn-deploy dataset check train/labels.csv --alphabet-string 0123456789-
    crnn-deploy dataset check train.lmdb --model model.onnx --json --plot widths.png
    crnn-deploy dataset check train.txt --characters char_std_5990.txt --images images/

    Exit code: 0, 1 when something is wrong (an image that is repeated with the same label is not), 2 for bad
    usage.
    """
    if model is not None and recipe is not None:
        raise click.UsageError("--model and --recipe exclude each other")

    from crnn_deploy.datasets.check import check as run
    from crnn_deploy.datasets.check import steps_of

    if plot is not None:
        from crnn_deploy.datasets.plot import plot_widths
    tokens = alphabet_of(alphabet, alphabet_string)
    if model is not None:
        from crnn_deploy.backends.ort import OrtBackend

        with closing(OrtBackend(model)) as backend:
            manifest = backend.manifest
        height, width, steps = manifest.height, manifest.width, manifest.steps
        tokens = tokens or manifest.alphabet
    else:
        from crnn_deploy.recipes import find_recipe

        rules = find_recipe(recipe or "paper")
        height, width, steps = rules.height, rules.width, steps_of(rules)
        tokens = tokens or (rules.alphabet if recipe is not None else None)
    if tokens is None and source["characters"] is not None:
        from crnn_deploy.datasets.labels import characters_alphabet

        tokens = characters_alphabet(source["characters"])
    opened = open_data(data, **source)
    with click.progressbar(
        length=len(opened), file=sys.stderr, show_pos=True, hidden=not sys.stderr.isatty()
    ) as bar:
        report = run(
            opened, height=height, width=width, steps=steps, alphabet=tokens, progress=lambda: bar.update(1)
        )
    if as_json:
        import json

        click.echo(json.dumps(report.to_plain(), ensure_ascii=False))
    else:
        click.echo(report.table())
    if plot is not None:
        plot_widths(report, plot)
    if not report.passed:
        raise click.exceptions.Exit(1)


@dataset.command()
@click.argument("data")
@data_options
@click.option(
    "-o", "--output", metavar="OUT.lmdb", required=True, type=click.Path(path_type=Path), help="A new folder."
)
@click.option("--resume", is_flag=True, help="Go on with the LMDB of -o: skip the samples it has already.")
def pack(data: str, output: Path, resume: bool, **source: Any) -> None:
    """Pack DATA into an LMDB.

    Its format is that of crnn.pytorch and deep-text-recognition-benchmark. The bytes of the images stay as
    they are. Images that cannot be read are left out, with a line each.

    \b
    crnn-deploy dataset pack train/labels.csv -o train.lmdb
    crnn-deploy dataset pack train/labels.csv -o train.lmdb --resume

    Exit code: 0, 1 when an image could not be read, 2 for bad usage, 130 when stopped by Ctrl-C or SIGTERM.
    However it was stopped, --resume goes on, and the result is the same.
    """
    from crnn_deploy.datasets.pack import pack as run
    from crnn_deploy.pipeline import Stop

    opened = open_data(data, **source)
    hidden = not sys.stderr.isatty()
    with (
        Stop() as stop,
        click.progressbar(length=len(opened), file=sys.stderr, show_pos=True, hidden=hidden) as bar,
    ):
        packed = run(
            opened,
            output,
            resume=resume,
            progress=lambda: bar.update(1),
            failed=lambda message: click.echo(f"{'' if hidden else _CLEAR_LINE}{message}", err=True),
            stopped=stop,
        )
    if packed.failed:
        click.echo(f"{packed.failed} of {packed.read} images could not be read", err=True)
    if not packed.whole:
        click.echo(f"stopped after {packed.read} of {packed.total} samples; --resume goes on", err=True)
        raise KeyboardInterrupt
    click.echo(f"{output}: {packed.written} samples")
    if packed.failed:
        raise click.exceptions.Exit(1)
