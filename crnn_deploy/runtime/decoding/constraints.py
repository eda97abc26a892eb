"""What a text may be: characters, a mask or a regular expression, a length; compiled to one automaton."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError, shortened
from crnn_deploy.runtime.decoding.alignment import MOST_BYTES, DecodingTooLarge, LineLogits
from crnn_deploy.runtime.decoding.alignment_loops import best_path
from crnn_deploy.runtime.decoding.ctc import tokens_of
from crnn_deploy.runtime.decoding.patterns import PatternInvalid, compile_pattern

__all__ = [
    "Automaton",
    "Constraint",
    "ConstraintImpossible",
    "DecodingImpossible",
    "PatternInvalid",
]

_MOST_EDGES = 2**20
_MOST_STEPS = 2**22  # that are tried to find them: states times kinds of characters, a few seconds
_MASK: dict[str, Callable[[str], bool]] = {
    "A": lambda c: c.isupper(),
    "a": lambda c: c.islower(),
    "L": str.isalpha,
    "9": lambda c: "0" <= c <= "9",
    "X": str.isalnum,
    "*": lambda c: True,
}


class ConstraintImpossible(CrnnDeployError, ValueError):
    """A constraint that no text can meet."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"no text can meet the constraint: {reason}")


class DecodingImpossible(CrnnDeployError, ValueError):
    """An image in which nothing that is allowed can be read."""

    def __init__(self, frames: int) -> None:
        super().__init__(
            f"no text that is allowed fits its {frames} frames; loosen the constraint or lexicon"
        )


@dataclass(frozen=True)
class Automaton:
    """A deterministic automaton over the classes of a model; a scorer that forbids what it does not accept.

    Every state can be reached from state 0, and from every state a text can be ended.
    """

    tokens: Sequence[str]  # of each class
    blank: int
    source: NDArray[np.int64]  # (edges) states
    target: NDArray[np.int64]  # (edges)
    label: NDArray[np.int64]  # (edges) classes
    final: NDArray[np.bool_]  # (states)
    ceiling = 0.0  # as a scorer's

    @cached_property
    def _next(self) -> dict[tuple[int, str], int]:
        edges = zip(self.source.tolist(), self.label.tolist(), self.target.tolist(), strict=True)
        return {(s, self.tokens[label]): t for s, label, t in edges}

    def start(self) -> int:
        return 0

    def step(self, state: int, char: str) -> tuple[int, float]:
        after = self._next.get((state, char), -1)
        return after, 0.0 if after >= 0 else -math.inf

    def end(self, state: int) -> float:
        return 0.0 if self.final[state] else -math.inf

    def best_path(self, line: LineLogits) -> list[int]:
        """Labels of the likeliest path that is accepted, exactly.

        Raises DecodingImpossible, DecodingTooLarge.
        """
        if len(line.logits) * (len(self.label) + 9 * len(self.final)) > MOST_BYTES:
            raise DecodingTooLarge(len(line.logits), f"a constraint of {len(self.label):,} transitions")
        log_probs = line.logits - line.log_norms[:, None]
        path = best_path(log_probs, self.blank, self.source, self.target, self.label, self.final)
        if not len(path) and (len(log_probs) or not self.final[0]):
            raise DecodingImpossible(len(line.logits))
        merged = path[np.diff(path, prepend=-1) != 0]
        labels: list[int] = merged[merged != self.blank].tolist()
        return labels


@dataclass(frozen=True)
class Constraint:
    """Texts that are allowed: those that meet all that is given.

    allow, block: characters that may or may not stand in a text
    mask: one sign for each character: A upper case, a lower case, L a letter, 9 a digit, X a letter or digit,
        * anything, and any other sign itself; after a backslash every sign is itself
    pattern: a regular expression, as of Python's re, that the whole text matches; without look-behind, back
        references and anchors, and \\d, \\w and \\s are those of ASCII
    shortest, longest: number of characters (tokens of the alphabet)
    """

    allow: str | None = None
    block: str = ""
    mask: str | None = None
    pattern: str | None = None
    shortest: int = 0
    longest: int | None = None

    def compile(self, alphabet: Sequence[str], blank: int) -> Automaton:
        """The automaton of a model's classes.

        Raises ConstraintImpossible, PatternInvalid.
        """
        if unknown := sorted(set(self.allow or "") - set("".join(alphabet))):
            raise ConstraintImpossible(
                f"the model cannot read {shortened(repr(''.join(unknown)))}, which --allow names"
            )
        # of several classes of one token the last, as `repeated` has it; a class without one says nothing
        last = {token: index for index, token in enumerate(alphabet) if token}
        usable = [
            (index + (index >= blank), token)
            for token, index in sorted(last.items(), key=itemgetter(1))
            if (self.allow is None or set(token) <= set(self.allow)) and not set(token) & set(self.block)
        ]
        if self.longest is not None and not 0 <= self.shortest <= self.longest:
            raise ConstraintImpossible(f"lengths from {self.shortest} to {self.longest}")
        rules: list[_Rule] = [_Length(self.shortest, self.longest)]
        if self.mask is not None:
            rules.append(_Mask(self.mask))
        if self.pattern is not None:
            rules.append(_Pattern(self.pattern, "".join(token for _, token in usable)))
        tokens = tokens_of(alphabet, blank)
        return _product(rules, usable, tokens, blank, self)


class _Rule(Protocol):
    """What a constraint asks of a text, as an automaton that starts in state 0."""

    def kind(self, token: str) -> Hashable:
        """What all tokens share that lead from every state to the same one."""
        ...

    def step(self, state: int, token: str) -> int:
        """The state after one more token; -1: no text goes on like this."""
        ...

    def final(self, state: int) -> bool:
        """Whether a text may end in this state."""
        ...


