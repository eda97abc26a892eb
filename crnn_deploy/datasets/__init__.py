"""Labelled images, one by one, wherever they are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import LineTooLong, lines, open_regular
from crnn_deploy.runtime.images.pixels import Source

__all__ = [
    "MOST_LINE",
    "Dataset",
    "DatasetInvalid",
    "DatasetNotFound",
    "Fault",
    "Kept",
    "Kind",
    "Labelled",
    "RecordInvalid",
    "Sample",
    "open_dataset",
    "record",
]

Kind = Literal["lmdb", "indices", "names", "tabs", "csv", "tsv", "doctr"]

_SUFFIXES: dict[str, Kind] = {
    **{".lmdb": "lmdb", ".mdb": "lmdb"},
    **{".csv": "csv", ".tsv": "tsv", ".json": "doctr"},
}
_LMDB_MAGIC = b"\xde\xc0\xef\xbe"  # of a little-endian machine, after the page header of 16 bytes
MOST_LINE = 2**20  # bytes, of a file of labels; texts of an image have some hundred
_LABELS = (".csv", ".json", ".tsv", ".txt")


class DatasetNotFound(CrnnDeployError, FileNotFoundError):
    """No labelled images at this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no dataset at {path}: neither an LMDB, a file of labels nor a folder with one")


class DatasetInvalid(CrnnDeployError, ValueError):
    """Labelled images that are not what their format asks for."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


Fault = Literal["image missing", "label missing", "label unreadable"]


class RecordInvalid(DatasetInvalid):
    """One sample that is not whole; the others of its dataset are read."""

    def __init__(self, path: str, key: str, reason: str, fault: Fault, *, name: str | None = None) -> None:
        super().__init__(path, f"{key} {reason}")
        self.name = f"{path} {key}" if name is None else name  # as of a Sample
        self.fault = fault


@dataclass(frozen=True)
class Sample:
    """An image and the text that stands in it."""

    image: Source  # path, encoded bytes, array or Pillow image, for `read_image`
    text: str
    name: str  # where it is kept, for messages and reports


class Dataset(Protocol):
    """Labelled images in a fixed order; safe to read from several threads and processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Sample 0 <= index < len(self). Raises IndexError beyond, RecordInvalid where it is not whole."""
        ...


class Labelled(Dataset, Protocol):
    """A dataset whose texts are told without reading an image."""

    def glance(self, index: int) -> str:
        """The text of a sample whose image is there. Raises IndexError, RecordInvalid."""
        ...


class Kept(Labelled, Protocol):
    """A dataset that lies in files."""

    def files(self) -> Iterator[str]:
        """The files that it is read from, those of its images among them."""
        ...


def open_dataset(
    spec: str, *, kind: Kind | None = None, images: str | None = None, characters: str | None = None
) -> Kept:
    """The labelled images at a path.

    spec: an LMDB (folder or file), a file of labels, or a folder that holds one of these
    kind: how to read it; None: told from what is there (`docs/datasets.md`), which `indices` never is
    images: folder to which the names in the labels are relative; None: that of the labels, and `images/` in
        it for docTR's
    characters: the character file that the labels are indexes into; implies `indices`
    Texts are as they are kept. A missing or broken image is an error only where its pixels are read.
    Raises DatasetNotFound, DatasetInvalid, LibraryMissing.
    """
    try:
        there = os.path.exists(spec)
    except ValueError:  # a NUL in the path
        there = False
    if not there:
        raise DatasetNotFound(spec)
    if kind is None and characters is not None:
        kind = "indices"
    if kind is not None and kind not in get_args(Kind):
        raise DatasetInvalid(spec, f"there is no kind {kind!r}; there are {', '.join(get_args(Kind))}")
    if (kind == "indices") != (characters is not None):
        raise DatasetInvalid(spec, "labels of the kind 'indices', and no others, need their character file")
    path = spec
    if os.path.isdir(spec) and not os.path.exists(os.path.join(spec, "data.mdb")) and kind != "lmdb":
        path = _labels_in(spec)
    if kind is None:
        kind = _kind_of(path)

    if kind == "lmdb":
        from crnn_deploy.datasets.lmdb_file import LmdbDataset

        return LmdbDataset(path, images)
    from crnn_deploy.datasets.labels import open_labels

    return open_labels(path, kind, images, characters)


def record(dataset: Dataset, index: int) -> Sample | RecordInvalid:
    """A sample, or why it is none. Raises IndexError, and what drawing a sample raises."""
    try:
        return dataset[index]
    except RecordInvalid as error:
        return error


def _labels_in(folder: str) -> str:
    """The file of labels in a folder: the only one that can be, or the one called labels."""
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(_LABELS))
    named = [name for name in names if name.lower().startswith("labels.")]
    candidates = named or names
    if not candidates:
        raise DatasetInvalid(
            folder, f"no dataset in this folder: neither data.mdb nor labels ({', '.join(_LABELS)})"
        )
    if len(candidates) > 1:
        raise DatasetInvalid(folder, f"which of {', '.join(candidates)} holds the labels? Name the file")
    return os.path.join(folder, candidates[0])


def _kind_of(path: str) -> Kind:
    if os.path.isdir(path):
        return "lmdb"
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    try:
        with open_regular(path) as file:
            if file.read(20)[16:] == _LMDB_MAGIC:
                return "lmdb"
            file.seek(0)
            first = next((line for line in lines(file, MOST_LINE) if line.strip()), b"")
    except LineTooLong as error:
        raise DatasetInvalid(path, f"{error}; it is no file of labels") from None
    except OSError as error:
        raise DatasetInvalid(path, f"cannot be read: {error.strerror}") from None
    return "tabs" if b"\t" in first else "names"
