"""Labelled images in tars, as the webdataset library has them: KEY.png and KEY.txt, or KEY.json.

Nothing that a tar holds is unpickled or run; members that are neither image nor text are passed over.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.datasets import DatasetInvalid, Fault, RecordInvalid, Sample, record
from crnn_deploy.datasets.shard_cache import ShardCache, ShardLost
from crnn_deploy.datasets.shards import INDEX, Shard, find_shards
from crnn_deploy.datasets.tar_file import TarInvalid
from crnn_deploy.datasets.tar_samples import FAULTS, MOST_TEXT, Listing, list_samples, text_of
from crnn_deploy.errors import amount
from crnn_deploy.process import not_forked
from crnn_deploy.runtime.images.pixels import MAX_PIXELS
from crnn_deploy.stores.local import LocalStore

__all__ = ["TarShards", "open_tars"]

_NEEDED = "a sample is KEY.png (or .jpg, ...) and KEY.txt (or .gt.txt, .json), one behind the other"
_LOOKED_FOR = 20  # samples, of which one must be whole
_MOST_OPEN = 64  # shards
_MOST_LISTED = 2**21  # samples of open shards
_MOST_IMAGE = 8 * MAX_PIXELS + 2**25  # bytes, as of an image that is a file


class TarShards:
    """The samples of tars, one after the other.

    shards: with or without the number of their samples; those without are listed here
    A shard of a store is fetched whole into the cache when one of its samples is read, so samples are to be
    read shard by shard. Raises DatasetInvalid and ShardLost, ShardLost when a sample is read too.
    """

    def __init__(self, shards: Sequence[Shard], cache: ShardCache) -> None:
        self._shards, self._cache = list(shards), cache
        self._forget()
        counts = [
            len(self._opened(at)[0]) if one.samples is None else one.samples
            for at, one in enumerate(self._shards)
        ]
        # the first sample of each shard, and the end of the last one
        self.starts: NDArray[np.int64] = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> Sample:
        at, own = self._place(index)
        listing, file = self._opened(at)
        name = self._check(at, own, listing)
        text = self._text(at, own, listing, file, name)
        if listing.image_at[own] < 0:
            raise self._invalid(at, listing.key(own), "has a text, but no image", "image missing")
        if listing.image_size[own] > _MOST_IMAGE:
            reason = f"has an image of {listing.image_size[own]:,} bytes"
            raise self._invalid(at, listing.key(own), reason, "image missing")
        return Sample(self._read(at, file, listing.image_at[own], listing.image_size[own]), text, name)

    def glance(self, index: int) -> str:
        at, own = self._place(index)
        listing, file = self._opened(at)
        name = self._check(at, own, listing)
        if listing.image_at[own] < 0:
            raise self._invalid(at, listing.key(own), "has a text, but no image", "image missing")
        return self._text(at, own, listing, file, name)

    def files(self) -> Iterator[str]:
        for shard in self._shards:
            yield shard.name

    def fetch_ahead(self, shards: Sequence[int]) -> None:
        """These shards are read next; counted from 0."""
        self._cache.fetch_ahead([self._shards[at] for at in shards])

    def _place(self, index: int) -> tuple[int, int]:
        """Shard, and sample within."""
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        at = int(np.searchsorted(self.starts, index, "right")) - 1
        return at, int(index - self.starts[at])

    def _check(self, at: int, own: int, listing: Listing) -> str:
        """The sample's name. Raises RecordInvalid where its key or its image are not clear."""
        key = listing.key(own)
        if fault := listing.faults.get(own):
            raise self._invalid(at, key, FAULTS[fault], "sample unclear")
        return f"{self._shards[at].name} {key}"

    def _text(self, at: int, own: int, listing: Listing, file: BinaryIO, name: str) -> str:
        key, size = listing.key(own), listing.text_size[own]
        if size < 0:
            raise self._invalid(at, key, "has no text (.txt, .gt.txt or .json)", "label missing")
        if size > MOST_TEXT:
            raise self._invalid(at, key, f"has a text of {size:,} bytes", "label unreadable")
        data = self._read(at, file, listing.text_at[own], size)
        try:
            return text_of(name, data, is_json=bool(listing.is_json[own]))
        except DatasetInvalid as error:
            reason = str(error).removeprefix(f"{name}: ")
            raise self._invalid(at, key, f"has a text that {reason}", "label unreadable") from None

    def _invalid(self, at: int, key: str, reason: str, fault: Fault) -> RecordInvalid:
        return RecordInvalid(self._shards[at].name, key, reason, fault)

    def _opened(self, at: int) -> tuple[Listing, BinaryIO]:
        """A shard's listing and its file, kept for the shards that were read last."""
        with not_forked(), self._opening:
            if (found := self._open.get(at)) is not None:
                self._open.move_to_end(at)
                return found
            shard = self._shards[at]
            file = self._cache.open(shard)
            try:
                listing = list_samples(file)
            except TarInvalid as error:
                raise ShardLost(shard.name, str(error)) from None
            if shard.samples not in (None, len(listing)):
                raise ShardLost(
                    shard.name,
                    f"holds {len(listing):,} samples, and {shard.samples:,} by its index; pack it anew",
                )
            self._open[at] = listing, file
            while len(self._open) > 1 and (
                len(self._open) > _MOST_OPEN or sum(len(one) for one, _ in self._open.values()) > _MOST_LISTED
            ):
                self._open.popitem(last=False)  # its file is closed when no thread reads it any more
            return listing, file

    def _read(self, at: int, file: BinaryIO, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):  # which has no place in the file that processes would share
            data = os.pread(file.fileno(), size, offset)
        else:
            with self._opening:
                file.seek(offset)
                data = file.read(size)
        if len(data) != size:
            raise ShardLost(self._shards[at].name, "became shorter while it was read")
        return data

    def _forget(self) -> None:
        self._open: OrderedDict[int, tuple[Listing, BinaryIO]] = OrderedDict()
        self._opening = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_opening")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()


def open_tars(spec: str, told: Callable[[str], object], cache: ShardCache | None = None) -> TarShards:
    """The tars that an address, a folder or a pattern names.

    Raises DatasetNotFound, DatasetInvalid, ShardLost, and what the store raises.
    """
    shards = find_shards(spec, told)
    unlisted = [shard for shard in shards if shard.samples is None]
    fetched = sum(shard.size for shard in unlisted if not isinstance(shard.store, LocalStore))
    if fetched:
        told(
            f"{spec}: {amount(len(unlisted), 'shard has', 'shards have')} no index ({INDEX}) and must be "
            f"fetched to count the samples, {fetched / 2**20:,.0f} MiB; dataset pack writes an index"
        )
    dataset = TarShards(shards, cache or ShardCache())
    if not len(dataset):
        raise DatasetInvalid(spec, f"holds no samples; {_NEEDED}")
    if unlisted:
        first = [record(dataset, at) for at in range(min(_LOOKED_FOR, len(dataset)))]
        faults = [one for one in first if isinstance(one, RecordInvalid)]
        if len(faults) == len(first):
            raise DatasetInvalid(spec, f"none of its first samples can be read: {faults[0]}; {_NEEDED}")
    return dataset
