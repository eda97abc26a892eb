"""TensorRT and TensorRT for RTX: which is installed, and whether an engine can run here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from crnn_deploy import driver
from crnn_deploy.engine_file import BuilderName, check_bytes, check_gpu, check_library, read_sidecar
from crnn_deploy.errors import BackendMissing

__all__ = ["import_tensorrt", "open_engine"]

_MODULES: dict[BuilderName, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}


def import_tensorrt(builder: BuilderName) -> Any:
    """The library's module; it needs no GPU, its runtime does. Raises BackendMissing."""
    try:
        return import_module(_MODULES[builder])
    except (ImportError, OSError) as error:  # a library that it links to may be absent
        raise BackendMissing(
            f"{builder} is not usable here ({error}); run pip install 'crnn-deploy[{builder}]'"
        ) from error


def open_engine(path: Path) -> NoReturn:
    """Hold an engine against its sidecar, the library and the GPU here, the driver before any runtime.

    Raises ModelNotFound, SidecarMissing, SidecarInvalid, ManifestInvalid, EngineChanged, EngineStale,
    BackendMissing.
    """
    engine = read_sidecar(path)
    check_bytes(engine, path)
    check_library(engine, path, import_tensorrt(engine.builder).__version__)
    found = driver.probe()
    if found.problem is not None:
        raise BackendMissing(f"{path} needs an NVIDIA GPU: {found.problem}; run crnn-deploy doctor")
    check_gpu(engine, path, found.gpus[0])
    raise BackendMissing(f"{path} fits this machine, but this version builds engines and runs none yet")
