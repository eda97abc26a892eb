"""Half precision, tried on the CPU before anything is built: which rung of the ladder still reads the text.

Rungs from the fastest: all in half precision; recurrent layers and head in float32; bfloat16; float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from crnn_deploy.ctc import Frames
from crnn_deploy.errors import VerdictFailed
from crnn_deploy.manifest import Manifest
from crnn_deploy.stages.inspection import session_of
from crnn_deploy.stages.parity import drawn_images
from crnn_deploy.stages.precision import LARGEST, PEAK, Half, cast, from_first_recurrence, matching, rounded
from crnn_deploy.stages.reference import far_widths
from crnn_deploy.stages.verdict import Reading, Verdict, judge, readings

__all__ = [
    "IMAGES",
    "HalfReport",
    "PrecisionFailed",
    "Rung",
    "_drawn_batches",
    "climb",
    "half_report",
    "table",
]

FLIPS_ALLOWED = 0.01  # of all frames; half precision turns frames that were near a tie
_CASES, _BATCH = 8, 4
IMAGES = _CASES * _BATCH


@dataclass(frozen=True)
class HalfReport:
    """What rounding to half precision does to frames and texts."""

    images: int
    frames: int
    peak: float  # largest |value| of a tensor that is rounded; infinity or NaN where a weight is
    largest: float  # finite number of the type
    max_delta: float  # largest |delta| of logits, or of the best class's probability
    scale: float  # largest |logit| of the float32 model; 0 where it puts out none
    flips: int  # frames whose likeliest class differs
    verdict: Verdict

    @property
    def overflow(self) -> bool:
        return not self.peak <= self.largest

    @property
    def passed(self) -> bool:
        """No overflow, no verdict that failed, and no more than one frame in a hundred flipped.

        So few images cannot prove that a budget holds; that a confident text changed fails it.
        """
        failed = self.overflow or self.verdict.answer == "FAILED"
        return not failed and self.flips <= FLIPS_ALLOWED * self.frames

    def line(self) -> str:
        if self.overflow:
            return (
                f"FAILED: overflow, a tensor reaches {self.peak:.3g} and the type ends at {self.largest:.3g}"
            )
        return (
            f"{'PASSED' if self.passed else 'FAILED'}: {self.images} images, {self.frames} frames; "
            f"max |delta| {self.max_delta:.1e} of {self.scale:.1f}, {self.flips} argmax flips, "
            f"{self.verdict.flips.count} texts changed, {self.verdict.confident_flips.count} of "
            f"{self.verdict.confident_flips.images} confident ones"
        )


@dataclass(frozen=True)
class Rung:
    """One way to cast a model, and what the check on the CPU found."""

    half: Half | None  # None: float32
    kept_fp32: tuple[str, ...]  # nodes
    name: str
    report: HalfReport | None  # None: nothing to check in float32


class PrecisionFailed(VerdictFailed):
    """Half precision changes the text, and no other rung may be tried."""

    def __init__(self, rung: Rung) -> None:
        report = "" if rung.report is None else f" ({rung.report.line()})"
        super().__init__(
            f"{rung.name} does not read as float32 does{report}; leave --no-ladder out, or build with --fp32"
        )


def climb(
    model: onnx.ModelProto,
    manifest: Manifest,
    half: Half,
    *,
    keep_fp32: Sequence[str] = (),
    ladder: bool = True,
    progress: Callable[[int], object] = lambda images: None,
) -> tuple[onnx.ModelProto, tuple[Rung, ...]]:
    """The model on the first rung whose check passes, and all rungs tried, that one last.

    keep_fp32: patterns of nodes that stay float32 on every rung
    ladder: False: the first rung or none
    progress: called with the number of images of each batch that was read
    Raises CastImpossible, PrecisionFailed.
    """
    batches = list(_drawn_batches(manifest))
    expected, _ = _run(model, manifest, batches, progress)
    tried: list[Rung] = []
    for kind, keep, name in _rungs(model, half, keep_fp32):
        converted = cast(model, kind, keep_fp32=keep)
        actual, peak = _run(rounded(converted), manifest, batches, progress)
        report = half_report(expected, actual, manifest, peak=peak, largest=LARGEST[kind])
        kept = {n for pattern in keep for n in matching(converted, pattern)}
        tried.append(Rung(kind, tuple(sorted(kept)), name, report))
        if report.passed:
            return converted, tuple(tried)
        if not ladder:
            raise PrecisionFailed(tried[-1])
    return model, (*tried, Rung(None, (), "fp32", None))


def _rungs(
    model: onnx.ModelProto, half: Half, keep: Sequence[str]
) -> Iterable[tuple[Half, Sequence[str], str]]:
    kinds: tuple[Half, ...] = ("fp16", "bf16") if half == "fp16" else ("bf16",)
    late = from_first_recurrence(model)
    yield kinds[0], tuple(keep), kinds[0]
    if late:
        yield kinds[0], (*keep, *late), f"{kinds[0]}, recurrent layers and head in fp32"
    for kind in kinds[1:]:
        yield kind, tuple(keep), kind


def _drawn_batches(manifest: Manifest) -> Iterable[NDArray[np.float32]]:
    """`IMAGES` drawn images (N, C, H, W) from the rule's smallest width to its largest, or to 800."""
    rng = np.random.default_rng(2)
    rule = manifest.width
    widths = [rule.minimum] * _CASES if rule.fixed else far_widths(rule, _CASES)
    for width in widths:
        yield drawn_images(manifest, _BATCH, width, rng)


