"""`benchmark`: a report of speed that can be read by machines, and refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from crnn_deploy.cli.main import main


def test_benchmark_as_json(tiny_onnx: Path, tmp_path: Path) -> None:
    plot = tmp_path / "grid.svg"
    arguments = ["--batches", "1,2", "--widths", "104,120", "--rounds", "3", "--max-images", "5", "--json"]
    done = CliRunner().invoke(main, ["benchmark", str(tiny_onnx), *arguments, "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {(row["batch"], row["width"]) for row in report["grid"]} == {
        (1, 104),
        (1, 120),
        (2, 104),
        (2, 120),
    }
    for row in report["grid"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert 0 < row["share_of_peak"] < 1
    [stages] = report["stages"].values()
    assert set(stages) == {"read", "decode", "preprocess", "infer", "ctc", "total"}
    assert plot.read_bytes().lstrip().startswith(b"<?xml")


@pytest.mark.parametrize("arguments", [["--widths", "x"], ["--batches", "0"], ["--widths", "3"]])
def test_benchmark_refuses_in_one_line(tiny_onnx: Path, arguments: list[str]) -> None:
    done = CliRunner().invoke(
        main, ["benchmark", str(tiny_onnx), "--rounds", "2", "--max-images", "1", *arguments]
    )
    assert done.exit_code == 2 and "Error: " in done.stderr and "Traceback" not in done.stderr
