"""`crnn-deploy verify`: do two models read the same text?"""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crnn_deploy.cli.options import check_data_outputs, checkpoint_options, open_data, settings_of
from crnn_deploy.cli.outputs import check_reports, write_json
from crnn_deploy.cli.rebuild import rebuild_option, up_to_date
from crnn_deploy.cli.say import say

if TYPE_CHECKING:
    from crnn_deploy.manifest import Manifest
    from crnn_deploy.runtime.backends.backend import Backend

__all__ = ["verify"]


@click.command()
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option("--images", metavar="DIR", help="Images to read; without, drawn characters and noise.")
@click.option("--labels", metavar="DATA", help="A labelled dataset in their place.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Largest |delta| of logits up to 10, in proportion beyond.  [default: 1e-4; where one of "
    "them is an engine, but not an int8 one, four times what its format costs the other, and at least 1e-4]",
)
@click.option(
    "--json", "json_path", metavar="FILE", type=click.Path(path_type=Path), help="Write the report here."
)
@click.option("--text", is_flag=True, help="With --images or --labels: the strings decide, not the logits.")
@rebuild_option
@checkpoint_options
def verify(
    reference: Path,
    candidate: Path,
    images: str | None,
    labels: str | None,
    tolerance: float | None,
    json_path: Path | None,
    text: bool,
    rebuild: str,
    **source: Any,
) -> None:
    """Compare CANDIDATE with REFERENCE: logits, every frame's argmax, text.

    Each is a checkpoint, an .onnx or an .engine file. A checkpoint takes its input rule from the other file
    where that has one. Exit code 1 beyond the tolerance; with --text, where more than 0.1 % of the strings
    that REFERENCE is sure of change, or exact accuracy or CER of labelled images is worse by more than
    `quantize` allows, or the images are too few to tell.
    """
    if images is not None and labels is not None:
        raise click.UsageError("--images and --labels exclude each other")
    if text and images is None and labels is None:
        raise click.UsageError("--text needs --images or --labels: drawn images hold no text to speak of")

    from crnn_deploy.files import check_outputs
    from crnn_deploy.parity.verify import verify as run
    from crnn_deploy.runtime.images.sources import find

    labelled = None if labels is None else open_data(labels, None, None, None)
    if labelled is not None:
        check_data_outputs((json_path,), (labelled,))
    check_reports(json_path)
    found = () if images is None else find((images,), ())
    check_outputs((json_path,), chain((reference, candidate, source["alphabet"], source["recipe"]), found))
    settings = settings_of(**source)

    def opened(path: Path, manifest: Manifest | None) -> Backend:
        from crnn_deploy.export.reference import open_checkpoint  # PyTorch, for checkpoints alone

        return open_checkpoint(path, settings, manifest)

    report = run(
        *(up_to_date(reference, rebuild), up_to_date(candidate, rebuild), opened),
        images=images,
        labelled=labelled,
        tolerance=tolerance,
    )
    say(report.parity.table())
    if report.format_error is not None:
        say(report.format_error.line())
    if report.unmeasured is not None:
        say(report.unmeasured)
    if report.verdict is not None:
        say(report.verdict.table())
    if json_path is not None:
        from dataclasses import asdict

        plain = report.parity.to_plain()
        if report.format_error is not None:
            plain["format_error"] = asdict(report.format_error)
        if report.verdict is not None:
            plain["verdict"] = report.verdict.to_plain()
        write_json(json_path, plain)
    passed = report.verdict.passed if text and report.verdict is not None else report.parity.passed
    if not passed:
        raise click.exceptions.Exit(1)
