"""A quantisation as one HTML page that needs nothing beside it."""

from __future__ import annotations

from matplotlib.figure import Figure

from crnn_deploy.evaluation.page import inline_figure, inline_pixels, template
from crnn_deploy.parity.proof_images import ProofImages
from crnn_deploy.quantization.calibrate import Scales
from crnn_deploy.quantization.quantize import Quantization
from crnn_deploy.runtime.images.pixels import read_image

__all__ = ["render"]

_SHOWN = 40  # changed strings
_WORST = 6  # histograms


def render(result: Quantization, scales: Scales, proof: ProofImages) -> str:
    """The page as text: front, sensitivity, histograms, changed strings with their images."""
    changes = result.chosen.verdict.changes[:_SHOWN]
    return template("quantization.html.j2").render(
        result=result,
        scales=scales,
        front=_front(result),
        bars=_bars(result),
        histograms=_histograms(scales),
        changes=[(change, inline_pixels(read_image(proof.sources[change.image]))) for change in changes],
    )


def _front(result: Quantization) -> str:
    figure = Figure(figsize=(7, 3.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for variant in result.measured:
        axes.scatter(variant.speed, 100 * variant.verdict.flips.share)
        axes.annotate(variant.name, (variant.speed, 100 * variant.verdict.flips.share))
    axes.scatter(1, 0)
    axes.annotate("fp32", (1, 0))
    if result.fp16 is not None:  # a CPU emulates it and cannot tell its speed
        axes.axhline(100 * result.fp16.flips.share, linestyle=":", label="fp16, emulated, without a speed")
        axes.legend()
    axes.set_xlabel("images per CPU-second, x float")
    axes.set_ylabel("strings changed (%)")
    return inline_figure(figure)


def _bars(result: Quantization) -> str:
    layers = result.sensitivity[::-1]
    figure = Figure(figsize=(7, 0.25 * len(layers) + 1), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.barh([f"{one.layer} ({one.operator})" for one in layers], [one.margin_change for one in layers])
    axes.set_xlabel("mean |change| of the margin of the best class when quantised alone (logits)")
    return inline_figure(figure)


def _histograms(scales: Scales) -> str:
    """The tensors whose range leaves most of its levels unused, or clips most."""
    worst = sorted(
        scales.histograms, key=lambda name: -scales.histograms[name][0] / (scales.ranges[name] or 1)
    )
    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")
    for axes, name in zip(figure.subplots(2, 3).flat, worst[:_WORST], strict=False):
        largest, counts = scales.histograms[name]
        axes.bar(
            [largest * (at + 0.5) / len(counts) for at in range(len(counts))], counts, largest / len(counts)
        )
        axes.axvline(scales.ranges[name], color="red")
        axes.set_yscale("log")
        axes.set_title(name, fontsize=8)
    return inline_figure(figure)
