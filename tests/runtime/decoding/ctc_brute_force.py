"""CTC by its definition: every path of classes, its text and its probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, product

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.runtime.decoding.ctc import Frames

Labels = tuple[int, ...]


def random_frames(seed: int, steps: int, classes: int, *, scale: float = 1.0, rows: int = 1) -> Frames:
    """Frames of normally distributed logits."""
    logits = np.random.default_rng(seed).normal(size=(rows, steps, classes)) * scale
    return Frames.from_logits(logits.astype(np.float32))


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = logits.astype(np.float64)
    exact -= np.log(np.exp(exact).sum(axis=-1, keepdims=True))
    return exact


def labels_of(path: Sequence[int], blank: int) -> Labels:
    return tuple(label for label, _ in groupby(path) if label != blank)


def all_paths(frames: Frames, blank: int) -> list[tuple[tuple[int, ...], Labels, float]]:
    """Of the first image every path, its labels, and its log probability."""
    assert frames.logits is not None
    log_probs = log_softmax(frames.logits[0])
    return [
        (path, labels_of(path, blank), float(sum(log_probs[t, label] for t, label in enumerate(path))))
        for path in product(range(log_probs.shape[1]), repeat=len(log_probs))
    ]


def all_texts(frames: Frames, blank: int) -> dict[Labels, float]:
    """Of the first image every labelling and its log probability over all paths."""
    found: dict[Labels, float] = {}
    for _, labels, score in all_paths(frames, blank):
        found[labels] = float(np.logaddexp(found.get(labels, -math.inf), score))
    return found
