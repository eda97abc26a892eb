"""A second reading of what was read unsurely, with its contrast stretched, as EasyOCR does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.manifest import Contrast
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = ["reread", "sureness"]


def reread(
    frames: Frames,
    contrasted: Sequence[NDArray[np.float32] | None],
    contrast: Contrast,
    blank: int,
    network: Callable[[NDArray[np.float32]], Frames],
) -> Frames:
    """The frames of a batch, those of unsure images replaced where the second reading is as sure or surer.

    contrasted: of each image its input (C, H, W) with stretched contrast; None where that would be the same
    github.com/JaidedAI/EasyOCR recognition.py, get_text. It depends on each image alone.
    """
    first = [sureness(frames.row(at), blank) for at in range(len(frames.indices))]
    unsure = [
        (at, image) for at, image in enumerate(contrasted) if image is not None and first[at] < contrast.below
    ]
    if not unsure:
        return frames
    second = network(np.stack([image for _, image in unsure]))
    rows = [frames.row(at) for at in range(len(first))]
    for (at, _), row in zip(unsure, map(second.row, range(len(unsure))), strict=True):
        if not first[at] > sureness(row, blank):
            rows[at] = row
    logits = [row.logits for row in rows if row.logits is not None]
    return Frames(
        np.concatenate([row.indices for row in rows]),
        np.concatenate([row.probabilities for row in rows]),
        np.concatenate(logits) if logits else None,
    )


def sureness(frames: Frames, blank: int) -> float:
    """How sure EasyOCR (custom_mean) is of one image, 0-1: by all frames that are no blanks."""
    [indices], [probabilities] = frames.indices, frames.probabilities
    likeliest = probabilities[indices != blank]
    return float(likeliest.prod() ** (2.0 / np.sqrt(len(likeliest)))) if len(likeliest) else 0.0
