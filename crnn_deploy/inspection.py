"""What a model file is: its manifest, its operators, its size and its cost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from crnn_deploy.errors import ModelNotFound
from crnn_deploy.manifest import Manifest
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.runtime.backends import driver
from crnn_deploy.runtime.backends.engine_file import EngineFile, check_bytes, fitness, read_sidecar

__all__ = ["inspect"]

_WIDTHS = (32, 100, 160, 320)
_SAMPLE = 40  # characters of the alphabet shown


def inspect(path: Path, settings: CheckpointSettings) -> dict[str, Any]:
    """Facts of a checkpoint, an ONNX file or an engine, ready for JSON.

    FLOPs are per image, a multiply-add counts 2. Of an engine it is what its sidecar says; its bytes are held
    against it.

    Raises what opening the file raises.
    """
    if not path.is_file():
        raise ModelNotFound(path)
    if path.suffix == ".engine":
        return _engine_facts(path)
    return _onnx_facts(path) if path.suffix == ".onnx" else _checkpoint_facts(path, settings)


def _onnx_facts(path: Path) -> dict[str, Any]:
    from crnn_deploy.graph.flops import flops, parameters
    from crnn_deploy.graph.model import open_model

    model = open_model(path)
    graph, manifest = model.graph.graph, model.manifest
    any_width = bool(graph.input[0].type.tensor_type.shape.dim[3].dim_param)
    return {
        "file": str(path),
        "sha256": model.sha256,
        "format": "ONNX",
        "opset": {entry.domain or "onnx": entry.version for entry in model.graph.opset_import},
        "operators": dict(Counter(node.op_type for node in graph.node).most_common()),
        "parameters": parameters(model.graph),
        **_manifest_facts(manifest),
        **_cost(flops(model.graph, manifest, _widths(manifest, any_width))),
    }


def _checkpoint_facts(path: Path, settings: CheckpointSettings) -> dict[str, Any]:
    from crnn_deploy.export.pytorch import flops
    from crnn_deploy.export.reference import open_reference
    from crnn_deploy.export.widths import accepts_any_width

    reference = open_reference(path, settings)
    manifest, module = reference.manifest, reference.module
    widths = _widths(manifest, accepts_any_width(reference))
    return {
        "file": str(path),
        "sha256": manifest.source["checkpoint_sha256"],
        "format": "PyTorch checkpoint",
        "family": manifest.source["family"],
        "layers": dict(Counter(type(m).__name__ for m in module.modules() if not list(m.children()))),
        "parameters": sum(p.numel() for p in module.parameters()),
        **_manifest_facts(manifest),
        **_cost({width: flops(reference, width) for width in widths}),
    }


def _cost(operations: dict[int, int]) -> dict[str, Any]:
    """Operations for one image at each width."""
    return {"flops": {f"{width} px": f"{count / 1e9:.3f} G" for width, count in operations.items()}}


def _engine_facts(path: Path) -> dict[str, Any]:
    engine = read_sidecar(path)
    check_bytes(engine, path)
    built = ", ".join(
        f"{name} {value}"
        for name, value in (("GPU", engine.gpu), ("driver", engine.driver), ("CUDA", engine.cuda))
        if value is not None
    )
    origin = (
        "read back from the engine" if engine.layers_from == "engine" else "by the network's tensor types"
    )
    return {
        "file": str(path),
        "sha256": engine.engine_sha256,
        "format": "TensorRT engine",
        "bytes": engine.engine_bytes,
        "onnx sha256": engine.onnx_sha256,
        "builder": f"{engine.builder} {engine.builder_version}, {engine.system}",
        "built on": built or "a machine without a GPU",
        "built for": engine.built_for(),
        "runs here": _runs_here(engine),
        "precision": engine.precision,
        "kept in fp32": list(engine.kept_fp32),
        "layers": f"{engine.shares()} ({origin})",
        "verified": engine.verified or "no: the machine that built it had no GPU that loads it",
        "profiles": [f"batch {p.batch}, width {p.width}" for p in engine.profiles],
        "build seconds": engine.build_seconds,
        "rebuild": engine.command(path),
    } | _manifest_facts(engine.manifest)


def _runs_here(engine: EngineFile) -> str:
    found = driver.probe()
    if found.problem is not None:
        return f"no: {found.problem}"
    fit = fitness(engine, found.gpus[0])
    return f"{'yes' if fit.allowed else 'no'}: {fit.why}"


def _widths(manifest: Manifest, any_width: bool) -> list[int]:
    if not any_width:
        return [manifest.width.minimum]
    return sorted({*(w for w in _WIDTHS if manifest.steps(w) > 0), manifest.width.minimum})


def _manifest_facts(manifest: Manifest) -> dict[str, Any]:
    alphabet = "".join(manifest.alphabet[:_SAMPLE]) + ("..." if len(manifest.alphabet) > _SAMPLE else "")
    return {
        "alphabet": f"{len(manifest.alphabet)} characters: {alphabet}",
        "blank": f"{manifest.blank} of {manifest.classes} classes",
        "input": f"{manifest.color}, {manifest.channels} x {manifest.height} x width",
        "interpolation": manifest.interpolation,
        "grey": f"of colour by {manifest.grey}",
        "width": manifest.width.to_plain(),
        "normalisation": f"mean {list(manifest.mean)}, std {list(manifest.std)}",
        "filters": [str(f) for f in manifest.filters],
        "second reading": str(manifest.contrast or "none"),
        "time steps": f"(width + {manifest.steps.offset}) // {manifest.steps.stride}",
        "output": manifest.output,
        "decoding": {"decoder": manifest.decoding.decoder, **manifest.decoding.to_plain()},
        "source": dict(manifest.source),
    }