def half_report(
    expected: Sequence[Frames], actual: Sequence[Frames], manifest: Manifest, *, peak: float, largest: float
) -> HalfReport:
    """Compare batch by batch what a float32 model and a candidate said; `peak` as `rounded` puts it out."""
    pairs = list(zip(expected, actual, strict=True))
    return HalfReport(
        images=sum(len(one.indices) for one in expected),
        frames=sum(one.indices.size for one in expected),
        peak=peak,
        largest=largest,
        max_delta=max(float(np.abs(_values(one) - _values(other)).max()) for one, other in pairs),
        scale=max(0.0 if one.logits is None else float(np.abs(one.logits).max()) for one in expected),
        flips=sum(int((one.indices != other.indices).sum()) for one, other in pairs),
        verdict=judge(_readings(expected, manifest), _readings(actual, manifest)),
    )


def _readings(frames: Sequence[Frames], manifest: Manifest) -> list[Reading]:
    return [reading for one in frames for reading in readings(one, manifest)]


def table(rungs: Sequence[Rung]) -> str:
    """The rungs as lines of text, the chosen one last."""
    lines = [
        f"{rung.name}: {'nothing to check' if rung.report is None else rung.report.line()}" for rung in rungs
    ]
    return "\n".join([*lines, f"chosen: {rungs[-1].name} (checked on the CPU)"])


def _values(frames: Frames) -> NDArray[np.float32]:
    return frames.probabilities if frames.logits is None else frames.logits


def _run(
    model: onnx.ModelProto,
    manifest: Manifest,
    batches: Sequence[NDArray[np.float32]],
    progress: Callable[[int], object],
) -> tuple[list[Frames], float]:
    """What the model says of each batch, and the peak of a `rounded` one (0 of another)."""
    session = session_of(model)
    [images] = session.get_inputs()
    results, peak = [], 0.0
    for batch in batches:
        outputs = dict(
            zip((o.name for o in session.get_outputs()), session.run(None, {images.name: batch}), strict=True)
        )
        peak = float(np.maximum(peak, outputs.pop(PEAK, 0.0)))  # of a number and NaN it is NaN
        if manifest.output == "argmax":
            results.append(Frames(*outputs.values()))
        else:
            results.append(Frames.from_logits(*outputs.values()))
        progress(len(batch))
    return results, peak
