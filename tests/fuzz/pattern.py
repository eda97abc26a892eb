"""Patterns and masks: they become automata within bounds, which agree with Python's re."""

from __future__ import annotations

import math
import re
import signal
import warnings
from itertools import product
from types import FrameType

from harness import fuzz, guided

with guided():
    from crnn_deploy.runtime.decoding.constraints import Constraint, ConstraintImpossible

ALPHABET = ("a", "b", "B", "ä", "1", "-", " ")
TEXTS = ["".join(chars) for length in range(4) for chars in product(ALPHABET, repeat=length)]
SEEDS = (
    "[ab]*a[ab]{20}",
    "(a{1000}){1000}",
    r"\d{2}-[^a-z]+|(?:a|b)*",
    "(?i:b)?.{2}",
    "(?=.*1)(?!aa).*",
    "a??(1-)",
)


class Slow(Exception):
    """Python's re takes too long, as it may."""


def stop(number: int, frame: FrameType | None) -> None:
    raise Slow


def matched(pattern: str) -> list[bool] | None:
    """Whether Python's re matches each text; None where it does not read the pattern, or not in time."""
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 2)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compiled = re.compile(pattern, re.ASCII)
        return [compiled.fullmatch(text) is not None for text in TEXTS]
    except (re.error, Slow, OverflowError, RecursionError, MemoryError, ValueError):
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def target(data: bytes) -> None:
    """A mask, or a pattern and whether each short text meets it."""
    text = data.decode("utf-8", "replace")[:4096]
    if text.startswith("\0"):
        Constraint(mask=text[1:]).compile(ALPHABET, 0)
        return
    try:
        automaton = Constraint(pattern=text).compile(ALPHABET, 0)
    except ConstraintImpossible:
        automaton = None
    if len(text) > 200 or "(?i" in text or "(?-" in text:  # case is Unicode's here
        return
    expected = matched(text)
    if expected is None:
        return
    for one, met in zip(TEXTS, expected, strict=True):
        if automaton is None and not one:  # it may be the only text that meets the pattern
            continue
        assert accepts(automaton, one) == met, (text, one)


def accepts(automaton: object, text: str) -> bool:
    if automaton is None:
        return False
    state, weight = automaton.start(), 0.0  # type: ignore[attr-defined]
    for char in text:
        state, weight = automaton.step(state, char)  # type: ignore[attr-defined]
        if weight == -math.inf:
            return False
    return bool(automaton.end(state) == 0)  # type: ignore[attr-defined]


fuzz(target, [seed.encode() for seed in (*SEEDS, "\0AA-99\\*L")])
