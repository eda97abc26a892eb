"""Whether an image gives the same frames alone and in a batch, to the bit, in every way to run it there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu.measure import noise
from benchmarks.gpu.networks import DEFAULT_MODEL, engines_of, networks
from benchmarks.gpu.work import Work
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.backends.trt import Kernels, open_engine

__all__ = ["invariance"]

_WIDTHS, _IMAGES, _BATCHES = (104, 160, 320), 24, (2, 5, 8, 24)
_KERNELS: tuple[Kernels, ...] = ("none", "eager")


def invariance(work: Work) -> None:
    """The default model by ONNX Runtime and by engines, with either kind of kernels of TensorRT for RTX."""
    [network] = [network for network in networks(work.folder) if network.name == DEFAULT_MODEL]
    ways: dict[str, Callable[[], Backend]] = {
        f"ONNX Runtime CUDA {kind}": partial(OrtBackend, DEFAULT, device="cuda", tf32=kind == "tf32")
        for kind in ("fp32", "tf32")
    }
    for precision, path in engines_of(network, work.folder).items():
        for kernels in _KERNELS:
            ways[f"TensorRT {precision}, kernels {kernels}"] = partial(open_engine, path, kernels=kernels)
    for name, way in ways.items():
        work.attempt(partial(_compared, way), name)


def _compared(way: Callable[[], Backend]) -> dict[str, Any]:
    backend = way()
    bits = frames = classes = total = 0
    largest = 0.0
    try:
        for width in _WIDTHS:
            images = noise(backend.manifest, _IMAGES, width)
            alone = [_outputs(backend, images[at : at + 1]) for at in range(_IMAGES)]
            for batch in _BATCHES:
                for start in range(0, _IMAGES, batch):
                    indices, values = _outputs(backend, images[start : start + batch])
                    for at in range(len(indices)):
                        one, sure = alone[start + at]
                        total += 1
                        bits += not np.array_equal(sure[0], values[at])
                        classes += int((one[0] != indices[at]).sum())
                        frames += one[0].size
                        largest = max(largest, float(np.abs(sure[0] - values[at]).max()))
    finally:
        backend.close()
    return {
        "readings in batches": total,
        "not equal in every bit": bits,
        "frames": frames,
        "frames of another class": classes,
        "largest difference": largest,
    }


def _outputs(backend: Backend, images: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Classes, and logits; the classes' probabilities where these do not leave the GPU."""
    frames = backend.run(images)
    return frames.indices, frames.probabilities if frames.logits is None else frames.logits
