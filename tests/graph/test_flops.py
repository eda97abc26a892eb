"""What a graph costs, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from crnn_deploy.export.exporter import export
from crnn_deploy.export.reference import reference_of
from crnn_deploy.graph.flops import flops
from crnn_deploy.graph.model import load_onnx
from crnn_deploy.inspection import inspect
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.recipes.settings import CheckpointSettings


def test_flops_of_the_paper_network(tmp_path: Path) -> None:
    """1.41 GFLOP at 100 px, 1.27 of them outside the recurrent layers, counted by hand."""
    reference = reference_of(CRNN(32, 1, 37), RECIPES["paper"], RECIPES["paper"].alphabet or (), {})
    path = tmp_path / "x.onnx"
    export(reference, path)
    convolutions = 2 * sum(
        out * rows * columns * inputs * kernel
        for inputs, out, rows, columns, kernel in [
            (1, 64, 32, 100, 9),
            (64, 128, 16, 50, 9),
            (128, 256, 8, 25, 9),
            (256, 256, 8, 25, 9),
            (256, 512, 4, 26, 9),
            (512, 512, 4, 26, 9),
            (512, 512, 1, 26, 4),
        ]
    )
    recurrent = 2 * 26 * 2 * 4 * 256 * ((512 + 256) + (256 + 256))
    linear = 2 * 26 * 512 * (256 + 37)
    expected = convolutions + recurrent + linear
    assert flops(load_onnx(path), reference.manifest, [100]) == {100: expected}
    facts = inspect(path, CheckpointSettings())
    assert facts["flops"]["100 px"] == f"{expected / 1e9:.3f} G"
    assert facts["parameters"] == pytest.approx(8_331_000, abs=5_000)
