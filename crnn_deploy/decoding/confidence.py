"""How sure a text is: from characters and alignments to one number, and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["TEMPERATURES", "Aggregate", "Reliability", "aggregated", "best_temperature", "reliability"]

Aggregate = Literal["min", "mean", "product", "likelihood"]
TEMPERATURES: tuple[float, ...] = tuple(2.0 ** (i / 12) for i in range(-12, 37))  # 0.5 to 8, tried in a fit
_SMALLEST = 1e-6  # a confidence counts as this much at least, and as much less than 1 at most


def aggregated(
    aggregate: Aggregate, chars: Sequence[float], blanks: float, log_likelihood: Callable[[], float]
) -> float:
    """Confidence of a line, 0-1.

    chars: of each character the probability of its likeliest frame
    blanks: smallest probability of the blank, which is the confidence of an empty text
    log_likelihood: of the text, all its alignments together; "likelihood" is its geometric mean per character
    """
    if aggregate == "likelihood":
        return min(1.0, math.exp(log_likelihood() / max(1, len(chars))))
    if not chars:
        return blanks
    if aggregate == "min":
        return min(chars)
    return math.prod(chars) if aggregate == "product" else sum(chars) / len(chars)


@dataclass(frozen=True)
class Reliability:
    """Confidences held against what was right, in equal bins from 0 to 1 (Guo et al. 2017, section 2)."""

    images: tuple[int, ...]  # of each bin
    confidence: tuple[float, ...]  # mean of each bin; NaN of an empty one
    accuracy: tuple[float, ...]  # share of right texts of each bin; NaN of an empty one

    @property
    def ece(self) -> float:
        """Expected calibration error: mean |accuracy - confidence| over the images, 0-1."""
        total = sum(self.images)
        bins = zip(self.images, self.confidence, self.accuracy, strict=True)
        return sum(n * abs(accuracy - confidence) for n, confidence, accuracy in bins if n) / total

    def to_plain(self) -> list[dict[str, Any]]:
        """Bins that hold images, ready for JSON."""
        count = len(self.images)
        return [
            {
                "from": i / count,
                "to": (i + 1) / count,
                "images": n,
                "confidence": confidence,
                "accuracy": accuracy,
            }
            for i, (n, confidence, accuracy) in enumerate(
                zip(self.images, self.confidence, self.accuracy, strict=True)
            )
            if n
        ]


def reliability(confidences: NDArray[np.float64], right: NDArray[np.bool_], bins: int = 10) -> Reliability:
    """Confidences (N) of texts and whether each was right (N), by bins."""
    at = np.minimum((confidences * bins).astype(int), bins - 1)
    counts = np.bincount(at, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(at, confidences, bins) / counts
        accuracy = np.bincount(at, right, bins) / counts
    return Reliability(tuple(counts.tolist()), tuple(mean.tolist()), tuple(accuracy.tolist()))


def best_temperature(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> int:
    """Which of several columns of confidences (N, M) says best what was right (N, M): least log loss.

    With a column for each of `TEMPERATURES`, the maximum-likelihood fit of the temperature to whole lines.
    """
    clipped = np.clip(confidences, _SMALLEST, 1 - _SMALLEST)
    loss = -np.where(right, np.log(clipped), np.log1p(-clipped)).mean(axis=0)
    return int(loss.argmin())
