"""`crnn-deploy quantize`: a model in INT8, or the reason why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crnn_deploy.cli.options import (
    DATA_ONLY,
    MODEL,
    PLACE,
    check_data_outputs,
    data_options,
    html_option,
    json_options,
    open_data,
    output_option,
    refuse_given,
)
from crnn_deploy.cli.outputs import check_kind, check_reports, put_report, write_page
from crnn_deploy.cli.say import progress_bar, say
from crnn_deploy.cli.values import File, OneOf

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


class _ScalesFile(File):
    """A file of `calibrate`; where none is given, the command that writes one is."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None) -> str:
        model = "MODEL.onnx" if ctx is None else ctx.params.get("model", "MODEL.onnx")
        return f"Write them with: crnn-deploy calibrate {model} -o scales.json"


def _there(_: click.Context, param: click.Parameter, model: Path) -> Path:
    """A model that is there: this is told before that scales are missing."""
    from crnn_deploy.errors import ModelNotFound

    if not model.exists():
        raise ModelNotFound(model)
    return model


@click.command()
@click.argument("model", metavar="MODEL.onnx", type=MODEL, callback=_there)
@click.argument("data", metavar="[DATA]", required=False, type=PLACE)
@data_options
@click.option(
    "--scales",
    "scales_path",
    metavar="SCALES.json",
    type=_ScalesFile(path_type=Path),
    required=True,
    help="Read from this file the ranges of activations that `calibrate` wrote.",
)
@click.option(
    "--max-confident-flips",
    "confident_flips",
    metavar="PERCENT",
    callback=_share,
    default="0.1%",
    show_default=True,
    help="Allow at most this share of the confident texts to change.",
)
@click.option(
    "--confident-above",
    "confidence",
    metavar="X",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    help="Count a text as confident if the float model gives the best class of every frame a probability "
    "above this.",
)
@click.option(
    "--max-accuracy-loss",
    "accuracy_loss",
    metavar="POINTS",
    callback=_share,
    default="0.2pt",
    show_default=True,
    help="Allow exact accuracy to fall by this many percentage points.",
)
@click.option(
    "--max-cer-increase",
    "cer_increase",
    metavar="POINTS",
    callback=_share,
    default="0.05pt",
    show_default=True,
    help="Allow the character error rate (CER) to rise by this many percentage points.",
)
@click.option(
    "--activations",
    type=OneOf(["int8", "uint8"]),
    default="int8",
    show_default=True,
    help="Quantise activations to this type. uint8 is for CPUs only, and is faster there.",
)
@click.option(
    "--lstm",
    type=OneOf(["float", "int8"]),
    default="float",
    show_default=True,
    help="Keep LSTM layers in float, or run them in int8. int8 is for ONNX Runtime on CPUs only.",
)
@click.option(
    "--rest",
    type=OneOf(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="Keep what is not quantised in this precision. fp16 is for GPUs only, and raises the model's opset "
    "to at least 19.",
)
@click.option(
    "--target-device",
    type=OneOf(["cpu", "gpu"]),
    default="cpu",
    show_default=True,
    help="Quantise for this kind of device. For gpu, the model need not be faster on this CPU.",
)
@click.option(
    "--synthetic-images",
    metavar="N",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="Draw this many images with text if no DATA is given.",
)
@click.option(
    "--weight-bits",
    type=OneOf(["7", "8"]),
    default="7",
    show_default=True,
    callback=lambda context, parameter, value: int(value),
    help="Give the weights this many bits. 8 is for CPUs with VNNI only, because products overflow on "
    "others.",
)
@click.option(
    "--float-layers",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Keep N layers in float: those whose quantisation most changes the margin between the two best "
    "classes.",
)
@click.option(
    "--accept-undecided",
    is_flag=True,
    help="Write the model even if there are not enough images to tell whether its text stays the same. Its "
    "manifest then says so.",
)
@json_options
@html_option
@output_option("OUT.int8.onnx")
def quantize(
    model: Path,
    data: str | None,
    kind: Any,
    image_folder: str | None,
    characters: str | None,
    scales_path: Path,
    activations: Any,
    lstm: Any,
    rest: Any,
    target_device: Any,
    synthetic_images: int,
    weight_bits: Any,
    float_layers: int,
    accept_undecided: bool,
    as_json: bool,
    json_file: Path | None,
    html: Path | None,
    output: Path,
    **budget: float,
) -> None:
    """Write MODEL in INT8 if its text stays the same.

    The INT8 model must also be faster. Otherwise the command writes no model, and the report says why. DATA
    is a folder of images or a labelled dataset. Without DATA, the command draws labelled text, with fonts and
    words that no training saw.

    If the text changes more than the --max options allow, the layers that change it most go back to float. If
    there are not enough images to tell, the report says how many more each check needs. It also shows what
    would change with some layers in float (--float-layers). With --accept-undecided, the command writes the
    model anyway.

    \b
    crnn-deploy calibrate model.onnx crops/ -o scales.json
    crnn-deploy quantize model.onnx crops/labels.txt --scales scales.json -o model.int8.onnx

    The exit code is 0 on success, 1 when the model was refused, 2 for bad input.
    """
    if lstm == "int8" and target_device == "gpu":
        raise click.UsageError("--lstm int8 is for CPUs alone; leave it or --target-device gpu out")
    if rest == "fp16" and target_device == "cpu":
        raise click.UsageError("--rest fp16 is for GPUs alone; add --target-device gpu")
    if data is None:
        refuse_given(DATA_ONLY, "describes labelled images; name them as DATA")
    else:
        refuse_given(("synthetic_images",), "is for a run without DATA, in which images are drawn")
    from crnn_deploy.process import Stop

    with Stop() as stop:
        from crnn_deploy.files import check_outputs
        from crnn_deploy.graph.model import open_model
        from crnn_deploy.parity.proof_images import proof_images
        from crnn_deploy.quantization.calibrate import read_scales
        from crnn_deploy.quantization.quantize import Refused
        from crnn_deploy.quantization.quantize import quantize as run
        from crnn_deploy.runtime.backends import cpu
        from crnn_deploy.runtime.images import sources
        from crnn_deploy.verdict.judge import Budget

        if html is not None:  # before the long run: its libraries may be missing
            from crnn_deploy.quantization.report import render
        check_reports(json_file, html)
        check_outputs((output, json_file, html), (model, scales_path))
        check_kind(output, quantised=True)
        labelled = None
        if data is not None and (
            not Path(data).is_dir() or (kind, image_folder, characters) != (None, None, None)
        ):
            labelled = open_data(data, kind, image_folder, characters)
        if labelled is not None:
            check_data_outputs((output, json_file, html), (labelled,), characters)
        elif data is not None:
            check_outputs((output, json_file, html), sources.find((data,), ()))
        opened = open_model(model)
        scales = read_scales(scales_path, opened)
        if labelled is not None:
            total = len(labelled)
        else:
            total = synthetic_images if data is None else sum(1 for _ in sources.find((data,), ()))
        with progress_bar(total, "images") as bar:
            proof = proof_images(
                opened.manifest, data, labelled, synthetic_images, progress=lambda n: _step(bar, n, stop)
            )
        bar = progress_bar(2 * len(proof.sources), "quantize")  # more where layers go back to float
        refusal = None
        with bar:
            try:
                result = run(
                    *(opened, scales, proof.batches, proof.truths, output),
                    budget=Budget(**budget),
                    activations=activations,
                    lstm=lstm,
                    rest=rest,
                    target=target_device,
                    weight_bits=weight_bits,
                    float_layers=float_layers,
                    accept_undecided=accept_undecided,
                    progress=bar.update,
                    stopped=stop,
                )
            except Refused as error:
                refusal, result = error, error.result
    drawn_from = {"method": scales.method, "images_sha256": scales.images_sha256}
    plain = {"scales": drawn_from, **result.to_plain()}
    put_report(result.table(), plain, as_json=as_json, json_file=json_file)
    if html is not None:
        write_page(html, render(result, scales, proof))
    if refusal is not None:
        raise refusal
    say(
        f"{output}: {result.chosen.name}, {result.chosen.speed:.2f} x the float model on this machine "
        f"({cpu.kind()})"
        + (
            "" if result.chosen.verdict.passed else "; too few images to tell whether its text stays the same"
        ),
        err=as_json,
    )


def _step(bar: Any, images: int, stop: Stop) -> None:
    if stop():
        raise KeyboardInterrupt
    bar.update(images)
