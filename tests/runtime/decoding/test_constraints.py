"""What a text may be: against `re`, plain rules, and brute force over all paths."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from ctc_brute_force import all_paths, random_frames
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.runtime.decoding.alignment import DecodingTooLarge, LineLogits, line_of
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.decoding.constraints import (
    Automaton,
    Constraint,
    ConstraintImpossible,
    DecodingImpossible,
    PatternInvalid,
)

ALPHABET = ["a", "b", "B", "ä", "1", "-", "."]
PATTERNS = ["a*b?", "[^a]+", "(ab|b1)*", "a|bb", ".?.?", r"\d+|[a-z]{2}", r"a\.b", "(a|ä)-1", "b{2,3}", "x*a"]
texts = st.text("".join(ALPHABET), max_size=5)


def accepts(automaton: Automaton, text: Sequence[str]) -> bool:
    state = automaton.start()
    for char in text:
        state, weight = automaton.step(state, char)
        if weight == -math.inf:
            return False
    return automaton.end(state) == 0


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_regular_expression_accepts_what_re_matches(pattern: str) -> None:
    automaton = Constraint(pattern=pattern).compile(ALPHABET, 0)
    for length in range(4):
        for chars in product(ALPHABET, repeat=length):
            text = "".join(chars)
            assert accepts(automaton, text) == bool(re.fullmatch(pattern, text)), text


@given(texts, st.text("AaL9X*-\\.", max_size=4))
def test_a_mask_has_one_sign_for_each_character(text: str, mask: str) -> None:
    places = re.findall(r"\\.|[^\\]", mask)
    if "".join(places) != mask:
        with pytest.raises(PatternInvalid, match="backslash"):
            Constraint(mask=mask).compile(ALPHABET, 0)
        return
    kinds = {"A": "B", "a": "abä", "L": "abBä", "9": "1", "X": "abBä1", "*": "".join(ALPHABET)}
    allowed = [kinds.get(place, place[-1]) for place in places]
    expected = len(text) == len(allowed) and all(c in kind for c, kind in zip(text, allowed, strict=True))
    if not allowed or any(not set(kind) & set(ALPHABET) for kind in allowed):
        with pytest.raises(ConstraintImpossible):
            Constraint(mask=mask).compile(ALPHABET, 0)
        return
    assert accepts(Constraint(mask=mask).compile(ALPHABET, 0), text) == expected


@given(
    texts,
    st.sets(st.sampled_from(ALPHABET), min_size=1),
    st.sets(st.sampled_from(ALPHABET)),
    st.integers(0, 3),
    st.integers(3, 6),
)
def test_characters_and_lengths(
    text: str, allow: set[str], block: set[str], shortest: int, longest: int
) -> None:
    constraint = Constraint(allow="".join(allow), block="".join(block), shortest=shortest, longest=longest)
    expected = set(text) <= allow - block and shortest <= len(text) <= longest
    if not allow - block:
        with pytest.raises(ConstraintImpossible):
            constraint.compile(ALPHABET, 3)
        return
    assert accepts(constraint.compile(ALPHABET, 3), text) == expected


def test_tokens_of_several_characters_are_read_whole() -> None:
    automaton = Constraint(pattern="a(bc)+").compile(["a", "b", "bc", "c"], 0)
    accepted = set()
    for length in range(4):
        for tokens in product(["a", "b", "bc", "c"], repeat=length):
            if accepts(automaton, tokens):
                accepted.add(tokens)
            assert (tokens in accepted) == bool(re.fullmatch("a(bc)+", "".join(tokens))), tokens
    assert accepted == {("a", "bc"), ("a", "bc", "bc"), ("a", "b", "c")}


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 5),
    st.integers(0, 2),
    st.sampled_from(
        [{"pattern": "a*b"}, {"pattern": "(ab)*"}, {"mask": "aa"}, {"shortest": 2}, {"block": "a"}]
    ),
)
def test_the_constrained_best_path_is_the_likeliest_that_is_allowed(
    seed: int, steps: int, blank: int, rules: dict[str, str]
) -> None:
    frames = random_frames(seed, steps, 3)
    automaton = Constraint(**rules).compile("ab", blank)  # type: ignore[arg-type]
    allowed = [
        (score, labels)
        for _, labels, score in all_paths(frames, blank)
        if accepts(automaton, "".join(automaton.tokens[label] for label in labels))
    ]
    line = line_of(frames, 0, "a test")
    if not allowed:
        with pytest.raises(DecodingImpossible, match=f"{steps} frames"):
            automaton.best_path(line)
    else:
        assert tuple(automaton.best_path(line)) == max(allowed)[1]


@pytest.mark.parametrize(
    ("constraint", "says"),
    [
        (Constraint(mask="AA9"), "mask 'AA9'"),
        (Constraint(allow="a€"), "'€'"),
        (Constraint(allow="a", block="a", shortest=1), "block 'a'"),
        (Constraint(shortest=3, longest=2), "from 3 to 2"),
        (Constraint(mask="aa", longest=1), "mask 'aa', longest 1"),
        (Constraint(pattern="x+"), "pattern"),
        (Constraint(allow=""), "only the empty text meets allow ''"),
        (Constraint(mask=""), "only the empty text meets mask ''"),
        (Constraint(pattern="(a{0})?"), "only the empty text meets pattern '(a{0})?'"),
        (Constraint(pattern="x*"), "only the empty text meets pattern 'x*'"),
        (Constraint(longest=0), "only the empty text meets longest 0"),
        (Constraint(block="ab1"), "only the empty text meets block 'ab1'"),
    ],
)
def test_what_no_text_can_meet_says_so_at_once(constraint: Constraint, says: str) -> None:
    with pytest.raises(ConstraintImpossible, match=re.escape(says)):
        constraint.compile("ab1", 0)


@pytest.mark.parametrize("pattern", ["a(", "[", "^a", r"(a)\1", "a{2,1}", "*"])
def test_a_pattern_that_cannot_be_read(pattern: str) -> None:
    with pytest.raises(PatternInvalid, match="cannot be read"):
        Constraint(pattern=pattern).compile("ab", 0)


BOMBS = [
    ("[ab]*a[ab]{20}", "more than 16,384 states"),
    ("(a{1000}){1000}", "unfolded it has more than"),
    (".{0,100000}", "unfolded it has more than"),
    ("a{4000000000}", "unfolded it has more than"),
    ("(a?){5000}", "steps to find"),
    ("(" * 3000 + "a" + ")" * 3000, "nested too deeply"),
    ("(.*a.{9}){9}", "more than"),
]


@pytest.mark.parametrize(("pattern", "says"), BOMBS, ids=range(len(BOMBS)))
def test_a_pattern_whose_automaton_would_be_large_is_one_line(pattern: str, says: str) -> None:
    with pytest.raises(PatternInvalid, match=says) as caught:
        Constraint(pattern=pattern).compile("ab", 0)
    assert len(str(caught.value)) < 200


def test_a_pattern_in_a_manifest_is_bounded_too() -> None:
    with pytest.raises(PatternInvalid, match="make it simpler"):
        decoder_of(DecodingRule(pattern="[ab]*a[ab]{20}")).bind("ab", 0)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("[\\0-\U0010ffff]" * 500, "a" * 500),
        ("(){4000000000}a", "a"),
        ("((a*)*)*", "aaa"),
        (".{10000}", "b" * 10_000),
        ("|".join(f"{'ab' * (i % 7)}b{'a' * i}" for i in range(80)), "abba"),
    ],
)
def test_large_patterns_that_are_harmless_work(pattern: str, text: str) -> None:
    assert accepts(Constraint(pattern=pattern).compile(ALPHABET, 0), text)


def test_a_mask_of_a_whole_line_over_thousands_of_characters() -> None:
    alphabet = [chr(0x4E00 + i) for i in range(6736)] + ["A", "B"]
    automaton = Constraint(mask="A" * 10_000).compile(alphabet, 0)
    assert len(automaton.label) == 20_000
    with pytest.raises(ConstraintImpossible, match="1,048,576 transitions; make it simpler"):
        Constraint(longest=10_000).compile(alphabet, 0)


def test_a_path_that_would_take_gigabytes_is_refused() -> None:
    automaton = Constraint(longest=100).compile([chr(0x4E00 + i) for i in range(6736)], 0)
    logits = np.broadcast_to(np.zeros((1, 1), np.float32), (4000, 6737))
    with pytest.raises(DecodingTooLarge, match=r"673,600 transitions would take .* 4,000 frames"):
        automaton.best_path(LineLogits(logits, np.zeros(4000)))


PIECES = ["a", "b", "B", "ä", ".", "1", "[ab]", "[^a]", r"\d", r"\w", r"[^\W\d]", "-", r"\."]
patterns = st.recursive(
    st.sampled_from(PIECES),
    lambda inner: (
        st.builds("{}{}".format, inner, inner)
        | st.builds("({}|{})".format, inner, inner)
        | st.builds("(?:{}){}".format, inner, st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{,2}", "*?"]))
        | st.builds("(?={}){}".format, inner, inner)
        | st.builds("(?!{}){}".format, inner, inner)
    ),
    max_leaves=7,
)


@settings(deadline=None, max_examples=300)
@given(patterns, st.lists(texts, min_size=20, max_size=20))
def test_any_pattern_accepts_what_re_matches(pattern: str, some: list[str]) -> None:
    try:
        automaton = Constraint(pattern=pattern).compile(ALPHABET, 0)
    except ConstraintImpossible:
        assert not any(re.fullmatch(pattern, text, re.ASCII) for text in some if text)
        return
    for text in ["", *ALPHABET, *some]:
        assert accepts(automaton, text) == bool(re.fullmatch(pattern, text, re.ASCII)), text
