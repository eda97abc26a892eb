"""Prefix beam search: the likeliest texts, all their alignments together, with language knowledge on the way.

Graves 2012 (Supervised Sequence Labelling, section 7.5.1); Hannun et al. 2014 (arXiv 1408.2873).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.decoding_rule import Aggregate
from crnn_deploy.runtime.decoding.alignment import Decode, DecodingTooLarge, LineLogits, line_of
from crnn_deploy.runtime.decoding.beam_loops import (
    BEAM_FLOATS,
    BEAM_INTS,
    CHILDREN,
    TREE,
    Table,
    advance,
    backtrack,
    strongest,
)
from crnn_deploy.runtime.decoding.constraints import Automaton, Constraint, DecodingImpossible
from crnn_deploy.runtime.decoding.ctc import Alternative, Frames, Text, tokens_of
from crnn_deploy.runtime.decoding.repeated import with_distinct_tokens
from crnn_deploy.runtime.decoding.scoring import Combined, Memo, Scorer, ceiling_of

__all__ = ["Beam", "Hypothesis"]

_NO_SCORER: Table = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
_WIDER = 8, 64  # times the beam, when a first search finds nothing that may be said
_MOST_NODES = 2**23  # of the tree of prefixes, frames times beam; they take up to 800 MB


@dataclass(frozen=True)
class Hypothesis:
    """A text that may have been said."""

    labels: tuple[int, ...]  # classes
    score: float  # log probability of the network, plus the scorers' weights


@dataclass(frozen=True)
class Beam:
    """Prefix beam search.

    width: prefixes that are kept from frame to frame
    scorers: language knowledge, each with the factor of its weights
    bonus: log weight of every character, which makes up for what a language model takes
    constraint: texts that are allowed
    classes: most classes that are tried in a frame
    min_probability: a class is tried in a frame if it is at least so probable beside the frame's likeliest
    nbest: texts that are given as alternatives; 0 gives none
    aggregate: how characters' confidences become the line's
    """

    width: int = 10
    scorers: Sequence[tuple[Scorer, float]] = ()
    bonus: float = 0.0
    constraint: Constraint | None = None
    classes: int = 20
    min_probability: float = 1e-4
    nbest: int = 0
    aggregate: Aggregate = "min"

    def __post_init__(self) -> None:
        if self.width < 1 or self.classes < 1 or not 0 <= self.min_probability <= 1 or self.nbest < 0:
            raise ValueError(
                f"a beam of {self.width} with {self.classes} classes of at least {self.min_probability} and "
                f"{self.nbest} alternatives; there must be one prefix and one class"
            )

    def bind(self, alphabet: Sequence[str], blank: int) -> Decode:
        return with_distinct_tokens(BeamDecode(self, alphabet, blank), alphabet, blank)


class BeamDecode:
    """A beam search that is bound to an alphabet."""

    def __init__(self, beam: Beam, alphabet: Sequence[str], blank: int) -> None:
        self._beam, self._blank = beam, blank
        self._tokens = tokens_of(alphabet, blank)
        self._automaton: Automaton | None = None
        scorers = list(beam.scorers)
        self._usable: NDArray[np.int64] | None = None  # classes that may be said, where not all may
        if beam.constraint is not None:
            self._automaton = beam.constraint.compile(alphabet, blank)
            scorers.insert(0, (self._automaton, 1.0))
            self._usable = np.unique(np.append(self._automaton.label, blank))
        self._scorer: Scorer | None = None
        if len(scorers) == 1 and scorers[0][1] == 1 and not beam.bonus:
            [(self._scorer, _)] = scorers
        elif scorers or beam.bonus:
            self._scorer = Combined(scorers, beam.bonus)
        self._memos: list[Memo] = []  # that no thread uses now

    def __call__(self, frames: Frames, pixels_per_frame: Sequence[tuple[float, int]]) -> list[Text]:
        return [self._text(frames, row, pixels) for row, pixels in enumerate(pixels_per_frame)]

    def _text(self, frames: Frames, row: int, pixels: tuple[float, int]) -> Text:
        line = line_of(frames, row, "a beam search")
        if not np.isfinite(frames.probabilities[row]).all():
            return Text("", math.nan, ())
        found = self.search(line)
        text = line.text(found[0].labels, self._tokens, self._blank, pixels, self._beam.aggregate)
        if not self._beam.nbest:
            return text
        alternatives = [
            Alternative("".join(self._tokens[label] for label in one.labels), one.score) for one in found
        ]
        return replace(text, alternatives=tuple(alternatives))

    def search(self, line: LineLogits) -> list[Hypothesis]:
        """The likeliest texts, as many as the beam gives alternatives, and one at least.

        Raises DecodingImpossible, DecodingTooLarge.
        """
        beam, room = self._beam, _MOST_NODES // max(1, len(line.logits))
        if beam.width > room:
            raise DecodingTooLarge(len(line.logits), f"a beam of {beam.width:,}")
        found = self._search(line, beam.width, beam.classes, beam.min_probability)
        if not found and self._automaton is not None:
            found = self._scored(line, self._automaton.best_path(line))
        for wider in _WIDER:
            if not found:
                width = min(wider * beam.width, room)
                found = self._search(line, width, _WIDER[0] * beam.classes, 0.0)
        if not found:
            raise DecodingImpossible(len(line.logits))
        return found

    def _scored(self, line: LineLogits, labels: Sequence[int]) -> list[Hypothesis]:
        """A text with its score, unless a scorer forbids it."""
        assert self._scorer is not None
        state, total = self._scorer.start(), line.log_likelihood(labels, self._blank)
        for label in labels:
            state, weight = self._scorer.step(state, self._tokens[label])
            total += weight
            if total == -math.inf:
                return []
        total += self._scorer.end(state)
        return [Hypothesis(tuple(labels), total)] if total > -math.inf else []

    def _search(self, line: LineLogits, width: int, most: int, min_probability: float) -> list[Hypothesis]:
        if self._scorer is None:
            return self._found(line, width, most, min_probability, None)
        try:
            memo = self._memos.pop()
        except IndexError:
            memo = Memo(self._scorer, self._tokens)
        found = self._found(line, width, most, min_probability, memo)
        if not memo.full:
            self._memos.append(memo)
        return found

    def _found(
        self, line: LineLogits, width: int, most: int, min_probability: float, memo: Memo | None
    ) -> list[Hypothesis]:
        ends, labels, log_probs = self._candidates(line, most, min_probability)
        steps, classes = len(ends), len(self._tokens)
        nodes = steps * width + 1
        tree = np.full((TREE, nodes), -1, np.int64)
        children = np.full((CHILDREN, 1 << (2 * nodes).bit_length()), -1, np.int64)
        ints, floats = np.zeros((BEAM_INTS, width), np.int64), np.zeros((BEAM_FLOATS, width))
        # one prefix, which is empty, before the first frame
        tree[2, 0], floats[1, 0] = 0, -math.inf
        size = np.array([1, 1, 0])
        missing = np.empty(width * most if memo else 0, np.int64)
        ceiling = ceiling_of(self._scorer) if self._scorer else 0.0
        if memo:
            ints[1, 0] = memo.start
        at = 0
        while at < steps:
            table = memo.table if memo else _NO_SCORER
            at = advance(
                *(at, ends, labels, log_probs, self._blank, classes, ceiling, table),
                *(tree, children, size, ints, floats, missing),
            )
            if memo and at < steps:
                memo.fill(missing[: size[2]].tolist())
        totals = np.logaddexp(floats[0], floats[1])[: size[1]] + floats[2, : size[1]]
        if memo:
            totals += [memo.end(state) for state in ints[1, : size[1]].tolist()]
        found = []
        for i in np.argsort(-totals, kind="stable")[: max(1, self._beam.nbest)].tolist():
            if totals[i] > -math.inf:
                said = backtrack(ints[0, i], tree)
                found.append(Hypothesis(tuple(said.tolist()), float(totals[i])))
        return found

    def _candidates(
        self, line: LineLogits, most: int, min_probability: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """For each frame (T) where its candidates end, and their classes and log probabilities."""
        logits = line.logits if self._usable is None else line.logits[:, self._usable]
        margin = math.log(min_probability) if min_probability else -math.inf
        ends, labels, kept = strongest(logits, margin, most)
        log_probs = kept - np.repeat(line.log_norms, np.diff(ends, prepend=0))
        return ends, labels if self._usable is None else self._usable[labels], log_probs
