"""The committed results are what the benchmark scripts write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RESULTS = sorted((Path(__file__).parents[1] / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_says_where_it_comes_from(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    suite, machine, device = path.stem.split("--")
    assert result["suite"] == suite and result["device"] == device and machine
    assert result["machine"] and result["versions"]["crnn-deploy"]
    rows = [value for value in result.values() if isinstance(value, dict) and value is not result["versions"]]
    assert rows
