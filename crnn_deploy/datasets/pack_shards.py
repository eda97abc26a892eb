"""Any dataset into shards: tars as the webdataset library reads them, here or in a store, or LMDBs.

How far a packing has come stands in the index beside the shards, which is written after each of them.
"""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from crnn_deploy.datasets import Dataset, DatasetInvalid, Sample
from crnn_deploy.datasets.pack import pack, read_samples
from crnn_deploy.datasets.shards import INDEX, Index, Listed, PackProgress, read_index, within
from crnn_deploy.datasets.tar_samples import text_of
from crnn_deploy.files import OutputExists
from crnn_deploy.runtime.images.header import MAX_PIXELS
from crnn_deploy.stores.store import Store, open_store

__all__ = ["SAMPLES_PER_SHARD", "pack_lmdbs", "pack_tars"]

SAMPLES_PER_SHARD = 10_000
_MOST_BYTES = 2**29  # of a tar, which is in memory while it is filled
_LEFT = re.compile(r"\.(?:\d{6,16}|shards)\..+\.(?:tar|json)")  # by a process that was killed
_ENDINGS = {  # by what a file that was decoded begins with
    **{
        b"\x89P": "png",
        b"\xff\xd8": "jpg",
        b"RI": "webp",
        b"BM": "bmp",
        b"II": "tif",
        b"MM": "tif",
        b"GI": "gif",
    },
    **{b"GI": "gif", b"P1": "pbm", b"P2": "pgm", b"P3": "ppm", b"P4": "pbm", b"P5": "pgm", b"P6": "ppm"},
}
_HEADER = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)  # of an empty file of no time and no user


def pack_tars(
    dataset: Dataset,
    out: str,
    *,
    samples_per_shard: int = SAMPLES_PER_SHARD,
    resume: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[], None] = lambda: None,
    failed: Callable[[str], None] = lambda message: None,
    stopped: Callable[[], bool] = lambda: False,
) -> PackProgress:
    """Write the samples into 000000.tar, 000001.tar, ... in a new folder, in their order.

    Samples and what is left out are as for `pack`; a shard has so many samples, or fewer where it would have
    more than 512 MiB. The bytes of all shards follow from the dataset alone.
    out: a folder, or an address in a store (s3://, gs://, hdfs://)
    resume: go on with a folder whose packing ended early, however it ended; shards that it has are kept
    stopped: once it is true, whole shards stay, and the folder can be resumed
    Raises OutputExists, OutputUnwritable, DatasetInvalid, and what a store raises.
    """
    store, folder = open_store(out)
    index = _begun(store, folder, out, len(dataset), samples_per_shard, r"\d{6,16}\.tar", resume)
    assert index.packing is not None
    now, tar = index.packing, _Tar()
    for read in read_samples(dataset, now, out, max_pixels, failed):
        if read is not None:
            image, text, digest = read
            now = replace(now, read=now.read + 1, written=now.written + (image is not None), digest=digest)
            if image is not None:
                tar.add(now.written - 1, image, text)
            if tar.samples == samples_per_shard or len(tar.data) >= _MOST_BYTES or now.whole:
                index = _add(store, folder, out, index, tar, now)
                tar = _Tar()
        progress()
        if stopped():
            break
    assert index.packing is not None
    return index.packing


class _Tar:
    """A tar in memory, whose bytes follow from what is added."""

    def __init__(self) -> None:
        self.samples = 0
        self.data = bytearray()

    def add(self, number: int, image: bytes, text: str) -> None:
        key, encoded = f"{number:09d}", text.encode()
        self._file(f"{key}.{_ENDINGS[image[:2]]}", image)
        if _reads(encoded) == text:
            self._file(f"{key}.txt", encoded)
        else:
            self._file(f"{key}.json", json.dumps({"text": text}, ensure_ascii=False).encode())
        self.samples += 1

    def _file(self, name: str, data: bytes) -> None:
        header = bytearray(_HEADER)
        header[: len(name)] = name.encode()
        header[124:135] = b"%011o" % len(data)
        header[148:156] = b" " * 8  # as which the checksum counts itself
        header[148:155] = b"%06o\0" % sum(header)
        self.data += header + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _reads(encoded: bytes) -> str | None:
    """The text that a .txt file of these bytes holds; None: more lines than one."""
    try:
        return text_of("", encoded, is_json=False)
    except DatasetInvalid:
        return None


