"""`crnn-deploy describe`: a manifest for somebody else's ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import (
    FILE,
    alphabet_and_blank,
    alphabet_in_short,
    alphabet_options,
    blank_option,
    output_option,
    recipe_option,
    warn_of_assumptions,
)
from crnn_deploy.cli.outputs import check_kind_of
from crnn_deploy.cli.say import say, working

__all__ = ["describe"]


@click.command()
@click.argument("foreign", type=FILE)
@output_option("OUT.onnx")
@recipe_option()
@alphabet_options
@blank_option
def describe(
    foreign: Path, output: Path, recipe: str, alphabet: Path | None, alphabet_string: str | None, blank: Any
) -> None:
    """Add a manifest to an ONNX file of another tool.

    FOREIGN is a CTC model that another tool exported. OUT is the same model with the manifest that the other
    commands need. The command runs the model to find the axis of the classes, which must fit the alphabet.
    Files of PaddleOCR and RapidOCR hold their characters. Other files need --alphabet.

    \b
    crnn-deploy describe rec.onnx --recipe paddleocr -o described.onnx
    """
    from crnn_deploy.export.foreign.describe import describe as run
    from crnn_deploy.files import check_outputs

    check_outputs((output,), (foreign, recipe, alphabet))
    check_kind_of(foreign, output)
    given = alphabet_and_blank(alphabet, alphabet_string, blank)
    with working(f"run {foreign} to find its input and its classes"):
        described = run(foreign, output, recipe, *given)
    manifest = described.manifest
    for note in described.notes:
        say(f"note: {note}")
    told = manifest.source["alphabet"]
    say(f"alphabet: {alphabet_in_short(manifest.alphabet)} ({len(manifest.alphabet)}: {told})")
    warn_of_assumptions(manifest)
    say(
        f"{output}: {manifest.classes} classes, blank {manifest.blank}, "
        f"{manifest.channels} x {manifest.height} x width, output {manifest.output}"
    )
