"""Alphabets in which several classes have one token, or a class has none.

Published alphabets repeat characters, and the classes of the repeats were hardly ever trained. The best path
says what it finds, class by class. Whatever chooses among texts (a beam, a constraint, a lexicon) or weighs
one takes the classes of one token as one class, whose probability is their sum; a class without a token is
one more blank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.runtime.decoding.ctc import Frames, Text, tokens_of

if TYPE_CHECKING:
    from crnn_deploy.runtime.decoding.alignment import Decode

__all__ = ["distinct", "with_distinct_tokens"]

_NEVER = np.float32(-1e30)  # a logit whose probability is 0; infinity less infinity would be no number


@dataclass(frozen=True)
class _Groups:
    """Which classes say the same."""

    stands_in: NDArray[np.int64]  # (classes) the class that stands for each
    groups: Sequence[tuple[int, NDArray[np.int64]]]  # it, and all that it stands for, where they are several

    def __call__(self, frames: Frames) -> Frames:
        """The same frames with one class for each token."""
        indices = self.stands_in[frames.indices]
        if frames.logits is None:
            return Frames(indices, frames.probabilities)
        logits = frames.logits.copy()
        with np.errstate(invalid="ignore"):  # infinity less infinity: NaN stays NaN
            for one, all_of_them in self.groups:
                some = frames.logits[:, :, all_of_them]
                peaks = some.max(axis=2)
                logits[:, :, all_of_them] = _NEVER
                logits[:, :, one] = peaks + np.log(np.exp(some - peaks[:, :, None]).sum(axis=2))
            gained = _at(logits, indices) - _at(frames.logits, frames.indices)
            probabilities = np.minimum(frames.probabilities * np.exp(gained), np.float32(1))
        return Frames(indices, probabilities.astype(np.float32), logits)


def _at(logits: NDArray[np.float32], indices: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, T) the logit of a class for each frame."""
    return np.take_along_axis(logits, indices[:, :, None], axis=2)[:, :, 0]


def _groups(tokens: Sequence[str], blank: int) -> _Groups | None:
    """None where each class has a token of its own."""
    if len(set(tokens)) == len(tokens):
        return None
    # of the classes of a token the last one, which encoding takes; of those without one the blank
    last = {token: index for index, token in enumerate(tokens)} | {"": blank}
    stands_in = np.array([last[token] for token in tokens], np.int64)
    together = [(one, np.flatnonzero(stands_in == one)) for one in np.unique(stands_in).tolist()]
    return _Groups(stands_in, [(one, several) for one, several in together if len(several) > 1])


def distinct(frames: Frames, tokens: Sequence[str], blank: int) -> Frames:
    """Frames with one class for each token, the last one of several; the very same where each has its own.

    tokens: of each class, the blank's being empty
    """
    groups = _groups(tokens, blank)
    return frames if groups is None else groups(frames)


def with_distinct_tokens(decode: Decode, alphabet: Sequence[str], blank: int) -> Decode:
    """A decoder that is shown one class for each token; the very same where each class has its own."""
    groups = _groups(tokens_of(alphabet, blank), blank)
    if groups is None:
        return decode

    def shown(frames: Frames, pixels_per_frame: Sequence[tuple[float, int]]) -> list[Text]:
        return decode(groups(frames), pixels_per_frame)

    return shown
