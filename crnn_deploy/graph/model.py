"""What a model file is: its manifest, its operators, its size and its cost."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from crnn_deploy.errors import ManifestMissing, ModelNotFound, ModelUnreadable, first_line
from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.export.reference import CheckpointSettings, accepts_any_width, open_reference
from crnn_deploy.files import sha256
from crnn_deploy.manifest import METADATA_KEY, Manifest
from crnn_deploy.runtime.backends import driver
from crnn_deploy.runtime.backends.engine_file import EngineFile, check_bytes, fitness, read_sidecar
from crnn_deploy.runtime.backends.onnx_file import check_self_contained
from crnn_deploy.runtime.backends.ort import OrtBackend, open_session

__all__ = ["backend_of", "flops", "inspect", "load_onnx", "manifest_in", "manifest_of", "session_of"]

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
    try:
        digest = sha256(path)
    except OSError as error:
        raise ModelUnreadable(path, f"cannot be read: {error.strerror}") from error
    facts: dict[str, Any] = {"file": str(path), "sha256": digest}
    if path.suffix == ".onnx":
        model = load_onnx(path)
        manifest = manifest_of(model)
        if manifest is None:
            raise ManifestMissing(path)
        facts |= {
            "format": "ONNX",
            "opset": {entry.domain or "onnx": entry.version for entry in model.opset_import},
            "operators": dict(Counter(node.op_type for node in model.graph.node).most_common()),
            "parameters": _parameters(model),
        }
        any_width = bool(model.graph.input[0].type.tensor_type.shape.dim[3].dim_param)
        cost = flops(model, manifest, _widths(manifest, any_width))
    else:
        reference = open_reference(path, settings)
        manifest = reference.manifest
        module = reference.module
        facts |= {
            "format": "PyTorch checkpoint",
            "family": manifest.source["family"],
            "layers": dict(Counter(type(m).__name__ for m in module.modules() if not list(m.children()))),
            "parameters": sum(p.numel() for p in module.parameters()),
        }
        cost = {w: _module_flops(reference, w) for w in _widths(manifest, accepts_any_width(reference))}
    return (
        facts
        | _manifest_facts(manifest)
        | {"flops": {f"{w} px": f"{n / 1e9:.3f} G" for w, n in cost.items()}}
    )


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


def load_onnx(path: Path) -> onnx.ModelProto:
    """An ONNX model from a file that refers to nothing it should not.

    Raises ModelNotFound, ModelUnreadable.
    """
    if not path.is_file():
        raise ModelNotFound(path)
    check_self_contained(path)
    try:
        onnx.checker.check_model(str(path))
        return onnx.load(path)
    except Exception as error:  # onnx raises protobuf's, its checker's and the file system's errors
        raise ModelUnreadable(path, f"not a valid ONNX file: {first_line(error)}") from error


def manifest_of(model: onnx.ModelProto) -> Manifest | None:
    """The manifest in a model's metadata. Raises ManifestInvalid."""
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA_KEY), None)
    return None if text is None else Manifest.from_json(text)


def manifest_in(path: Path) -> Manifest:
    """The manifest of an ONNX file. Raises what `load_onnx` raises, ManifestMissing, ManifestInvalid."""
    if (manifest := manifest_of(load_onnx(path))) is None:
        raise ManifestMissing(path)
    return manifest


def _parameters(model: onnx.ModelProto) -> int:
    """Numbers in the graph but for whole ones, which are shapes; some exporters make weights constants."""
    constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    whole = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    return sum(math.prod(t.dims) for t in (*model.graph.initializer, *constants) if t.data_type not in whole)


def session_of(model: onnx.ModelProto) -> Any:
    """An ONNX Runtime session of a model in memory. Raises ModelUnreadable."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        return open_session(path, threads=1)


def backend_of(model: onnx.ModelProto) -> OrtBackend:
    """A backend of a model with a manifest in memory. Raises what OrtBackend raises."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        return OrtBackend(path)


def flops(model: onnx.ModelProto, manifest: Manifest, widths: Sequence[int]) -> dict[int, int]:
    """For each width: operations of convolutions, matrix products and recurrent layers for one image.

    The model is run, since shape inference stops at a shape that the graph computes.
    """
    nodes = [n for n in model.graph.node if n.op_type in ("Conv", "MatMul", "Gemm", "LSTM", "GRU")]
    if not nodes:
        return dict.fromkeys(widths, 0)
    names = sorted({name for n in nodes for name in (*n.input[:3], n.output[0]) if name})
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = session_of(probed)
    [images] = session.get_inputs()
    counts = {}
    for width in widths:
        zeros = np.zeros((1, manifest.channels, manifest.height, width), np.float32)
        outputs = session.run(None, {images.name: zeros})
        shapes = {name: array.shape for name, array in zip(names, outputs, strict=True)}
        counts[width] = sum(_node_flops(node, shapes) for node in nodes)
    return counts


def _node_flops(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    first, second, output = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":
        return 2 * math.prod(output) * math.prod(second[1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return 2 * math.prod(output) * first[-2 if transposed else -1]
    return 2 * first[0] * (math.prod(second) + math.prod(shapes[node.input[2]]))


def _module_flops(reference: ReferenceBackend, width: int) -> int:
    """As `flops`, counted while the module runs."""
    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += 2 * output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += 2 * output.numel() * layer.in_features
        elif isinstance(layer, nn.LSTM | nn.GRU):
            steps = inputs[0].shape[1 if layer.batch_first else 0]
            total += 2 * steps * sum(p.numel() for n, p in layer.named_parameters() if "weight" in n)

    layers = [
        m for m in reference.module.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.LSTM | nn.GRU)
    ]
    handles = [layer.register_forward_hook(count) for layer in layers]
    manifest = reference.manifest
    with torch.inference_mode():
        reference.module(torch.zeros(1, manifest.channels, manifest.height, width))
    for handle in handles:
        handle.remove()
    return total


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
        "width": asdict(manifest.width),
        "normalisation": f"mean {list(manifest.mean)}, std {list(manifest.std)}",
        "filters": [str(f) for f in manifest.filters],
        "time steps": f"(width + {manifest.steps.offset}) // {manifest.steps.stride}",
        "output": manifest.output,
        "decoding": {"decoder": manifest.decoding.decoder, **manifest.decoding.to_plain()},
        "source": dict(manifest.source),
    }
