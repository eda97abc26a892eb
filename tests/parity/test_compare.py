"""Parity of two backends: a change is found, and its size told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.export.reference import reference_of
from crnn_deploy.manifest import Manifest, StepRule
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.parity.compare import compare
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.verdict.drawn import drawn_images


def network() -> CRNN:
    torch.manual_seed(3)
    return CRNN(32, 1, 11, hidden=12, widths=(8, 8, 8, 8, 16, 16, 16))


@pytest.fixture(scope="module")
def reference() -> ReferenceBackend:
    return reference_of(network(), RECIPES["paper"], tuple("0123456789"), {})


def test_parity_finds_what_was_changed(reference: ReferenceBackend) -> None:
    images = drawn_images(reference.manifest, 4, 120, np.random.default_rng(2))
    same = compare(reference, reference, [images])
    assert same.passed and same.max_delta == 0 and same.cer == 0
    other = ReferenceBackend(network().eval(), reference.manifest)
    with torch.no_grad():
        other.module.rnn[1].embedding.bias[5] += 9  # type: ignore[index,union-attr]
    report = compare(reference, other, [images])
    assert not report.passed
    assert report.max_delta == pytest.approx(9, abs=1e-4)
    assert report.flips == 4 * 31 and report.frames == 4 * 31
    assert "FAILED" in report.table() and "margin" in report.table()


@pytest.mark.parametrize("broken", ["candidate", "reference", "both"])
def test_parity_fails_on_nan(broken: str, reference: ReferenceBackend) -> None:
    other = ReferenceBackend(network().eval(), reference.manifest)
    with torch.no_grad():
        other.module.rnn[1].embedding.bias[5] = float("nan")  # type: ignore[index,union-attr]
    rng = np.random.default_rng(2)
    images = [drawn_images(reference.manifest, 2, width, rng) for width in (120, 140)]
    left = reference if broken == "candidate" else other
    right = reference if broken == "reference" else other
    report = compare(left, right, images)
    assert not report.passed and np.isnan(report.max_delta)
    assert "FAILED" in report.table() and "put out NaN" in report.table()


def test_parity_says_why_a_candidate_did_not_run(tiny_onnx: Path) -> None:
    reference, other = OrtBackend(tiny_onnx), OrtBackend(tiny_onnx)
    other.manifest = replace(other.manifest, steps=StepRule(8, 0))
    report = compare(reference, other, [drawn_images(reference.manifest, 2, 120, np.random.default_rng(2))])
    assert not report.passed and report.max_delta == float("inf")
    assert "the graph gives (2, 31, 11)" in report.table()


class Rounding(ReferenceBackend):
    """A network whose fp32 rounds by more than the tolerance; in float64 it is the network itself.

    error: of every logit, with alternating signs along the classes
    """

    def __init__(self, error: float, manifest: Manifest) -> None:
        super().__init__(network().eval(), manifest)
        self.error = error

    def run(self, images: NDArray[np.float32]) -> Frames:
        logits = super().run(images).logits
        assert logits is not None
        signs = np.where(np.arange(logits.shape[2]) % 2, 1, -1)
        return Frames.from_logits(logits + np.float32(self.error) * signs.astype(np.float32))


@pytest.mark.parametrize(
    ("reference_error", "candidate_error", "passed"),
    [
        (3e-4, -1e-4, True),  # the candidate is nearer
        (3e-4, -5e-4, True),
        (3e-4, -7e-4, False),  # more than twice as far
        (0.0, 2e-4, False),  # a reference that is right allows nothing
        (0.5, 0.2, False),  # and one that is wrong proves nothing
    ],
)
def test_beyond_the_tolerance_float64_decides(
    reference_error: float, candidate_error: float, passed: bool, reference: ReferenceBackend
) -> None:
    images = [drawn_images(reference.manifest, 2, width, np.random.default_rng(2)) for width in (120, 140)]
    ours, theirs = (Rounding(error, reference.manifest) for error in (reference_error, candidate_error))
    report = compare(ours, theirs, images)
    assert report.max_delta > 1e-4 and report.passed == passed
    [first, _] = report.cases
    assert first.exact is not None
    assert first.exact.reference == pytest.approx(abs(reference_error), abs=5e-6)
    assert first.exact.candidate == pytest.approx(abs(candidate_error), abs=5e-6)
    shown = f"the reference is {first.exact.reference:.1e} and the candidate {first.exact.candidate:.1e}"
    assert shown in report.table() and f"from each other {first.max_delta:.1e}" in report.table()
    assert not compare(ours, theirs, images, tolerance=1e-4).passed  # a tolerance that somebody gives is kept


def test_what_agrees_is_not_run_in_float64(reference: ReferenceBackend) -> None:
    report = compare(
        reference, reference, [drawn_images(reference.manifest, 2, 120, np.random.default_rng(2))]
    )
    assert report.passed and report.cases[0].exact is None


class Float32Inside(nn.Module):
    """A network of one's own that makes a float32 tensor, so that it does not run in float64."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.scale = torch.ones(11, 11)  # no buffer

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images) @ self.scale
        return logits


def test_a_network_that_does_not_run_in_float64_is_held_to_the_tolerance(reference: ReferenceBackend) -> None:
    ours = ReferenceBackend(Float32Inside(network()), reference.manifest)
    other = ReferenceBackend(Float32Inside(network()), reference.manifest)
    other.module.inner.rnn[1].embedding.bias.data += 1e-4  # type: ignore[union-attr,index]
    report = compare(ours, other, [drawn_images(reference.manifest, 2, 120, np.random.default_rng(2))])
    assert not report.passed and report.cases[0].exact is None
    assert "not compared with float64: the network does not run in it" in report.table()


def test_a_flip_that_rounding_cannot_turn_is_no_tie(reference: ReferenceBackend) -> None:
    images = [drawn_images(reference.manifest, 2, 120, np.random.default_rng(2))]
    ours = Rounding(3e-4, reference.manifest)
    theirs = Rounding(3e-4, reference.manifest)

    class Swapped(Rounding):
        def run(self, images: NDArray[np.float32]) -> Frames:
            frames = super().run(images)
            return replace(frames, indices=(frames.indices + 1) % 11)

    swapped = Swapped(-3e-4, reference.manifest)
    assert compare(ours, theirs, images).passed
    assert not compare(ours, swapped, images).passed
