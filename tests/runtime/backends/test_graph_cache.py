"""The cache of graphs that ONNX Runtime optimised: the same bits, and nothing in it is trusted blindly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crnn_deploy.runtime.backends import cache
from crnn_deploy.runtime.backends.ort import OrtBackend


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
