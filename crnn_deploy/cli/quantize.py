"""`crnn-deploy quantize`: a model in INT8, or the reason why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crnn_deploy.cli.options import check_data_outputs, data_options, open_data
from crnn_deploy.cli.outputs import check_reports, write_json, write_page
from crnn_deploy.cli.say import progress_bar, say

if TYPE_CHECKING:
    from crnn_deploy.process import Stop

__all__ = ["quantize"]


def _share(_: click.Context, param: click.Parameter, value: str) -> float:
    """`0.1%` or `0.1pt`, both hundredths."""
    try:
        share = float(value.removesuffix("%").removesuffix("pt")) / 100
        if not 0 <= share <= 1:
            raise ValueError
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not a percentage such as 0.1%") from error
    return share


@click.command()
@click.argument("model", metavar="MODEL.onnx", type=click.Path(path_type=Path))
@click.argument("data", metavar="[DATA]", required=False)
@data_options
@click.option(
    "--scales", "scales_path", metavar="SCALES.json", type=click.Path(path_type=Path), required=True
)
@click.option(
    "--max-confident-flips",
    "confident_flips",
    callback=_share,
    default="0.1%",
    show_default=True,
    help="Share of the strings the float model is sure of that may change.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    help="It is sure where its weakest frame is above this.",
)
@click.option("--max-accuracy-loss", "accuracy_loss", callback=_share, default="0.2pt", show_default=True)
@click.option("--max-cer-increase", "cer_increase", callback=_share, default="0.05pt", show_default=True)
@click.option(
    "--activations",
    type=click.Choice(["int8", "uint8"]),
    default="int8",
    show_default=True,
    help="uint8: for CPUs alone, faster without VNNI; TensorRT takes int8.",
)
@click.option(
    "--lstm",
    type=click.Choice(["float", "dynamic"]),
    default="float",
    show_default=True,
    help="dynamic: in int8 for CPUs alone, one image at a time.",
)
@click.option(
    "--rest",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="Of what stays float; fp16: for GPUs alone (opset 19).",
)
@click.option(
    "--target",
    type=click.Choice(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="gpu: this CPU's speed is no gate.",
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=10_000, show_default=True, help="Drawn without DATA."
)
@click.option(
    "--json", "json_path", metavar="FILE", type=click.Path(path_type=Path), help="Write all figures here."
)
@click.option(
    "--html", "html_path", metavar="FILE", type=click.Path(path_type=Path), help="Write a page with images."
)
@click.option("-o", "path", metavar="OUT.int8.onnx", type=click.Path(path_type=Path), required=True)
def quantize(
    model: Path,
    data: str | None,
    kind: Any,
    images: str | None,
    characters: str | None,
    scales_path: Path,
    activations: Any,
    lstm: Any,
    rest: Any,
    target: Any,
    samples: int,
    json_path: Path | None,
    html_path: Path | None,
    path: Path,
    **budget: float,
) -> None:
    """Write MODEL in INT8 if its text holds and it is faster; else say why not.

    DATA is a folder of images, or a labelled dataset; without it, labelled text is drawn in fonts and words
    that no training saw. The layers that hurt the text most go back to float until the budget holds.

    Exit code: 0, 1 when refused (nothing is written then), 2 for bad input.
    """
    if lstm == "dynamic" and target == "gpu":
        raise click.UsageError("--lstm dynamic is for CPUs alone; leave it or --target gpu out")
    if rest == "fp16" and target == "cpu":
        raise click.UsageError("--rest fp16 is for GPUs alone; add --target gpu")
    from crnn_deploy.process import Stop

    with Stop() as stop:
        from crnn_deploy.files import check_outputs
        from crnn_deploy.graph.model import open_model
        from crnn_deploy.parity.proof_images import proof_images
        from crnn_deploy.parity.verdict import Budget
        from crnn_deploy.quantization.calibrate import read_scales
        from crnn_deploy.quantization.quantize import Refused
        from crnn_deploy.quantization.quantize import quantize as run
        from crnn_deploy.runtime.images import sources

        if html_path is not None:  # before the long run: its libraries may be missing
            from crnn_deploy.quantization.report import render
        check_reports(json_path, html_path)
        check_outputs((path, json_path, html_path), (model, scales_path))
        labelled = None
        if data is not None and (kind is not None or not Path(data).is_dir() or images is not None):
            labelled = open_data(data, kind, images, characters)
        if labelled is not None:
            check_data_outputs((path, json_path, html_path), (labelled,), characters)
        elif data is not None:
            check_outputs((path, json_path, html_path), sources.find((data,), ()))
        opened = open_model(model)
        scales = read_scales(scales_path, opened)
        if labelled is not None:
            total = len(labelled)
        else:
            total = samples if data is None else sum(1 for _ in sources.find((data,), ()))
        with progress_bar(total, "images") as bar:
            proof = proof_images(
                opened.manifest, data, labelled, samples, progress=lambda n: _step(bar, n, stop)
            )
        bar = progress_bar(2 * len(proof.sources), "quantize")  # more where layers go back to float
        refusal = None
        with bar:
            try:
                result = run(
                    *(opened, scales, proof.batches, proof.truths, path),
                    budget=Budget(**budget),
                    activations=activations,
                    lstm=lstm,
                    rest=rest,
                    target=target,
                    progress=bar.update,
                    stopped=stop,
                )
            except Refused as error:
                refusal, result = error, error.result
    drawn_from = {"method": scales.method, "images_sha256": scales.images_sha256}
    write_json(json_path, {"scales": drawn_from, **result.to_plain()})
    if html_path is not None:
        write_page(html_path, render(result, scales, proof))
    say(result.table())
    if refusal is not None:
        raise refusal
    say(f"{path}: {result.chosen.name}, {result.chosen.speed:.2f} x the float model on this machine")


def _step(bar: Any, images: int, stop: Stop) -> None:
    if stop():
        raise KeyboardInterrupt
    bar.update(images)
