"""Labelled images, one by one, wherever they are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from crnn_deploy.errors import CrnnDeployError, amount, did_you_mean
from crnn_deploy.runtime.images.pixels import Source

if TYPE_CHECKING:
    from crnn_deploy.datasets.shard_cache import ShardCache

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
    "webdataset",
]

_LOOKED_FOR = 20  # images
MOST_LINE = 2**20  # bytes, of a file of labels; texts of an image have some hundred


class DatasetNotFound(CrnnDeployError, FileNotFoundError):
    """No labelled images at this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no dataset at {path}: neither an LMDB, a file of labels nor a folder with one")


class DatasetInvalid(CrnnDeployError, ValueError):
    """Labelled images that are not what their format asks for."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


Fault = Literal["image missing", "label missing", "label unreadable", "sample unclear"]


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
    cache: ShardCache | None = None,
) -> Kept:
    """The labelled images at a path.

    spec: an LMDB (folder or file), a file of labels, or a folder that holds one of these; a tar, a folder or
        a pattern of tars, here or in a store (s3://, gs://, hdfs://)
    kind: how to read it; None: told from the files (`docs/datasets.md`); `indices` must be named
    images: folder to which the names in the labels are relative; None: that of the labels, and `images/` in
        it for docTR's
    characters: the character file that the labels are indexes into; implies `indices`
    told: called with a line that says which kind was taken where the labels could be of two
    cache: of tars in a store; None: a folder of this user's, and 16 GB
    Texts are as they are kept. A missing or broken image is an error only where its pixels are read.
    Raises DatasetNotFound, DatasetInvalid, LibraryMissing; of tars ShardLost, and what their store raises.
    """
    try:
        there = os.path.exists(spec)
    except ValueError:  # a NUL in the path
        there = False
    if not there:
        if (kind == "webdataset" or _may_be_tars(spec)) and "\0" not in spec:
            return _tars(spec, kind, images, characters, told, cache)
        raise DatasetNotFound(spec)
    if kind is None and characters is not None:
        kind = "indices"
    if kind is not None and kind not in (kinds := get_args(Kind)):
        hint = did_you_mean(kind, kinds)
        raise DatasetInvalid(spec, f"there is no kind {kind!r}{hint}; there are {', '.join(kinds)}")
    if (kind == "indices") != (characters is not None):
        raise DatasetInvalid(spec, "labels of the kind 'indices', and no others, need their character file")
    from crnn_deploy.datasets.kinds import Told, kind_of, labels_in, packed_shards

    path, found = spec, packed_shards(spec) if kind is None else None
    folder = os.path.isdir(spec) and not os.path.exists(os.path.join(spec, "data.mdb"))
    if folder and found is None and kind not in ("lmdb", "beside", "webdataset"):
        path, found = labels_in(spec)
        if kind is not None and os.path.isdir(path):
            raise DatasetInvalid(
                spec, f"no file of labels in this folder, which kind {kind!r} needs; name it"
            )
    found = Told(kind) if kind is not None else found or kind_of(path)
    if found.note is not None:
        told(f"{path}: read as kind {found.kind}: {found.note}; another kind can be named (docs/datasets.md)")

    if found.kind == "webdataset":
        return _tars(path, found.kind, images, characters, told, cache)
    if found.kind == "lmdb":
        from crnn_deploy.datasets.lmdb_file import LmdbDataset
        from crnn_deploy.datasets.lmdb_shards import LmdbShards

        if folder and packed_shards(path) is not None:
            return LmdbShards(path)
        packed = LmdbDataset(path, images)
        if packed.note is not None:
            told(f"{path}: {packed.note}")
        _tell_of_images(packed, path, told)
        return packed
    if found.kind == "beside":
        from crnn_deploy.datasets.beside import TextsBeside

        if not os.path.isdir(path):
            raise DatasetInvalid(path, "texts beside images lie in a folder; name that")
        beside = TextsBeside(path, images)
        if beside.untold:
            skipped = amount(beside.untold, "image is", "images are")
            told(f"{path}: {skipped} passed over, since no text lies beside")
        return beside
    from crnn_deploy.datasets.labels import open_labels

    labelled = open_labels(path, found.kind, images, characters, sure=kind is not None)
    _tell_of_images(labelled, path, told)
    return labelled


def _may_be_tars(spec: str) -> bool:
    """Whether something that is no path can be a pattern or an address of tars."""
    from crnn_deploy.stores.address import has_scheme

    return has_scheme(spec) or (spec.lower().endswith(".tar") and any(mark in spec for mark in "{*?["))


def _tars(
    spec: str,
    kind: Kind | None,
    images: str | None,
    characters: str | None,
    told: Callable[[str], object],
    cache: ShardCache | None,
) -> Kept:
    from crnn_deploy.datasets.tar_shards import open_tars

    if kind not in (None, "webdataset"):
        raise DatasetInvalid(
            spec, f"in a store there are WebDataset tars; pack {kind} into such: dataset pack"
        )
    if images is not None or characters is not None:
        raise DatasetInvalid(spec, "tars hold their images and texts; leave folder and characters out")
    return open_tars(spec, told, cache)


def _tell_of_images(dataset: Kept, path: str, told: Callable[[str], object]) -> None:
    """Say where none of the first images is there: another folder is meant, or another kind."""
    image = ""
    for at in range(min(_LOOKED_FOR, len(dataset))):
        sample = record(dataset, at)
        if isinstance(sample, Sample):
            if not isinstance(sample.image, str) or os.path.exists(sample.image):
                return
            image = image or sample.image
    if image:
        told(
            f"{path}: none of its first images is there, such as {image}; --image-folder names the folder "
            "that their names begin in, --kind how to read the labels"
        )


def record(dataset: Dataset, index: int) -> Sample | RecordInvalid:
    """A sample, or why it is none. Raises IndexError, and what drawing a sample raises."""
    try:
        return dataset[index]
    except RecordInvalid as error:
        return error
