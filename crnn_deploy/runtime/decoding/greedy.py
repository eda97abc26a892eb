"""Best-path decoding as one decoder among others, with or without a constraint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from crnn_deploy.runtime.decoding.ctc import BestPath, Frames, Text
from crnn_deploy.runtime.decoding.repeated import with_distinct_tokens

if TYPE_CHECKING:
    from crnn_deploy.runtime.decoding.alignment import Decode
    from crnn_deploy.runtime.decoding.constraints import Constraint

__all__ = ["Greedy"]


@dataclass(frozen=True)
class Greedy:
    """The text of the likeliest path; with a constraint, of the likeliest path whose text is allowed.

    The likeliest path is the likeliest alignment of its own text, so its runs are where the characters are.
    """

    constraint: Constraint | None = None

    def bind(self, alphabet: Sequence[str], blank: int) -> Decode:
        if self.constraint is None:
            return BestPath(alphabet, blank)
        return with_distinct_tokens(_constrained(self.constraint, alphabet, blank), alphabet, blank)


def _constrained(constraint: Constraint, alphabet: Sequence[str], blank: int) -> Decode:
    # compiled code, which the best path does without
    from crnn_deploy.runtime.decoding.alignment import line_of

    automaton = constraint.compile(alphabet, blank)

    def decode(frames: Frames, pixels_per_frame: Sequence[tuple[float, int]]) -> list[Text]:
        texts = []
        for row, pixels in enumerate(pixels_per_frame):
            line = line_of(frames, row, "a constraint")
            if not np.isfinite(frames.probabilities[row]).all():
                texts.append(Text("", float("nan"), ()))
                continue
            labels = automaton.best_path(line)
            texts.append(line.text(labels, automaton.tokens, blank, pixels, "min"))
        return texts

    return decode
