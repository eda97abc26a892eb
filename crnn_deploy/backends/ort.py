"""ONNX Runtime on the CPU."""

from __future__ import annotations

from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.backends.onnx_file import check_self_contained
from crnn_deploy.ctc import Frames
from crnn_deploy.errors import AlphabetMismatch, BackendMissing, ManifestMissing, ModelUnreadable, RunFailed
from crnn_deploy.manifest import METADATA_KEY, Manifest, WidthRule

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OrtBackend", "open_session"]


class OrtBackend:
    """An ONNX file with a manifest, run by ONNX Runtime.

    threads: intra-op threads; results do not depend on it
    Raises BackendMissing, ModelUnreadable, AlphabetMismatch, ManifestMissing, ManifestInvalid.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        self._session = open_session(path, threads=threads)
        try:
            text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        except UnicodeDecodeError as error:
            raise ModelUnreadable(path, "its metadata is not UTF-8") from error
        if text is None:
            raise ManifestMissing(path)
        self.manifest = Manifest.from_json(text)
        self._path = path
        self._check_graph()
        self._input = self._session.get_inputs()[0].name

    def _check_graph(self) -> None:
        """Refuse a graph that is not what the manifest says, as far as its declared shapes tell."""
        manifest, inputs, outputs = self.manifest, self._session.get_inputs(), self._session.get_outputs()
        shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else []
        rules: list[int | WidthRule] = [manifest.channels, manifest.height, manifest.width]
        known = zip(shape[1:], rules, strict=False)
        if len(shape) != 4 or any(isinstance(size, int) and not _fits(size, rule) for size, rule in known):
            raise ModelUnreadable(
                self._path,
                f"its manifest promises one float input (N, {manifest.channels}, {manifest.height}, W), "
                f"W from {manifest.width.minimum} to {manifest.width.maximum}, "
                f"the graph takes {[(node.type, node.shape) for node in inputs]}",
            )
        if isinstance(shape[0], int):
            raise ModelUnreadable(
                self._path,
                f"its graph runs on batches of {shape[0]} alone; crnn-deploy describe frees it if it can",
            )
        names = [node.name for node in outputs]
        expected = ["indices", "probabilities"]
        if manifest.output == "argmax" and names != expected:
            raise ModelUnreadable(self._path, f"its manifest promises {expected}, the graph puts out {names}")
        classes = outputs[0].shape[-1] if outputs[0].shape else None
        if manifest.output != "argmax" and isinstance(classes, int) and classes != manifest.classes:
            raise AlphabetMismatch(len(manifest.alphabet), classes)

    def run(self, images: NDArray[np.float32]) -> Frames:
        size = self.manifest.max_batch or max(1, len(images))
        try:
            runs = [
                self._session.run(None, {self._input: images[at : at + size]})
                for at in range(0, max(1, len(images)), size)
            ]
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise RunFailed(self._path, images.shape, _reason(error)) from error
        outputs = runs[0] if len(runs) == 1 else [np.concatenate(parts) for parts in zip(*runs, strict=True)]
        manifest, first = self.manifest, np.asarray(outputs[0])
        expected: tuple[int, ...] = (len(images), manifest.steps(images.shape[3]))
        if manifest.output != "argmax":
            expected += (manifest.classes,)
        if first.shape != expected:
            reason = f"its manifest promises an output of shape {expected}, the graph gives {first.shape}"
            raise RunFailed(self._path, images.shape, reason)
        if manifest.output != "argmax":
            return Frames.from_logits(first.astype(np.float32, copy=False))
        if first.size and not 0 <= first.min() <= first.max() < manifest.classes:
            reason = f"it puts out class {first.max()} of {manifest.classes}"
            raise RunFailed(self._path, images.shape, reason)
        return Frames(first.astype(np.int64, copy=False), np.asarray(outputs[1], np.float32))

    def close(self) -> None:
        del self._session


def _fits(size: int, rule: int | WidthRule) -> bool:
    """Whether a dimension that the graph fixes is the only one that the manifest asks for."""
    return size == rule if isinstance(rule, int) else rule.minimum == size == rule.maximum


def open_session(path: Path, *, threads: int) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU. Raises BackendMissing, ModelUnreadable."""
    ort = _import_onnxruntime()
    check_self_contained(path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ModelUnreadable(path, f"ONNX Runtime cannot load it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _import_onnxruntime() -> ModuleType:
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(installed) == 2:
        raise BackendMissing(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; run "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install crnn-deploy[cpu] or crnn-deploy[gpu]"
        )
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise BackendMissing(
            "no inference library is installed; run pip install 'crnn-deploy[cpu]' "
            "(or 'crnn-deploy[gpu]' on a machine with an NVIDIA GPU)"
        ) from error


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
