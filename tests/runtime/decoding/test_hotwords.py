"""Hotwords against a plain count of the characters that lie in them."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from crnn_deploy.runtime.decoding.hotwords import Hotwords

words = st.lists(st.text("abc", min_size=1, max_size=5), max_size=4)


def walk(scorer: Hotwords, text: str) -> tuple[list[float], float]:
    """The weight of each character of a text, and of its end."""
    state, steps = scorer.start(), []
    for char in text:
        state, weight = scorer.step(state, char)
        steps.append(weight)
    return steps, scorer.end(state)


def covered(words: list[str], text: str) -> int:
    """Characters that lie in an occurrence of a word."""
    lower = text.lower()
    spans = [(i, i + len(word)) for word in words for i in range(len(text)) if lower.startswith(word, i)]
    return len({at for start, end in spans for at in range(start, end)})


@given(words, st.text("abcAB", max_size=12), st.sampled_from([0.5, 2.0, -1.0]))
def test_a_text_weighs_as_many_boosts_as_characters_lie_in_hotwords(
    words: list[str], text: str, boost: float
) -> None:
    scorer = Hotwords(words, boost)
    steps, end = walk(scorer, text)
    assert math.isclose(sum(steps) + end, boost * covered(words, text), abs_tol=1e-9)
    assert max(steps, default=-math.inf) <= scorer.ceiling


def test_the_way_through_a_hotword_is_rewarded_at_once() -> None:
    steps, end = walk(Hotwords(["Invoice"], 1.0), "an inv")
    assert (steps, end) == ([0, 0, 0, 1, 1, 1], -3)
