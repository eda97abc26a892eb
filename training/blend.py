"""Average the weights of two checkpoints of one training, so that the later one does not forget.

\b
    python training/blend.py before.pth after.pth blended.pth --share 0.7

BEFORE is where a later part of a training began, and AFTER where it ended. A part on other images gains on
these, and loses a little elsewhere. Weights between the two often read as well as the better of both, or
better (Wortsman and others, Robust fine-tuning of zero-shot models, arXiv 2109.01903). Try a few shares.
"""

from __future__ import annotations

from pathlib import Path

import click

from crnn_deploy.cli.script import ScriptCommand
from crnn_deploy.export.reference import open_reference
from crnn_deploy.files import check_outputs
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.training.state import save_weights


@click.command(cls=ScriptCommand, help=__doc__)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--share",
    required=True,
    type=click.FloatRange(0, 1),
    help="Give the weights of AFTER this share: 1 is AFTER itself.",
)
def main(before: Path, after: Path, output: Path, share: float) -> None:
    check_outputs((output,), (before, after))
    old, new = (open_reference(path, CheckpointSettings(None)) for path in (before, after))
    if old.manifest.alphabet != new.manifest.alphabet:
        raise click.UsageError(f"{before} and {after} have different alphabets")
    begun, ended = old.module.state_dict(), new.module.state_dict()
    if {name: value.shape for name, value in begun.items()} != {
        name: value.shape for name, value in ended.items()
    }:
        raise click.UsageError(f"{before} and {after} are different networks")
    blended = {
        name: begun[name].lerp(value, share) if value.is_floating_point() else value
        for name, value in ended.items()
    }
    save_weights(output, new.module, new.manifest, blended)
    click.echo(f"{output}: {1 - share:g} of {before} and {share:g} of {after}")


if __name__ == "__main__":
    main()
