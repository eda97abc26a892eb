"""`crnn-deploy export`: a checkpoint becomes a proven ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import (
    alphabet_in_short,
    assumptions,
    checkpoint_option,
    checkpoint_options,
    output_option,
    settings_of,
    warn_of_assumptions,
)
from crnn_deploy.cli.outputs import check_kind
from crnn_deploy.cli.say import progress_bar, say
from crnn_deploy.cli.values import OneOf

__all__ = ["export"]


@click.command()
@checkpoint_option(required=True)
@output_option("FILE.onnx", default="beside the checkpoint")
@checkpoint_options
@click.option(
    "--graph-output",
    type=OneOf(["logits", "log-probs", "argmax"]),
    default="logits",
    show_default=True,
    help="Let the graph put out logits, log-probabilities, or index and probability of each frame's best "
    "class (argmax).",
)
def export(checkpoint: Path, output: Path | None, graph_output: Any, **source: Any) -> None:
    """Export a checkpoint to ONNX and prove them equal.

    The exported graph takes any batch, and any width if the network does. The command compares the graph with
    PyTorch at sizes that the export did not see: logits, the best class of every frame (argmax), and text. It
    writes the file only if these agree. Otherwise the exit code is 1, and a table shows what differed.

    \b
    crnn-deploy export --checkpoint crnn.pth --recipe paper --alphabet-string 0123456789 -o crnn.onnx
    crnn-deploy export --checkpoint netCRNN.pth --recipe sierkinhane-360cc --alphabet chars.txt
    crnn-deploy export --checkpoint own.pth --recipe own.toml
    """
    from crnn_deploy.errors import ModelUnreadable
    from crnn_deploy.files import check_outputs
    from crnn_deploy.process import without_collector
    from crnn_deploy.recipes.words import input_in_words

    path = output or checkpoint.with_suffix(".onnx")
    if path.suffix != ".onnx":
        raise ModelUnreadable(path, "the exported file's name ends in .onnx")
    check_outputs((path,), (checkpoint, source["alphabet"], source["recipe"]))
    check_kind(path, quantised=False)
    settings = settings_of(**source)
    bar = progress_bar(100, "export", show_pos=False, item_show_func=lambda phase: phase)
    with without_collector(), bar:
        bar.update(1, "load PyTorch")
        from crnn_deploy.export.exporter import SIZES, ExportFailed
        from crnn_deploy.export.exporter import export as run
        from crnn_deploy.export.reference import open_reference

        bar.update(14, "open the checkpoint")
        reference = open_reference(checkpoint, settings)
        bar.update(15, "trace")
        failed: ExportFailed | None = None
        try:
            result = run(
                reference,
                path,
                output=graph_output,
                when_traced=lambda: bar.update(42, "prove"),
                progress=lambda _: bar.update(28 // SIZES, "prove"),
            )
        except ExportFailed as error:
            failed = error
    if failed is not None:
        say(failed.report.table())
        raise failed
    say(result.report.table())
    manifest = result.manifest
    told = manifest.source
    size = "any width" if result.any_width else f"width {manifest.width.minimum} only"
    say(f"graph: {manifest.channels} x {manifest.height} x {size}, any batch, {manifest.classes} classes")
    if "width" in told:
        say(f"width: {told['width']}")
    if "activation" in told:
        say(f"activation: {told['activation']}")
    say(f"alphabet: {alphabet_in_short(manifest.alphabet)} ({len(manifest.alphabet)}: {told['alphabet']})")
    warn_of_assumptions(manifest)
    say(
        f"{path}: {told['family']}, recipe {told['recipe']} ({told['recipe_from']}), "
        f"{input_in_words(manifest)}; assumed: {assumptions(manifest) or 'nothing'}"
    )
