"""Forced alignment and likelihood of a chosen text, against brute force and PyTorch."""

from __future__ import annotations

import math

import ctc_matrices
import numpy as np
import pytest
from ctc_brute_force import all_paths, log_softmax, random_frames
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crnn_deploy.decoding_rule import Aggregate
from crnn_deploy.runtime.decoding.alignment import line_of
from crnn_deploy.runtime.decoding.ctc import encode, steps_needed

labellings = st.lists(st.integers(0, 2), max_size=4)
seeds = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=60)
@given(seeds, st.integers(1, 6), st.integers(0, 3), labellings)
def test_characters_lie_where_the_likeliest_path_says_them(
    seed: int, steps: int, blank: int, said: list[int]
) -> None:
    labels = [label + (label >= blank) for label in said]
    assume(steps_needed(labels) <= steps)
    frames = random_frames(seed, steps, 4)
    log_probs = log_softmax(frames.logits[0])  # type: ignore[index]
    paths = [(score, path) for path, found, score in all_paths(frames, blank) if list(found) == labels]
    _, path = max(paths)
    tokens = [*"abcd"]
    text = line_of(frames, 0, "a test").text(labels, tokens, blank, (4.0, 4 * steps - 1), "min")
    read = [blank] * steps
    for char in text.chars:
        label = tokens.index(char.char)
        read[char.start : char.end] = [label] * (char.end - char.start)
        peak = math.exp(log_probs[char.start : char.end, label].max())
        assert char.confidence == pytest.approx(peak, rel=1e-5)
        assert (char.left, char.right) == (4.0 * char.start, min(4.0 * char.end, 4 * steps - 1))
    assert read == list(path)
    assert text.text == "".join(tokens[label] for label in labels)


@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(1, 12), labellings)
def test_the_likelihood_is_that_of_pytorchs_loss(seed: int, steps: int, said: list[int]) -> None:
    torch = pytest.importorskip("torch")
    labels = [label + 1 for label in said]
    frames = random_frames(seed, steps, 4, scale=2.0)
    log_probs = torch.from_numpy(log_softmax(frames.logits[0]))[:, None]  # type: ignore[index]
    loss = torch.nn.functional.ctc_loss(
        log_probs,
        torch.tensor([labels]),
        torch.tensor([steps]),
        torch.tensor([len(labels)]),
        reduction="none",
    )
    found = line_of(frames, 0, "a test").log_likelihood(labels, 0)
    assert found == pytest.approx(-float(loss), abs=1e-4)


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("min", lambda peaks, _: min(peaks)),
        ("mean", lambda peaks, _: sum(peaks) / len(peaks)),
        ("product", lambda peaks, _: math.prod(peaks)),
        ("likelihood", lambda peaks, likelihood: math.exp(likelihood / len(peaks))),
    ],
)
def test_a_line_is_as_sure_as_its_aggregate_says(aggregate: Aggregate, expected: object) -> None:
    line = line_of(random_frames(3, 9, 4), 0, "a test")
    text = line.text([1, 2, 2], [*"-abc"], 0, (1.0, 9), aggregate)
    peaks = [char.confidence for char in text.chars]
    assert callable(expected)
    assert text.confidence == pytest.approx(expected(peaks, line.log_likelihood([1, 2, 2], 0)))


def test_an_empty_text_is_as_sure_as_its_blanks() -> None:
    frames = random_frames(3, 9, 4)
    text = line_of(frames, 0, "a test").text([], [*"-abc"], 0, (1.0, 9), "min")
    blanks = np.exp(log_softmax(frames.logits[0])[:, 0])  # type: ignore[index]
    assert (text.text, text.chars) == ("", ())
    assert text.confidence == pytest.approx(blanks.min(), rel=1e-5)


@ctc_matrices.needs_matrices
def test_the_published_likelihood_of_a_handwritten_line() -> None:
    expected, blank = ctc_matrices.expected("line"), ctc_matrices.BLANK
    labels = encode(expected["ground_truth"], ctc_matrices.ALPHABET, blank)
    found = line_of(ctc_matrices.frames("line"), 0, "a test").log_likelihood(labels, blank)
    assert -found == pytest.approx(float(expected["negative_log_likelihood_of_ground_truth"]), abs=1e-4)
