"""Regular expressions as automata over the characters of an alphabet, in bounded time and memory.

Python's own parser reads the pattern. It is unfolded to a program of characters and branches, and the
states of the automaton are what the program may be at (Thompson 1968; Rabin and Scott 1959). What is looked
ahead for is a condition on the rest of the text, so that states are sets of places and of conditions, as
with Brzozowski's derivatives (1964). Last, states that no text tells apart become one (Moore 1956).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError, first_line, shortened

__all__ = ["PatternAutomaton", "PatternInvalid", "compile_pattern"]

_MOST_PLACES = 2**15  # of an unfolded pattern; a counted repetition holds its content so many times
_MOST_VISITS = 2**21  # of places while states are found, about a second
_MOST_STATES = 2**14
_MOST_STEPS = 2**21  # states times kinds of characters, 8 MB
_MOST_MERGING = 2**26  # steps that are compared to find equal states, about a second; then they stay apart
_ROUND = 16  # what a state costs in a round of comparing, in steps


class PatternInvalid(CrnnDeployError, ValueError):
    """A regular expression or mask that cannot be read."""

    def __init__(self, pattern: str, reason: str) -> None:
        super().__init__(f"the pattern {shortened(pattern)!r} cannot be read: {reason}")


@dataclass(frozen=True)
class PatternAutomaton:
    """A deterministic automaton that starts in state 0 and tells characters apart by their kinds alone."""

    kinds: dict[str, int]  # of each character of the alphabet
    steps: list[list[int]]  # of each state the state after each kind, or -1
    final: list[bool]  # of each state


def compile_pattern(pattern: str, characters: Collection[str]) -> PatternAutomaton:
    """The automaton of what a pattern matches from beginning to end, over these characters.

    \\d, \\w and \\s are those of ASCII. Raises PatternInvalid, also where it would become too large.
    """
    try:
        return _Compiler(pattern).automaton(sorted(characters))
    except _TooLarge as error:
        raise PatternInvalid(pattern, f"{error}; make it simpler") from None
    except RecursionError:
        raise PatternInvalid(pattern, "it is nested too deeply; make it simpler") from None
    except (re.error, OverflowError, ValueError) as error:
        if isinstance(error, PatternInvalid):
            raise
        raise PatternInvalid(pattern, first_line(error)) from None


class _TooLarge(Exception):
    """A pattern beyond a bound; its message is what a PatternInvalid says of it."""


# a set of characters: whether it is all others, ranges of code points, and whether their case does not count
_Set = tuple[bool, tuple[tuple[int, int], ...], bool]

# What the rest of a text must meet: one of its members. A number is a place of the program; ("and", rests)
# all of several rests, ("not", rest) anything but that. The empty set is met by nothing.
_Rest = frozenset[Any]

_END, _ANYTHING = 0, 1  # places: the end of the text, and whatever follows
_NOTHING: _Rest = frozenset()
_ALL: _Rest = frozenset((_ANYTHING,))

_CATEGORIES: dict[str, tuple[tuple[int, int], ...]] = {
    "DIGIT": ((48, 57),),
    "SPACE": ((9, 13), (32, 32)),
    "WORD": ((48, 57), (65, 90), (95, 95), (97, 122)),
}
_LAST = 0x10FFFF


class _Compiler:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._sets: dict[_Set, int] = {}
        self._places: list[tuple[Any, ...]] = [("end",), ("anything",)]
        self._visits = 0
        self._after: dict[int, _Rest] = {}  # what may come at a place
        parser: Any = import_module("re._parser")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of syntax that a later Python may read otherwise
            tree = parser.parse(pattern, re.ASCII)
        self._endless = parser.MAXREPEAT
        self._start = self._unfold(tree, _END, tree.state.flags)

    # the program: from what follows to what comes before

    def _place(self, *what: Any) -> int:
        if len(self._places) >= _MOST_PLACES:
            raise _TooLarge(f"unfolded it has more than {_MOST_PLACES:,} places")
        self._places.append(what)
        return len(self._places) - 1

    def _unfold(self, items: Any, follow: int, flags: int) -> int:
        for operator, value in reversed(list(items)):
            follow = self._unfold_one(str(operator), value, follow, flags)
        return follow

    def _unfold_one(self, name: str, value: Any, follow: int, flags: int) -> int:
        ignored = bool(flags & re.IGNORECASE)
        if name == "LITERAL":
            return self._place("set", self._number((False, ((value, value),), ignored)), follow)
        if name == "NOT_LITERAL":
            return self._place("set", self._number((True, ((value, value),), ignored)), follow)
        if name == "ANY":
            none = () if flags & re.DOTALL else ((10, 10),)
            return self._place("set", self._number((True, none, False)), follow)
        if name == "IN":
            return self._place("set", self._number((*_ranges(value), ignored)), follow)
        if name == "BRANCH":
            options = [self._unfold(option, follow, flags) for option in value[1]]
            return self._place("either", *options)
        if name == "SUBPATTERN":
            _, added, removed, inner = value
            return self._unfold(inner, follow, (flags | added) & ~removed)
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, inner = value
            return self._repeat(least, most, inner, follow, flags)
        if name in ("ASSERT", "ASSERT_NOT") and value[0] > 0:
            return self._place(
                "ahead", self._unfold(value[1], _ANYTHING, flags), name == "ASSERT_NOT", follow
            )
        if name == "FAILURE":  # (?!)
            return self._place("either")
        raise PatternInvalid(self._pattern, f"{_UNREAD.get(name, name.lower())} cannot be used here")

    def _repeat(self, least: int, most: int, inner: Any, follow: int, flags: int) -> int:
        after = follow
        if most == self._endless:
            after = self._place("either")
            self._places[after] = ("either", self._unfold(inner, after, flags), follow)
        else:
            for _ in range(most - least):
                after = self._place("either", self._unfold(inner, after, flags), follow)
        for _ in range(least):
            before, after = after, self._unfold(inner, after, flags)
            if after == before:  # it holds nothing
                break
        return after

    def _number(self, characters: _Set) -> int:
        return self._sets.setdefault(characters, len(self._sets))

    # states

    def _visit(self) -> None:
        self._visits += 1
        if self._visits > _MOST_VISITS:
            raise _TooLarge(f"its automaton takes more than {_MOST_VISITS:,} steps to find")

    def _at(self, place: int, passed: frozenset[int] = frozenset()) -> _Rest:
        """What the rest of a text must meet at a place of the program; branches are followed, loops once."""
        if not passed and (known := self._after.get(place)) is not None:
            return known
        found: set[Any] = set()
        seen, waiting = {*passed}, [place]
        while waiting:
            one = waiting.pop()
            if one in seen:
                continue
            seen.add(one)
            self._visit()
            kind, *what = self._places[one]
            if kind == "either":
                waiting += what
            elif kind == "ahead":
                inner, negated, follow = what
                ahead = self._at(inner)
                found |= _both(_negated(ahead) if negated else ahead, self._at(follow, frozenset(seen)))
            else:
                found.add(one)
        rest = _ALL if _ANYTHING in found else frozenset(found)
        if not passed:
            self._after[place] = rest
        return rest

    def _step(self, rest: _Rest, bits: bytes) -> _Rest:
        """What must be met after one character; bits: the sets that it lies in."""
        found: set[Any] = set()
        for member in rest:
            self._visit()
            if not isinstance(member, int):
                kind, inner = member
                if kind == "not":
                    found |= _negated(self._step(inner, bits))
                else:
                    met = _ALL
                    for part in inner:
                        met = _both(met, self._step(part, bits))
                    found |= met
            elif member == _ANYTHING:
                return _ALL
            elif member != _END:
                _, number, follow = self._places[member]
                if bits[number >> 3] & (0x80 >> (number & 7)):
                    found |= self._at(follow)
        return _ALL if _ANYTHING in found else frozenset(found)

    def automaton(self, characters: Sequence[str]) -> PatternAutomaton:
        signatures = self._signatures(characters)
        numbers: dict[bytes, int] = {}
        kinds = {
            character: numbers.setdefault(signature, len(numbers))
            for character, signature in zip(characters, signatures, strict=True)
        }
        states: dict[_Rest, int] = {self._at(self._start): 0}
        waiting: list[_Rest] = list(states)
        rows: list[list[int]] = []
        for rest in waiting:  # which grows
            row = []
            for bits in numbers:
                after = self._step(rest, bits)
                if after and after not in states:
                    states[after] = len(states)
                    waiting.append(after)
                row.append(states[after] if after else -1)
            rows.append(row)
            if len(states) > _MOST_STATES:
                raise _TooLarge(f"its automaton has more than {_MOST_STATES:,} states")
            if len(rows) * len(numbers) > _MOST_STEPS:
                raise _TooLarge(f"its automaton has more than {_MOST_STEPS:,} steps")
        final = [_met_by_nothing_more(rest) for rest in states]
        return _merged(kinds, rows, final)

    def _signatures(self, characters: Sequence[str]) -> list[bytes]:
        """Of each character the sets that it lies in, as bits."""
        codes = np.array([[ord(c), _ord(c.lower(), c), _ord(c.upper(), c)] for c in characters], np.int64)
        codes = codes.reshape(-1, 3)
        packed: list[NDArray[np.uint8]] = []
        waiting: list[NDArray[np.bool_]] = []
        for negated, ranges, ignored in self._sets:
            cases = codes if ignored else codes[:, :1]
            inside = np.zeros(cases.shape, np.bool_)
            for low, high in ranges:
                inside |= (cases >= low) & (cases <= high)
            waiting.append(inside.any(axis=1) != negated)
            if len(waiting) == 8:
                packed.append(np.packbits(np.stack(waiting), axis=0))
                waiting = []
        if waiting:
            packed.append(np.packbits(np.stack(waiting), axis=0))
        if not packed:
            return [b""] * len(characters)
        return [row.tobytes() for row in np.ascontiguousarray(np.concatenate(packed).T)]


_UNREAD = {
    "AT": "an anchor (^, $, \\b)",
    "GROUPREF": "a back reference",
    "GROUPREF_EXISTS": "a conditional group",
    "ASSERT": "a look-behind",
    "ASSERT_NOT": "a look-behind",
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "a possessive repetition",
}


def _ranges(items: Any) -> tuple[bool, tuple[tuple[int, int], ...]]:
    """Whether a class of characters is negated, and its ranges of code points."""
    negated, found = False, []
    for operator, value in items:
        name = str(operator)
        if name == "NEGATE":
            negated = True
        elif name == "LITERAL":
            found.append((value, value))
        elif name == "RANGE":
            found.append(value)
        else:
            category = str(value).removeprefix("CATEGORY_")
            ranges = _CATEGORIES[category.removeprefix("NOT_")]
            found += _others(ranges) if category.startswith("NOT_") else ranges
    return negated, tuple(found)


def _others(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The code points outside of ranges that are sorted."""
    ends = [-1, *(high for _, high in ranges)]
    starts = [*(low for low, _ in ranges), _LAST + 1]
    return [(end + 1, start - 1) for end, start in zip(ends, starts, strict=True)]


