"""Prefix beam search against brute force over all paths, other decoders and published outputs."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ctc_matrices
import numpy as np
import pytest
from ctc_brute_force import Labels, all_texts, random_frames
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crnn_deploy.runtime.decoding.alignment import DecodingTooLarge, line_of
from crnn_deploy.runtime.decoding.beam import Beam, BeamDecode
from crnn_deploy.runtime.decoding.constraints import Constraint, DecodingImpossible
from crnn_deploy.runtime.decoding.ctc import Frames, LogitsMissing
from crnn_deploy.runtime.decoding.lm import train

WIDE: dict[str, Any] = {"width": 2000, "min_probability": 0.0, "nbest": 2000}

seeds = st.integers(0, 2**32 - 1)


class Taste:
    """A scorer as a user may write one: weights by a character and the one before, drawn by a seed."""

    def __init__(self, seed: int, forbids: float = 0.2) -> None:
        self._seed, self._forbids = seed, forbids

    def start(self) -> str:
        return "^"

    def step(self, state: str, char: str) -> tuple[str, float]:
        rng = np.random.default_rng([self._seed, ord(state), ord(char)])
        return char, -math.inf if rng.random() < self._forbids else rng.normal() * 2

    def end(self, state: str) -> float:
        return self.step(state, "$")[1]

    def total(self, text: str) -> float:
        weights = [self.step(one, other)[1] for one, other in zip("^" + text, text, strict=False)]
        return sum(weights) + self.end(text[-1:] or "^")


class Modest(Taste):
    """The same taste, which says what its weights are at most."""

    ceiling = 0.0

    def step(self, state: str, char: str) -> tuple[str, float]:
        state, weight = super().step(state, char)
        return state, -abs(weight)


def found_by(beam: Beam, frames: Frames, tokens: str, blank: int) -> dict[Labels, float]:
    decode = BeamDecode(beam, tokens[:blank] + tokens[blank + 1 :], blank)
    found = decode.search(line_of(frames, 0, "a test"))
    scores = [one.score for one in found]
    assert scores == sorted(scores, reverse=True) and len({one.labels for one in found}) == len(found)
    return {one.labels: one.score for one in found}


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(1, 5), st.integers(0, 2))
def test_a_wide_beam_finds_every_text_with_its_probability(seed: int, steps: int, blank: int) -> None:
    frames = random_frames(seed, steps, 3)
    found = found_by(Beam(**WIDE), frames, "abc", blank)
    assert found == pytest.approx(all_texts(frames, blank), abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(1, 5), st.integers(0, 2), st.sampled_from([Taste, Modest]), st.booleans())
def test_scorers_and_the_bonus_add_to_the_probability_or_forbid(
    seed: int, steps: int, blank: int, taste: type[Taste], two: bool
) -> None:
    frames = random_frames(seed, steps, 3)
    scorers = [(taste(seed), 0.7), (taste(seed + 1, 0.0), 1.5)][: 1 + two]
    expected = {}
    for labels, score in all_texts(frames, blank).items():
        text = "".join("abc"[label] for label in labels)
        score += sum(weight * scorer.total(text) for scorer, weight in scorers) + 0.3 * len(text)
        if score > -math.inf:
            expected[labels] = score
    beam = Beam(scorers=scorers, bonus=0.3, **WIDE)
    if not expected:
        with pytest.raises(DecodingImpossible):
            found_by(beam, frames, "abc", blank)
    else:
        assert found_by(beam, frames, "abc", blank) == pytest.approx(expected, abs=1e-5)


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(1, 5), st.sampled_from(["a*b?", "[^a]+", "(ab|b)*", "a|bb", "b?"]))
def test_a_constraint_leaves_what_the_regular_expression_matches(seed: int, steps: int, pattern: str) -> None:
    frames = random_frames(seed, steps, 3)
    expected = {
        labels: score
        for labels, score in all_texts(frames, 2).items()
        if re.fullmatch(pattern, "".join("ab"[label] for label in labels))
    }
    beam = Beam(constraint=Constraint(pattern=pattern), **WIDE)
    assert found_by(beam, frames, "ab ", 2) == pytest.approx(expected, abs=1e-5)


@settings(deadline=None, max_examples=50)
@given(seeds, st.integers(1, 8), st.integers(1, 4), st.integers(1, 4))
def test_a_narrow_beam_promises_no_more_than_there_is(seed: int, steps: int, width: int, most: int) -> None:
    frames = random_frames(seed, steps, 4, scale=3.0)
    narrow = found_by(Beam(width=width, classes=most, nbest=width), frames, "abcd", 0)
    line = line_of(frames, 0, "a test")
    assert 1 <= len(narrow) <= width
    for labels, score in narrow.items():
        assert score <= line.log_likelihood(labels, 0) + 1e-9


def test_a_scorer_that_says_its_ceiling_is_asked_less_and_answered_alike() -> None:
    frames, asked = random_frames(3, 40, 12, scale=3.0), []

    class Counted(Modest):
        def step(self, state: str, char: str) -> tuple[str, float]:
            asked.append(char)
            _, weight = super().step(state[-1], char)
            return state + char, weight

    class Silent(Counted):
        ceiling = math.inf

    results, counts = [], []
    for taste in (Counted, Silent):
        asked.clear()
        results.append(found_by(Beam(scorers=[(taste(5), 1.0)], nbest=10), frames, "abcdefghijkl", 0))
        counts.append(len(asked))
    assert results[0] == results[1]
    assert counts[0] < 0.7 * counts[1]


def test_what_a_scorer_may_not_answer() -> None:
    class Broken(Taste):
        def step(self, state: str, char: str) -> tuple[str, float]:
            return char, math.nan

    with pytest.raises(ValueError, match="a scorer weighs 'b' as nan"):
        found_by(Beam(scorers=[(Broken(1), 1.0)]), random_frames(1, 1, 2), "ab", 0)


@pytest.mark.parametrize("blank", [0, 3000, 6735])
def test_6736_classes_read_as_the_few_that_matter_do(blank: int) -> None:
    few = random_frames(1, 30, 5, scale=4.0)
    assert few.logits is not None
    classes = np.sort(
        np.random.default_rng(blank).choice(np.delete(np.arange(6736), blank), 4, replace=False)
    )
    logits = np.full((1, 30, 6736), -60, np.float32)
    logits[:, :, blank] = few.logits[:, :, 0]
    logits[:, :, classes] = few.logits[:, :, 1:]
    tokens = "".join(map(chr, range(0x4E00, 0x4E00 + 6736)))
    many = found_by(Beam(nbest=5), Frames.from_logits(logits), tokens, blank)
    expected = found_by(Beam(nbest=5), few, "abcde", 0)
    renamed = {tuple(int(classes[label - 1]) for label in labels): s for labels, s in expected.items()}
    assert many == pytest.approx(renamed, abs=1e-4)


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(1, 6))
def test_a_line_is_read_alike_alone_in_a_batch_and_in_threads(seed: int, rows: int) -> None:
    alphabet, pixels = "abcde", [(4.0, 60)] * rows
    frames = random_frames(seed, 15, 6, scale=3.0, rows=rows)
    assert frames.logits is not None
    beam = Beam(width=4, scorers=[(train(["abba", "deed", "cab"], 3), 0.5)], nbest=3)
    together = beam.bind(alphabet, 0)(frames, pixels)
    one_by_one = beam.bind(alphabet, 0)
    alone = [Frames.from_logits(frames.logits[row : row + 1]) for row in range(rows)]
    with ThreadPoolExecutor(3) as threads:
        separate = [text for [text] in threads.map(one_by_one, alone, [pixels[:1]] * rows)]
    assert together == separate
    assert all(text.alternatives[0].text == text.text for text in together)


def test_lines_that_cannot_be_read() -> None:
    frames = random_frames(1, 4, 3)
    with pytest.raises(DecodingImpossible, match="4 frames"):
        Beam(constraint=Constraint(shortest=5)).bind("ab", 0)(frames, [(1.0, 4)])
    with pytest.raises(LogitsMissing, match="--graph-output logits"):
        Beam().bind("ab", 0)(Frames(frames.indices, frames.probabilities), [(1.0, 4)])
    broken = Frames.from_logits(np.full((1, 4, 3), np.nan, np.float32))
    [text] = Beam().bind("ab", 0)(broken, [(1.0, 4)])
    assert text.text == "" and math.isnan(text.confidence)
    [empty] = Beam().bind("ab", 0)(Frames.from_logits(np.zeros((1, 0, 3), np.float32)), [(1.0, 4)])
    assert (empty.text, empty.confidence, empty.chars) == ("", 0.0, ())
    with pytest.raises(ValueError, match="at least"):
        Beam(width=0)


def test_a_beam_that_would_take_gigabytes_is_refused() -> None:
    with pytest.raises(DecodingTooLarge, match=r"a beam of 1,000,000 would take .* 20 frames"):
        Beam(1_000_000).bind("ab", 0)(random_frames(0, 20, 3), [(1.0, 20)])


def test_a_text_that_the_network_thinks_unlikely_is_found_where_nothing_else_is_allowed() -> None:
    logits = np.full((1, 12, 4), -30, np.float32)
    logits[0, :, 0] = 0
    logits[0, ::3, 1] = 30  # aaaa
    [text] = Beam(constraint=Constraint(mask="bcb"), nbest=2).bind("abc", 0)(
        Frames.from_logits(logits), [(1.0, 12)]
    )
    assert text.text == text.alternatives[0].text == "bcb"


def posteriors(seed: int, steps: int, classes: int) -> NDArray[np.float32]:
    """Logits as peaked as a trained network's: now the blank, now a class and now and then a doubt."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(steps, classes)).astype(np.float32)
    spoken = np.where(rng.random(steps) < 0.6, 0, rng.integers(1, classes, steps))
    logits[np.arange(steps), spoken] += rng.normal(7, 2, steps).astype(np.float32)
    doubt = np.flatnonzero(rng.random(steps) < 0.3)
    logits[doubt, rng.integers(0, classes, len(doubt))] += 6
    return logits


