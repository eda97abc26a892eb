"""`crnn-deploy verify`: do two models read the same text?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import checkpoint_options, settings_of

__all__ = ["verify"]


@click.command()
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option("--images", metavar="DIR", help="Images to read; without, drawn characters and noise.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    default=1e-4,
    show_default=True,
    help="Largest |delta| allowed.",
)
@click.option(
    "--json", "json_path", metavar="FILE", type=click.Path(path_type=Path), help="Write the report here."
)
@checkpoint_options
def verify(
    reference: Path,
    candidate: Path,
    images: str | None,
    tolerance: float,
    json_path: Path | None,
    **source: Any,
) -> None:
    """Compare CANDIDATE with REFERENCE: logits, every frame's argmax, text.

    Each is a checkpoint or an .onnx file. A checkpoint takes its input rule from the other file where that is
    an .onnx file. Exit code 1 beyond the tolerance.
    """
    from crnn_deploy.stages.verify import verify as run

    report = run(reference, candidate, settings_of(**source), images=images, tolerance=tolerance)
    click.echo(report.table())
    if json_path is not None:
        import json

        # NaN and infinity are no JSON
        plain = json.loads(json.dumps(report.to_plain()), parse_constant=lambda _: None)
        json_path.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    if not report.passed:
        raise click.exceptions.Exit(1)
