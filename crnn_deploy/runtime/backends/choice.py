"""Which inference library runs a model fastest here: measured once, remembered, and explained.

An engine is considered where it is installed and takes every frame of the trial for the same class as ONNX
Runtime does, batch by batch and image by image.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import BackendMissing, CrnnDeployError, ModelNotFound, ModelUnreadable
from crnn_deploy.files import open_regular, parse_json
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends import cache
from crnn_deploy.runtime.backends.backend import Backend, Device, Engine, open_backend

__all__ = ["Choice", "choose", "resolve"]

_ROUNDS, _BATCH = 3, 4
_WIDEST = 320  # pixels, of a trial


@dataclass(frozen=True)
class Choice:
    """The engine for a model on this machine, and why."""

    engine: Engine
    milliseconds: Mapping[Engine, float]  # CPU time of an image, by engine, the median of the trial's rounds
    refused: Mapping[Engine, str]  # why an engine was not considered

    def why(self) -> str:
        """One line."""
        timed = ", ".join(
            f"{name} {value:.2f} ms of CPU an image" for name, value in self.milliseconds.items()
        )
        refused = "".join(f"; {name}: {reason}" for name, reason in self.refused.items())
        return f"{self.engine} ({timed or 'the only one'}{refused})"


def resolve(engine: Engine | Literal["auto"], path: Path, device: Device) -> Engine:
    """The engine that is meant; auto is the fastest one on the CPU. Raises what `choose` raises."""
    if engine != "auto":
        return engine
    return choose(path).engine if device == "cpu" else "onnxruntime"


def choose(path: Path) -> Choice:
    """Measure, or remember what was measured for the same file, versions and CPU.

    Raises ModelNotFound, ModelUnreadable, and what `open_backend` raises for ONNX Runtime.
    """
    if not path.is_file():
        raise ModelNotFound(path)
    if path.suffix != ".onnx":
        return Choice("onnxruntime", {}, {})  # its suffix decides
    versions = " ".join(f"{name} {_version(name)}" for name in get_args(Engine))
    try:
        with open_regular(path) as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelUnreadable(path, f"cannot be read: {error.strerror}") from error
    key = hashlib.sha256(f"{content} {versions} {cache.fingerprint()}".encode()).hexdigest()
    if (known := cache.load(f"{key}.json")) is not None and (remembered := _remembered(known)) is not None:
        return remembered
    choice = _measure(path)
    cache.store(f"{key}.json", json.dumps(asdict(choice)).encode())
    return choice


def _remembered(data: bytes) -> Choice | None:
    """A choice that was stored; None where the file holds none."""
    try:
        choice = Choice(**parse_json(data))
        known = choice.engine in get_args(Engine)
        return choice if known and all(map(math.isfinite, choice.milliseconds.values())) else None
    except (ValueError, TypeError, AttributeError):
        return None


def _measure(path: Path) -> Choice:
    opened: dict[Engine, Backend] = {"onnxruntime": open_backend(path)}
    refused: dict[Engine, str] = {}
    trial = _trial(opened["onnxruntime"].manifest)
    expected = [opened["onnxruntime"].run(images).indices for images in trial]
    for engine in get_args(Engine)[1:]:
        try:
            opened[engine] = backend = open_backend(path, engine=engine)
            for images, indices in zip(trial, expected, strict=True):
                alone = [backend.run(image[None]).indices for image in images]
                if not np.array_equal(backend.run(images).indices, indices) or not np.array_equal(
                    np.concatenate(alone), indices
                ):
                    refused[engine] = "it reads frames otherwise than ONNX Runtime"
                    opened.pop(engine).close()
                    break
        except BackendMissing:
            refused[engine] = "not installed"
        except CrnnDeployError as error:
            refused[engine] = str(error)
    spent: dict[Engine, list[float]] = {engine: [] for engine in opened}
    if len(opened) > 1:
        for at in range(_ROUNDS + 1):  # the first one warms up
            for engine, backend in opened.items():
                start = time.process_time()
                for images in trial:
                    backend.run(images)
                if at:
                    spent[engine].append((time.process_time() - start) / len(trial) / _BATCH * 1e3)
    for backend in opened.values():
        backend.close()
    times = {engine: float(np.median(values)) for engine, values in spent.items() if values}
    best: Engine = min(times, key=lambda engine: times[engine], default="onnxruntime")
    return Choice(best, times, refused)


def _trial(manifest: Manifest) -> list[NDArray[np.float32]]:
    """Batches of noise, narrow to wide."""
    rng = np.random.default_rng(0)
    buckets = [width for width in manifest.width.buckets() if width <= _WIDEST] or [manifest.width.minimum]
    widths = sorted({buckets[0], buckets[len(buckets) // 2], buckets[-1]})
    return [
        rng.standard_normal((_BATCH, manifest.channels, manifest.height, width), np.float32)
        for width in widths
    ]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"