def _ord(text: str, otherwise: str) -> int:
    return ord(text if len(text) == 1 else otherwise)


def _both(one: _Rest, other: _Rest) -> _Rest:
    if not one or not other:
        return _NOTHING
    parts: set[_Rest] = set()
    for rest in (one, other):
        [*members] = rest
        if len(members) == 1 and isinstance(members[0], tuple) and members[0][0] == "and":
            parts |= members[0][1]
        elif rest != _ALL:
            parts.add(rest)
    if len(parts) < 2:
        return next(iter(parts), _ALL)
    return frozenset((("and", frozenset(parts)),))


def _negated(rest: _Rest) -> _Rest:
    if not rest or rest == _ALL:
        return _NOTHING if rest else _ALL
    return frozenset((("not", rest),))


def _met_by_nothing_more(rest: _Rest) -> bool:
    """Whether a text may end here."""
    for member in rest:
        if isinstance(member, int):
            met = member in (_END, _ANYTHING)
        elif member[0] == "not":
            met = not _met_by_nothing_more(member[1])
        else:
            met = all(map(_met_by_nothing_more, member[1]))
        if met:
            return True
    return False


def _merged(kinds: dict[str, int], rows: list[list[int]], final: list[bool]) -> PatternAutomaton:
    """The automaton with states as one that no text tells apart, numbered as they are first reached."""
    table = np.array(rows, np.int32).reshape(len(rows), -1)
    shortest, longest = _lengths(table, final)
    table[shortest[table] < 0] = -1  # nowhere is where no text can be ended
    # these lengths tell most states apart, so that few rounds are left
    blocks = np.unique(np.stack([shortest, longest]), axis=1, return_inverse=True)[1].reshape(-1)
    effort, count = 0, 0
    while count < (count := int(blocks.max()) + 1):
        effort += len(table) * (table.shape[1] + _ROUND)
        if effort > _MOST_MERGING:
            return PatternAutomaton(kinds, table.tolist(), final)
        keys = np.column_stack([blocks, np.where(table >= 0, blocks[table], -1)]).astype(np.int32)
        numbers: dict[bytes, int] = {}
        blocks = np.array([numbers.setdefault(key.tobytes(), len(numbers)) for key in keys])
    chosen = np.unique(blocks, return_index=True)[1]  # of each block its first state
    chosen.sort()
    number = np.empty(len(chosen), np.int32)
    number[blocks[chosen]] = np.arange(len(chosen))
    merged = np.where(table >= 0, number[blocks[table]], -1)[chosen]
    return PatternAutomaton(kinds, merged.tolist(), [final[state] for state in chosen.tolist()])


