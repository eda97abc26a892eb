"""Ranges of a calibration that was stopped equal those of a whole one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crnn_deploy.quantization.ranges import Ranges


def test_a_stopped_calibration_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [{"x": rng.normal(0, 1 + i, 999).astype(np.float32)} for i in range(4)]
    whole, first, second = Ranges(), Ranges(), Ranges()
    for part in parts:
        whole.add(part)
    for part in parts[:2]:
        first.add(part)
    first.save(tmp_path / "part", "key", 2)
    assert Ranges().load(tmp_path / "part", "another") == 0 == Ranges().load(tmp_path / "absent", "key")
    assert second.load(tmp_path / "part", "key") == 2
    for part in parts[2:]:
        second.add(part)
    for method in ("minmax", "percentile", "mse", "entropy"):
        assert second.of(method) == whole.of(method)
    largest = max(float(np.abs(part["x"]).max()) for part in parts)
    assert whole.of("minmax")["x"] == pytest.approx(largest, rel=1e-2)
    assert 0 < whole.of("mse")["x"] <= largest * 1.01
