"""`crnn-deploy calibrate`: the ranges of a model's activations, for INT8."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.options import MODEL, PLACE, max_images_option, output_option
from crnn_deploy.cli.say import progress_bar, say
from crnn_deploy.cli.values import OneOf
from crnn_deploy.errors import amount

__all__ = ["calibrate"]


@click.command()
@click.argument("model", metavar="MODEL.onnx", type=MODEL)
@click.argument("images", metavar="[IMAGES]", required=False, type=PLACE)
@click.option(
    "--method",
    type=OneOf(["minmax", "percentile", "entropy", "mse", "auto"]),
    default="auto",
    show_default=True,
    help="Choose ranges by this method. auto takes the method that changes the output least on images that "
    "were held back.",
)
@max_images_option(512)
@output_option("SCALES.json")
def calibrate(model: Path, images: str | None, method: Any, max_images: int, output: Path) -> None:
    """Measure the activations of MODEL, for `quantize`.

    IMAGES is a folder, a file or a glob. Without IMAGES, the command draws images with text. It takes an
    equal share of the images from each range of widths, and runs them in the same batches as `infer`. The
    scales say how large each activation gets. After Ctrl-C, the same command continues where it stopped.

    \b
    crnn-deploy calibrate model.onnx crops/ -o scales.json
    crnn-deploy quantize model.onnx crops/ --scales scales.json -o model.int8.onnx
    """
    from crnn_deploy.process import Stop

    with Stop() as stop:
        from crnn_deploy.files import check_outputs
        from crnn_deploy.graph.model import open_model
        from crnn_deploy.quantization import calibration_set
        from crnn_deploy.quantization.calibrate import calibrate as run
        from crnn_deploy.runtime.images.sources import find

        part = output.with_name(f"{output.name}.part")  # what a stopped run leaves
        check_outputs((output, part), chain([model], () if images is None else find((images,), ())))
        opened = open_model(model)
        if images is None:
            total, found = 3 * max_images, calibration_set.rendered(opened.manifest.alphabet, 3 * max_images)
        else:
            total, found = sum(1 for _ in find((images,), ())), calibration_set.of_folder(images)
        with progress_bar(total, "images") as bar:
            chosen, held_back = calibration_set.sample(
                found, opened.manifest, max_images, progress=bar.update
            )
        bar = progress_bar(len(chosen) + (5 * len(held_back) if method == "auto" else 0), "calibrate")
        with bar:
            scales = run(
                *(opened, chosen, held_back, method, output),
                rendered=images is None,
                progress=bar.update,
                stopped=stop,
            )
    for name, figures in scales.compared.items():
        shown = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
        say(f"{name}: {shown} (of {len(held_back)} images held back)")
    widths = len({one["width"] for one in scales.images})
    drawn_by = "drawn, since no IMAGES were given" if scales.rendered else "of the images given"
    why = ", as --method says"
    if method == "auto":
        why = f", the best by {', then by '.join(scales.compared[scales.method])}"
    say(
        f"{output}: {amount(len(scales.ranges), 'range')} by {scales.method}{why}; "
        f"{amount(len(scales.images), 'image')} of {amount(widths, 'width')}, {drawn_by}; "
        "crnn-deploy quantize decides whether the texts stay the same"
    )
