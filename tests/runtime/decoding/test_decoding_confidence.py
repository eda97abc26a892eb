"""Confidences against softmax and PyTorch's CTC, and how far they can be trusted."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")

from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.runtime.decoding.beam import Beam
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.decoding.confidence import Confidence, best_temperature, reliability
from crnn_deploy.runtime.decoding.ctc import encode
from crnn_deploy.runtime.recognizer import Recognizer

IMAGES = sorted((Path(__file__).parents[3] / "examples" / "images").glob("*.png"))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("decoder", ["greedy", "beam"])
@pytest.mark.parametrize("aggregate", ["min", "mean", "product", "likelihood"])
def test_confidences_are_those_of_softmax_and_ctc(decoder: Any, aggregate: Any, temperature: float) -> None:
    torch = pytest.importorskip("torch")
    reader = Recognizer()
    alphabet, blank = reader.manifest.alphabet, reader.manifest.blank
    plain = reader.with_decoder(decoder_of(DecodingRule(decoder))).read(IMAGES)
    rule = DecodingRule(decoder, aggregate=aggregate, temperature=temperature)
    texts = reader.with_decoder(decoder_of(rule)).read(IMAGES)
    for path, before, text in zip(IMAGES, plain, texts, strict=True):
        assert text.text == before.text
        assert [(c.start, c.end) for c in text.chars] == [(c.start, c.end) for c in before.chars]
        logits = reader.run([reader.prepare(path)]).logits
        assert logits is not None
        log_probs = (torch.from_numpy(logits[0]).double() / temperature).log_softmax(1)
        labels = encode(text.text, alphabet, blank)
        peaks = [
            float(log_probs[char.start : char.end, label].max().exp())
            for char, label in zip(text.chars, labels, strict=True)
        ]
        assert np.allclose([char.confidence for char in text.chars], peaks, rtol=1e-4)
        loss = torch.nn.functional.ctc_loss(
            log_probs[:, None], torch.tensor([labels]), [len(log_probs)], [len(labels)], blank, "sum"
        )
        wanted = {
            "min": min(peaks),
            "mean": sum(peaks) / len(peaks),
            "product": math.prod(peaks),
            "likelihood": math.exp(-float(loss) / len(labels)),
        }[aggregate]
        assert math.isclose(text.confidence, wanted, rel_tol=1e-3)


def test_alternatives_survive_a_temperature() -> None:
    reader = Recognizer()
    [plain] = reader.with_decoder(Beam(nbest=3)).read(IMAGES[:1])
    [warm] = reader.with_decoder(Confidence(Beam(nbest=3), "min", 3.0)).read(IMAGES[:1])
    assert warm.alternatives == plain.alternatives and warm.confidence < plain.confidence


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.integers(1, 12))
def test_expected_calibration_error_by_brute_force(texts: list[tuple[float, bool]], bins: int) -> None:
    found = reliability(np.array([c for c, _ in texts]), np.array([r for _, r in texts]), bins)
    total = 0.0
    for at in range(bins):
        inside = [(c, r) for c, r in texts if min(int(c * bins), bins - 1) == at]
        assert found.images[at] == len(inside)
        total += abs(sum(c for c, _ in inside) - sum(r for _, r in inside))
    assert math.isclose(found.ece, total / len(texts), abs_tol=1e-9)
    assert sum(row["images"] for row in found.to_plain()) == len(texts)


def test_the_temperature_is_that_of_how_the_truth_was_drawn() -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(1, 3, 40_000)
    right = rng.random(odds.size) < 1 / (1 + np.exp(-odds))  # as sure as the odds say
    factors = (0.25, 0.5, 1.0, 2.0, 4.0)
    columns = np.stack([1 / (1 + np.exp(-odds * factor)) for factor in factors], axis=1)
    assert factors[best_temperature(columns, right)] == 1.0
