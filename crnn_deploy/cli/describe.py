"""`crnn-deploy describe`: a manifest for somebody else's ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import alphabet_of
from crnn_deploy.cli.say import say

__all__ = ["describe"]


@click.command()
@click.argument("foreign", type=click.Path(path_type=Path))
@click.option("-o", "path", metavar="OUT.onnx", required=True, type=click.Path(path_type=Path))
@click.option(
    "--recipe", metavar="NAME|FILE.toml", required=True, help="Preprocessing, blank and width rule."
)
@click.option(
    "--alphabet", metavar="FILE", type=click.Path(path_type=Path), help="Where the file names none."
)
@click.option("--alphabet-string", metavar="TEXT")
@click.option("--blank", type=click.Choice(["first", "last"]), help="Class of the CTC blank.")
def describe(
    foreign: Path, path: Path, recipe: str, alphabet: Path | None, alphabet_string: str | None, blank: Any
) -> None:
    """Give a CTC ONNX model that was exported elsewhere the manifest that crnn-deploy reads.

    The class axis is found by running the model and must fit the alphabet. PaddleOCR and RapidOCR files carry
    their characters; others need --alphabet.

    \b
    crnn-deploy describe rec.onnx --recipe paddleocr -o described.onnx
    """
    from crnn_deploy.export.foreign import describe as run
    from crnn_deploy.files import check_outputs

    check_outputs((path,), (foreign, recipe, alphabet))
    manifest = run(foreign, path, recipe, alphabet_of(alphabet, alphabet_string), blank)
    say(
        f"{path}: {manifest.classes} classes, blank {manifest.blank}, "
        f"{manifest.channels} x {manifest.height} x width, output {manifest.output}"
    )
