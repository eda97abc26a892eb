"""What a candidate in another precision, or an engine, does to frames and texts that its model puts out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import amount
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.verdict.drawn import drawn_images
from crnn_deploy.verdict.judge import Reading, Verdict, judge, readings

__all__ = ["DRAWN", "Fidelity", "Proof", "drawn_batches", "fidelity", "log_softmax", "max_delta"]

FLIPS_ALLOWED = 0.01  # of all frames; half precision turns frames that were near a tie
_CASES, _BATCH = 8, 4
DRAWN = _CASES * _BATCH  # images that `drawn_batches` gives


@dataclass(frozen=True)
class Fidelity:
    """What a candidate does to frames and texts."""

    images: int
    frames: int
    peak: float  # largest |value| of a tensor that is rounded; infinity or NaN where a weight is
    largest: float  # finite number of the type; infinity where nothing is rounded
    max_delta: float  # largest |delta| of logits, of log-probabilities, or of the best class's probability
    scale: float  # largest |logit| of the reference; 0 where it puts out none
    flips: int  # frames whose likeliest class differs
    verdict: Verdict

    @property
    def overflow(self) -> bool:
        return not self.peak <= self.largest

    @property
    def passed(self) -> bool:
        """No overflow, no NaN, no verdict that failed, and no more than one frame in a hundred flipped.

        So few images cannot prove that a budget holds; that a confident text changed fails it.
        """
        failed = self.overflow or np.isnan(self.max_delta) or self.verdict.answer == "FAILED"
        return not failed and self.flips <= FLIPS_ALLOWED * self.frames

    def line(self) -> str:
        if self.overflow:
            return (
                f"FAILED: overflow, a tensor reaches {self.peak:.3g} and the type ends at {self.largest:.3g}"
            )
        return (
            f"{'PASSED' if self.passed else 'FAILED'}: {amount(self.images, 'image')}, "
            f"{amount(self.frames, 'frame')}; "
            f"max |delta| {self.max_delta:.1e} of {self.scale:.1f}, {amount(self.flips, 'argmax flip')}, "
            f"{amount(self.verdict.flips.count, 'text')} changed, {self.verdict.confident_flips.count} of "
            f"{self.verdict.confident_flips.images} confident ones"
        )


class Proof:
    """Images, and what the model they are checked against says of them.

    reference: that model, in ONNX Runtime or in PyTorch; its own manifest may allow more widths
    manifest: whose widths the drawn images have
    images: prepared batches (N, C, H, W) beside the drawn ones
    progress: called with the number of images of each batch that was read
    """

    def __init__(
        self,
        reference: Backend,
        manifest: Manifest,
        *,
        images: Sequence[NDArray[np.float32]] = (),
        progress: Callable[[int], object] = lambda images: None,
    ) -> None:
        self.manifest = manifest
        self.batches = (*drawn_batches(manifest), *images)
        self.progress = progress
        self._reference = reference

    @cached_property
    def expected(self) -> tuple[Frames, ...]:
        """What the reference says of each batch. Raises what running it raises."""
        return self.run(self._reference)

    def run(self, backend: Backend) -> tuple[Frames, ...]:
        """What a backend says of each batch. Raises RunFailed."""
        found = []
        for batch in self.batches:
            found.append(backend.run(batch))
            self.progress(len(batch))
        return tuple(found)

    def check(
        self, actual: Sequence[Frames], manifest: Manifest, *, peak: float = 0.0, largest: float = np.inf
    ) -> Fidelity:
        """A candidate's frames of the batches against the reference's; manifest: the candidate's."""
        return fidelity(self.expected, actual, self._reference.manifest, manifest, peak=peak, largest=largest)


def fidelity(
    expected: Sequence[Frames],
    actual: Sequence[Frames],
    ours: Manifest,
    theirs: Manifest,
    *,
    peak: float = 0.0,
    largest: float = np.inf,
) -> Fidelity:
    """Compare batch by batch what a reference and a candidate said; `peak` as `precision.rounded` has it."""
    pairs = list(zip(expected, actual, strict=True))
    return Fidelity(
        images=sum(len(one.indices) for one in expected),
        frames=sum(one.indices.size for one in expected),
        peak=peak,
        largest=largest,
        max_delta=float(np.max([max_delta(one, other, ours, theirs) for one, other in pairs])),
        scale=max(0.0 if one.logits is None else float(np.abs(one.logits).max()) for one in expected),
        flips=sum(int((one.indices != other.indices).sum()) for one, other in pairs),
        verdict=judge(_readings(expected, ours), _readings(actual, theirs)),
    )


def max_delta(expected: Frames, actual: Frames, ours: Manifest, theirs: Manifest) -> float:
    """Largest |delta| of logits; of log-probabilities where one puts these out, and of the best class's
    probability where one puts out that alone.
    """
    if expected.logits is None or actual.logits is None:
        return float(np.abs(expected.probabilities - actual.probabilities).max())
    if ours.output == theirs.output:
        return float(np.abs(expected.logits - actual.logits).max())
    return float(np.abs(log_softmax(expected.logits) - log_softmax(actual.logits)).max())


def log_softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Log-probabilities of logits (N, T, classes)."""
    shifted = logits.astype(np.float64) - logits.max(axis=2, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
    return normalised


def _readings(frames: Sequence[Frames], manifest: Manifest) -> list[Reading]:
    return [reading for one in frames for reading in readings(one, manifest)]


def drawn_batches(manifest: Manifest) -> Iterable[NDArray[np.float32]]:
    """`DRAWN` drawn images (N, C, H, W) from the rule's smallest width to its largest, or to 800."""
    rng = np.random.default_rng(2)
    rule = manifest.width
    widths = [rule.minimum] * _CASES if rule.fixed else rule.spread(_CASES)
    for width in widths:
        yield drawn_images(manifest, _BATCH, width, rng)
