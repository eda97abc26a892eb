"""Connectionist temporal classification: labels, best path, and what a network said frame by frame.

Greedy (best path) decoding takes the likeliest class of every frame, merges runs and drops blanks
(Graves et al. 2006, section 3.2; arXiv 1507.05717, section 2.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CharacterUnknown, CrnnDeployError

__all__ = [
    "Alternative",
    "BestPath",
    "Char",
    "Encoder",
    "Frames",
    "LogitsMissing",
    "PageChar",
    "PlacedChar",
    "Text",
    "Turn",
    "decode",
    "decode_indices",
    "encode",
    "raw_decode",
    "steps_needed",
    "tokens_of",
]

BLANK_MARK = "-"

# degrees clockwise by which an image is turned to be read, or that of a column of upright characters
Turn = Literal[0, 90, 180, 270, "column"]


class LogitsMissing(CrnnDeployError, ValueError):
    """A graph that puts out each frame's likeliest class, where all classes are needed."""

    def __init__(self, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the logits, but this model puts out the likeliest class of each frame alone; "
            f"export it with --graph-output logits"
        )


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
        best = logits.max(axis=2, keepdims=True)
        total = np.empty(indices.shape, np.float32)
        with np.errstate(invalid="ignore"):  # infinity less infinity: the probability is NaN, and says so
            for row, image in enumerate(logits):  # one at a time: the sum's rounding must not depend on N
                np.exp(image - best[row]).sum(axis=1, out=total[row])
        return cls(indices, np.reciprocal(total), logits)

    def row(self, row: int) -> Frames:
        """One image as a batch of its own."""
        at = slice(row, row + 1)
        logits = None if self.logits is None else self.logits[at]
        return Frames(self.indices[at], self.probabilities[at], logits)

    def at_temperature(self, temperature: float) -> Frames:
        """What the network says with its logits divided by a temperature (Guo et al. 2017, arXiv 1706.04599).

        Raises LogitsMissing.
        """
        if self.logits is None:
            raise LogitsMissing("a confidence temperature")
        # the likeliest class stays the likeliest, though rounding may make another its equal
        return replace(Frames.from_logits(self.logits / np.float32(temperature)), indices=self.indices)


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
class PlacedChar(Char):
    """A character of an image that may have been turned: its box in pixels of the original image."""

    top: float
    bottom: float  # one past


@dataclass(frozen=True)
class PageChar(Char):
    """A character of a page's box; `left` and `right` are pixels of the box's crop."""

    polygon: tuple[tuple[float, float], ...]  # around it, on the page: pixels, to hundredths


@dataclass(frozen=True)
class Alternative:
    """A text that a beam search found."""

    text: str
    score: float  # natural log of the network's probability, plus the weights of language knowledge


@dataclass(frozen=True)
class Text:
    """The text of one image."""

    text: str  # the characters joined
    confidence: float  # 0-1; by default the smallest of the characters', of an empty text of its blank frames
    chars: tuple[Char, ...]  # in the order of reading; built when first asked for
    alternatives: tuple[
        Alternative, ...
    ] = ()  # likeliest first, this text included, where they were asked for
    rotated: Turn | None = None  # how the image was turned, where turns were asked for

    @staticmethod
    def deferred(
        texts: Iterable[str],
        confidences: Iterable[float],
        chars_of: Callable[[int], tuple[Char, ...]],
    ) -> list[Text]:
        """Texts of a batch; `chars_of(row)` builds the characters of one when they are first asked for.

        The fields go straight into each text's dictionary. A frozen dataclass sets its own one by one past a
        check: with `Text(...)`, decoding takes half as long again (465 for 311 us a batch of 256 lines).
        """
        made = []
        for row, (text, confidence) in enumerate(zip(texts, confidences, strict=True)):
            one: Text = object.__new__(Text)
            fields = one.__dict__
            fields["text"], fields["confidence"], fields["_deferred"] = text, confidence, (chars_of, row)
            made.append(one)
        return made

    def placed(self, rotated: Turn | None, place: Callable[[tuple[Char, ...]], tuple[Char, ...]]) -> Text:
        """The same text with its characters elsewhere; `place` is called when they are asked for."""
        [text] = Text.deferred([self.text], [self.confidence], lambda row: place(self.chars))
        text.__dict__.update(alternatives=self.alternatives, rotated=rotated)
        return text

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> tuple[Char, ...]:
            """Called for what is not there: the characters of a deferred text."""
            if name != "chars" or "_deferred" not in self.__dict__:
                raise AttributeError(name)
            chars_of, row = self.__dict__["_deferred"]
            # stored in one step, since several threads may ask
            return self.__dict__.setdefault("chars", chars_of(row))

    def __reduce__(self) -> tuple[Any, ...]:
        return Text, (self.text, self.confidence, self.chars, self.alternatives, self.rotated)


def tokens_of(alphabet: Sequence[str], blank: int) -> tuple[str, ...]:
    """The token of each class; the blank's is empty."""
    return (*alphabet[:blank], "", *alphabet[blank:])