def _add(store: Store, folder: str, out: str, index: Index, tar: _Tar, now: PackProgress) -> Index:
    """Write a shard, then the index that names it."""
    if read_index(store, folder) != index:
        raise DatasetInvalid(out, "another process packs into it")
    shards = index.shards
    if tar.samples:
        data, name = bytes(tar.data + bytes(2 * tarfile.BLOCKSIZE)), f"{len(shards):06d}.tar"
        store.write(within(folder, name), data)
        shards += (Listed(name, tar.samples, len(data), hashlib.sha256(data).hexdigest()),)
    index = replace(index, shards=shards, packing=now)
    store.write(within(folder, INDEX), index.encoded())
    return index


def pack_lmdbs(
    dataset: Dataset,
    out: Path,
    *,
    samples_per_shard: int = SAMPLES_PER_SHARD,
    resume: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[], None] = lambda: None,
    failed: Callable[[str], None] = lambda message: None,
    stopped: Callable[[], bool] = lambda: False,
) -> PackProgress:
    """Write the samples into 000000.lmdb, 000001.lmdb, ... in a new folder, in their order.

    Each LMDB is made by `pack` of so many samples of the dataset, less those that cannot be read.
    Raises OutputExists, and what `pack` raises.
    """
    store, folder = open_store(str(out))
    index = _begun(store, folder, str(out), len(dataset), samples_per_shard, r"\d{6,16}\.lmdb", resume)
    done, listed = PackProgress(len(dataset)), list[Listed]()
    for number, first in enumerate(range(0, len(dataset), samples_per_shard)):
        packed = pack(
            _Part(dataset, first, min(samples_per_shard, len(dataset) - first)),
            out / f"{number:06d}.lmdb",
            resume=True,
            max_pixels=max_pixels,
            progress=progress,
            failed=failed,
            stopped=stopped,
        )
        done = replace(done, read=done.read + packed.read, written=done.written + packed.written)
        if packed.written:
            listed.append(Listed(f"{number:06d}.lmdb", packed.written))
        if stopped():
            break
    if done.whole:
        store.write(within(folder, INDEX), replace(index, shards=tuple(listed), packing=done).encoded())
    return done


@dataclass(frozen=True)
class _Part:
    """Samples of a dataset that stand together."""

    whole: Dataset
    first: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        return self.whole[self.first + index]


def _begun(
    store: Store, folder: str, out: str, total: int, samples_per_shard: int, names: str, resume: bool
) -> Index:
    """The index of a folder that shards can be written to.

    names: of shards, as a pattern
    Raises OutputExists, DatasetInvalid, and what the store raises.
    """
    index = Index(packing=PackProgress(total), samples_per_shard=samples_per_shard)
    if store.exists(folder):
        if not resume:
            raise OutputExists(out)
        if not store.is_folder(folder):
            raise DatasetInvalid(out, "is a file; shards are written to a folder: name a new one")
        there = store.folder(folder)
        own = [path.rpartition("/")[2] for path in [*there.folders, *(one.path for one in there.files)]]
        left = [name for name in own if _LEFT.fullmatch(name)]
        if not all(name == INDEX or name in left or re.fullmatch(names, name) for name in own):
            raise DatasetInvalid(out, "is a folder with other files in it; name a new one")
        for name in left:
            store.delete(within(folder, name))
        if INDEX in own:
            index = read_index(store, folder)
        elif len(own) > len(left):
            raise DatasetInvalid(out, "was not written by dataset pack; name a new folder")
    packing = index.packing
    if packing is None:
        raise DatasetInvalid(out, "was not written by dataset pack; name a new folder")
    if packing.total != total:
        raise DatasetInvalid(
            out, f"it was packed from {packing.total} samples, this dataset has {total}; name a new folder"
        )
    if index.samples_per_shard != samples_per_shard:
        raise DatasetInvalid(
            out,
            f"it was begun with --samples-per-shard {index.samples_per_shard}; repeat the command with that",
        )
    store.write(within(folder, INDEX), index.encoded())
    return index
