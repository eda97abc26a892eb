"""Scores are read for what they are, whatever an older manifest calls them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crnn_deploy.manifest import Manifest, OutputKind, StepRule, WidthRule
from crnn_deploy.runtime.backends.outputs import are_probabilities, frames_of, in_parts

MANIFEST = Manifest(
    alphabet=tuple("0123456789"),
    blank=0,
    color="gray",
    height=32,
    width=WidthRule(32, 400),
    mean=(0.5,),
    std=(0.5,),
    interpolation="linear",
    steps=StepRule(4, 0),
)
IMAGES = np.zeros((3, 1, 32, 64), np.float32)


def logits(seed: int, scale: float) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, scale, (3, 16, 11)).astype(np.float32)


def softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(scores - scores.max(axis=2, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=2, keepdims=True), np.float32)


@settings(deadline=None)
@given(
    st.integers(0, 1000), st.sampled_from([0.1, 1.0, 10.0, 100.0]), st.sampled_from([np.float32, np.float16])
)
def test_confidences_do_not_hang_on_what_a_graph_ends_in(seed: int, scale: float, kind: type) -> None:
    """Logits, log-probabilities, and probabilities that a manifest takes for logits give the same."""
    scores = logits(seed, scale)
    expected = softmax(scores)
    with np.errstate(divide="ignore"):
        ends: list[tuple[NDArray[np.float32], OutputKind]] = [
            *((scores, "logits"), (np.log(expected), "log-probs"), (np.log(expected), "logits")),
            (expected.astype(kind), "logits"),
        ]
    for out, output in ends:
        frames = frames_of([out], IMAGES, replace(MANIFEST, output=output), Path("x.onnx"))
        close = 2e-3 if out.dtype == np.float16 else 1e-5
        np.testing.assert_allclose(frames.probabilities, expected.max(axis=2), atol=close)
        if out.dtype == np.float32:
            np.testing.assert_array_equal(frames.indices, scores.argmax(axis=2))
        alone = [
            frames_of([out[at : at + 1]], IMAGES[:1], frames_manifest(output), Path("x")) for at in range(3)
        ]
        np.testing.assert_array_equal(np.concatenate([one.logits for one in alone]), frames.logits)


def frames_manifest(output: OutputKind) -> Manifest:
    return replace(MANIFEST, output=output)


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        (softmax(logits(0, 3)), True),
        (np.eye(11, dtype=np.float32)[None, :5], True),
        (logits(0, 3), False),
        (np.abs(logits(0, 3)), False),
        (1 / (1 + np.exp(-logits(0, 3))), False),
        (softmax(logits(0, 3).transpose(0, 2, 1)).transpose(0, 2, 1), False),
        (np.full((1, 4, 11), np.nan, np.float32), False),
        (np.zeros((1, 0, 11), np.float32), False),
    ],
)
def test_probabilities_are_told(scores: NDArray[np.float32], told: bool) -> None:
    assert are_probabilities(scores) == told


@pytest.mark.parametrize("most", [None, 1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_no_more_images_run_together_than_allowed(most: int | None, count: int) -> None:
    sizes = []

    def run(images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        sizes.append(len(images))
        return [images * 2, images.sum(axis=1)]

    given = np.random.default_rng(0).random((count, 4)).astype(np.float32)
    doubled, summed = in_parts(run, given, most)
    np.testing.assert_array_equal(doubled, given * 2)
    np.testing.assert_array_equal(summed, given.sum(axis=1))
    assert sum(sizes) == count and max(sizes) <= (most or max(1, count))