class BestPath:
    """Best-path decoding with one alphabet.

    alphabet: the characters in class order, blank left out
    blank: class index of the blank
    """

    def __init__(self, alphabet: Sequence[str], blank: int) -> None:
        self._tokens = tokens_of(alphabet, blank)
        self._blank = blank
        # a class without a token says nothing, as the blank does
        silent = "" in alphabet
        self._classes = np.array([i if t else blank for i, t in enumerate(self._tokens)]) if silent else None
        codes = [ord(token) if len(token) == 1 else 0 for token in self._tokens]
        # tokens of one code point each are joined by NumPy
        self._codes = np.array(codes, "<u4") if codes.count(0) == 1 else None

    def __call__(self, frames: Frames, pixels_per_frame: Sequence[tuple[float, int]]) -> list[Text]:
        """Texts of a batch; arguments as of `decode`."""
        indices, probabilities = frames.indices, frames.probabilities
        if self._classes is not None:
            indices = self._classes[indices]
        rows, steps = indices.shape
        if not indices.size:
            return [Text("", 0.0, ()) for _ in range(rows)]
        # the frames of all rows, one row after the other
        labels, peaks = indices.ravel(), probabilities.ravel()
        # a run of equal labels is a character unless it is the blank; a row's first frame begins a run
        begins = np.empty(len(labels), bool)
        np.not_equal(labels[1:], labels[:-1], out=begins[1:])
        begins[::steps] = True
        spoken = (labels != self._blank).nonzero()[0]  # frames that are not blank
        first = begins[spoken].nonzero()[0]  # of each character, where it begins among them
        starts = spoken[first]  # and among all frames
        bounds = starts.searchsorted(np.arange(0, rows * steps + 1, steps))  # each row's first character
        # a character is as sure as its surest frame, a row as its least sure character
        best = np.full(len(first) + 1, np.inf, np.float32)  # one more, for rows without characters
        if len(first):
            np.maximum.reduceat(peaks[spoken], first, out=best[:-1])
        confidences = np.minimum.reduceat(best, bounds[:-1])
        if (empty := bounds[:-1] == bounds[1:]).any():
            confidences[empty] = probabilities[empty].min(axis=1)
        texts = self._joined(labels[starts], bounds.tolist())
        chars_of = _Runs(indices, probabilities, self._tokens, self._blank, pixels_per_frame)
        return Text.deferred(texts, confidences.tolist(), chars_of)

    def _joined(self, labels: NDArray[np.int64], bounds: Sequence[int]) -> list[str]:
        """The texts of all rows: their characters' labels, one row after the other, from bound to bound."""
        if self._codes is not None:
            joined = self._codes[labels].tobytes().decode("utf-32-le", "surrogatepass")
            return [joined[begin:end] for begin, end in pairwise(bounds)]
        tokens = [self._tokens[label] for label in labels.tolist()]
        return ["".join(tokens[begin:end]) for begin, end in pairwise(bounds)]


@dataclass(frozen=True)
class _Runs:
    """The characters of a batch's rows, from what the network said frame by frame."""

    indices: NDArray[np.int64]  # (N, T)
    probabilities: NDArray[np.float32]  # (N, T)
    tokens: Sequence[str]  # of each class
    blank: int
    pixels_per_frame: Sequence[tuple[float, int]]

    def __call__(self, row: int) -> tuple[Char, ...]:
        indices, (pixels, width) = self.indices[row], self.pixels_per_frame[row]
        starts = np.flatnonzero(np.concatenate(([True], indices[1:] != indices[:-1])))
        peaks = np.maximum.reduceat(self.probabilities[row], starts).tolist()
        ends = [*starts[1:].tolist(), len(indices)]
        return tuple(
            Char(self.tokens[index], peak, start, end, min(start * pixels, width), min(end * pixels, width))
            for index, peak, start, end in zip(
                indices[starts].tolist(), peaks, starts.tolist(), ends, strict=True
            )
            if index != self.blank
        )


def decode(
    frames: Frames, alphabet: Sequence[str], blank: int, pixels_per_frame: Sequence[tuple[float, int]]
) -> list[Text]:
    """Best-path text of every image of a batch.

    pixels_per_frame: for each image, how many of its own pixels one frame spans and its width in pixels;
        frames past the image (padding) are clipped to its right edge.
    """
    return BestPath(alphabet, blank)(frames, pixels_per_frame)


class Encoder:
    """From texts to class indices, with one alphabet.

    Of a token that is that of several classes the last one is taken, as the published trainers do.
    """

    def __init__(self, alphabet: Sequence[str], blank: int) -> None:
        self._classes = {token: index + (index >= blank) for index, token in enumerate(alphabet)}
        self._longest = max(map(len, alphabet))

    def __call__(self, text: str) -> list[int]:
        """Class indices of a text, the longest token first where several fit. Raises CharacterUnknown."""
        classes, labels, at = self._classes, [], 0
        while at < len(text):
            for length in range(min(self._longest, len(text) - at), 0, -1):
                if (label := classes.get(text[at : at + length])) is not None:
                    labels.append(label)
                    at += length
                    break
            else:
                raise CharacterUnknown(text[at], text)
        return labels


def encode(text: str, alphabet: Sequence[str], blank: int, *, ignore_case: bool = False) -> list[int]:
    """Class indices of one text, as of `Encoder`. Raises CharacterUnknown.

    Counterpart of crnn.pytorch's `strLabelConverter.encode`; `ignore_case` lowers the text, as its
    default did.
    """
    return Encoder(alphabet, blank)(text.lower() if ignore_case else text)


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
