"""How sure a text is at a temperature, by one aggregate or another, and how far that can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.decoding_rule import Aggregate
from crnn_deploy.runtime.decoding.aggregate import aggregated
from crnn_deploy.runtime.decoding.ctc import Frames, LogitsMissing, Text, tokens_of
from crnn_deploy.runtime.decoding.repeated import distinct

if TYPE_CHECKING:
    from crnn_deploy.runtime.decoding.alignment import Decode, Decoder

__all__ = [
    "TEMPERATURES",
    "Confidence",
    "Reliability",
    "best_temperature",
    "log_loss",
    "reliability",
    "restated",
]

TEMPERATURES: tuple[float, ...] = tuple(2.0 ** (i / 12) for i in range(-12, 37))  # 0.5 to 8, tried in a fit
_SMALLEST = 1e-6  # a confidence counts as this much at least, and as much less than 1 at most


@dataclass(frozen=True)
class Confidence:
    """A decoder whose texts are as sure as an aggregate at a temperature says. The texts stay as they are.

    aggregate: how the characters' confidences become the line's
    temperature: that the logits are divided by first (Guo et al. 2017, arXiv 1706.04599)
    """

    decoder: Decoder
    aggregate: Aggregate = "min"
    temperature: float = 1.0

    def bind(self, alphabet: Sequence[str], blank: int) -> Decode:
        decode = self.decoder.bind(alphabet, blank)
        tokens = tokens_of(alphabet, blank)

        def restating(frames: Frames, pixels_per_frame: Sequence[tuple[float, int]]) -> list[Text]:
            texts = decode(frames, pixels_per_frame)
            if self.temperature != 1:
                frames = frames.at_temperature(self.temperature)
            return restated(texts, frames, tokens, blank, self.aggregate)

        return restating


def restated(
    texts: Sequence[Text], frames: Frames, tokens: Sequence[str], blank: int, aggregate: Aggregate
) -> list[Text]:
    """Texts of a batch as sure as these frames are of them, whatever frames they were found in.

    tokens: of each class
    Raises LogitsMissing.
    """
    if frames.logits is None:
        raise LogitsMissing("this confidence")
    frames = distinct(frames, tokens, blank)
    assert frames.logits is not None
    classes = {token: label for label, token in enumerate(tokens) if label != blank}
    found = []
    for row, (text, logits, best) in enumerate(zip(texts, frames.logits, frames.indices, strict=True)):
        peak = logits[np.arange(len(logits)), best].astype(np.float64)
        log_norms = peak - np.log(frames.probabilities[row].astype(np.float64))
        labels = [classes[char.char] for char in text.chars]
        peaks = [
            math.exp((logits[char.start : char.end, label] - log_norms[char.start : char.end]).max())
            for char, label in zip(text.chars, labels, strict=True)
        ]
        blanks = math.exp((logits[:, blank] - log_norms).min()) if len(logits) else 0.0
        log_likelihood = partial(_log_likelihood, logits, log_norms, labels, blank)
        confidence = aggregated(aggregate, peaks, blanks, log_likelihood)
        chars = tuple(replace(c, confidence=p) for c, p in zip(text.chars, peaks, strict=True))
        found.append(replace(text, confidence=confidence, chars=chars))
    return found


def _log_likelihood(
    logits: NDArray[np.float32], log_norms: NDArray[np.float64], labels: Sequence[int], blank: int
) -> float:
    from crnn_deploy.runtime.decoding.alignment import LineLogits

    return LineLogits(logits, log_norms).log_likelihood(labels, blank)


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
    return int(log_loss(confidences, right[:, None]).argmin())


def log_loss(confidences: NDArray[np.float64], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of -log of what was given to what came about, over the first axis; smaller is better."""
    clipped = np.clip(confidences, _SMALLEST, 1 - _SMALLEST)
    loss: NDArray[np.float64] = -np.where(right, np.log(clipped), np.log1p(-clipped)).mean(axis=0)
    return loss