class _Length:
    """Between two numbers of tokens."""

    def __init__(self, shortest: int, longest: int | None) -> None:
        self._shortest, self._longest = shortest, longest

    def kind(self, token: str) -> Hashable:
        return None

    def step(self, state: int, token: str) -> int:
        if self._longest is None:
            return min(state + 1, self._shortest)
        return state + 1 if state < self._longest else -1

    def final(self, state: int) -> bool:
        return state >= self._shortest


class _Mask:
    """One sign for each token. Raises PatternInvalid."""

    def __init__(self, mask: str) -> None:
        self._places: list[Callable[[str], bool]] = []
        literals: set[str] = set()
        signs = iter(mask)
        for sign in signs:
            literal = sign == "\\" or sign not in _MASK
            if sign == "\\":
                sign = next(signs, "")
                if not sign:
                    raise PatternInvalid(mask, "nothing follows the last backslash")
            self._places.append(sign.__eq__ if literal else _MASK[sign])
            if literal:
                literals.add(sign)
        self._literals = literals

    def kind(self, token: str) -> Hashable:
        return token if token in self._literals else tuple(fits(token) for fits in _MASK.values())

    def step(self, state: int, token: str) -> int:
        return state + 1 if state < len(self._places) and self._places[state](token) else -1

    def final(self, state: int) -> bool:
        return state == len(self._places)


class _Pattern:
    """A regular expression of the characters of all tokens. Raises PatternInvalid."""

    def __init__(self, pattern: str, characters: str) -> None:
        self._automaton = compile_pattern(pattern, set(characters))

    def kind(self, token: str) -> Hashable:
        return tuple(self._automaton.kinds[character] for character in token)

    def step(self, state: int, token: str) -> int:
        for character in token:
            state = self._automaton.steps[state][self._automaton.kinds[character]]
            if state < 0:
                break
        return state

    def final(self, state: int) -> bool:
        return self._automaton.final[state]


def _product(
    rules: Sequence[_Rule],
    usable: Sequence[tuple[int, str]],
    tokens: Sequence[str],
    blank: int,
    constraint: Constraint,
) -> Automaton:
    """All rules as one automaton, without states from which no text can be ended."""
    kinds: dict[tuple[Hashable, ...], list[int]] = {}  # labels of the tokens of each kind
    for label, token in usable:
        kinds.setdefault(tuple(rule.kind(token) for rule in rules), []).append(label)
    examples = [(tokens[labels[0]], len(labels)) for labels in kinds.values()]

    start = (0,) * len(rules)
    numbers, waiting = {start: 0}, deque([start])
    steps: list[tuple[int, int, int]] = []  # state, kind, state
    edges = tried = 0
    while waiting:
        state = waiting.popleft()
        for at, (token, count) in enumerate(examples):
            after = []
            for rule, part in zip(rules, state, strict=True):
                moved = rule.step(part, token)
                if moved < 0:
                    break
                after.append(moved)
            else:
                key = tuple(after)
                if key not in numbers:
                    numbers[key] = len(numbers)
                    waiting.append(key)
                steps.append((numbers[state], at, numbers[key]))
                edges += count
        tried += len(examples)
        if edges > _MOST_EDGES:
            raise ConstraintImpossible(f"it needs more than {_MOST_EDGES:,} transitions; make it simpler")
        if tried > _MOST_STEPS:
            raise ConstraintImpossible(f"it takes more than {_MOST_STEPS:,} steps to build; make it simpler")
    final = [all(rule.final(part) for rule, part in zip(rules, state, strict=True)) for state in numbers]
    alive = _alive(len(numbers), steps, final)
    if 0 not in alive:
        raise ConstraintImpossible(f"over the model's characters nothing meets {_shown(constraint)}")
    renumbered = {old: new for new, old in enumerate(sorted(alive))}
    kept = [(renumbered[s], at, renumbered[t]) for s, at, t in steps if s in alive and t in alive]
    if not kept:  # every image would be read as empty, without a word
        raise ConstraintImpossible(f"only the empty text meets {_shown(constraint)}")
    sources, ats, targets = np.array(kept, np.int64).reshape(-1, 3).T
    # each step becomes an edge for each token of its kind
    sizes = np.array([count for _, count in examples], np.int64)[ats]
    of_kinds = [np.array(of_kind, np.int64) for of_kind in kinds.values()]
    labels = np.concatenate([np.empty(0, np.int64), *(of_kinds[at] for at in ats.tolist())])
    sources, targets = np.repeat(sources, sizes), np.repeat(targets, sizes)
    order = np.lexsort((labels, sources))
    return Automaton(
        tokens,
        blank,
        sources[order],
        targets[order],
        labels[order],
        np.array([final[old] for old in sorted(alive)]),
    )


def _alive(states: int, steps: Sequence[tuple[int, int, int]], final: Sequence[bool]) -> set[int]:
    """States from which a final one can be reached."""
    into: list[list[int]] = [[] for _ in range(states)]
    for source, _, target in steps:
        into[target].append(source)
    alive = {state for state in range(states) if final[state]}
    waiting = list(alive)
    while waiting:
        for source in into[waiting.pop()]:
            if source not in alive:
                alive.add(source)
                waiting.append(source)
    return alive


def _shown(constraint: Constraint) -> str:
    given = {name: value for name, value in vars(constraint).items() if value != getattr(Constraint, name)}
    return ", ".join(f"{name} {shortened(repr(value))}" for name, value in given.items())
