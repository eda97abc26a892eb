"""Any dataset into one LMDB, which a training reads fastest.

How far it has come stands in the LMDB under PROGRESS, in the transaction of the samples it speaks of.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from crnn_deploy.datasets import Dataset, DatasetInvalid, Sample
from crnn_deploy.datasets.encoded import read_encoded
from crnn_deploy.datasets.lmdb_file import COUNT, PROGRESS, image_key, import_lmdb, label_key
from crnn_deploy.datasets.shard_cache import ShardLost
from crnn_deploy.datasets.shards import PackProgress
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import OutputExists, OutputUnwritable, parse_json
from crnn_deploy.runtime.images.pixels import MAX_PIXELS

if TYPE_CHECKING:
    import lmdb

__all__ = ["PackProgress", "pack", "read_samples"]

_COMMIT_SAMPLES = 1000
_COMMIT_BYTES = 2**26
_FIRST_MAP = 2**26  # bytes; it doubles whenever it is full


def pack(
    dataset: Dataset,
    out: Path,
    *,
    resume: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Callable[[], None] = lambda: None,
    failed: Callable[[str], None] = lambda message: None,
    stopped: Callable[[], bool] = lambda: False,
) -> PackProgress:
    """Write the samples into a new LMDB in the format of `lmdb_file`, in their order.

    Encoded images keep their bytes, arrays and Pillow images become PNG. What cannot be read is left out.
    resume: go on with an LMDB whose packing ended early, however it ended; the samples it has are told by the
        texts and file names before them and are neither read again nor written twice
    max_pixels: an image of more is left out
    progress, failed: called after every sample, and with the message for one that cannot be read
    stopped: once it is true, what was read is written and the LMDB can be resumed
    Raises OutputExists, OutputUnwritable, DatasetInvalid, LibraryMissing.
    """
    lmdb = import_lmdb()
    if os.path.lexists(out) and not resume:
        raise OutputExists(out)
    try:
        writer = _Writer(out, len(dataset))
        try:
            return _pack(dataset, writer, max_pixels, progress, failed, stopped)
        finally:
            writer.close()
    except lmdb.Error as error:
        raise OutputUnwritable(out, str(error)) from error


def _pack(
    dataset: Dataset,
    writer: _Writer,
    max_pixels: int,
    progress: Callable[[], None],
    failed: Callable[[str], None],
    stopped: Callable[[], bool],
) -> PackProgress:
    for read in read_samples(dataset, writer.packed, str(writer.path), max_pixels, failed):
        if read is not None:
            writer.add(*read)
        progress()
        if stopped():
            break
    writer.commit()
    return writer.packed


def read_samples(
    dataset: Dataset, resumed: PackProgress, out: str, max_pixels: int, failed: Callable[[str], None]
) -> Iterator[tuple[bytes | None, str, str] | None]:
    """Image, text and a digest of the names and texts so far, of each sample; the image None: unreadable.

    Of those that were packed before it gives None. Raises DatasetInvalid where those were of another dataset,
    and ShardLost.
    """
    digest = blake2b(digest_size=16)
    for index in range(len(dataset)):
        image: bytes | None = None
        sample: Sample | None = None
        try:
            sample = dataset[index]
            if index >= resumed.read:
                sample.text.encode()
                image, _ = read_encoded(sample, max_pixels=max_pixels)
        except ShardLost:
            raise
        except UnicodeEncodeError:
            assert sample is not None
            failed(
                f"{sample.name}: its text {sample.text!r} has half a character, which UTF-8 has no bytes for"
            )
        except CrnnDeployError as error:
            if index >= resumed.read:
                failed(str(error))
        identity = [os.path.basename(sample.name), sample.text] if sample else None
        digest.update(json.dumps(identity).encode())
        if index >= resumed.read:
            yield image, sample.text if sample else "", digest.hexdigest()
            continue
        if index + 1 == resumed.read and digest.hexdigest() != resumed.digest:
            raise DatasetInvalid(out, "it was packed from another dataset; name a new file")
        yield None


class _Writer:
    """Appends samples to an LMDB, some in each transaction."""

    def __init__(self, path: Path, total: int) -> None:
        self.path = path
        if path.is_dir() and not {"data.mdb", "lock.mdb"}.issuperset(os.listdir(path)):
            raise DatasetInvalid(str(path), "is a folder with other files in it; name a new one")
        try:
            self._environment: lmdb.Environment = import_lmdb().open(os.fsencode(path), map_size=_FIRST_MAP)
        except OSError as error:
            raise OutputUnwritable(path, error.strerror or str(error)) from error
        try:
            self.packed = self._committed = self._kept(total)
        except BaseException:
            self.close()
            raise
        self._items: list[tuple[bytes, bytes]] = []
        self._bytes = 0

    def close(self) -> None:
        self._environment.close()

    def _kept(self, total: int) -> PackProgress:
        with self._environment.begin() as transaction:
            if not transaction.stat()["entries"]:
                return PackProgress(total)
            value = transaction.get(PROGRESS)
        packed = None if value is None else _packed(value)
        if packed is None:
            raise DatasetInvalid(str(self.path), "was not written by dataset pack; name a new file")
        if packed.total != total:
            raise DatasetInvalid(
                str(self.path),
                f"it was packed from {packed.total} samples, this dataset has {total}; name a new file",
            )
        return packed

    def add(self, image: bytes | None, text: str, digest: str) -> None:
        """The next sample of the dataset; image None: it cannot be read. `digest` covers it."""
        at = self.packed.written
        self.packed = PackProgress(self.packed.total, self.packed.read + 1, at + (image is not None), digest)
        if image is not None:
            self._items += [(image_key(at), image), (label_key(at), text.encode())]
            self._bytes += len(image)
        if self.packed.read - self._committed.read >= _COMMIT_SAMPLES or self._bytes >= _COMMIT_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what was added, all of it or nothing."""
        items = [*self._items, (PROGRESS, json.dumps(asdict(self.packed)).encode())]
        if self.packed.whole:
            items.append((COUNT, b"%d" % self.packed.written))
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    value = transaction.get(PROGRESS)
                    before = _packed(value) if value else PackProgress(self.packed.total)
                    if before != self._committed:
                        raise DatasetInvalid(str(self.path), "another process packs into it")
                    for key, data in items:
                        transaction.put(key, data)
                break
            except import_lmdb().MapFullError:
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
        self._committed = self.packed
        self._items, self._bytes = [], 0


def _packed(value: bytes) -> PackProgress | None:
    """What PROGRESS holds; None where it is not what a packing writes."""
    try:
        plain = parse_json(value)
    except ValueError:
        return None
    return PackProgress.of_plain(plain)
