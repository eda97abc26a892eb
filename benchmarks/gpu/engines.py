"""Engines of this machine: built, described, and their text held against PyTorch's."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import onnx

from crnn_deploy.engine_file import Precision, Range
from crnn_deploy.models import DEFAULT
from crnn_deploy.stages import qdq
from crnn_deploy.stages.calibrate import read_scales
from crnn_deploy.stages.engine import Settings, build_engine
from crnn_deploy.stages.inspection import load_onnx
from crnn_deploy.stages.parity import TOLERANCE
from crnn_deploy.stages.verify import verify
from gpu.networks import DEFAULT_MODEL, Network, networks, words
from gpu.work import INT8, Work

__all__ = ["engines"]

_SCALES = Path(__file__).parents[2] / "calibration" / "latin.scales.json"
_BATCH, _TUNED, _WIDEST, _PROFILES = Range(1, 8, 64), 160, 640, 2
_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")


def engines(work: Work) -> None:
    """Build each network in each precision, and read the drawn words with it."""
    for network in networks(work.folder):
        for precision in _PRECISIONS:
            _engine(work, network, network.onnx, precision)
        if network.name == DEFAULT_MODEL:
            _engine(work, network, _quantised(work.folder), "int8")


def _quantised(folder: Path) -> Path:
    """What --int8 gave; without, the package's model in the symmetric int8 that TensorRT takes."""
    path = folder / INT8
    if not path.exists():
        ranges = read_scales(_SCALES, DEFAULT).ranges
        onnx.save(qdq.insert(load_onnx(DEFAULT), ranges), path)
    return path


def _engine(work: Work, network: Network, model: Path, precision: Precision) -> None:
    path = work.folder / f"{network.onnx.stem}-{precision}.engine"
    work.attempt(partial(_built, work, network, model, path, precision), network.name, precision, "build")
    if path.exists():
        work.attempt(
            partial(_verified, network, path, work.folder), network.name, precision, "against PyTorch"
        )


def _built(work: Work, network: Network, model: Path, path: Path, precision: Precision) -> dict[str, Any]:
    narrowest = network.manifest().width.minimum
    settings = Settings(precision, widths=Range(narrowest, _TUNED, _WIDEST), batch=_BATCH, profiles=_PROFILES)
    result = build_engine(model, path, settings, stopped=work.late)
    engine = result.engine
    return {
        "built": engine.precision,
        "builder": f"{engine.builder} {engine.builder_version}",
        "layers": engine.counts(),
        "layers_from": engine.layers_from,
        "kept_fp32": len(engine.kept_fp32),
        "profiles": [f"batch {p.batch}, width {p.width}" for p in engine.profiles],
        "verified": engine.verified,
        "seconds": engine.build_seconds,
        "bytes": engine.engine_bytes,
        "checked": {r.name: r.rounded.line() for r in result.rungs if r.rounded is not None},
    }


def _verified(network: Network, path: Path, folder: Path) -> dict[str, Any]:
    found = verify(network.checkpoint, path, network.settings, images=str(words(folder)), tolerance=TOLERANCE)
    parity = found.parity.to_plain()
    del parity["cases"]
    assert found.verdict is not None
    verdict = found.verdict.to_plain()
    verdict["changes"] = verdict["changes"][:5]
    return {"parity": parity, "verdict": verdict}
