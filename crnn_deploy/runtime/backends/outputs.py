"""A graph's outputs held to its manifest, whatever library ran it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import RunFailed
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = ["frames_of"]


def frames_of(
    outputs: Sequence[NDArray[Any]], images: NDArray[np.float32], manifest: Manifest, path: Path
) -> Frames:
    """What a network said of images (N, C, H, W). Raises RunFailed where the manifest says otherwise."""
    first = np.asarray(outputs[0])
    expected: tuple[int, ...] = (len(images), manifest.steps(images.shape[3]))
    if manifest.output != "argmax":
        expected += (manifest.classes,)
    if first.shape != expected:
        reason = f"its manifest promises an output of shape {expected}, the graph gives {first.shape}"
        raise RunFailed(path, images.shape, reason)
    if manifest.output != "argmax":
        return Frames.from_logits(first.astype(np.float32, copy=False))
    if first.size and not 0 <= first.min() <= first.max() < manifest.classes:
        reason = f"it puts out class {first.max()} of {manifest.classes}"
        raise RunFailed(path, images.shape, reason)
    return Frames(first.astype(np.int64, copy=False), np.asarray(outputs[1], np.float32))
