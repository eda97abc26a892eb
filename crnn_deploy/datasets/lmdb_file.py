"""Labelled images in an LMDB: `num-samples`, `image-%09d` and `label-%09d`, counted from 1.

The format of crnn.pytorch (tool/create_dataset.py) and deep-text-recognition-benchmark
(create_lmdb_dataset.py), and so that of the public MJSynth and SynthText. Keys of another width
(`image-%08d`, `image-%d`), with another mark (`image_`) or counted from 0 are told from the first one there.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice
from typing import Any
from weakref import WeakValueDictionary

from crnn_deploy.datasets import DatasetInvalid, Fault, RecordInvalid, Sample
from crnn_deploy.errors import LibraryMissing
from crnn_deploy.files import parse_json
from crnn_deploy.process import not_forked

__all__ = ["COUNT", "PROGRESS", "LmdbDataset", "LmdbImages", "image_key", "import_lmdb", "label_key"]

COUNT = b"num-samples"
_COUNTS = (COUNT, b"num_samples", b"nSamples")
_LOOKED_FOR = 20  # samples, of which some must be there
_MOST_KEYS = 1000  # that are looked at for an example
_SHOWN = 80  # characters of keys, in messages
PROGRESS = b"crnn-deploy-pack"  # how far `pack` has come; other readers never ask for it


def image_key(index: int) -> bytes:
    """Key of the image of sample `index`, counted from 0."""
    return b"image-%09d" % (index + 1)


def label_key(index: int) -> bytes:
    """Key of the text of sample `index`, counted from 0."""
    return b"label-%09d" % (index + 1)


def import_lmdb() -> Any:
    """The module lmdb. Raises LibraryMissing."""
    try:
        return import_module("lmdb")
    except ImportError as error:
        raise LibraryMissing("an LMDB", "lmdb", "train") from error


@dataclass(frozen=True)
class _Keys:
    """How the keys of an LMDB are written."""

    mark: str = "-"  # between name and number
    width: int = 9  # digits, filled up with zeros
    first: int = 1

    def of(self, name: str, index: int) -> bytes:
        return f"{name}{self.mark}{index + self.first:0{self.width}d}".encode()


class _Packed:
    """What an LMDB of images and labels is read by."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._opened: _Opened | None = None
        self._count = self._read_count()
        self._keys = self._told_keys()

    def __len__(self) -> int:
        return self._count

    def _image(self, index: int) -> bytes:
        return self._keys.of("image", index)

    def _label(self, index: int) -> bytes:
        return self._keys.of("label", index)

    def _told_keys(self) -> _Keys:
        """Keys counted from 0 are told by the last one, which those counted from 1 have too many."""
        usual = self._has(label_key(0)) or self._has(image_key(0))
        keys = _Keys() if usual else self._first_keys()
        zero = replace(keys, first=0)
        if not any(self._has(zero.of(name, 0)) for name in ("image", "label")):
            return replace(keys, first=1)
        last = any(self._has(zero.of(name, self._count)) for name in ("image", "label"))
        return replace(keys, first=1) if last else zero

    def _need_some(self, key: Callable[[int], bytes]) -> None:
        """Raises DatasetInvalid where none of the first samples has such a key."""
        if any(self._has(key(at)) for at in range(min(_LOOKED_FOR, self._count))):
            return
        with self._transaction(COUNT) as transaction, transaction.cursor() as cursor:
            keys = list(islice(cursor.iternext(values=False), _MOST_KEYS))
        kinds = {re.sub(rb"\d+\Z", b"", found): found for found in reversed(keys)}  # the first of each
        shown = ", ".join(found.decode(errors="replace") for found in reversed(kinds.values()))
        raise DatasetInvalid(
            self._path,
            f"has no {key(0).decode()} nor those after it, but {shown[:_SHOWN]}; write the images as "
            "image-000000001 and so on, their texts as label-000000001 and so on",
        )

    def _first_keys(self) -> _Keys:
        """How the first key of a label is written; as usual where there is none."""
        with self._transaction(COUNT) as transaction, transaction.cursor() as cursor:
            for name in (b"label", b"image"):
                if not cursor.set_range(name):
                    continue
                if found := re.fullmatch(rb"(?:label|image)([-_]?)(\d{1,18})", cursor.key()):
                    digits = found[2]
                    mark = found[1].decode()
                    return _Keys(mark, len(digits) if len(digits) > 1 and digits[:1] == b"0" else 1)
        return _Keys()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def _read_count(self) -> int:
        value = next((found for key in _COUNTS if (found := self._get(key)) is not None), None)
        if value is None:
            progress = self._get(PROGRESS)
            raise DatasetInvalid(
                self._path,
                "its key num-samples is missing; it is not an LMDB of labelled images, whose keys are "
                "num-samples, image-000000001, label-000000001 and so on"
                if progress is None
                else "it is not whole yet; go on with crnn-deploy dataset pack --resume",
            )
        found = re.fullmatch(rb"\s*([\"']?)(\d{1,18})(?:\.0*)?\1[\s\0]*", value)
        count = int(found[2]) if found else 0
        if count < 1:
            raise DatasetInvalid(
                self._path,
                f"num-samples is {value[:40]!r}, not a number from 1 up; "
                "write the number of samples in digits",
            )
        assert self._opened is not None
        if count >= self._opened.entries:
            raise DatasetInvalid(
                self._path, f"num-samples says {count}, but it has {self._opened.entries} entries altogether"
            )
        return count

    def _missing(self, key: bytes, fault: Fault) -> RecordInvalid:
        return RecordInvalid(self._path, key.decode(), f"is missing, of {self._count} samples", fault)

    def _need(self, key: bytes, fault: Fault) -> bytes:
        value: bytes | None = self._get(key)
        if value is None:
            raise self._missing(key, fault)
        return value

    def _has(self, key: bytes) -> bool:
        """Whether a key is there; its value is not read."""
        with self._transaction(key, buffers=True) as transaction:
            return transaction.get(key) is not None

    def _get(self, key: bytes, default: Any = None) -> Any:
        with self._transaction(key) as transaction:
            return transaction.get(key, default)

    @contextmanager
    def _transaction(self, key: bytes, *, buffers: bool = False) -> Iterator[Any]:
        lmdb = import_lmdb()
        if self._opened is None or self._opened.process != os.getpid():
            self._opened = _open(self._path)
        try:
            with self._opened.environment.begin(buffers=buffers) as transaction:
                yield transaction
        except lmdb.Error as error:
            reason = f"cannot be read: {error}"
            raise RecordInvalid(self._path, key.decode(), reason, "label unreadable") from None


