"""The GPU, the driver and the libraries of this machine: what is installed, and what of it can be loaded."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from importlib import import_module, metadata
from typing import Any

from benchmarks.gpu.work import Work
from crnn_deploy import doctor
from crnn_deploy.errors import BackendMissing
from crnn_deploy.evaluation.speed import header
from crnn_deploy.runtime.backends.cuda import open_cuda
from crnn_deploy.runtime.backends.driver import Driver
from crnn_deploy.runtime.backends.engine_file import BuilderName
from crnn_deploy.runtime.backends.trt import import_tensorrt, logger

__all__ = ["BUILDERS", "gpu_header", "runtimes", "tensorrt"]

BUILDERS: tuple[BuilderName, ...] = ("tensorrt", "tensorrt-rtx")
_VERSIONS = (
    "tensorrt",
    "onnxruntime-gpu",
    "pycuda",
    "cuda-bindings",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
)


def gpu_header(suite: str, found: Driver) -> dict[str, Any]:
    """`header` of results that were measured on the first GPU."""
    results = header(suite)
    for name in _VERSIONS:
        try:
            results["versions"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    gpu = found.gpus[0]
    return results | {
        "device": "cuda",
        "gpu": {
            "name": gpu.name,
            "compute_capability": gpu.compute_capability,
            "memory_bytes": gpu.memory,
            "driver": found.version,
            "cuda": found.cuda,
        },
    }


def tensorrt() -> tuple[BuilderName, Any]:
    """The TensorRT that builds here, and its module. Raises BackendMissing."""
    for name in BUILDERS:
        try:
            return name, import_tensorrt(name)
        except BackendMissing:
            continue
    raise BackendMissing("neither tensorrt nor tensorrt-rtx")


def runtimes(work: Work) -> None:
    """Which libraries load; those that end the process where they do not fit come last."""
    work.attempt(lambda: {found.name: asdict(found) for found in doctor.examine().libraries}, "libraries")
    work.attempt(_torch, "torch.cuda")
    work.attempt(_cupy, "CuPy")
    work.attempt(lambda: type(open_cuda()).__name__.lstrip("_"), "engines reach the driver through")
    for name in BUILDERS:
        work.attempt(partial(_runtime, name), "TensorRT's runtime", name)


def _torch() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        raise BackendMissing(f"torch {torch.__version__} finds no GPU")
    free, total = torch.cuda.mem_get_info()
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "fp32 as tf32 in convolutions": torch.backends.cudnn.allow_tf32,
        "fp32 as tf32 in products": torch.backends.cuda.matmul.allow_tf32,
        "built for": torch.cuda.get_arch_list(),
        "free_bytes": free,
        "total_bytes": total,
        "sum on the GPU": float(torch.ones(1000, device="cuda").sum()),
    }


def _cupy() -> dict[str, Any]:
    try:
        cupy = import_module("cupy")
    except ImportError as error:
        raise BackendMissing(f"CuPy ({error})") from error
    return {"version": cupy.__version__, "sum on the GPU": float(cupy.ones(1000).sum())}


def _runtime(name: BuilderName) -> dict[str, Any]:
    trt = import_tensorrt(name)
    if trt.Runtime(logger(trt)) is None:
        raise RuntimeError("its runtime does not start")
    return {"version": trt.__version__}
