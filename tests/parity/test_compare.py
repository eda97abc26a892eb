"""Parity of two backends: a change is found, and its size told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.export.reference import reference_of
from crnn_deploy.manifest import StepRule
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.parity.compare import compare
from crnn_deploy.parity.drawn import drawn_images
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.runtime.backends.ort import OrtBackend


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
