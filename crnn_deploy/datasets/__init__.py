"""Labelled images, one by one, wherever they are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from crnn_deploy.errors import CrnnDeployError
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

Kind = Literal[
    "lmdb",
    "csv",
    "tsv",
    "doctr",
    "names",
    "tabs",
    "indices",
    "objects",
    "mmocr",
    "icdar",
    "mjsynth",
    "beside",
]

MOST_LINE = 2**20  # bytes, of a file of labels; texts of an image have some hundred


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
    spec: str,
    *,
    kind: Kind | None = None,
    images: str | None = None,
    characters: str | None = None,
    told: Callable[[str], object] = lambda line: None,
) -> Kept:
    """The labelled images at a path.

    spec: an LMDB (folder or file), a file of labels, or a folder that holds one of these
    kind: how to read it; None: told from what is there (`docs/datasets.md`), which `indices` never is
    images: folder to which the names in the labels are relative; None: that of the labels, and `images/` in
        it for docTR's
    characters: the character file that the labels are indexes into; implies `indices`
    told: called with a line that says which kind was taken where the labels could be of two
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
    from crnn_deploy.datasets.kinds import Told, kind_of, labels_in

    path, found = spec, None
    folder = os.path.isdir(spec) and not os.path.exists(os.path.join(spec, "data.mdb"))
    if folder and kind not in ("lmdb", "beside"):
        path, found = labels_in(spec)
        if kind is not None and os.path.isdir(path):
            raise DatasetInvalid(
                spec, f"no file of labels in this folder, which kind {kind!r} needs; name it"
            )
    found = Told(kind) if kind is not None else found or kind_of(path)
    if found.note is not None:
        told(f"{path}: read as kind {found.kind}: {found.note}; another kind can be named (docs/datasets.md)")

    if found.kind == "lmdb":
        from crnn_deploy.datasets.lmdb_file import LmdbDataset

        return LmdbDataset(path, images)
    if found.kind == "beside":
        from crnn_deploy.datasets.beside import TextsBeside

        if not os.path.isdir(path):
            raise DatasetInvalid(path, "texts beside images lie in a folder; name that")
        beside = TextsBeside(path, images)
        if beside.untold:
            told(f"{path}: {beside.untold:,} images have no text beside them and are passed over")
        return beside
    from crnn_deploy.datasets.labels import open_labels

    return open_labels(path, found.kind, images, characters, sure=kind is not None)


def record(dataset: Dataset, index: int) -> Sample | RecordInvalid:
    """A sample, or why it is none. Raises IndexError, and what drawing a sample raises."""
    try:
        return dataset[index]
    except RecordInvalid as error:
        return error
