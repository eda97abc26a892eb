"""What the beam search asks of language knowledge, and how it remembers the answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from crnn_deploy.runtime.decoding.beam_loops import Table, insert

__all__ = ["Combined", "Memo", "Scorer", "ceiling_of", "steps_of"]

_STEPS_KEPT = 2**19  # of a memo, 25 MB of tables; then it starts anew


class Scorer(Protocol):
    """Language knowledge: a weight for each character of a text, read from left to right.

    Weights are natural logarithms, added to the log probability of the network; -inf forbids. A state is what
    must be known of the text so far: hashable, and equal for texts that are scored alike from there on. The
    same question must always have the same answer: answers are remembered.

    An attribute `ceiling` (float) may say that no step has a greater weight. Then steps that cannot reach the
    beam are not asked for. A method `steps` may answer several questions at once, (state, char) each.
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
        [answer] = self.steps([(state, char)])
        return answer

    def steps(
        self, questions: Sequence[tuple[Sequence[Any], str]]
    ) -> list[tuple[tuple[Hashable, ...], float]]:
        states: list[tuple[Hashable, ...]] = [()] * len(questions)
        totals = [self._bonus] * len(questions)
        allowed = list(range(len(questions)))
        for at, (scorer, factor) in enumerate(self._scorers):
            answers = steps_of(scorer, [(questions[i][0][at], questions[i][1]) for i in allowed])
            for i, (after, weight) in zip(allowed, answers, strict=True):
                states[i] += (after,)
                totals[i] += factor * weight if weight > -math.inf else -math.inf
            allowed = [i for i in allowed if totals[i] > -math.inf]
        return [
            (state, total) if total > -math.inf else ((), total)
            for state, total in zip(states, totals, strict=True)
        ]

    def end(self, state: Sequence[Any]) -> float:
        total = 0.0
        for (scorer, factor), part in zip(self._scorers, state, strict=True):
            weight = scorer.end(part)
            if weight == -math.inf:
                return -math.inf
            total += factor * weight
        return total


def steps_of(scorer: Scorer, questions: Sequence[tuple[Any, str]]) -> list[tuple[Hashable, float]]:
    """A scorer's answers to several questions, state and char each."""
    several: Callable[[Sequence[tuple[Any, str]]], list[tuple[Hashable, float]]] | None
    several = getattr(scorer, "steps", None)
    return [scorer.step(state, char) for state, char in questions] if several is None else several(questions)


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
        pairs = [divmod(key, len(self._tokens)) for key in keys]
        questions = [(self._states[state], self._tokens[label]) for state, label in pairs]
        for (_, char), (after, weight) in zip(questions, steps_of(self._scorer, questions), strict=True):
            if not weight < math.inf:
                raise ValueError(f"a scorer weighs {char!r} as {weight}")
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
