"""A folder of LMDBs that `dataset pack` has written, as one dataset."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from crnn_deploy.datasets import DatasetInvalid, Sample
from crnn_deploy.datasets.lmdb_file import LmdbDataset
from crnn_deploy.datasets.shards import INDEX, read_index
from crnn_deploy.process import not_forked
from crnn_deploy.stores.store import open_store

__all__ = ["LmdbShards"]

_MOST_OPEN = 256  # LMDBs; each takes a descriptor


class LmdbShards:
    """The samples of LMDBs, one after the other, in the order of the folder's index.

    Raises DatasetInvalid; when a sample is read what LmdbDataset raises.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        store, path = open_store(folder)
        index = read_index(store, path)
        self._paths = [os.path.join(folder, one.name) for one in index.shards]
        if missing := next((path for path in self._paths if not os.path.exists(path)), None):
            raise DatasetInvalid(folder, f"{missing}, which its {INDEX} names, cannot be found")
        counts = [one.samples for one in index.shards]
        self._starts = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        self._forget()
        if not len(self):
            raise DatasetInvalid(folder, "holds no samples")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        shard, own = self._place(index)
        return shard[own]

    def glance(self, index: int) -> str:
        shard, own = self._place(index)
        return shard.glance(own)

    def files(self) -> Iterator[str]:
        yield os.path.join(self._folder, INDEX)
        for path in self._paths:
            yield os.path.join(path, "data.mdb")
            yield path

    def _place(self, index: int) -> tuple[LmdbDataset, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        at = int(np.searchsorted(self._starts, index, "right")) - 1
        with not_forked(), self._opening:
            shard = self._open.get(at)
            if shard is None:
                shard = self._open[at] = LmdbDataset(self._paths[at])
                if len(shard) != self._starts[at + 1] - self._starts[at]:
                    raise DatasetInvalid(
                        self._paths[at],
                        f"holds {len(shard)} samples, and another number by its {INDEX}; pack it anew",
                    )
                if len(self._open) > _MOST_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(at)
        return shard, int(index - self._starts[at])

    def _forget(self) -> None:
        self._open: OrderedDict[int, LmdbDataset] = OrderedDict()
        self._opening = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_opening")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
