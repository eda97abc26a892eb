"""`crnn-deploy verify`: do two models read the same text?"""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crnn_deploy.cli.options import (
    CHECKPOINT_ONLY,
    DATA_ONLY,
    MODEL,
    PLACE,
    check_data_outputs,
    checkpoint_options,
    data_options,
    images_option,
    json_options,
    open_data,
    refuse_given,
    refuse_images,
    settings_of,
)
from crnn_deploy.cli.outputs import check_report, put_report
from crnn_deploy.cli.rebuild import rebuild_option, rebuild_stale
from crnn_deploy.cli.say import progress_bar, say_over_bar

if TYPE_CHECKING:
    from crnn_deploy.manifest import Manifest
    from crnn_deploy.runtime.backends.backend import Backend

__all__ = ["verify"]


@click.command()
@click.argument("reference", type=MODEL)
@click.argument("candidate", type=MODEL)
@images_option(default="drawn characters and noise")
@click.option("--labels", metavar="DATA", type=PLACE, help="Read the images of this labelled dataset.")
@data_options
@click.option(
    "--tolerance",
    metavar="X",
    type=click.FloatRange(min=0),
    show_default="1e-4; for an engine other than int8, six times the error that its number format causes "
    "in the other model, but at least 1e-4",
    help="Allow logits up to 10 to differ by this much, and larger ones in proportion.",
)
@json_options
@click.option(
    "--text", is_flag=True, help="Judge by texts and not by logits. This needs --images or --labels."
)
@rebuild_option
@checkpoint_options
def verify(
    reference: Path,
    candidate: Path,
    images: str | None,
    labels: str | None,
    kind: Any,
    image_folder: str | None,
    characters: str | None,
    tolerance: float | None,
    as_json: bool,
    json_file: Path | None,
    text: bool,
    rebuild: str,
    **source: Any,
) -> None:
    """Compare two models on the same images.

    REFERENCE and CANDIDATE are each a checkpoint, an .onnx file or an .engine file. The command compares
    logits, the best class of every frame (argmax), and text. For a checkpoint, images are prepared as the
    manifest of the other file says, if that file has one.

    \b
    crnn-deploy verify crnn.pth crnn.onnx
    crnn-deploy verify model.onnx model.engine --images crops/ --text

    An image that cannot be read is left out, and stderr says why.

    The exit code is 0 when they agree, 1 when an image could not be read or when logits differ by more than
    the tolerance, 2 for bad input. With --text it is 1 when more than 0.1 % of the texts that REFERENCE is
    confident of change, when exact accuracy or CER of labelled images is worse by more than `quantize`
    allows, or when the images are too few to tell.
    """
    if images is not None and labels is not None:
        raise click.UsageError("--images and --labels exclude each other")
    if labels is None:
        refuse_given(DATA_ONLY, "describes labelled images; name them with --labels DATA")
    if text and images is None and labels is None:
        raise click.UsageError("--text needs --images or --labels: drawn images hold no text to speak of")

    refuse_images(reference, candidate)

    from crnn_deploy.files import check_outputs
    from crnn_deploy.parity.verify import count as count_of
    from crnn_deploy.parity.verify import verify as run
    from crnn_deploy.runtime.backends.backend import SUFFIXES
    from crnn_deploy.runtime.images.sources import find

    if reference.suffix in SUFFIXES and candidate.suffix in SUFFIXES:
        refuse_given(CHECKPOINT_ONLY, "describes a checkpoint; neither of these two files is one")
    labelled = None if labels is None else open_data(labels, kind, image_folder, characters)
    if labelled is not None:
        check_data_outputs((json_file,), (labelled,), characters)
    check_report(json_file)
    found = () if images is None else find((images,), ())
    check_outputs((json_file,), chain((reference, candidate, source["alphabet"], source["recipe"]), found))
    settings = settings_of(**source)

    def opened(path: Path, manifest: Manifest | None) -> Backend:
        from crnn_deploy.export.reference import open_checkpoint  # PyTorch, for checkpoints alone

        return open_checkpoint(path, settings, manifest)

    rebuild_stale(rebuild, reference, candidate)
    with progress_bar(count_of(images, labelled), "verify") as bar:
        report = run(
            *(reference, candidate, opened),
            images=images,
            labelled=labelled,
            tolerance=tolerance,
            failed=say_over_bar,
            progress=bar.update,
        )
    lines, plain = [report.parity.table()], report.parity.to_plain()
    if report.format_error is not None:
        lines.append(report.format_error.line())
        plain["format_error"] = asdict(report.format_error)
    if report.unmeasured is not None:
        lines.append(report.unmeasured)
    if report.verdict is not None:
        lines.append(report.verdict.table())
        plain["verdict"] = report.verdict.to_plain()
    if report.failures:
        count = f"{len(report.failures)} of {len(report.failures) + report.parity.images} images"
        lines.append(f"{count} cannot be read and are left out")
        plain["failures"] = list(report.failures)
    put_report("\n".join(lines), plain, as_json=as_json, json_file=json_file)
    passed = report.verdict.passed if text and report.verdict is not None else report.parity.passed
    if not passed or report.failures:
        raise click.exceptions.Exit(1)
