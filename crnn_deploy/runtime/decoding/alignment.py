"""A chosen text against the network's frames: where each character is, and how sure it is.

Whatever chose the text, its characters lie where its likeliest alignment puts them (CTC forced alignment: the
Viterbi path through the labels and the blanks between them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.decoding_rule import Aggregate
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.decoding.aggregate import aggregated
from crnn_deploy.runtime.decoding.alignment_loops import align, log_likelihoods
from crnn_deploy.runtime.decoding.ctc import Char, Frames, LogitsMissing, Text

__all__ = ["MOST_BYTES", "Decode", "Decoder", "DecodingTooLarge", "LineLogits", "line_of"]

MOST_BYTES = 2**30  # that a search over the frames of one image takes


class DecodingTooLarge(CrnnDeployError, ValueError):
    """An image so long that its decoder would take too much memory."""

    def __init__(self, frames: int, what: str) -> None:
        super().__init__(f"{what} would take more than 1 GiB of memory for its {frames:,} frames")


class Decode(Protocol):
    """From a batch of frames to texts, each independent of the others; safe to call from several threads."""

    def __call__(self, frames: Frames, pixels_per_frame: Sequence[tuple[float, int]], /) -> list[Text]:
        """Texts of a batch; arguments as of `ctc.decode`.

        Raises LogitsMissing, and DecodingImpossible where in one image nothing can be read that is allowed;
        the others can then be decoded one by one, to the same texts.
        """
        ...


class Decoder(Protocol):
    """How texts are found. Settings alone; `bind` makes them work with one model."""

    def bind(self, alphabet: Sequence[str], blank: int) -> Decode:
        """Raises ConstraintImpossible, CharacterUnknown: what cannot work says so at once."""
        ...


@dataclass(frozen=True)
class LineLogits:
    """What the network said of one image."""

    logits: NDArray[np.float32]  # (T, classes)
    log_norms: NDArray[np.float64]  # (T) log of the sum of their exponentials

    def emissions(self, labels: Sequence[int], blank: int) -> NDArray[np.float64]:
        """Log probabilities (T, L + 1) of the blank and of each label."""
        chosen = self.logits[:, [blank, *labels]].astype(np.float64)
        chosen -= self.log_norms[:, None]
        return chosen

    def log_likelihood(self, labels: Sequence[int], blank: int) -> float:
        """Log probability of labels over all their alignments; -inf where the frames are too few."""
        labelling = np.asarray(labels, np.int64)
        return float(self.log_likelihoods(labelling, np.array([len(labelling)]), blank)[0])

    def log_likelihoods(
        self, labels: NDArray[np.int64], ends: NDArray[np.int64], blank: int
    ) -> NDArray[np.float64]:
        """As `log_likelihood` of several labellings (N), one after the other, each up to its end."""
        classes, columns = np.unique(labels, return_inverse=True)
        return log_likelihoods(self.emissions(classes.tolist(), blank), columns + 1, ends)

    def text(
        self,
        labels: Sequence[int],
        tokens: Sequence[str],
        blank: int,
        pixels_per_frame: tuple[float, int],
        aggregate: Aggregate,
    ) -> Text:
        """Labels with the places and confidences of their likeliest alignment.

        tokens: of each class
        Raises DecodingTooLarge.
        """
        if 10 * len(self.logits) * (len(labels) + 1) > MOST_BYTES:
            raise DecodingTooLarge(len(self.logits), f"a text of {len(labels):,} characters")
        emissions, repeated = self.emissions(labels, blank), _repeated(labels)
        starts, ends, log_peaks = align(emissions, repeated)
        peaks = np.exp(log_peaks).tolist()
        confidence = aggregated(
            aggregate,
            peaks,
            math.exp(emissions[:, 0].min()) if len(emissions) else 0.0,
            lambda: self.log_likelihood(labels, blank),
        )
        said = [tokens[label] for label in labels]
        pixels, width = pixels_per_frame

        def chars(_: int) -> tuple[Char, ...]:
            return tuple(
                Char(char, peak, start, end, min(start * pixels, width), min(end * pixels, width))
                for char, peak, start, end in zip(said, peaks, starts.tolist(), ends.tolist(), strict=True)
            )

        [text] = Text.deferred(["".join(said)], [confidence], chars)
        return text


def _repeated(labels: Sequence[int]) -> NDArray[np.bool_]:
    array = np.asarray(labels, np.int64)
    repeated = np.zeros(len(array), np.bool_)
    repeated[1:] = array[1:] == array[:-1]
    return repeated


def line_of(frames: Frames, row: int, purpose: str) -> LineLogits:
    """One row of a batch. Raises LogitsMissing."""
    if frames.logits is None:
        raise LogitsMissing(purpose)
    logits = frames.logits[row]
    best = logits[np.arange(len(logits)), frames.indices[row]].astype(np.float64)
    return LineLogits(logits, best - np.log(frames.probabilities[row].astype(np.float64)))
