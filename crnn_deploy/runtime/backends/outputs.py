"""A graph's outputs held to its manifest, whatever library ran it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import RunFailed
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = ["SMALLEST", "are_probabilities", "frames_of", "in_parts"]

SMALLEST = (
    1e-30  # a probability below it counts as this one: its logarithm is finite, and no text hangs on it
)
_SUM = 5e-3  # a frame's probabilities sum to one so closely, in half precision too


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
        return Frames.from_logits(_scores(first.astype(np.float32, copy=False), manifest))
    if first.size and not 0 <= first.min() <= first.max() < manifest.classes:
        reason = f"it puts out class {first.max()} of {manifest.classes}"
        raise RunFailed(path, images.shape, reason)
    return Frames(first.astype(np.int64, copy=False), np.asarray(outputs[1], np.float32))


def in_parts(
    run: Callable[[NDArray[np.float32]], Sequence[NDArray[Any]]],
    images: NDArray[np.float32],
    most: int | None,
) -> Sequence[NDArray[Any]]:
    """Outputs of images (N, C, H, W) of which no more than `most` run together; None: all do."""
    size = most or max(1, len(images))
    runs = [run(images[at : at + size]) for at in range(0, max(1, len(images)), size)]
    return runs[0] if len(runs) == 1 else [np.concatenate(parts) for parts in zip(*runs, strict=True)]


def are_probabilities(scores: NDArray[Any]) -> bool:
    """Whether each frame's scores (..., T, classes) are non-negative and sum to one, as softmax has it."""
    if not scores.size:
        return False
    sums = scores.sum(axis=-1, dtype=np.float64)
    return bool((scores >= 0).all() and (np.abs(sums - 1) <= _SUM).all())


def _scores(scores: NDArray[np.float32], manifest: Manifest) -> NDArray[np.float32]:
    """Scores (N, T, classes) as logits or log-probabilities, whatever an older manifest calls them.

    Earlier versions called probabilities logits, where a network ended in softmax. It is told for each image
    alone, so that none depends on its batch.
    """
    if manifest.output != "logits":
        return scores
    # logits hold negative numbers almost always, so that the first frames are enough to tell
    if not (scores[:, :1] >= 0).all(axis=(1, 2)).any():
        return scores
    told = [are_probabilities(image) for image in scores]
    return np.stack(
        [np.log(np.maximum(one, SMALLEST)) if yes else one for one, yes in zip(scores, told, strict=True)]
    )
