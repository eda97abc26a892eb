"""CTC labels and best path against itertools.groupby, softmax against float64."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from itertools import groupby
from typing import Any

import ctc_matrices
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.errors import CharacterUnknown
from crnn_deploy.runtime.decoding.ctc import Char, Frames, Text, decode, decode_indices, encode, raw_decode

# single characters and tokens of several code points, one the beginning of another
alphabets = st.lists(
    st.one_of(
        st.sampled_from(["a", "b", "ab", "abc", "e\u0301", "皖", "क्ष", "👩‍🔬"]),
        st.text(min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=12,
    unique=True,
)


@st.composite
def paths(draw: st.DrawFn) -> tuple[list[str], int, list[list[int]]]:
    """An alphabet, a blank and a batch of rows of class indices."""
    alphabet = draw(alphabets)
    blank = draw(st.integers(0, len(alphabet)))
    steps = draw(st.integers(1, 15))
    row = st.lists(st.integers(0, len(alphabet)), min_size=steps, max_size=steps)
    return alphabet, blank, draw(st.lists(row, min_size=1, max_size=4))


def reference(row: list[int], alphabet: list[str], blank: int) -> list[tuple[str, int, int]]:
    """Token, first frame and end of each character."""
    classes = [*alphabet[:blank], "", *alphabet[blank:]]
    runs = [list(run) for _, run in groupby(enumerate(row), key=lambda pair: pair[1])]
    return [(classes[run[0][1]], run[0][0], run[-1][0] + 1) for run in runs if run[0][1] != blank]


@given(paths(), st.data())
def test_decode_is_runs_merged_and_blanks_dropped(path: Any, data: Any) -> None:
    alphabet, blank, rows = path
    probability = st.floats(0.125, 1, width=32)
    row_of = st.lists(probability, min_size=len(rows[0]), max_size=len(rows[0]))
    probabilities = data.draw(st.lists(row_of, min_size=len(rows), max_size=len(rows)))
    scales = data.draw(
        st.lists(st.tuples(st.floats(0.25, 9), st.integers(1, 80)), min_size=len(rows), max_size=len(rows))
    )
    texts = decode(Frames(np.array(rows), np.array(probabilities, np.float32)), alphabet, blank, scales)
    assert len(texts) == len(rows)
    for text, row, peaks, (pixels, width) in zip(texts, rows, probabilities, scales, strict=True):
        expected = reference(row, alphabet, blank)
        assert [(c.char, c.start, c.end) for c in text.chars] == expected
        assert text.text == "".join(token for token, _, _ in expected) == decode_indices(row, alphabet, blank)
        assert [c.confidence for c in text.chars] == [max(peaks[start:end]) for _, start, end in expected]
        assert text.confidence == min((c.confidence for c in text.chars), default=min(peaks))
        assert [(c.left, c.right) for c in text.chars] == [
            (min(start * pixels, width), min(end * pixels, width)) for _, start, end in expected
        ]


@given(paths(), st.data())
def test_a_text_survives_its_ctc_path(path: Any, data: Any) -> None:
    alphabet, blank, _ = path
    text = "".join(data.draw(st.lists(st.sampled_from(alphabet), max_size=8)))
    try:
        labels = encode(text, alphabet, blank)
    except CharacterUnknown:  # the longest token first is not always a way through
        assert max(map(len, alphabet)) > 1
        return
    assert blank not in labels
    row = [blank] * data.draw(st.integers(0, 2))
    for label in labels:
        row += [label] * data.draw(st.integers(1, 3)) + [blank] * data.draw(st.integers(1, 2))
    assert decode_indices(row, alphabet, blank) == text


def test_encode_takes_the_longest_token_and_names_what_it_does_not_know() -> None:
    assert encode("abcab", ["a", "b", "ab", "abc"], blank=1) == [4, 3]
    assert encode("AbA", ["a", "b"], blank=0, ignore_case=True) == [1, 2, 1]
    assert encode("", ["a"], blank=0) == []
    with pytest.raises(CharacterUnknown, match=r"'!'.*'a!'"):
        encode("a!", ["a", "b"], blank=0)
    with pytest.raises(CharacterUnknown, match="'A'"):
        encode("A", ["a"], blank=0)


def test_the_published_example_of_crnn_pytorch() -> None:
    """README of meijieru/crnn.pytorch: `a-----v--a-i-l-a-bb-l-ee-- => available`."""
    alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
    raw = "a-----v--a-i-l-a-bb-l-ee--"
    row = [0 if mark == "-" else alphabet.index(mark) + 1 for mark in raw]
    assert raw_decode(row, alphabet, 0) == raw
    assert decode_indices(row, alphabet, 0) == "available"
    [text] = decode(Frames(np.array([row]), np.ones((1, 26), np.float32)), alphabet, 0, [(4.0, 100)])
    assert text.text == "available"
    assert text.chars[-1].right == 96.0


@ctc_matrices.needs_matrices
@pytest.mark.parametrize("name", ["line", "word"])
def test_published_best_paths(name: str) -> None:
    frames = ctc_matrices.frames(name)
    [text] = decode(frames, ctc_matrices.ALPHABET, ctc_matrices.BLANK, [(1.0, 100)])
    assert text.text == ctc_matrices.expected(name)["best_path"]


def test_frames_past_the_image_end_at_its_right_edge() -> None:
    [text] = decode(Frames(np.array([[0, 1, 1]]), np.ones((1, 3), np.float32)), "a", 0, [(10.0, 15)])
    assert [(c.left, c.right) for c in text.chars] == [(10.0, 15)]


def test_a_decoded_text_is_the_same_dataclass_as_one_made_by_hand() -> None:
    frames = Frames(np.array([[1, 1, 0, 2]]), np.array([[0.5, 0.75, 1, 0.25]], np.float32))

    def decoded() -> Text:
        return decode(frames, "ab", 0, [(2.0, 7)])[0]

    made = Text("ab", 0.25, (Char("a", 0.75, 0, 2, 0.0, 4.0), Char("b", 0.25, 3, 4, 6.0, 7)))
    assert decoded() == made and hash(decoded()) == hash(made) and repr(decoded()) == repr(made)
    assert pickle.loads(pickle.dumps(decoded())) == made and copy.deepcopy(decoded()) == made
    assert dataclasses.asdict(decoded()) == dataclasses.asdict(made)
    assert dataclasses.replace(decoded(), confidence=1.0).chars == made.chars
    assert decoded().chars[1].char == "b" and decoded().alternatives == ()
    for name in ("text", "chars", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(decoded(), name, "")
    with pytest.raises(AttributeError, match="other"):
        _ = decoded().other  # type: ignore[attr-defined]


def test_no_frames_give_an_empty_text() -> None:
    empty = Frames(np.zeros((2, 0), np.int64), np.zeros((2, 0), np.float32))
    assert [(t.text, t.confidence, t.chars) for t in decode(empty, "a", 0, [(1.0, 1)] * 2)] == [
        ("", 0.0, ())
    ] * 2


@pytest.mark.parametrize("classes", [2, 3, 37, 1000, 7000])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("steps", [1, 26])
def test_probability_is_softmax_in_float64(classes: int, scale: float, steps: int) -> None:
    logits = (np.random.default_rng(classes).normal(size=(2, steps, classes)) * scale).astype(np.float32)
    exact = logits.astype(np.float64)
    exact = np.exp(exact - exact.max(axis=2, keepdims=True))
    exact /= exact.sum(axis=2, keepdims=True)
    frames = Frames.from_logits(logits)
    assert frames.probabilities.dtype == np.float32
    assert (frames.indices == exact.argmax(axis=2)).all()
    np.testing.assert_allclose(frames.probabilities, exact.max(axis=2), rtol=2e-6)


def test_log_probabilities_give_the_same_frames_as_logits() -> None:
    logits = np.random.default_rng(1).normal(size=(3, 9, 40)).astype(np.float32)
    log_probs = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    frames, same = Frames.from_logits(logits), Frames.from_logits(log_probs)
    assert (frames.indices == same.indices).all()
    np.testing.assert_allclose(frames.probabilities, same.probabilities, rtol=1e-5)


@given(
    st.integers(1, 9),
    st.integers(1, 30),
    st.sampled_from([2, 3, 11, 37, 129, 1025]),
    st.sampled_from([0.0, 1.0, 20.0, 1e4]),
    st.booleans(),
    st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=60)
def test_a_row_is_bitwise_the_same_alone_and_in_any_batch(
    n: Any, steps: Any, classes: Any, scale: Any, time_first: Any, seed: Any
) -> None:
    logits = (np.random.default_rng(seed).normal(size=(n, steps, classes)) * scale).astype(np.float32)
    if time_first:  # networks that put out (T, N, classes), seen batch first
        logits = np.ascontiguousarray(logits.swapaxes(0, 1)).swapaxes(0, 1)
    together = Frames.from_logits(logits)
    for row in range(n):
        alone = Frames.from_logits(np.ascontiguousarray(logits[row : row + 1]))
        assert alone.indices[0].tobytes() == together.indices[row].tobytes()
        assert alone.probabilities[0].tobytes() == together.probabilities[row].tobytes()
