"""The cache of optimised graphs, the choice of a backend, and `benchmark`."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from crnn_deploy.cli.main import main
from crnn_deploy.errors import BackendMissing
from crnn_deploy.runtime.backends import cache
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.runtime.backends.choice import choose
from crnn_deploy.runtime.backends.ort import OrtBackend

needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRNN_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "crnn-deploy-v1"


def logits(model: Path, *, cached: bool) -> bytes:
    images = np.random.default_rng(0).standard_normal((3, 1, 32, 120), np.float32)
    frames = OrtBackend(model, cached=cached).run(images)
    assert frames.logits is not None
    return frames.logits.tobytes()


def test_the_optimised_graph_gives_the_same_bits(tiny_onnx: Path, folder: Path) -> None:
    plain = logits(tiny_onnx, cached=False)
    assert not folder.exists()
    assert logits(tiny_onnx, cached=True) == plain
    [entry] = folder.glob("*.onnx")
    written = entry.stat().st_mtime_ns
    assert logits(tiny_onnx, cached=True) == plain
    assert entry.stat().st_mtime_ns == written  # used, not made again


@pytest.mark.parametrize("part", ["*.onnx", "*.bin"])
@pytest.mark.parametrize("damage", ["torn", "shared", "linked", "gone", "garbage", "no sidecar"])
def test_a_cached_graph_is_not_trusted_blindly(
    tiny_onnx: Path, folder: Path, tmp_path: Path, damage: str, part: str
) -> None:
    plain = logits(tiny_onnx, cached=True)
    [entry], [graph] = folder.glob(part), folder.glob("*.onnx")
    if damage == "torn":
        entry.write_bytes(entry.read_bytes()[:100])
    elif damage == "shared":
        entry.chmod(0o666)
    elif damage == "linked":
        entry.rename(tmp_path / "elsewhere")
        entry.symlink_to(tmp_path / "elsewhere")
    elif damage == "gone":
        entry.unlink()
    elif damage == "garbage":  # with a digest that fits
        cache.store(graph.name, b"not a graph")
    else:
        graph.with_name(f"{graph.name}.sha256").unlink()
    if damage != "garbage":
        assert cache.load(graph.name) is None
    assert logits(tiny_onnx, cached=True) == plain
    [graph] = folder.glob("*.onnx")
    mended = graph.stat().st_mtime_ns
    assert logits(tiny_onnx, cached=True) == plain
    assert graph.stat().st_mtime_ns == mended  # used, not made again


def test_a_choice_of_engine_is_remembered_and_explained(tiny_onnx: Path, folder: Path) -> None:
    first = choose(tiny_onnx)
    assert choose(tiny_onnx) == first  # times are never the same twice
    assert len(list(folder.glob("*.json"))) == 1
    shown = CliRunner().invoke(main, ["doctor", "--model", str(tiny_onnx)])
    assert shown.exit_code == 0 and shown.stdout == first.why() + "\n"
    plain = CliRunner().invoke(main, ["doctor", "--json", "--model", str(tiny_onnx)]).stdout
    assert json.loads(plain)["backend"] == first.backend


def test_a_device_that_the_engine_does_not_serve_is_refused(tiny_onnx: Path) -> None:
    with pytest.raises(BackendMissing, match="OpenVINO runs on the CPU"):
        open_backend(tiny_onnx, backend="openvino", device="cuda")


@needs_openvino
def test_openvino_reads_as_onnx_runtime_does(tiny_onnx: Path) -> None:
    from crnn_deploy.runtime.backends.openvino import OpenVinoBackend

    images = np.random.default_rng(0).standard_normal((3, 1, 32, 120), np.float32)
    expected, backend = OrtBackend(tiny_onnx).run(images), OpenVinoBackend(tiny_onnx)
    actual = backend.run(images)
    assert backend.manifest == OrtBackend(tiny_onnx).manifest
    assert actual.logits is not None and expected.logits is not None
    np.testing.assert_allclose(actual.logits, expected.logits, atol=1e-4)


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


@needs_openvino
def test_a_signal_after_openvinos_models_are_closed_in_their_order() -> None:
    """OpenVINO 2026.4 would leave the thread a stack for signals that is freed."""
    code = (
        "import signal, subprocess, sys\n"
        "from crnn_deploy.runtime.backends.openvino import OpenVinoBackend\n"
        "from crnn_deploy.models import DEFAULT\n"
        "models = [OpenVinoBackend(DEFAULT) for _ in range(3)]\n"
        "for model in models: model.close()\n"
        "models.clear()\n"
        "seen = []\n"
        "signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))\n"
        "for _ in range(3): subprocess.run(['true'])\n"
        "print(len(seen) > 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
