"""ONNX Runtime, on the CPU or through its CUDA provider."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from contextlib import redirect_stdout, suppress
from functools import cache as once
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import (
    AlphabetMismatch,
    BackendMissing,
    ModelClosed,
    ModelUnreadable,
    RunFailed,
    first_line,
)
from crnn_deploy.files import sha256
from crnn_deploy.manifest import Manifest, WidthRule
from crnn_deploy.process import memory
from crnn_deploy.runtime.backends import cache
from crnn_deploy.runtime.backends.backend import Device
from crnn_deploy.runtime.backends.installed import onnxruntime_distributions, onnxruntime_too_old
from crnn_deploy.runtime.backends.onnx_file import check_self_contained
from crnn_deploy.runtime.backends.outputs import frames_of, in_parts
from crnn_deploy.runtime.backends.run_time_scales import held_to_scales
from crnn_deploy.runtime.decoding.ctc import Frames

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["OrtBackend", "nodes_by_provider", "open_session"]

_EXTERNAL = "session.optimized_model_external_initializers"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_CUDA_FAILURE = re.compile(r"\b(CUDA|CUBLAS|CUDNN|CURAND|CUFFT) failure[^;\n]*")  # behind a C++ signature
_ASSIGNMENT = "session.record_ep_graph_assignment_info"  # ONNX Runtime 1.24 and later
_SHARE = 0.75  # of the memory that this process may fill, for the tensors of all sessions on the CPU
_TOO_LARGE = re.compile(r"Available memory of (\d+) is smaller than requested bytes of (\d+)")
# where these run decides the speed; arithmetic on shapes belongs on the CPU
_HEAVY = ("Conv", "LSTM", "GRU", "RNN", "MatMul", "Gemm")  # and their quantised forms, QLinearConv


class OrtBackend:
    """An ONNX model with a manifest, run by ONNX Runtime.

    content: the model itself, where it is in memory; `path` only names it then
    threads: intra-op threads; results do not depend on it
    device: cuda is refused where ONNX Runtime would quietly take the CPU, for all nodes or for heavy ones
    tf32: on cuda, whether fp32 products may round their factors to TF32 (10 bits of mantissa for 23)
    cached: whether the optimised graph for the CPU is kept in the user's cache folder for the next time
    Raises BackendMissing, ModelUnreadable, AlphabetMismatch, ManifestMissing, ManifestInvalid.
    """

    def __init__(
        self,
        path: Path,
        *,
        content: bytes | None = None,
        threads: int = 1,
        device: Device = "cpu",
        tf32: bool = False,
        cached: bool = False,
    ) -> None:
        session = open_session(
            path, content=content, threads=threads, device=device, tf32=tf32, cached=cached
        )
        try:
            metadata = session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError as error:
            raise ModelUnreadable(path, "its metadata is not UTF-8") from error
        self.manifest = held_to_scales(Manifest.in_metadata(metadata, path), content or path)
        self._path = path
        self._check_graph(session)
        self._input = session.get_inputs()[0].name
        self._session: onnxruntime.InferenceSession | None = session

    def _check_graph(self, session: onnxruntime.InferenceSession) -> None:
        """Refuse a graph that is not what the manifest says, as far as its declared shapes tell."""
        manifest, inputs, outputs = self.manifest, session.get_inputs(), session.get_outputs()
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
        if (session := self._session) is None:
            raise ModelClosed(self._path)
        try:
            outputs = in_parts(
                lambda part: session.run(None, {self._input: part}), images, self.manifest.max_batch
            )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise RunFailed(self._path, images.shape, _refusal(error)) from error
        return frames_of(outputs, images, self.manifest, self._path)

    def close(self) -> None:
        self._session = None


def _fits(size: int, rule: int | WidthRule) -> bool:
    """Whether a dimension that the graph fixes is the only one that the manifest asks for."""
    return size == rule if isinstance(rule, int) else rule.minimum == size == rule.maximum


def open_session(
    path: Path,
    *,
    content: bytes | None = None,
    threads: int,
    device: Device = "cpu",
    tf32: bool = False,
    cached: bool = False,
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session.

    content: as of `OrtBackend`; it refers to nothing outside of it, and is not cached
    tf32: as of `OrtBackend`
    cached: whether ONNX Runtime's optimised graph for the CPU is kept for the next time (see
        `crnn_deploy.runtime.backends.cache`)
    Raises BackendMissing, ModelUnreadable.
    """
    ort = _import_onnxruntime()
    outside = content is not None or check_self_contained(path)
    model = str(path) if content is None else content
    if device == "cuda":
        return _open_on_cuda(ort, path, model, _options(ort, threads, device=device), tf32)
    try:
        if cached and not outside:
            return _open_cached(ort, path, _options(ort, threads))
        return ort.InferenceSession(model, _options(ort, threads), providers=[_PROVIDERS["cpu"]])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise ModelUnreadable(path, f"ONNX Runtime cannot load it: {_refusal(error)}") from error