def test_as_fast_ctc_decode() -> None:
    other = pytest.importorskip("fast_ctc_decode")
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
    decode = BeamDecode(Beam(width=25, classes=37, min_probability=0.0), alphabet, 0)
    for seed in range(40):
        frames = Frames.from_logits(posteriors(seed, 40, 37)[None])
        assert frames.logits is not None
        probabilities = np.exp(frames.logits[0] - np.log(np.exp(frames.logits[0]).sum(1, keepdims=True)))
        theirs, _ = other.beam_search(probabilities, "_" + alphabet, 25, 0.0)
        [ours] = decode(frames, [(4.0, 160)])
        assert ours.text == theirs


_PROGRAM = """
import json, sys
if sys.argv[1] == "plain":
    sys.modules["numba"] = None
sys.path.insert(0, sys.argv[2])
import numpy as np
from test_beam import posteriors
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.runtime.decoding.beam import Beam
from crnn_deploy.runtime.decoding.compiled import COMPILED
from crnn_deploy.runtime.decoding.constraints import Constraint
from crnn_deploy.runtime.decoding.lm import train
assert COMPILED == (sys.argv[1] == "compiled")
frames = Frames.from_logits(np.stack([posteriors(seed, 30, 20) for seed in range(8)]))
found = []
for beam in (
    Beam(nbest=5, aggregate="likelihood"),
    Beam(nbest=5, scorers=[(train(["abcdef", "defabc"], 3), 0.5)], bonus=1.0),
    Beam(nbest=5, constraint=Constraint(mask="aXaaX*")),
):
    for text in beam.bind("abcdefghijklmnopqrs", 0)(frames, [(4.0, 120)] * 8):
        places = [(c.char, c.start, c.end) for c in text.chars]
        scores = [a.score for a in text.alternatives]
        found.append([[a.text for a in text.alternatives], places, scores, text.confidence])
print(json.dumps(found))
"""