def _lengths(table: NDArray[np.int32], final: list[bool]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each state the lengths of the shortest and of the longest text that may still come.

    -1: of the shortest, there is none; of the longest, there is none or no end of them.
    """
    sources, columns = np.nonzero(table >= 0)
    targets = table[sources, columns]
    order = np.argsort(targets, kind="stable")
    starts = np.searchsorted(targets[order], np.arange(len(table) + 1))
    before = [sources[order[starts[state] : starts[state + 1]]] for state in range(len(table))]

    shortest = np.full(len(table), -1, np.int64)
    shortest[final] = 0
    frontier, length = np.flatnonzero(shortest == 0), 0
    while len(frontier):
        length += 1
        reached = np.unique(np.concatenate([before[state] for state in frontier.tolist()]))
        frontier = reached[shortest[reached] < 0]
        shortest[frontier] = length

    longest = np.full(len(table), -1, np.int64)
    left = np.bincount(sources[shortest[targets] >= 0], minlength=len(table))  # steps not yet accounted for
    frontier, length = np.flatnonzero((left == 0) & (shortest >= 0)), 0
    while len(frontier):
        longest[frontier] = length
        length += 1
        reached, times = np.unique(
            np.concatenate([before[state] for state in frontier.tolist()]), return_counts=True
        )
        left[reached] -= times
        frontier = reached[left[reached] == 0]
    return shortest, longest
