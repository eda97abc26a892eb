"""`crnn-deploy calibrate`: the ranges of a model's activations, for INT8."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import click

from crnn_deploy.cli.say import progress_bar, say

__all__ = ["calibrate"]


@click.command()
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.argument("images", metavar="[IMAGES]", required=False)
@click.option(
    "--method",
    type=click.Choice(["minmax", "percentile", "entropy", "mse", "auto"]),
    default="auto",
    show_default=True,
    help="How much of the ranges is covered; auto: what changes least on images held back.",
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=512, show_default=True, help="Most images used."
)
@click.option("-o", "path", metavar="SCALES.json", type=click.Path(path_type=Path), required=True)
def calibrate(model: Path, images: str | None, method: Any, samples: int, path: Path) -> None:
    """Measure how large the activations of MODEL get on IMAGES, a folder, file or glob.

    Images are drawn by width, an equal share each, and run as they are in the batches of `infer`. Without
    IMAGES, text is drawn. Ctrl-C stops; the same command goes on.

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

        part = path.with_name(f"{path.name}.part")  # what a stopped run leaves
        check_outputs((path, part), chain([model], () if images is None else find((images,), ())))
        opened = open_model(model)
        if images is None:
            found = calibration_set.rendered(opened.manifest.alphabet, 3 * samples)
        else:
            found = calibration_set.of_folder(images)
        drawn, held_back = calibration_set.draw(found, opened.manifest, samples)
        bar = progress_bar(len(drawn) + (5 * len(held_back) if method == "auto" else 0), "calibrate")
        with bar:
            scales = run(
                *(opened, drawn, held_back, method, path),
                rendered=images is None,
                progress=bar.update,
                stopped=stop,
            )
    for name, figures in scales.compared.items():
        shown = ", ".join(f"{figure} {value:.4g}" for figure, value in figures.items())
        say(f"{name}: {shown} (of {len(held_back)} images held back)")
    widths = len({one["width"] for one in scales.images})
    drawn_by = "drawn, since no IMAGES were given" if scales.rendered else "of the images given"
    say(
        f"{path}: {len(scales.ranges)} ranges, {scales.method}, "
        f"{len(scales.images)} images of {widths} widths, {drawn_by}"
    )
