"""How far a number format alone moves a network's logits: what parity may allow an engine of that format."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import amount
from crnn_deploy.parity.compare import LARGE, TIE, TOLERANCE
from crnn_deploy.runtime.backends.engine_file import Precision

__all__ = ["FLOATS", "FormatError", "Logits", "Meter", "Metered"]

Logits = Callable[[NDArray[np.float32]], NDArray[np.float64]]

FLOATS: tuple[Precision, ...] = ("fp32", "tf32", "fp16", "bf16")  # int8 is judged by its texts
# Other images come, and GPUs sum in another order. The worst of 910 photographed words and receipts was, in
# 99 of 100 samples, at most 5.2 times the worst of 256 of them (benchmarks/accuracy/number_formats.py).
_SLACK = 6


@dataclass(frozen=True)
class FormatError:
    """What a number format costs a network."""

    precision: Precision
    max_delta: float  # largest |delta| of logits
    probability_delta: float  # largest |delta| of the best class's probability
    scale: float  # largest |logit|
    images: int
    against: str  # what it was measured against

    @property
    def tolerance(self) -> float:
        """For logits up to 10, in proportion beyond: `TOLERANCE` at least, and where the format overflows."""
        measured = _SLACK * self.max_delta / max(1, self.scale / LARGE)
        return max(TOLERANCE, measured) if np.isfinite(measured) else TOLERANCE

    @property
    def probability_tolerance(self) -> float:
        """For what puts out the best class and its probability alone."""
        measured = _SLACK * self.probability_delta
        return min(1.0, max(TOLERANCE, measured)) if np.isfinite(measured) else TOLERANCE

    @property
    def tie(self) -> float:
        """Margin of a frame's two likeliest classes below which a turned argmax is put down to the format."""
        return max(TIE, self.max_delta) if np.isfinite(self.max_delta) else TIE

    def line(self) -> str:
        return (
            f"tolerance: {_SLACK} times what {self.precision} costs this network on "
            f"{amount(self.images, 'image')}, max |delta| "
            f"{self.max_delta:.1e} of {self.scale:.1f} against {self.against}"
        )


class Meter:
    """Measures what a number format costs a network, batch by batch.

    exact, coarse: images (N, C, H, W) -> logits of the network, and of the network in the format
    """

    def __init__(self, precision: Precision, exact: Logits, coarse: Logits, against: str) -> None:
        self._exact, self._coarse = exact, coarse
        self.error = FormatError(precision, 0.0, 0.0, 0.0, 0, against)

    def measure(self, images: NDArray[np.float32]) -> FormatError:
        """Add a batch; what was found so far."""
        expected, actual = self._exact(images), self._coarse(images)
        delta = np.abs(actual - expected).max()
        sure = np.abs(_best_probability(actual) - _best_probability(expected)).max()
        self.error = replace(
            self.error,
            max_delta=float(np.maximum(self.error.max_delta, delta)),  # with NaN it is NaN
            probability_delta=float(np.maximum(self.error.probability_delta, sure)),
            scale=max(self.error.scale, float(np.abs(expected).max())),
            images=self.error.images + len(images),
        )
        return self.error

    def over(self, batches: Iterable[NDArray[np.float32]]) -> FormatError:
        """Add batches; what was found in all."""
        for images in batches:
            self.measure(images)
        return self.error


@runtime_checkable
class Metered(Protocol):
    """A backend that can run its network in other number formats."""

    def meter(self, precision: Precision) -> Meter:
        """A meter of what the format costs the network.

        Measuring raises RuntimeError where the network cannot run in the format.
        """
        ...


def _best_probability(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each frame (N, T), of logits (N, T, classes)."""
    shifted = logits - logits.max(axis=2, keepdims=True)
    found: NDArray[np.float64] = np.reciprocal(np.exp(shifted).sum(axis=2))
    return found
