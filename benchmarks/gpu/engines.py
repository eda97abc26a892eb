"""Engines built on this machine: what they are, and their text compared with PyTorch's."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from benchmarks.gpu.machine import tensorrt
from benchmarks.gpu.networks import DEFAULT_MODEL, Network, networks, words
from benchmarks.gpu.work import INT8, Work
from crnn_deploy.engine.build import BuildSettings, build_engine
from crnn_deploy.engine.network import Network as Plan
from crnn_deploy.export.reference import open_checkpoint
from crnn_deploy.graph.argmax import with_argmax
from crnn_deploy.graph.model import load_onnx, open_model
from crnn_deploy.graph.precision import cast
from crnn_deploy.manifest import Manifest
from crnn_deploy.models import DEFAULT
from crnn_deploy.parity.verify import verify
from crnn_deploy.quantization import qdq
from crnn_deploy.quantization.calibrate import read_scales
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.backends.engine_file import Precision, Range, digest, read_sidecar, sidecar_of

__all__ = ["engines"]

_SCALES = Path(__file__).parents[2] / "calibration" / "latin.scales.json"
_BATCH, _TUNED, _WIDEST, _PROFILES = Range(1, 8, 64), 160, 640, 2
_PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16", "tf32", "fp32")  # the one that most want first


def engines(work: Work) -> None:
    """Build each network in each precision, and read the drawn words with it.

    Each is built twice: with logits, which are held against PyTorch's, and with the likeliest class taken on
    the GPU, as what it is measured beside takes it.
    """
    for precision in _PRECISIONS:
        for network in networks(work.folder):
            _engine(work, network, network.onnx, precision)
    [default, *_] = networks(work.folder)
    assert default.name == DEFAULT_MODEL
    _engine(work, default, _quantised(work.folder), "int8")


def _quantised(folder: Path) -> Path:
    """What --int8 gave; without, the package's model in the symmetric int8 that TensorRT takes."""
    path = folder / INT8
    if not path.exists():
        ranges = read_scales(_SCALES, model := open_model(DEFAULT)).ranges
        onnx.save(qdq.insert(model.graph, ranges), path)
    return path


def _engine(work: Work, network: Network, model: Path, precision: Precision) -> None:
    place = network.name, precision
    path = work.folder / f"{network.onnx.stem}-{precision}.engine"
    if work.kept(*place, "build") is None:  # what an earlier run built may be for another target
        for stale in (path, path.with_stem(f"{path.stem}-argmax")):
            stale.unlink(missing_ok=True)
            sidecar_of(stale).unlink(missing_ok=True)
    work.attempt(partial(_built, work, network, model, path, precision), *place, "build")
    if path.exists():
        work.attempt(partial(_verified, network, path, work.folder), *place, "against PyTorch")
        work.attempt(partial(_argmax_built, work, model, path), *place, "build with argmax, bytes")


def _built(work: Work, network: Network, model: Path, path: Path, precision: Precision) -> dict[str, Any]:
    narrowest = network.manifest().width.minimum
    settings = BuildSettings(
        precision,
        widths=Range(narrowest, _TUNED, _WIDEST),
        batch=_BATCH,
        profiles=_PROFILES,
        targets=work.targets(),
    )
    result = build_engine(model, path, settings, stopped=work.late)
    engine = result.engine
    return {
        "built": engine.precision,
        "builder": f"{engine.builder} {engine.builder_version}",
        "targets": list(engine.targets),
        "layers": engine.counts(),
        "layers_from": engine.layers_from,
        "kept_fp32": len(engine.kept_fp32),
        "profiles": [f"batch {p.batch}, width {p.width}" for p in engine.profiles],
        "verified": engine.verified,
        "seconds": engine.build_seconds,
        "bytes": engine.engine_bytes,
        "checked": {r.name: r.rounded.line() for r in result.rungs if r.rounded is not None},
    }


def _argmax_built(work: Work, model: Path, path: Path) -> int:
    """The same engine with indices and probabilities in place of logits; its bytes."""
    engine = read_sidecar(path)
    source = load_onnx(model)
    if engine.precision == "fp16" or engine.precision == "bf16":
        source = cast(source, engine.precision, keep_fp32=engine.kept_fp32)
    elif engine.precision == "int8":
        source = qdq.drop_idle_pairs(source)
    plan, _ = Plan(tensorrt()[1], with_argmax(source)).build(
        engine.profiles, targets=engine.targets, tf32=engine.precision == "tf32", stopped=work.late
    )
    engine = replace(
        engine,
        manifest=replace(engine.manifest, output="argmax"),
        engine_sha256=digest(plan),
        engine_bytes=len(plan),
        verified=None,
    )
    other = path.with_stem(f"{path.stem}-argmax")
    other.write_bytes(plan)
    sidecar_of(other).write_text(engine.to_json(), encoding="utf-8")
    return len(plan)


def _verified(network: Network, path: Path, folder: Path) -> dict[str, Any]:
    """Logits by what the format costs this network against float64, and the text."""

    def opened(checkpoint: Path, manifest: Manifest | None) -> Backend:
        return open_checkpoint(checkpoint, network.settings, manifest)

    found = verify(network.checkpoint, path, opened, images=str(words(folder)), tolerance=None)
    parity = found.parity.to_plain()
    del parity["cases"]
    assert found.verdict is not None
    verdict = found.verdict.to_plain()
    verdict["changes"] = verdict["changes"][:5]
    costs = None if found.format_error is None else asdict(found.format_error)
    return {"parity": parity, "verdict": verdict, "format_error": costs}
