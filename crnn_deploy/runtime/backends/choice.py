"""Which inference library runs a model fastest here: measured once, remembered, and explained.

One is considered where it is installed and takes every frame of the trial for the same class as ONNX
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
from crnn_deploy.files import parse_json, sha256
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends import cache
from crnn_deploy.runtime.backends.backend import Backend, BackendName, Device, open_backend

__all__ = ["Choice", "choose", "resolve"]

_ROUNDS, _BATCH = 3, 4
_WIDEST = 320  # pixels, of a trial


@dataclass(frozen=True)
class Choice:
    """The backend for a model on this machine, and why."""

    backend: BackendName
    milliseconds: Mapping[
        BackendName, float
    ]  # CPU time of an image, by backend, the median of the trial's rounds
    refused: Mapping[BackendName, str]  # why a backend was not considered

    def why(self) -> str:
        """One line."""
        timed = ", ".join(
            f"{name} {value:.2f} ms of CPU an image" for name, value in self.milliseconds.items()
        )
        refused = "".join(f"; {name}: {reason}" for name, reason in self.refused.items())
        return f"{self.backend} ({timed or 'the only one'}{refused})"


def resolve(backend: BackendName | Literal["auto"], path: Path, device: Device) -> BackendName:
    """The backend that is meant; auto is the fastest one on the CPU. Raises what `choose` raises."""
    if backend != "auto":
        return backend
    return choose(path).backend if device == "cpu" else "onnxruntime"


def choose(path: Path) -> Choice:
    """Measure, or remember what was measured for the same file, versions and CPU.

    Raises ModelNotFound, ModelUnreadable, and what `open_backend` raises for ONNX Runtime.
    """
    if not path.is_file():
        raise ModelNotFound(path)
    if path.suffix != ".onnx":
        return Choice("onnxruntime", {}, {})  # its suffix decides
    versions = " ".join(f"{name} {_version(name)}" for name in get_args(BackendName))
    try:
        content = sha256(path)
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
        known = choice.backend in get_args(BackendName)
        return choice if known and all(map(math.isfinite, choice.milliseconds.values())) else None
    except (ValueError, TypeError, AttributeError):
        return None


def _measure(path: Path) -> Choice:
    opened: dict[BackendName, Backend] = {"onnxruntime": open_backend(path)}
    refused: dict[BackendName, str] = {}
    trial = _trial(opened["onnxruntime"].manifest)
    expected = [opened["onnxruntime"].run(images).indices for images in trial]
    for name in get_args(BackendName)[1:]:
        try:
            opened[name] = backend = open_backend(path, backend=name)
            for images, indices in zip(trial, expected, strict=True):
                alone = [backend.run(image[None]).indices for image in images]
                if not np.array_equal(backend.run(images).indices, indices) or not np.array_equal(
                    np.concatenate(alone), indices
                ):
                    refused[name] = "it reads frames otherwise than ONNX Runtime"
                    opened.pop(name).close()
                    break
        except BackendMissing:
            refused[name] = "not installed"
        except CrnnDeployError as error:
            refused[name] = str(error)
    spent: dict[BackendName, list[float]] = {name: [] for name in opened}
    if len(opened) > 1:
        for at in range(_ROUNDS + 1):  # the first one warms up
            for name, backend in opened.items():
                start = time.process_time()
                for images in trial:
                    backend.run(images)
                if at:
                    spent[name].append((time.process_time() - start) / len(trial) / _BATCH * 1e3)
    for backend in opened.values():
        backend.close()
    times = {name: float(np.median(values)) for name, values in spent.items() if values}
    best: BackendName = min(times, key=lambda name: times[name], default="onnxruntime")
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
