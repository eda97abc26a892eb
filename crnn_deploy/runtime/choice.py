"""Which inference library runs a model fastest here: measured once, remembered, and explained.

A library is considered where it is installed, and where the model passes the verdict on texts in it
(`openvino_check`).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import BackendMissing, CrnnDeployError, ModelNotFound
from crnn_deploy.files import parse_json
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends import cache
from crnn_deploy.runtime.backends.backend import Backend, BackendName, FloatFormat, open_backend
from crnn_deploy.runtime.openvino_check import check_openvino

__all__ = ["WAYS", "Choice", "Way", "choose"]

_ROUNDS, _BATCH = 3, 4
_WIDEST = 320  # pixels, of a trial

Way = Literal["onnxruntime", "openvino", "openvino bf16"]
WAYS: Mapping[Way, tuple[BackendName, FloatFormat]] = {
    "onnxruntime": ("onnxruntime", "fp32"),
    "openvino": ("openvino", "fp32"),
    "openvino bf16": ("openvino", "bf16"),
}


@dataclass(frozen=True)
class Choice:
    """How a model runs fastest on this machine, and why."""

    way: Way
    milliseconds: Mapping[Way, float]  # CPU time of an image, the median of the trial's rounds
    refused: Mapping[Way, str]  # why a way was not considered

    @property
    def backend(self) -> BackendName:
        return WAYS[self.way][0]

    @property
    def floats(self) -> FloatFormat:
        return WAYS[self.way][1]

    def in_fp32(self) -> Choice:
        """The choice without bf16."""
        times = {way: time for way, time in self.milliseconds.items() if WAYS[way][1] == "fp32"}
        refused = {way: why for way, why in self.refused.items() if WAYS[way][1] == "fp32"}
        return Choice(_fastest(times), times, refused)

    def why(self) -> str:
        """One line."""
        timed = ", ".join(f"{way} {value:.2f} ms of CPU an image" for way, value in self.milliseconds.items())
        refused = "".join(f"; {way}: {reason}" for way, reason in self.refused.items())
        return f"{self.way} ({timed or 'the only one'}{refused})"

    def to_plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"backend": self.backend, "precision": self.floats, **asdict(self)}


def choose(path: Path) -> Choice:
    """Measure, or remember what was measured for the same file, versions and CPU.

    Raises ModelNotFound, ModelUnreadable, and what `open_backend` raises for ONNX Runtime.
    """
    if not path.is_file():
        raise ModelNotFound(path)
    if path.suffix != ".onnx":
        return Choice("onnxruntime", {}, {})  # its suffix decides
    entry = f"{hashlib.sha256(f'ways {cache.key(path)}'.encode()).hexdigest()}.json"
    if (known := cache.load(entry)) is not None and (remembered := _remembered(known)) is not None:
        return remembered
    choice = _measure(path)
    cache.store(entry, json.dumps(asdict(choice)).encode())
    return choice


def _remembered(data: bytes) -> Choice | None:
    """A choice that was stored; None where the file holds none."""
    try:
        choice = Choice(**parse_json(data))
        known = {choice.way, *choice.milliseconds, *choice.refused} <= WAYS.keys()
        return choice if known and all(map(math.isfinite, choice.milliseconds.values())) else None
    except (ValueError, TypeError, AttributeError):
        return None


def _measure(path: Path) -> Choice:
    refused: dict[Way, str] = {}
    with ExitStack() as stack:
        reference = stack.enter_context(closing(open_backend(path)))
        opened: dict[Way, Backend] = {"onnxruntime": reference}
        trial = _trial(reference.manifest)
        for way in get_args(Way)[1:]:
            name, floats = WAYS[way]
            try:
                sizes = check_openvino(path, floats)
                backend = open_backend(path, backend=name, floats=floats, batch_sizes=sizes)
                opened[way] = stack.enter_context(closing(backend))
            except BackendMissing as error:
                refused[way] = str(error) if floats == "bf16" else "not installed"
            except CrnnDeployError as error:
                refused[way] = str(error)
        times = _times(opened, trial)
    return Choice(_fastest(times), times, refused)


def _times(opened: Mapping[Way, Backend], trial: list[NDArray[np.float32]]) -> dict[Way, float]:
    """Milliseconds of CPU for an image; nothing where there is nothing to choose."""
    if len(opened) < 2:
        return {}
    spent: dict[Way, list[float]] = {way: [] for way in opened}
    for at in range(_ROUNDS + 1):  # the first one warms up
        for way, backend in opened.items():
            start = time.process_time()
            for images in trial:
                backend.run(images)
            if at:
                spent[way].append((time.process_time() - start) / len(trial) / _BATCH * 1e3)
    return {way: float(np.median(values)) for way, values in spent.items()}


def _fastest(times: Mapping[Way, float]) -> Way:
    return min(times, key=lambda way: times[way], default="onnxruntime")


def _trial(manifest: Manifest) -> list[NDArray[np.float32]]:
    """Batches of noise, narrow to wide."""
    rng = np.random.default_rng(0)
    buckets = [width for width in manifest.width.buckets() if width <= _WIDEST] or [manifest.width.minimum]
    widths = sorted({buckets[0], buckets[len(buckets) // 2], buckets[-1]})
    return [
        rng.standard_normal((_BATCH, manifest.channels, manifest.height, width), np.float32)
        for width in widths
    ]
