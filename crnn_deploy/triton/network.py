"""A model file as Triton serves it: which backend runs it, its tensors and how many images run together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crnn_deploy.errors import CrnnDeployError, ModelNotFound, ModelUnreadable
from crnn_deploy.files import sha256
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends.engine_file import Profile

__all__ = ["OWN", "NamesMissing", "NotForTriton", "ServedNetwork", "Tensor", "network_of"]

OWN = "network_"  # before the name of a network's output, where it stands beside names of this toolkit


class NamesMissing(CrnnDeployError, ValueError):
    """An engine whose tensors' names are not known without the file that it was built from."""


class NotForTriton(CrnnDeployError, ValueError):
    """A model that no backend of Triton runs."""


@dataclass(frozen=True)
class Tensor:
    """An input or output of a model."""

    name: str
    kind: str  # as a config.pbtxt has it, TYPE_FP32
    dims: tuple[int, ...]  # without the batch; -1: any


@dataclass(frozen=True)
class ServedNetwork:
    """What Triton must know of a model file."""

    file: Path
    manifest: Manifest
    input: Tensor
    outputs: tuple[Tensor, ...]
    max_batch: int
    profiles: tuple[Profile, ...] = ()  # of an engine

    @property
    def backend(self) -> str:
        return "tensorrt" if self.file.suffix == ".engine" else "onnxruntime"


def network_of(model: Path, batch: int, onnx: Path | None = None, *, tensors: bool = True) -> ServedNetwork:
    """What Triton must know of an .onnx or .engine file with a manifest.

    batch: most images that run together; a manifest and an engine's profiles allow no more than they do
    onnx: the file that an engine was built from, whose tensors' names the engine has
    tensors: whether Triton runs the network; where a Python model does, an engine's tensors are not needed
    Raises what `open_backend` and `read_sidecar` raise, NamesMissing, NotForTriton.
    """
    if model.suffix == ".engine":
        return _of_engine(model, batch, onnx, tensors)
    from crnn_deploy.runtime.backends.backend import open_backend

    backend = open_backend(model)  # it holds the graph to its manifest
    manifest = backend.manifest
    backend.close()
    given, *outputs = _tensors(model)
    return ServedNetwork(model, manifest, given, tuple(outputs), min(batch, manifest.max_batch or batch))


def _of_engine(model: Path, batch: int, onnx: Path | None, tensors: bool) -> ServedNetwork:
    from crnn_deploy.runtime.backends.engine_file import check_bytes, read_sidecar

    engine = read_sidecar(model)
    check_bytes(engine, model)
    if not tensors:
        most = min(batch, engine.manifest.max_batch or batch)
        return ServedNetwork(model, engine.manifest, Tensor("", "", ()), (), most)
    if engine.builder != "tensorrt":
        raise NotForTriton(
            f"{model} was built by TensorRT for RTX, which Triton does not run; build it with "
            "crnn-deploy build-engine --builder tensorrt, or give the .onnx file"
        )
    if onnx is None:
        raise NamesMissing(
            f"name the file that {model} was built from, whose tensors' names it has: --onnx FILE"
        )
    if not onnx.is_file():
        raise ModelNotFound(onnx, "an .onnx file")
    if sha256(onnx) != engine.onnx_sha256:
        raise NamesMissing(f"{onnx} is not the file that {model} was built from; name that one with --onnx")
    given, *outputs = _tensors(onnx)
    if engine.manifest.output == "argmax":  # it may have been put in when the engine was built
        steps = outputs[0].dims[:1]
        outputs = [Tensor("indices", "TYPE_INT64", steps), Tensor("probabilities", "TYPE_FP32", steps)]
    largest = min(one.batch.maximum for one in engine.profiles)
    most = min(batch, largest, engine.manifest.max_batch or largest)
    return ServedNetwork(model, engine.manifest, given, tuple(outputs), most, engine.profiles)


_KINDS = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64", "tensor(int32)": "TYPE_INT32"}
_KINDS |= {"tensor(float16)": "TYPE_FP16"}


def _tensors(onnx: Path) -> list[Tensor]:
    """A graph's only input and its outputs. Raises ModelUnreadable, NotForTriton."""
    from crnn_deploy.runtime.backends.onnx_file import check_self_contained
    from crnn_deploy.runtime.backends.ort import open_session

    if check_self_contained(onnx):
        raise NotForTriton(
            f"{onnx} keeps its weights in another file; put them into one: onnx.save(model, path)"
        )
    session = open_session(onnx, threads=1)
    return [_tensor(onnx, node) for node in (*session.get_inputs()[:1], *session.get_outputs())]


def _tensor(onnx: Path, node: Any) -> Tensor:
    if (kind := _KINDS.get(node.type)) is None or not node.shape:
        raise ModelUnreadable(onnx, f"its tensor {node.name} is a {node.type} of shape {node.shape}")
    return Tensor(node.name, kind, tuple(size if isinstance(size, int) else -1 for size in node.shape[1:]))
