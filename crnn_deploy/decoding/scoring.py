"""What the beam search asks of language knowledge, and how it remembers the answers."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.decoding.kernels import lookup

__all__ = ["Combined", "Memo", "Scorer"]

_STEPS_KEPT = 2**21  # of a memo, 48 MB of tables; then it starts anew


class Scorer(Protocol):
    """Language knowledge: a weight for each character of a text, read from left to right.

    Weights are natural logarithms, added to the log probability of the network; -inf forbids. A state is what
    must be known of the text so far: hashable, and equal for texts that are scored alike from there on. The
    same question must always have the same answer: answers are remembered.
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


class Memo:
    """A scorer's answers in tables that compiled code can read: the automaton it is, as far as it was asked.

    States are numbered as they come, steps lie in an open-addressing table. Several threads may read while
    one fills: compiled code holds the GIL, and a step's key is written after its values.
    """

    def __init__(self, scorer: Scorer, tokens: Sequence[str]) -> None:
        """tokens: of each class, the blank's being anything."""
        self._scorer = scorer
        self._tokens = tokens
        self._lock = threading.Lock()
        self._states: list[Any] = []
        self._numbers: dict[Hashable, int] = {}
        self._count = 0
        self.tables = _empty(2**12)  # keys (state * classes + class, -1 free), next states, weights
        self.start = self._number(scorer.start())

    @property
    def full(self) -> bool:
        return self._count > _STEPS_KEPT

    def end(self, state: int) -> float:
        return self._scorer.end(self._states[state])

    def fill(self, missing: Iterable[int]) -> None:
        """Ask the scorer for these steps, given by their keys."""
        with self._lock:
            for key in missing:
                keys, next_states, weights = self.tables
                slot = lookup(keys, key)
                if keys[slot] == key:
                    continue
                state, label = divmod(key, len(self._tokens))
                after, weight = self._scorer.step(self._states[state], self._tokens[label])
                if math.isnan(weight) or weight == math.inf:
                    raise ValueError(
                        f"{type(self._scorer).__name__} weighs {self._tokens[label]!r} as {weight}"
                    )
                next_states[slot] = -1 if weight == -math.inf else self._number(after)
                weights[slot] = weight
                keys[slot] = key
                self._count += 1
                if 2 * self._count > len(keys):
                    self._grow()

    def _number(self, state: Hashable) -> int:
        number = self._numbers.setdefault(state, len(self._states))
        if number == len(self._states):
            self._states.append(state)
        return number

    def _grow(self) -> None:
        old_keys, old_states, old_weights = self.tables
        keys, next_states, weights = tables = _empty(4 * len(old_keys))
        for old in np.flatnonzero(old_keys >= 0).tolist():
            slot = lookup(keys, int(old_keys[old]))
            keys[slot], next_states[slot], weights[slot] = old_keys[old], old_states[old], old_weights[old]
        self.tables = tables


def _empty(slots: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    return np.full(slots, -1, np.int64), np.empty(slots, np.int64), np.empty(slots)
