"""Prefix beam search against brute force over all alignments, and against published outputs."""

from __future__ import annotations

import math
from itertools import groupby, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.ctc import Frames
from crnn_deploy.decoding.beam import Beam, BeamDecode
from crnn_deploy.decoding.reading import line_of

MATRICES = Path(__file__).parents[1].parent / "shared" / "data" / "ctc_matrices"


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 2))
def test_a_wide_beam_finds_every_text_with_its_probability(seed: int, steps: int, blank: int) -> None:
    logits = np.random.default_rng(seed).normal(size=(1, steps, 3)).astype(np.float32)
    log_probs = logits[0] - np.log(np.exp(logits[0].astype(np.float64)).sum(axis=1, keepdims=True))
    expected: dict[tuple[int, ...], float] = {}
    for path in product(range(3), repeat=steps):
        labels = tuple(label for label, _ in groupby(path) if label != blank)
        said = math.exp(sum(log_probs[t, label] for t, label in enumerate(path)))
        expected[labels] = expected.get(labels, 0.0) + said
    decode = BeamDecode(Beam(width=1000, min_probability=0.0, nbest=1000), ["a", "b"], blank)
    found = decode.search(line_of(Frames.from_logits(logits), 0, "a test"))
    assert {one.labels: math.exp(one.score) for one in found} == pytest.approx(expected, rel=1e-5)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@pytest.mark.skipif(not MATRICES.is_dir(), reason="the shared data folder is absent")
def test_published_beam_search_of_a_handwritten_line() -> None:
    rows = (MATRICES / "line" / "rnnOutput.csv").read_text().split()
    logits = np.array([[float(cell) for cell in row.split(";") if cell] for row in rows], np.float32)
    letters = "".join(map(chr, [*range(65, 91), *range(97, 123)]))
    alphabet = list(" !\"#&'()*+,-./0123456789:;?" + letters)
    [text] = BeamDecode(Beam(width=25), alphabet, 79)(Frames.from_logits(logits[None]), [(1.0, 100)])
    assert text.text == "the fak friend of the fomcly hae tC"