def _open_on_cuda(
    ort: Any, path: Path, model: str | bytes, options: Any, tf32: bool
) -> onnxruntime.InferenceSession:
    """A session whose heavy nodes run on the GPU. Raises BackendMissing, ModelUnreadable."""
    provider = _PROVIDERS["cuda"]
    if provider not in ort.get_available_providers():
        raise BackendMissing(
            "this ONNX Runtime has no CUDA provider; run pip uninstall -y onnxruntime, "
            "then pip install 'crnn-deploy[gpu]'"
        )
    said = StringIO()
    with redirect_stdout(said):  # it prints what it does not find, and stdout is for texts
        ort.preload_dlls()  # CUDA and cuDNN from pip's packages
    options.add_session_config_entry(_ASSIGNMENT, "1")
    try:
        settings = {"use_tf32": str(int(tf32))}
        session = ort.InferenceSession(model, options, providers=[(provider, settings)])
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        if found := _CUDA_FAILURE.search(str(error)):
            reason = found[0].strip()
            raise BackendMissing(f"CUDA fails while ONNX Runtime opens {path}: {reason}") from error
        raise ModelUnreadable(path, f"ONNX Runtime cannot load it: {_refusal(error)}") from error
    if provider not in session.get_providers():
        missing = "".join(f" ({line.strip()})" for line in said.getvalue().splitlines()[:1])
        raise BackendMissing(
            f"ONNX Runtime's CUDA provider does not start and would leave {path} to "
            f"{', '.join(session.get_providers())}; its CUDA or cuDNN libraries or the driver are "
            f"missing{missing}, see crnn-deploy doctor; or take --device cpu"
        )
    for name, nodes in nodes_by_provider(session).items():
        heavy = [f"{count} {kind}" for kind, count in nodes.items() if any(k in kind for k in _HEAVY)]
        if name != provider and heavy:
            raise BackendMissing(
                f"ONNX Runtime's CUDA provider would leave {' and '.join(heavy)} of {path} to {name}; "
                "take an fp32 model or --device cpu"
            )
    return session


def nodes_by_provider(session: onnxruntime.InferenceSession) -> dict[str, Counter[str]]:
    """How many nodes of each operator every provider of a session on cuda was given.

    Raises BackendMissing where this ONNX Runtime does not tell.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise BackendMissing(
            "this ONNX Runtime does not tell which nodes run on the GPU; run "
            "pip install --upgrade 'crnn-deploy[gpu]' (1.24 or later)"
        )
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        found.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return found


def _open_cached(ort: Any, path: Path, options: Any) -> onnxruntime.InferenceSession:
    """A session of the optimised graph in the cache, which is put there first where it is not.

    The graph depends on the file's bytes, on ONNX Runtime and on the CPU, whose instructions decide how its
    weights are laid out, so these make the key. The weights lie in a file beside it, packed as the kernels
    want them: ONNX Runtime maps it into memory, where it would copy, optimise and pack those of a model file.
    """
    key = hashlib.sha256(f"{sha256(path)} {ort.__version__} {cache.fingerprint()}".encode()).hexdigest()
    if known := cache.find(f"{key}.onnx"):
        unchanged = _options(ort, options.intra_op_num_threads)
        unchanged.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        with suppress(Exception):  # a graph that does not load is made again
            check_self_contained(known)
            return ort.InferenceSession(str(known), unchanged, providers=["CPUExecutionProvider"])
    weights = f"{os.urandom(16).hex()}.bin"  # of this graph alone, though another process writes one too
    with suppress(Exception), cache.making(f"{key}.onnx", weights) as written:
        if written is not None:
            kept = _options(ort, options.intra_op_num_threads)
            kept.optimized_model_filepath = str(written)
            kept.add_session_config_entry(f"{_EXTERNAL}_file_name", weights)
            kept.add_session_config_entry(f"{_EXTERNAL}_min_size_in_bytes", "1024")
            kept.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
            return ort.InferenceSession(str(path), kept, providers=["CPUExecutionProvider"])
    # nothing can be kept, or it was not written whole, as on a full disk
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _options(ort: Any, threads: int, *, device: Device = "cpu") -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # of an optimised graph it warns that it fits this CPU alone
    if device == "cpu" and _arena(ort):
        options.add_session_config_entry("session.use_env_allocators", "1")
    return options


@once
def _arena(ort: Any) -> bool:
    """Whether sessions on the CPU share one arena, which bounds what their tensors take together.

    A file of 200 bytes can ask for a tensor larger than the machine; within a bound that is an error, without
    one the system ends the process.
    """
    if (most := memory()) is None:
        return False
    try:
        kind = (ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        config = ort.OrtArenaCfg({"max_mem": int(_SHARE * most)})
        ort.create_and_register_allocator(ort.OrtMemoryInfo("Cpu", *kind), config)
    except Exception:  # ONNX Runtime's exceptions share no base class; a build may have no arena
        return False
    return True


def _refusal(error: Exception) -> str:
    if found := _TOO_LARGE.search(str(error)):
        left, asked = (int(size) / 1e9 for size in found.groups())
        return f"a tensor takes {asked:.1f} GB, and {left:.1f} GB are left of the memory that it may take"
    return first_line(error)


def _import_onnxruntime() -> ModuleType:
    if len(onnxruntime_distributions()) == 2:
        raise BackendMissing(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; run "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install crnn-deploy[cpu] or crnn-deploy[gpu]"
        )
    try:
        ort = import_module("onnxruntime")
    except ModuleNotFoundError as error:
        if error.name != "onnxruntime":  # it is there, and broken
            raise
        raise BackendMissing(
            "no inference library is installed; run pip install 'crnn-deploy[cpu]' "
            "(or 'crnn-deploy[gpu]' on a machine with an NVIDIA GPU)"
        ) from error
    if (reason := onnxruntime_too_old(ort.__version__)) is not None:
        raise BackendMissing(reason)
    return ort