class LmdbDataset(_Packed):
    """The samples of an LMDB.

    images: folder of the images where the LMDB holds labels only, as mmocr 0.x writes them
        ({"filename": ..., "text": ...}); None: the folder that the LMDB lies in
    Every process opens the LMDB for itself when it first reads, without locks: nothing may write to it then.
    Raises LibraryMissing, and DatasetInvalid: here for what is wrong with the whole, when a sample is read
    for what is wrong with that one.
    """

    def __init__(self, path: str, images: str | None = None) -> None:
        super().__init__(path)
        self._folder = os.path.dirname(os.path.abspath(path)) if images is None else images
        image, label = self._image(0), self._label(0)
        self._labels_only = self._get(image) is None and self._get(label, b"").startswith(b"{")
        image, label = self._image(self._count - 1), self._label(self._count - 1)
        if self._get(label) is None and (self._labels_only or not self._has(image)):
            raise DatasetInvalid(
                path,
                f"num-samples says {self._count}, but there is no {label.decode()}; it was cut short, or "
                "num-samples is wrong",
            )
        self._need_some(self._label)
        if not self._labels_only:
            self._need_some(self._image)
        beyond = [self._count] if self._keys.first == 0 else [-1, self._count]
        unread = [self._image(at).decode() for at in beyond if self._has(self._image(at))]
        self.note: str | None = None  # on what of it is not read
        if unread:
            self.note = f"num-samples says {self._count}, but {unread[0]} is there too and is not read"
        self._opened = None  # so that no process that is forked inherits it

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._count:
            raise IndexError(f"sample {index} of {self._count}")
        if self._labels_only:
            return self._file(index)
        text, key = self._text(index), self._image(index)
        return Sample(self._need(key, "image missing"), text, f"{self._path} {key.decode()}")

    def glance(self, index: int) -> str:
        if not 0 <= index < self._count:
            raise IndexError(f"sample {index} of {self._count}")
        if self._labels_only:
            sample = self._file(index)
            if not os.path.exists(str(sample.image)):
                reason = f"names {sample.image!r}, which is missing"
                raise RecordInvalid(self._path, self._label(index).decode(), reason, "image missing")
            return sample.text
        text, key = self._text(index), self._image(index)
        if not self._has(key):
            raise self._missing(key, "image missing")
        return text

    def _text(self, index: int) -> str:
        key = self._label(index)
        try:
            return self._need(key, "label missing").decode()
        except UnicodeDecodeError:
            reason = "is not UTF-8"
            raise RecordInvalid(self._path, key.decode(), reason, "label unreadable") from None

    def _file(self, index: int) -> Sample:
        """Of labels only: the image is a file."""
        key, text = self._label(index).decode(), self._text(index)
        try:
            label = parse_json(text)
        except ValueError:
            label = None
        match label:
            case {"filename": str(file), "text": str(text)}:
                return Sample(os.path.join(self._folder, file), text, f"{self._path} {key}")
        raise RecordInvalid(self._path, key, 'is not {"filename": ..., "text": ...}', "label unreadable")

    def files(self) -> Iterator[str]:
        yield from (os.path.join(self._path, name) for name in ("data.mdb", "lock.mdb"))
        yield self._path
        if self._labels_only:
            for at in range(len(self)):
                with suppress(DatasetInvalid):
                    yield str(self[at].image)


