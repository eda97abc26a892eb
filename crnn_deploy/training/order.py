"""Which sample stands at which position of a source: every one once in an epoch, in another order in each.

An order is a function of seed, source and position alone, so a run that resumes at a step sees what an
uninterrupted one would have seen, whatever the number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ByShards", "Order", "Permuted"]

_EPOCHS = 2**32  # after which orders come again


class Order(Protocol):
    """The samples of a source, epoch after epoch."""

    def index(self, position: int) -> int:
        """The sample at a position, from 0 without end."""
        ...

    def instead(self, position: int) -> Iterator[int]:
        """Positions of the same epoch whose samples may stand in the place of one that cannot be used."""
        ...


class Permuted:
    """All samples in random order, for a source in which each is read as fast as another.

    size: samples of the source
    source: its number among the sources
    """

    def __init__(self, size: int, seed: int, source: int) -> None:
        self._size = size
        self._permutation = lru_cache(maxsize=2)(
            lambda epoch: np.random.default_rng((seed, source, epoch)).permutation(size)
        )

    def index(self, position: int) -> int:
        epoch, at = divmod(position, self._size)
        return int(self._permutation(epoch % _EPOCHS)[at])

    def instead(self, position: int) -> Iterator[int]:
        return _around(position - position % self._size, self._size, position)


class ByShards:
    """Shards in random order; of some at a time, which are joined, all samples in random order.

    So no more shards are read at a time than are joined.

    starts: (shards + 1,), the first sample of each shard, and the end of the last
    joined: shards that are joined
    source: its number among the sources
    """

    def __init__(self, starts: NDArray[np.int64], joined: int, seed: int, source: int) -> None:
        self._starts, self._joined, self._seed, self._source = starts, joined, seed, source
        self._size = int(starts[-1])
        self._shards = lru_cache(maxsize=2)(self._permuted_shards)
        self._samples = lru_cache(maxsize=2)(self._permuted_samples)

    def index(self, position: int) -> int:
        epoch, group, begin = self._place(position)
        return int(self._samples(epoch, group)[position - begin])

    def instead(self, position: int) -> Iterator[int]:
        """Those of the joined shards first."""
        epoch, group, begin = self._place(position)
        near = _around(begin, len(self._samples(epoch, group)), position)
        return chain(near, _around(position - position % self._size, self._size, position))

    def ahead(self, position: int) -> list[int]:
        """The shards that are joined at a position, and those that are joined after them."""
        epoch, group, begin = self._place(position)
        following, after, _ = self._place(begin + len(self._samples(epoch, group)))
        return [*self._joined_shards(epoch, group), *self._joined_shards(following, after)]

    def _place(self, position: int) -> tuple[int, int, int]:
        """Epoch, group of joined shards, and the position at which the group begins."""
        epoch, at = divmod(position, self._size)
        _, ends = self._shards(epoch % _EPOCHS)
        group = int(np.searchsorted(ends, at, "right"))
        return epoch % _EPOCHS, group, position - at + (int(ends[group - 1]) if group else 0)

    def _permuted_shards(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All shards, and where each group ends in the epoch."""
        sizes = np.diff(self._starts)
        order = np.random.default_rng((self._seed, self._source, epoch)).permutation(len(sizes))
        ends = np.cumsum(sizes[order])
        return order, np.concatenate((ends[self._joined - 1 : -1 : self._joined], ends[-1:]))

    def _joined_shards(self, epoch: int, group: int) -> list[int]:
        order, _ = self._shards(epoch)
        found: list[int] = order[group * self._joined : (group + 1) * self._joined].tolist()
        return found

    def _permuted_samples(self, epoch: int, group: int) -> NDArray[np.int64]:
        shards = self._joined_shards(epoch, group)
        samples = np.concatenate([np.arange(self._starts[at], self._starts[at + 1]) for at in shards])
        # with a fourth number of 0 the generator would be that of the shards' order
        return np.random.default_rng((self._seed, self._source, epoch, group + 1)).permutation(samples)


def _around(begin: int, size: int, position: int) -> Iterator[int]:
    """All `size` positions from `begin` on, from half of them away on."""
    return (begin + (position - begin + size // 2 + step) % size for step in range(size))
