"""What a text may be: characters, a mask or a regular expression, a length; compiled to one automaton."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.decoding.paths import best_path
from crnn_deploy.decoding.reading import Line
from crnn_deploy.errors import CrnnDeployError, LibraryMissing

__all__ = [
    "Automaton",
    "Constraint",
    "ConstraintImpossible",
    "DecodingImpossible",
    "PatternInvalid",
]

_MOST_EDGES = 2**20
_MASK: dict[str, Callable[[str], bool]] = {
    "A": lambda c: c.isupper(),
    "a": lambda c: c.islower(),
    "L": str.isalpha,
    "9": lambda c: "0" <= c <= "9",
    "X": str.isalnum,
    "*": lambda c: True,
}

_Step = Callable[[Hashable, str], Hashable | None]


class PatternInvalid(CrnnDeployError, ValueError):
    """A regular expression or mask that cannot be read."""

    def __init__(self, pattern: str, reason: str) -> None:
        super().__init__(f"the pattern {pattern!r} cannot be read: {reason}")


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

    def __post_init__(self) -> None:
        edges = zip(self.source.tolist(), self.label.tolist(), self.target.tolist(), strict=True)
        object.__setattr__(self, "_next", {(s, self.tokens[label]): t for s, label, t in edges})

    def start(self) -> int:
        return 0

    def step(self, state: int, char: str) -> tuple[int, float]:
        after: int = self._next.get((state, char), -1)  # type: ignore[attr-defined]
        return after, 0.0 if after >= 0 else -math.inf

    def end(self, state: int) -> float:
        return 0.0 if self.final[state] else -math.inf

    def best_path(self, line: Line) -> list[int]:
        """Labels of the likeliest path that is accepted, exactly. Raises DecodingImpossible."""
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
    pattern: a regular expression that the whole text matches (the extra `decode`; without look-behind, back
        references and anchors)
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

        Raises ConstraintImpossible, PatternInvalid, LibraryMissing.
        """
        if unknown := sorted(set(self.allow or "") - set("".join(alphabet))):
            raise ConstraintImpossible(f"the model cannot read {''.join(unknown)!r}, which --allow names")
        usable = [
            (index + (index >= blank), token)
            for index, token in enumerate(alphabet)
            if (self.allow is None or set(token) <= set(self.allow)) and not set(token) & set(self.block)
        ]
        if self.longest is not None and not 0 <= self.shortest <= self.longest:
            raise ConstraintImpossible(f"lengths from {self.shortest} to {self.longest}")
        start: list[Hashable] = [0]
        rules: list[tuple[_Step, Callable[[Hashable], bool]]] = [self._lengths()]
        for text, made in ((self.mask, _mask), (self.pattern, _pattern)):
            if text is not None:
                initial, step, final = made(text)
                start.append(initial)
                rules.append((step, final))
        tokens = (*alphabet[:blank], "", *alphabet[blank:])
        return _product(tuple(start), rules, usable, tokens, blank, self)

    def _lengths(self) -> tuple[_Step, Callable[[Hashable], bool]]:
        shortest, longest = self.shortest, self.longest
        most = shortest if longest is None else longest

        def step(state: Hashable, _: str) -> Hashable | None:
            assert isinstance(state, int)
            return min(state + 1, most) if longest is None or state < longest else None

        return step, lambda state: isinstance(state, int) and state >= shortest


def _product(
    start: tuple[Hashable, ...],
    rules: Sequence[tuple[_Step, Callable[[Hashable], bool]]],
    usable: Sequence[tuple[int, str]],
    tokens: Sequence[str],
    blank: int,
    constraint: Constraint,
) -> Automaton:
    """All rules as one automaton, without states from which no text can be ended."""
    numbers, waiting = {start: 0}, deque([start])
    edges: list[tuple[int, int, int]] = []
    while waiting:
        state = waiting.popleft()
        for label, token in usable:
            after = []
            for (step, _), part in zip(rules, state, strict=True):
                moved = step(part, token)
                if moved is None:
                    break
                after.append(moved)
            else:
                key = tuple(after)
                if key not in numbers:
                    numbers[key] = len(numbers)
                    waiting.append(key)
                edges.append((numbers[state], label, numbers[key]))
        if len(edges) > _MOST_EDGES:
            raise ConstraintImpossible(f"it needs more than {_MOST_EDGES:,} transitions; make it simpler")
    final = [all(f(part) for (_, f), part in zip(rules, state, strict=True)) for state in numbers]
    alive = _alive(len(numbers), edges, final)
    if 0 not in alive:
        raise ConstraintImpossible(f"over the model's characters nothing meets {_shown(constraint)}")
    renumbered = {old: new for new, old in enumerate(sorted(alive))}
    kept = [(renumbered[s], label, renumbered[t]) for s, label, t in edges if s in alive and t in alive]
    sources, labels, targets = np.array(kept, np.int64).reshape(-1, 3).T.copy()
    return Automaton(tokens, blank, sources, targets, labels, np.array([final[old] for old in sorted(alive)]))


def _alive(states: int, edges: Iterable[tuple[int, int, int]], final: Sequence[bool]) -> set[int]:
    """States from which a final one can be reached."""
    into: list[list[int]] = [[] for _ in range(states)]
    for source, _, target in edges:
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
    given = {name: value for name, value in vars(constraint).items() if value not in (None, "", 0)}
    return ", ".join(f"{name} {value!r}" for name, value in given.items())


def _mask(mask: str) -> tuple[Hashable, _Step, Callable[[Hashable], bool]]:
    places: list[Callable[[str], bool]] = []
    signs = iter(mask)
    for sign in signs:
        if sign == "\\":
            sign = next(signs, "")
            if not sign:
                raise PatternInvalid(mask, "nothing follows the last backslash")
            places.append(sign.__eq__)
        else:
            places.append(_MASK.get(sign, sign.__eq__))

    def step(state: Hashable, token: str) -> Hashable | None:
        assert isinstance(state, int)
        return state + 1 if state < len(places) and places[state](token) else None

    return 0, step, lambda state: state == len(places)


def _pattern(pattern: str) -> tuple[Hashable, _Step, Callable[[Hashable], bool]]:
    try:
        import interegular
        from interegular.fsm import anything_else
    except ImportError as error:
        raise LibraryMissing("a regular expression", "interegular", "decode") from error
    try:
        automaton = interegular.parse_pattern(pattern).to_fsm()
    except Exception as error:  # its parser and its compiler raise a bit of everything
        reason = str(error).strip().splitlines()
        raise PatternInvalid(pattern, reason[0] if reason else type(error).__name__) from error
    symbols = automaton.alphabet

    def step(state: Hashable, token: str) -> Hashable | None:
        at: Any = state
        for character in token:
            symbol = symbols[character if character in symbols else anything_else]
            at = automaton.map.get(at, {}).get(symbol)
            if at is None:
                return None
        return cast(Hashable, at)

    return automaton.initial, step, lambda state: state in automaton.finals
