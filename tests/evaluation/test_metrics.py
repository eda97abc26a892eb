"""Metrics against a table of edits, brute-force counts and the definition of the interval."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn_deploy.metrics import Score, alphanumeric, score, wilson

TEXTS = st.text("abB1 é?", max_size=6)
PAIRS = st.lists(st.tuples(TEXTS, st.none() | TEXTS), max_size=8)


def distance(a: str, b: str) -> int:
    """Levenshtein's distance by the whole table (Wagner and Fischer 1974)."""
    table = [[i + j for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (x != y))
    return table[-1][-1]


@given(PAIRS)
def test_counts_equal_brute_force(pairs: list[tuple[str, str | None]]) -> None:
    read = [(truth, prediction) for truth, prediction in pairs if prediction is not None]
    unread = [truth for truth, prediction in pairs if prediction is None]
    result = score(pairs)
    assert result.images == len(pairs)
    assert result.exact == sum(truth == prediction for truth, prediction in read)
    assert result.characters == len("".join(truth for truth, _ in pairs))
    assert result.edits == sum(distance(*pair) for pair in read) + len("".join(unread))
    normalized = [Fraction(distance(a, b), max(len(a), len(b))) for a, b in read if a or b]
    assert result.normalized_edits == sum(normalized) + len(unread)
    kept = "abcdefghijklmnopqrstuvwxyzé0123456789"
    loose = [["".join(c for c in text.lower() if c in kept) for text in pair] for pair in read]
    assert result.alphanumeric == sum(a == b for a, b in loose)


@given(PAIRS, PAIRS)
def test_scores_add_up(some: list[tuple[str, str | None]], others: list[tuple[str, str | None]]) -> None:
    assert score(some) + score(others) == score(some + others)
    assert score(some) + Score() == score(some)


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_compared_as_the_benchmarks_do(text: str) -> None:
    assert alphanumeric(text) == re.sub("[^0123456789abcdefghijklmnopqrstuvwxyz]", "", text.lower())


def test_figures() -> None:
    result = score([("Café", "cafe"), ("kitten", "sitting"), ("?!", "..."), ("ab", "ab"), ("xy", None)])
    assert (result.images, result.exact, result.alphanumeric) == (5, 1, 2)
    assert (result.edits, result.characters) == (2 + 3 + 3 + 0 + 2, 16)
    assert result.normalized_edits == Fraction(2, 4) + Fraction(3, 7) + 1 + 0 + 1
    assert result.accuracy == 0.2 and result.alphanumeric_accuracy == 0.4 and result.cer == 10 / 16
    assert result.one_minus_ned == pytest.approx(1 - (0.5 + 3 / 7 + 2) / 5, rel=1e-15)


def test_code_points_are_compared_as_they_are() -> None:
    assert score([("\u00e9", "e\u0301")]) == Score(1, 0, 0, 2, 1, Fraction(1))


def test_nothing_has_no_figures() -> None:
    plain = Score().to_plain()
    assert math.isnan(Score().accuracy) and math.isnan(Score().one_minus_ned)
    assert plain["accuracy"] is plain["cer"] is plain["one_minus_ned"] is None
    assert math.isnan(score([("", "a")]).cer) and score([("", "a")]).one_minus_ned == 0
    assert score([("", "")]).one_minus_ned == 1 and score([("", None)]).exact == 0


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_shares_that_a_normal_test_does_not_reject(counts: tuple[int, int]) -> None:
    successes, trials = counts
    share = successes / trials
    low, high = wilson(successes, trials)
    assert 0 <= low <= share <= high <= 1
    for bound in (low, high):  # of a share p there, the observed one lies 1.96 deviations away
        if 1e-9 < bound < 1 - 1e-9:
            deviations = abs(share - bound) / math.sqrt(bound * (1 - bound) / trials)
            assert deviations == pytest.approx(1.959964, abs=1e-4)


def test_the_interval_of_newcombe() -> None:
    """Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3."""
    for counts, wanted in {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605)}.items():
        assert wilson(*counts) == pytest.approx(wanted, abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson(0, 0) == (0, 1)
