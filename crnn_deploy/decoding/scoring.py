"""What the beam search asks of language knowledge, and how it remembers the answers."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from crnn_deploy.decoding.kernels import Table, insert

__all__ = ["Combined", "Memo", "Scorer", "ceiling_of"]

_STEPS_KEPT = 2**19  # of a memo, 25 MB of tables; then it starts anew


class Scorer(Protocol):
    """Language knowledge: a weight for each character of a text, read from left to right.

    Weights are natural logarithms, added to the log probability of the network; -inf forbids. A state is what
    must be known of the text so far: hashable, and equal for texts that are scored alike from there on. The
    same question must always have the same answer: answers are remembered.

    An attribute `ceiling` (float) may say that no step has a greater weight. Then steps that cannot reach the
    beam are not asked for.
    """

    def start(self) -> Hashable:
        """The state before the first character."""
        ...

    def step(self, state: Any, char: str) -> tuple[Hashable, float]:
        """The state after one more character (a token of the alphabet), and its weight."""
        ...

    def end(self, state: Any) -> float:
        """The weight of ending the text in this state."""
        ...


class Combined:
    """Several scorers as one: their weights, each times its factor, and a bonus for every character."""

    def __init__(self, scorers: Iterable[tuple[Scorer, float]], bonus: float = 0.0) -> None:
        self._scorers = tuple(scorers)
        self._bonus = bonus
        self.ceiling = bonus + sum(
            factor * ceiling_of(scorer) if factor > 0 else math.inf
            for scorer, factor in self._scorers
            if factor
        )

    def start(self) -> tuple[Hashable, ...]:
        return tuple(scorer.start() for scorer, _ in self._scorers)

    def step(self, state: Sequence[Any], char: str) -> tuple[tuple[Hashable, ...], float]:
        states, total = [], self._bonus
        for (scorer, factor), part in zip(self._scorers, state, strict=True):
            after, weight = scorer.step(part, char)
            if weight == -math.inf:
                return (), -math.inf
            states.append(after)
            total += factor * weight
        return tuple(states), total

    def end(self, state: Sequence[Any]) -> float:
        total = 0.0
        for (scorer, factor), part in zip(self._scorers, state, strict=True):
            weight = scorer.end(part)
            if weight == -math.inf:
                return -math.inf
            total += factor * weight
        return total


def ceiling_of(scorer: Scorer) -> float:
    """The greatest weight that a step may have; infinity where the scorer does not say."""
    return float(getattr(scorer, "ceiling", math.inf))


class Memo:
    """A scorer's answers in tables that compiled code can read: the automaton it is, as far as it was asked.

    States are numbered as they come. For one thread at a time.
    """

    def __init__(self, scorer: Scorer, tokens: Sequence[str]) -> None:
        """tokens: of each class, the blank's being anything."""
        self._scorer = scorer
        self._tokens = tokens
        self._states: list[Any] = []
        self._numbers: dict[Hashable, int] = {}
        self._count = 0
        self.table = _empty(2**12)  # keys state * classes + class, next states, weights
        self.start = self._number(scorer.start())

    @property
    def full(self) -> bool:
        return self._count > _STEPS_KEPT

    def end(self, state: int) -> float:
        return self._scorer.end(self._states[state])

    def fill(self, missing: Iterable[int]) -> None:
        """Ask the scorer for steps that the table lacks, given by their keys."""
        keys = list(dict.fromkeys(missing))
        states, weights = [], []
        for key in keys:
            state, label = divmod(key, len(self._tokens))
            after, weight = self._scorer.step(self._states[state], self._tokens[label])
            if not weight < math.inf:
                raise ValueError(f"a scorer weighs {self._tokens[label]!r} as {weight}")
            states.append(self._number(after) if weight > -math.inf else -1)
            weights.append(weight)
        self._count += len(keys)
        while 2 * self._count > len(self.table[0]):
            old, self.table = self.table, _empty(4 * len(self.table[0]))
            used = old[0] >= 0
            insert(self.table, old[0][used], old[1][used], old[2][used])
        insert(self.table, np.array(keys), np.array(states), np.array(weights))

    def _number(self, state: Hashable) -> int:
        number = self._numbers.setdefault(state, len(self._states))
        if number == len(self._states):
            self._states.append(state)
        return number


def _empty(slots: int) -> Table:
    return np.full(slots, -1, np.int64), np.empty(slots, np.int64), np.empty(slots)
