"""OpenVINO on the CPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import BackendMissing, ModelClosed, ModelUnreadable, RunFailed
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends.backend import BatchSizes
from crnn_deploy.runtime.backends.onnx_file import check_self_contained, read_metadata
from crnn_deploy.runtime.backends.openvino_import import without_telemetry
from crnn_deploy.runtime.backends.outputs import frames_of, in_parts
from crnn_deploy.runtime.backends.run_time_scales import held_to_scales
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = ["OpenVinoBackend", "import_openvino", "signal_stack_kept"]

_MOST = {"one": 1, "two or more": 8}  # images of a batch


class OpenVinoBackend:
    """An ONNX file with a manifest, run by OpenVINO.

    threads: threads inside one run
    floats: bf16 needs a CPU with its instructions: on others OpenVINO would take fp32 without a word
    batch_sizes: in which images run; with "two or more" a lone image runs beside a copy of itself. The
        manifest's `max_batch` is 1 for "one", and 8 for "two or more"
    Raises BackendMissing, ModelUnreadable, ManifestMissing, ManifestInvalid.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 1,
        floats: Literal["fp32", "bf16"] = "fp32",
        batch_sizes: BatchSizes = "any",
    ) -> None:
        openvino = import_openvino()
        check_self_contained(path)
        manifest = held_to_scales(Manifest.in_metadata(read_metadata(path), path), path)
        self.manifest = replace(manifest, max_batch=_MOST.get(batch_sizes, manifest.max_batch))
        self._least = 2 if batch_sizes == "two or more" else 1
        hint = {"fp32": "f32", "bf16": "bf16"}[floats]
        settings = {
            **{"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1},
            "ENABLE_CPU_PINNING": False,  # else every worker's run is pinned to the same core
        }
        try:
            with signal_stack_kept():
                self._model: Any = openvino.Core().compile_model(str(path), "CPU", settings)
        except RuntimeError as error:
            raise ModelUnreadable(path, f"OpenVINO cannot load it: {_last_line(error)}") from error
        taken = self._model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if taken != hint:
            raise BackendMissing(f"OpenVINO has no {floats} on this CPU: asked for {hint}, it takes {taken}")
        self._path = path
        self._idle: SimpleQueue[Any] = SimpleQueue()  # a request serves one thread at a time
        # OpenVINO 2026.4 hangs, about once in twenty times, where two threads take a process's first results
        # together: one holds a lock of C++ and waits for Python's, the other the reverse
        narrowest = (1, self.manifest.channels, self.manifest.height, self.manifest.width.minimum)
        with suppress(RunFailed):  # a run of images says so again
            self.run(np.zeros(narrowest, np.float32))

    def run(self, images: NDArray[np.float32]) -> Frames:
        if (model := self._model) is None:
            raise ModelClosed(self._path)
        try:
            request = self._idle.get_nowait()
        except Empty:
            request = model.create_infer_request()

        def infer(part: NDArray[np.float32]) -> list[NDArray[Any]]:
            size = len(part)
            if size < self._least:
                part = np.repeat(part, self._least, axis=0)
            results = request.infer([np.ascontiguousarray(part)])
            return [np.array(results[at][:size]) for at in range(len(model.outputs))]

        try:
            outputs = in_parts(infer, images, self.manifest.max_batch)
        except RuntimeError as error:
            raise RunFailed(self._path, images.shape, _last_line(error)) from error
        finally:
            self._idle.put(request)
        return frames_of(outputs, images, self.manifest, self._path)

    def close(self) -> None:
        self._model, self._idle = None, SimpleQueue()


def import_openvino() -> Any:
    """The library's module, without its telemetry. Raises BackendMissing."""
    try:
        return without_telemetry()
    except (ImportError, OSError) as error:
        raise BackendMissing(
            f"OpenVINO is not usable here ({error}); run pip install 'crnn-deploy[openvino]'"
        ) from error


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_: ClassVar = [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Give the thread back the stack for signals that it had before.

    OpenVINO 2026.4 sets one with each model. Where models are closed in the order in which they were opened,
    it leaves one that is freed, and the next signal, such as Ctrl-C or a child process that ends, crashes.
    """
    if sys.platform != "linux":
        yield
        return
    before, library = _Stack(), ctypes.CDLL(None)
    library.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        library.sigaltstack(ctypes.byref(before), None)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