def test_compiled_and_plain_python_give_the_same() -> None:
    pytest.importorskip("numba")
    compiled, plain = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", _PROGRAM, how, str(Path(__file__).parent)],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for how in ("compiled", "plain")
    )
    for one, other in zip(compiled, plain, strict=True):
        assert one[:2] == other[:2]
        assert one[2] == pytest.approx(other[2], abs=1e-9)
        assert one[3] == pytest.approx(other[3], abs=1e-9)


class Bigrams:
    """The published character model: unsmoothed bigrams of its corpus, at a hundredth of their weight."""

    def __init__(self, corpus: str) -> None:
        self._corpus = corpus

    def start(self) -> str:
        return " "

    def step(self, state: str, char: str) -> tuple[str, float]:
        seen = self._corpus.count(state + char)
        return char, 0.01 * math.log(seen / self._corpus.count(state)) if seen else -math.inf

    def end(self, state: str) -> float:
        return 0.0


@ctc_matrices.needs_matrices
@pytest.mark.parametrize("method", ["beam_search", "beam_search_char_bigram_lm"])
def test_published_beam_searches_of_a_handwritten_line(method: str) -> None:
    scorers = [(Bigrams(ctc_matrices.corpus("line")), 1.0)] if method.endswith("lm") else []
    decode = Beam(width=25, scorers=scorers).bind(ctc_matrices.ALPHABET, ctc_matrices.BLANK)
    [text] = decode(ctc_matrices.frames("line"), [(1.0, 100)])
    assert text.text == ctc_matrices.expected("line")[method]