class LmdbImages(_Packed):
    """The images of an LMDB, whether it has labels or not; otherwise as LmdbDataset.

    Raises LibraryMissing, DatasetInvalid.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._need_some(self._image)
        self._opened = None  # so that no process that is forked inherits it

    def __getitem__(self, index: int) -> bytes:
        """Image 0 <= index < len(self), encoded. Raises IndexError beyond, RecordInvalid if it is missing."""
        if not 0 <= index < self._count:
            raise IndexError(f"image {index} of {self._count}")
        return self._need(self._image(index), "image missing")

    def key(self, index: int) -> str:
        """What an image is called."""
        return self._image(index).decode()


class _Opened:
    """An LMDB environment and the process that opened it."""

    def __init__(self, path: str) -> None:
        lmdb = import_lmdb()
        subdir = os.path.isdir(path)
        file = os.path.join(path, "data.mdb") if subdir else path
        if os.path.exists(file) and not os.path.isfile(file):  # a FIFO would be waited for
            raise DatasetInvalid(path, "is not an LMDB: it is not a regular file")
        try:
            self.environment = lmdb.open(
                os.fsencode(path), subdir=subdir, readonly=True, lock=False, readahead=False
            )
            pages, size = self.environment.info()["last_pgno"] + 1, self.environment.stat()["psize"]
            self.entries: int = self.environment.stat()["entries"]
        except lmdb.Error as error:
            raise DatasetInvalid(path, f"is not an LMDB: {error}") from None
        self.process = os.getpid()
        there = os.path.getsize(file)
        if there < pages * size:  # to read beyond the end would kill the process (SIGBUS)
            raise DatasetInvalid(path, f"is truncated: {there:,} bytes, of {pages * size:,}")


# py-lmdb opens a path once in a process, so the datasets of one path share it
_shared: WeakValueDictionary[str, _Opened] = WeakValueDictionary()
_sharing = threading.Lock()


def _open(path: str) -> _Opened:
    path_of_all = os.path.realpath(path)
    with not_forked(), _sharing:
        opened = _shared.get(path_of_all)
        if opened is not None and opened.process != os.getpid():
            opened.environment.close()  # this process has it from a fork; its parent's stays open
            opened = None
        if opened is None:
            opened = _shared[path_of_all] = _Opened(path)
        return opened
