"""The images of a calibration are those that it measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from crnn_deploy.cli.main import main
from crnn_deploy.graph.model import load_onnx, manifest_of, open_model
from crnn_deploy.quantization import calibration_set
from crnn_deploy.quantization.calibrate import read_scales


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_largest_value_is_that_of_the_images(tiny_onnx: Path, tiny_images: Path, tmp_path: Path) -> None:
    assert (
        run("calibrate", tiny_onnx, tiny_images, "--method", "minmax", "-o", tmp_path / "s.json").exit_code
        == 0
    )
    found = read_scales(tmp_path / "s.json", open_model(tiny_onnx))
    manifest = manifest_of(load_onnx(tiny_onnx))
    chosen, _ = calibration_set.sample(calibration_set.of_folder(str(tiny_images)), manifest, 512)
    batches = calibration_set.batched(chosen, manifest, 1)
    assert found.ranges["images"] == pytest.approx(
        max(np.abs(batch.images).max() for batch in batches), rel=1e-3
    )
