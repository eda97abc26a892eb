"""Lexicons: the words that a beam may say against the rules spelt out, nearest words against rapidfuzz."""

from __future__ import annotations

import math
import os
from pathlib import Path

import ctc_matrices
import numpy as np
import pytest
from ctc_brute_force import all_texts, random_frames
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.runtime.decoding.alignment import DecodingTooLarge, line_of
from crnn_deploy.runtime.decoding.beam import Beam
from crnn_deploy.runtime.decoding.constraints import DecodingImpossible
from crnn_deploy.runtime.decoding.ctc import Frames, encode
from crnn_deploy.runtime.decoding.lexicon import ClosestWord, Lexicon, LexiconInvalid, read_lexicon

LETTERS = "abc"
word_lists = st.lists(st.text(LETTERS, min_size=1, max_size=4), min_size=1, max_size=6)


def weight(lexicon: Lexicon, text: str) -> float:
    """The weight of a whole text."""
    state, total = lexicon.start(), 0.0
    for char in text:
        state, more = lexicon.step(state, char)
        assert more <= lexicon.ceiling
        total += more
    return total + lexicon.end(state)


@given(word_lists, st.text(LETTERS + " .", max_size=9), st.sampled_from([-3.0, -math.inf]))
def test_each_unknown_word_of_a_text_weighs_the_same(words: list[str], text: str, unknown: float) -> None:
    read = "".join(c if c in LETTERS else " " for c in text).split()
    expected = sum((unknown for word in read if word not in words), 0.0)
    assert weight(Lexicon(words, unknown=unknown), text) == expected


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("don't", 0), ("Don't!", 0), ("DON'T", 0), ("dOn't", 1), ("(Paris)", 0), ("paris", 0), ("PARIS", 0),
        ("pari", 1), ("Parisx", 1), ("don", 1), ("42", 0), ("4th", 1), ("avant-garde", 0), ("avant-", 1),
        ("IBM\'s", 0), ("pari\'s", 1), ("IBM\'st", 1), ("Paris\'don\'t", 0),
        ("Paris, don\'t", 0), ("IBM", 0), ("Ibm", 0), ("café", 0), ("cafe", 1), ("", 0), ("--", 0),
    ],
)  # fmt: skip
def test_which_forms_of_a_word_are_known(text: str, unknown: int) -> None:
    words = ["don't", "Paris", "avant-garde", "IBM", "café"]
    assert weight(Lexicon(words), text) == -6 * unknown


def test_where_unknown_words_are_forbidden_nothing_is_free() -> None:
    lexicon = Lexicon(["cat"], unknown=-math.inf)
    weights = [weight(lexicon, text) for text in ("cat", "'cat'", "cat's", "'s", "7")]
    assert weights == [0, 0, *[-math.inf] * 3]


def test_without_accents_the_network_decides_on_them() -> None:
    lexicon = Lexicon(["café", "Ærø"], accents=False)
    assert [weight(lexicon, text) for text in ("cafe", "café", "càfe", "caf", "Aro")] == [0, 0, 0, -6, 0]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), word_lists)
def test_a_beam_says_the_likeliest_known_words(seed: int, steps: int, words: list[str]) -> None:
    frames = random_frames(seed, steps, 4)
    expected = {
        "".join(LETTERS[label - 1] for label in labels): score
        for labels, score in all_texts(frames, 0).items()
        if not labels or "".join(LETTERS[label - 1] for label in labels) in words
    }
    beam = Beam(2000, [(Lexicon(words, unknown=-math.inf), 1.0)], min_probability=0.0, nbest=99)
    [text] = beam.bind(LETTERS, 0)(frames, [(1.0, steps)])
    found = {one.text: one.score for one in text.alternatives}
    assert found == pytest.approx(expected, abs=1e-5)


def test_nothing_known_fits() -> None:
    logits = np.zeros((1, 2, 4), np.float32)
    logits[:, :, 0] = -math.inf  # something must be said
    beam = Beam(scorers=[(Lexicon(["abcabc"], unknown=-math.inf), 1.0)])
    with pytest.raises(DecodingImpossible, match="2 frames"):
        beam.bind(LETTERS, 0)(Frames.from_logits(logits), [(1.0, 2)])


