"""What a file is by its name, and the files of one kind in a folder.

Of a folder one kind is read, and no file of another kind is passed over in silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Literal

from crnn_deploy.cluster.plan import number_of
from crnn_deploy.cluster.sources import walk
from crnn_deploy.cluster.sources.item import InputInvalid
from crnn_deploy.errors import amount
from crnn_deploy.runtime.images import sources
from crnn_deploy.runtime.images.sources import IMAGE_SUFFIXES
from crnn_deploy.stores.address import is_remote
from crnn_deploy.stores.store import Store

__all__ = ["COMPRESSED", "ENDINGS", "Kind", "files_below", "kind_of_folder"]

Kind = Literal["images", "list", "parquet", "tar", "lmdb"]

ENDINGS: dict[Kind, tuple[str, ...]] = {
    "list": (".txt",),
    "parquet": (".parquet", ".parq", ".pq"),
    "tar": (".tar",),
    "lmdb": (".lmdb", ".mdb"),
}
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")

# in folders, one of them and all of them in a message
_IN_FOLDERS: dict[Kind, tuple[str, str]] = {
    "images": ("an image", "images"),
    "parquet": ("a Parquet file", "Parquet files"),
    "tar": ("a tar", "tars"),
}
_IN_OUTPUT = 2  # parts of a path below an output: part_of


def kind_of_folder(given: str, store: Store, path: str) -> Kind:
    """What lies in a folder: the kind of its first image, Parquet file or tar. Raises InputInvalid."""
    if not is_remote(given) and store.exists(f"{path}/data.mdb"):
        return "lmdb"
    holds_rows = False
    for file in walk.below(store, path):
        kind = _kind_of(file)
        if kind is None or _is_passed_over(file, path, kind):
            continue
        if _output_of(file, path) is None:
            return kind
        holds_rows = True
    if holds_rows:
        return "parquet"  # of an earlier run, which `files_below` refuses
    # what only a walk through links to folders finds
    if not is_remote(given) and next(sources.find([given], ()), None) is not None:
        return "images"
    raise InputInvalid(
        given,
        "there are no images, Parquet files or tars in it; Parquet files and tars whose names or folders "
        "begin with _ are passed over",
    )


def files_below(
    given: str, store: Store, folder: str, kind: Kind, told: Callable[[str], object]
) -> Iterator[str]:
    """Paths of the images, Parquet files or tars in a folder and below it.

    told: called with a line for what was passed over
    Raises InputInvalid for a file of another kind, for a compressed tar, and for the rows of an earlier run,
    which nobody means who gives the folder around them; among images such rows are nothing to read.
    """
    passed_over = 0
    for path in walk.below(store, folder):
        found = _kind_of(path)
        output = _output_of(path, folder) if found == "parquet" else None
        if found is None or (output is not None and kind == "images"):
            continue
        if output is not None:
            raise InputInvalid(
                given,
                f"{store.name(output)} in it holds the rows of an earlier run; move it, or name the files to "
                "read",
            )
        if _is_passed_over(path, folder, found):
            passed_over += found == kind
            continue
        if path.lower().endswith(COMPRESSED):
            raise InputInvalid(
                given,
                f"{store.name(path)} in it is a compressed tar, which cannot be read in parts; unpack it to "
                "a plain .tar, or move it",
            )
        if found != kind and not path.endswith("/"):
            raise InputInvalid(
                given,
                f"it holds files of several kinds: {store.name(path)} is {_IN_FOLDERS[found][0]}, and the "
                f"files before it are {_IN_FOLDERS[kind][1]}; give each kind by a glob of its own",
            )
        yield path
    if passed_over:
        are = amount(passed_over, "file is", "files are")
        told(f"{given}: {are} passed over, since the name of the file or its folder begins with _")


def _kind_of(path: str) -> Kind | None:
    """What a file in a folder is; None where it is no input."""
    lower = path.lower()
    if lower.endswith(COMPRESSED):
        return "tar"
    kinds: tuple[Kind, ...] = ("parquet", "tar")
    found = next((kind for kind in kinds if lower.endswith(ENDINGS[kind])), None)
    is_image = path.endswith("/") or os.path.splitext(path)[1].lower() in IMAGE_SUFFIXES
    return "images" if found is None and is_image else found


def _is_passed_over(path: str, folder: str, kind: Kind) -> bool:
    """Whether other programs keep a file for themselves, as readers of Parquet understand its name."""
    return kind != "images" and any(part.startswith("_") for part in _parts(path, folder))


def _output_of(path: str, folder: str) -> str | None:
    """The output of an earlier run, of whose rows a file in `folder` is; None for any other file."""
    parts = _parts(path, folder)
    if len(parts) > _IN_OUTPUT and number_of("/".join(parts[-_IN_OUTPUT:])) is not None:
        return path.rsplit("/", _IN_OUTPUT)[0]
    return None


def _parts(path: str, folder: str) -> list[str]:
    return path[len(folder) :].strip("/").split("/")
