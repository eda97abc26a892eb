"""Connectionist temporal classification: labels, best path, and what a network said frame by frame.

Greedy (best path) decoding takes the likeliest class of every frame, merges runs and drops blanks
(Graves et al. 2006, section 3.2; arXiv 1507.05717, section 2.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CharacterUnknown

__all__ = ["Char", "Frames", "Text", "decode", "decode_indices", "encode", "raw_decode", "steps_needed"]

BLANK_MARK = "-"


@dataclass(frozen=True)
class Frames:
    """What a network said of a batch, frame by frame."""

    indices: NDArray[np.int64]  # (N, T) likeliest class
    probabilities: NDArray[np.float32]  # (N, T) its probability
    logits: NDArray[np.float32] | None = None  # (N, T, classes); None when the graph itself takes the argmax

    @classmethod
    def from_logits(cls, logits: NDArray[np.float32]) -> Frames:
        """Best class and its softmax probability from logits or log-probabilities (N, T, classes)."""
        indices = logits.argmax(axis=2)
        best = np.take_along_axis(logits, indices[:, :, None], axis=2)
        total = np.empty(indices.shape, np.float32)
        with np.errstate(invalid="ignore"):  # infinity less infinity: the probability is NaN, and says so
            for row, image in enumerate(logits):  # one at a time: the sum's rounding must not depend on N
                np.exp(image - best[row]).sum(axis=1, out=total[row])
        return cls(indices, np.reciprocal(total), logits)


@dataclass(frozen=True)
class Char:
    """One character that was read, and where."""

    char: str  # a token of the alphabet
    confidence: float  # probability of its likeliest frame, 0-1
    start: int  # first frame
    end: int  # one past its last frame
    left: float  # pixels from the left edge of the original image
    right: float  # pixels, one past the right edge of the character's frames


@dataclass(frozen=True)
class Text:
    """The text of one image."""

    text: str  # the characters joined
    confidence: float  # the smallest of the characters' confidences; of an empty text, of its blank frames
    chars: tuple[Char, ...]  # from left to right


def decode(
    frames: Frames, alphabet: Sequence[str], blank: int, pixels_per_frame: Sequence[tuple[float, int]]
) -> list[Text]:
    """Best-path text of every image of a batch.

    pixels_per_frame: for each image, how many of its own pixels one frame spans and its width in pixels;
        frames past the image (padding) are clipped to its right edge.
    """
    tokens = (*alphabet[:blank], "", *alphabet[blank:])
    change = np.ones(frames.indices.shape, bool)
    np.not_equal(frames.indices[:, 1:], frames.indices[:, :-1], out=change[:, 1:])
    return [
        _decode_one(indices, probabilities, np.flatnonzero(starts), tokens, blank, *scale)
        for indices, probabilities, starts, scale in zip(
            frames.indices, frames.probabilities, change, pixels_per_frame, strict=True
        )
    ]


def _decode_one(
    indices: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    starts: NDArray[np.intp],
    tokens: Sequence[str],
    blank: int,
    pixels: float,
    width: int,
) -> Text:
    if not len(indices):
        return Text("", 0.0, ())
    peaks = np.maximum.reduceat(probabilities, starts).tolist()
    ends = [*starts[1:].tolist(), len(indices)]
    chars = tuple(
        Char(tokens[index], peak, start, end, min(start * pixels, width), min(end * pixels, width))
        for index, peak, start, end in zip(
            indices[starts].tolist(), peaks, starts.tolist(), ends, strict=True
        )
        if index != blank
    )
    confidence = min(c.confidence for c in chars) if chars else float(probabilities.min())
    return Text("".join(c.char for c in chars), confidence, chars)


def encode(text: str, alphabet: Sequence[str], blank: int, *, ignore_case: bool = False) -> list[int]:
    """Class indices of a text, the longest token first where several fit. Raises CharacterUnknown.

    Counterpart of crnn.pytorch's `strLabelConverter.encode`; `ignore_case` lowers the text, as its
    default did.
    """
    text = text.lower() if ignore_case else text
    classes = {token: index + (index >= blank) for index, token in enumerate(alphabet)}
    longest = max(map(len, alphabet))
    labels: list[int] = []
    at = 0
    while at < len(text):
        for length in range(min(longest, len(text) - at), 0, -1):
            if (label := classes.get(text[at : at + length])) is not None:
                labels.append(label)
                at += length
                break
        else:
            raise CharacterUnknown(text[at], text)
    return labels


def steps_needed(labels: Sequence[object]) -> int:
    """The fewest time steps that can say these labels: one each, and a blank between equal neighbours."""
    return len(labels) + sum(one == next_one for one, next_one in pairwise(labels))


def decode_indices(indices: Sequence[int], alphabet: Sequence[str], blank: int) -> str:
    """Text of one row of class indices: runs merged, blanks dropped."""
    merged = [index for at, index in enumerate(indices) if at == 0 or index != indices[at - 1]]
    return "".join(alphabet[index - (index > blank)] for index in merged if index != blank)


def raw_decode(indices: Sequence[int], alphabet: Sequence[str], blank: int) -> str:
    """One row of class indices as crnn.pytorch prints it, frame by frame: `a-----v--a-i-l-a-bb-l-ee--`."""
    return "".join(BLANK_MARK if index == blank else alphabet[index - (index > blank)] for index in indices)