def peaked(text: str, noise: int) -> Frames:
    """Frames of a text that is said clearly, a little noise on top."""
    labels = [label for char in encode(text, LETTERS, 0) for label in (char, 0)]
    logits = np.random.default_rng(noise).normal(size=(1, 2 + len(labels), 4)).astype(np.float32)
    logits[0, np.arange(len(labels)), labels] += 6
    logits[0, len(labels) :, 0] += 6
    return Frames.from_logits(logits)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.text(LETTERS, min_size=1, max_size=8), min_size=1, max_size=30),
    st.text(LETTERS, max_size=8),
    st.integers(0, 3),
    st.integers(0, 99),
)
def test_the_closest_word_is_the_likeliest_within_the_distance(
    words: list[str], said: str, distance: int, noise: int
) -> None:
    levenshtein = pytest.importorskip("rapidfuzz.distance").Levenshtein
    frames = peaked(said, noise)
    pixels = [(1.0, frames.indices.shape[1])]
    [best] = ClosestWord(["c" * 40], 0).bind(LETTERS, 0)(frames, pixels)  # no word is near: the best path
    [text] = ClosestWord(words, distance).bind(LETTERS, 0)(frames, pixels)
    line = line_of(frames, 0, "a test")
    near = {word for word in words if levenshtein.distance(word, best.text) <= distance}
    scores = {word: line.log_likelihood(encode(word, LETTERS, 0), 0) for word in near}
    if max(scores.values(), default=-math.inf) == -math.inf:
        assert text.text == best.text
    else:
        assert text.text in near
        assert scores[text.text] == pytest.approx(max(scores.values()))


def test_the_closest_of_words_beyond_64_characters() -> None:
    long = "abc" * 25
    [text] = ClosestWord([long[1:] + "c", "abc"], 3).bind(LETTERS, 0)(peaked(long, 1), [(1.0, 1)])
    assert text.text == long[1:] + "c"


@ctc_matrices.needs_matrices
def test_the_published_lexicon_search_of_a_handwritten_word() -> None:
    frames, blank = ctc_matrices.frames("word"), ctc_matrices.BLANK
    words = ctc_matrices.corpus("word").split()
    for decoder in (ClosestWord(words), Beam(scorers=[(Lexicon(words), 1.0)])):
        [text] = decoder.bind(ctc_matrices.ALPHABET, blank)(frames, [(1.0, 32)])
        assert text.text == ctc_matrices.expected("word")["lexicon_search"]


def test_word_lists_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    with pytest.raises(LexiconInvalid, match=r"words\.txt: no such file"):
        read_lexicon(path)
    path.write_bytes(b"\n  \n")
    with pytest.raises(LexiconInvalid, match="holds no words"):
        read_lexicon(path)
    path.write_bytes(b"caf\xe9\n")
    with pytest.raises(LexiconInvalid, match="not UTF-8"):
        read_lexicon(path)
    with pytest.raises(LexiconInvalid, match="no words"):
        Lexicon([])
    with pytest.raises(LexiconInvalid, match="can read"):
        ClosestWord(["xyz"]).bind(LETTERS, 0)
    with pytest.raises(ValueError, match="prefer"):
        Lexicon(["a"], unknown=1.0)
    path.write_text("\ufeffone\n two words \n\nthree\n", encoding="utf-8")
    assert read_lexicon(path) == ["one", "two words", "three"]
    path.write_bytes(b"word\n" + b"x" * 10**6)
    with pytest.raises(LexiconInvalid, match="line 2 is longer than 1,024 characters"):
        read_lexicon(path)
    path.write_bytes(b"a\n" * (2**22 + 1))
    with pytest.raises(LexiconInvalid, match="more than 4,194,304 words"):
        read_lexicon(path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(LexiconInvalid, match="not a regular file"):
        read_lexicon(tmp_path / "fifo")


def test_word_lists_have_any_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes("\ufeffone\rtwo\r\nthree\u2028four\n\n five ".encode())
    assert read_lexicon(path) == ["one", "two", "three", "four", "five"]


@pytest.mark.parametrize("characters", [2_000, 40_000])
def test_a_long_text_that_no_word_is_near(characters: int) -> None:
    labels = np.tile([1, 2], characters // 2)  # a matrix of 40,000 squared would take 13 GB
    ones = np.ones((1, characters), np.float32)
    frames = Frames(labels[None], ones, np.eye(4, dtype=np.float32)[labels][None])
    decode = ClosestWord(["abc"], 64).bind(LETTERS, 0)
    if characters == 2_000:
        [text] = decode(frames, [(1.0, 1)])
        assert text.text == "ab" * 1_000
    else:
        with pytest.raises(DecodingTooLarge, match="a text of 40,000 characters would take"):
            decode(frames, [(1.0, 1)])
