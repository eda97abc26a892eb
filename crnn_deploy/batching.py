"""Images of one width together: a batch is never padded, so an image cannot change its neighbours' text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "batches"]


@dataclass(frozen=True)
class Batch:
    """Images that run together."""

    images: NDArray[np.float32]  # (N, C, H, W)
    indices: tuple[int, ...]  # where each stands in the input's order


def batches(images: Iterable[tuple[int, NDArray[np.float32]]], size: int) -> Iterator[Batch]:
    """Group prepared images (index, (C, H, W)) by width into batches of at most `size`."""
    waiting: dict[int, list[tuple[int, NDArray[np.float32]]]] = {}
    for index, image in images:
        group = waiting.setdefault(image.shape[2], [])
        group.append((index, image))
        if len(group) == size:
            yield _batch(waiting.pop(image.shape[2]))
    for group in waiting.values():
        yield _batch(group)


def _batch(group: list[tuple[int, NDArray[np.float32]]]) -> Batch:
    return Batch(np.stack([image for _, image in group]), tuple(index for index, _ in group))
