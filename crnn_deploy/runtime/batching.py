"""Images of one width together: a batch is never padded, so an image cannot change its neighbours' text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Batch", "Groups", "batches"]

_WIDE, _MOST_COLUMNS = 2**13, 2**17  # of a line, and of a batch of lines that are wider

Item = TypeVar("Item")


class Groups(Generic[Item]):
    """Items that wait for others of their width, at most `size` to a batch, and fewer of the very wide."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._waiting: dict[int, list[Item]] = {}  # in the order of each group's first item
        self.columns = 0  # pixels, the widths of all that wait together

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, width: int, item: Item) -> list[Item] | None:
        """The batch that this item fills, if it does."""
        group = self._waiting.setdefault(width, [])
        group.append(item)
        self.columns += width
        full = len(group) == self._size or (width > _WIDE and width * (len(group) + 1) > _MOST_COLUMNS)
        return self._pop(width) if full else None

    def pop_oldest(self) -> list[Item]:
        """The batch, not full, of the item that has waited longest."""
        return self._pop(next(iter(self._waiting)))

    @property
    def oldest(self) -> Item:
        """The item that has waited longest."""
        return next(iter(self._waiting.values()))[0]

    @property
    def fullest(self) -> int:
        """Items of the largest group."""
        return max(map(len, self._waiting.values()))

    def pop_fullest(self) -> list[Item]:
        """The batch, not full, of the most items; of several, that of the item that has waited longest."""
        return self._pop(max(self._waiting, key=lambda width: len(self._waiting[width])))

    def _pop(self, width: int) -> list[Item]:
        group = self._waiting.pop(width)
        self.columns -= width * len(group)
        return group


@dataclass(frozen=True)
class Batch:
    """Images that run together."""

    images: NDArray[np.float32]  # (N, C, H, W)
    indices: tuple[int, ...]  # where each stands in the input's order


def batches(images: Iterable[tuple[int, NDArray[np.float32]]], size: int) -> Iterator[Batch]:
    """Group prepared images (index, (C, H, W)) by width into batches of at most `size`."""
    groups: Groups[tuple[int, NDArray[np.float32]]] = Groups(size)
    for item in images:
        if group := groups.add(item[1].shape[2], item):
            yield _batch(group)
    while groups:
        yield _batch(groups.pop_oldest())


def _batch(group: list[tuple[int, NDArray[np.float32]]]) -> Batch:
    return Batch(np.stack([image for _, image in group]), tuple(index for index, _ in group))
