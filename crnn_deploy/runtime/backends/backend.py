"""What runs a network: one protocol, one file for each library."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import BackendMissing, ModelNotFound, ModelUnreadable
from crnn_deploy.manifest import Manifest
from crnn_deploy.process import not_forked
from crnn_deploy.runtime.backends.weight_bits import check_weights
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = [
    *("SUFFIXES", "Backend", "BackendName", "BatchSizes", "Device", "FloatFormat"),
    *("manifest_of", "open_backend"),
]

BackendName = Literal["onnxruntime", "openvino"]
Device = Literal["cpu", "cuda"]
FloatFormat = Literal["fp32", "bf16"]
# of the batches in which OpenVINO runs images: with two or more, a lone image runs beside a copy of itself
BatchSizes = Literal["any", "two or more", "one"]
SUFFIXES = (".onnx", ".engine")  # of model files that `open_backend` knows


class Backend(Protocol):
    """A network that is ready to run; safe to call from several threads."""

    @property
    def manifest(self) -> Manifest: ...

    def run(self, images: NDArray[np.float32]) -> Frames:
        """Images (N, C, H, W), prepared as the manifest says, to what the network says of each frame.

        Raises RunFailed, ModelClosed.
        """
        ...

    def close(self) -> None:
        """Give back what it holds; a run that has begun may end after it. A second time changes nothing."""
        ...


def open_backend(
    path: Path,
    *,
    threads: int = 1,
    backend: BackendName = "onnxruntime",
    device: Device = "cpu",
    tf32: bool = False,
    floats: FloatFormat = "fp32",
    batch_sizes: BatchSizes = "any",
) -> Backend:
    """The backend for a model file, told by its suffix.

    backend: the library that runs an .onnx file
    device: where ONNX Runtime runs an .onnx file; an .engine runs on the GPU
    tf32: whether fp32 products of an .onnx file on cuda may round their factors to TF32; an .engine was built
        with or without it
    floats: the format of OpenVINO's products; whether the text stays the same is asked by
        `runtime.openvino_check`
    batch_sizes: in which OpenVINO runs images, however many are given

    Raises ModelNotFound, ModelUnreadable, ManifestMissing, BackendMissing, CpuUnfit; of an engine, what
    `trt.open_engine` raises.
    """
    with not_forked():
        return _opened(path, threads, backend, device, tf32, floats, batch_sizes)


def _opened(
    path: Path,
    threads: int,
    backend: BackendName,
    device: Device,
    tf32: bool,
    floats: FloatFormat,
    batch_sizes: BatchSizes,
) -> Backend:
    if not path.is_file():
        raise ModelNotFound(path)
    if path.suffix == ".onnx" and device == "cpu":
        check_weights(path)
    if path.suffix == ".onnx" and backend == "openvino":
        if device != "cpu":
            raise BackendMissing(f"OpenVINO runs on the CPU here; for {device} take the backend onnxruntime")
        from crnn_deploy.runtime.backends.openvino import OpenVinoBackend

        return OpenVinoBackend(path, threads=threads, floats=floats, batch_sizes=batch_sizes)
    if floats != "fp32":
        raise BackendMissing(
            f"{floats} is run by OpenVINO, from an .onnx file; {path} would be run by another"
        )
    if path.suffix == ".onnx":
        from crnn_deploy.runtime.backends.ort import OrtBackend

        return OrtBackend(path, threads=threads, device=device, tf32=tf32, cached=True)
    if path.suffix == ".engine":
        from crnn_deploy.runtime.backends.trt import open_engine

        return open_engine(path)
    raise ModelUnreadable(
        path,
        "neither an .onnx nor an .engine file; a checkpoint becomes an .onnx file with: "
        "crnn-deploy export --checkpoint FILE",
    )


def manifest_of(path: Path) -> Manifest:
    """That of an .onnx or .engine file; the engine need not run here. Raises what opening the file raises."""
    if path.suffix == ".engine":
        from crnn_deploy.runtime.backends.engine_file import read_sidecar

        return read_sidecar(path).manifest
    with closing(open_backend(path)) as backend:
        return backend.manifest
