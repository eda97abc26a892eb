"""Inputs of a command line, cut into chunks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from typing import NamedTuple

from crnn_deploy.cluster.plan import Chunk
from crnn_deploy.cluster.sources import walk
from crnn_deploy.cluster.sources.item import InputInvalid
from crnn_deploy.cluster.sources.kinds import COMPRESSED, ENDINGS, Kind, files_below, kind_of_folder
from crnn_deploy.cluster.sources.parquet_rows import MOST_PARTS, Columns, ParquetRows, columns_of, slices
from crnn_deploy.cluster.sources.prefetch import ahead
from crnn_deploy.datasets.lmdb_file import LmdbImages
from crnn_deploy.errors import CrnnDeployError, amount
from crnn_deploy.runtime.images import sources
from crnn_deploy.runtime.images.sources import STDIN, PathNotFound
from crnn_deploy.stores.address import has_scheme, is_remote
from crnn_deploy.stores.store import Store, Stores

__all__ = ["Planned", "plan_of"]


class Planned(NamedTuple):
    """A chunk. Where the planner has listed files itself it has no source yet, and their names come along."""

    chunk: Chunk
    names: Sequence[str] = ()


class _Input(NamedTuple):
    """An input of the command line."""

    given: str
    store: Store
    path: str
    kind: Kind
    is_folder: bool
    is_glob: bool

    @property
    def is_deep(self) -> bool:
        """Whether it is a glob that has been inside the folders that it matches."""
        return "**" in self.path.split("/")


class _Options(NamedTuple):
    """What `plan_of` was called with."""

    most: int  # inputs of a chunk
    stores: Stores
    column: str | None
    listed: Iterable[bytes]
    told: Callable[[str], object]


def plan_of(
    inputs: Sequence[str],
    rows_per_file: int,
    stores: Stores,
    *,
    column: str | None = None,
    listed: Iterable[bytes] = (),
    told: Callable[[str], object] = lambda line: None,
) -> Iterator[Planned]:
    """The chunks of all inputs, in their order, numbered from 0; memory holds one chunk's names.

    inputs: images, folders and globs as for `infer`; a list of images, one a line (.txt, or - for `listed`);
        Parquet files, LMDBs, tars, and folders and globs of them
    rows_per_file: inputs of a chunk at most, as far as the input can be cut: a tar is one chunk, and a
        Parquet file of images is cut at its row groups
    column: that of the paths or images of Parquet files; None: told by its type and name
    listed: lines of standard input
    told: called with a line for what was assumed
    All inputs are looked at before the first chunk comes. Raises PathNotFound, ImagesMissing, InputInvalid,
    ParquetInvalid, DatasetInvalid, LibraryMissing, StoreAddressInvalid and what a Store raises.
    """
    found = [_input_of(given, stores) for given in inputs]
    if column is not None and all(one.kind != "parquet" for one in found):
        raise InputInvalid(f"--column {column}", "it goes with Parquet files, and no input is one")
    sources.check([one.given for one in found if one.kind == "images" and not is_remote(one.given)])
    options = _Options(rows_per_file, stores, column, listed, told)
    return _packed((part for one in found for part in _parts(one, options)), rows_per_file)


def _packed(parts: Iterable[str | Chunk], most: int) -> Iterator[Planned]:
    """Chunks with their numbers; names that follow one another go together."""
    numbers, names = count(), list[str]()
    for part in parts:
        whole = isinstance(part, Chunk)
        if names and (whole or len(names) == most):
            yield Planned(Chunk(next(numbers), "paths", "", 0, len(names)), names)
            names = []
        if isinstance(part, Chunk):
            yield Planned(replace(part, number=next(numbers)))
        else:
            names.append(part)
    if names:
        yield Planned(Chunk(next(numbers), "paths", "", 0, len(names)), names)


def _input_of(given: str, stores: Stores) -> _Input:
    """What an input is. Raises PathNotFound, InputInvalid, and what a Store raises."""
    if not given:
        raise PathNotFound(given)
    store, path = stores.open(os.curdir if given == STDIN else given)
    path = path.rstrip("/")
    if given == STDIN:
        return _Input(given, store, path, "list", False, False)
    lower = path.lower()
    if lower.endswith(COMPRESSED):
        raise InputInvalid(given, "a compressed tar cannot be read in parts; unpack it to a plain .tar")
    is_folder = store.is_folder(path)
    if has_scheme(given) and not is_remote(given):
        given = store.name(path)
    there = is_folder or store.exists(path)
    is_glob = not there and walk.is_glob(path)
    kind: Kind = next((kind for kind, ends in ENDINGS.items() if lower.endswith(ends)), "images")
    if is_folder and kind in ("images", "list", "tar"):
        kind = kind_of_folder(given, store, path)
    one = _Input(given, store, path, kind, is_folder, is_glob)
    if kind == "lmdb" and is_remote(given):
        raise InputInvalid(
            given, "an LMDB is read from a local path only; copy it, or pack its images as tars"
        )
    if (is_glob and kind != "images") or (is_glob and is_remote(given)):
        if next(walk.matches(store, path), None) is None:
            raise PathNotFound(given)
    elif not there and (kind != "images" or is_remote(given)):
        raise PathNotFound(given)
    return one


def _parts(one: _Input, options: _Options) -> Iterator[str | Chunk]:
    """Names of the files that an input means, or chunks without a number."""
    if one.kind == "images":
        yield from _images(one, options)
    elif one.given == STDIN:
        yield from sources.find([STDIN], options.listed)
    elif one.kind == "parquet":
        yield from _of_parquets(one, options)
    else:
        for name, path in _files(one, options):
            if one.kind == "list":
                with one.store.open(path) as file:
                    yield from sources.find([STDIN], sources.lines_of(file))
            elif one.kind == "tar":
                yield Chunk(0, "tar", name, 0, None)
            else:
                size = len(LmdbImages(options.stores.local(name)))
                for first in range(0, size, options.most):
                    yield Chunk(0, "lmdb", name, first, min(options.most, size - first))


def _images(one: _Input, options: _Options) -> Iterator[str]:
    """Names of images; of local ones as `infer` has them, when their folders hold files of no other kind."""
    paths = _paths_of(one, options)
    if is_remote(one.given):
        yield from map(one.store.name, paths)
        return
    for _ in paths:
        pass
    yield from sources.find([one.given], ())


def _files(one: _Input, options: _Options) -> Iterator[tuple[str, str]]:
    """Lists, Parquet files, tars or LMDBs that an input means: what each is called, and its path."""
    for path in _paths_of(one, options):
        yield one.given if path == one.path else _called(one, path), path


def _paths_of(one: _Input, options: _Options) -> Iterator[str]:
    """Paths of what an input means: its own, or those in folders and matches. Raises InputInvalid."""
    if one.is_glob:
        for path, is_folder in walk.matches(one.store, one.path):
            if not is_folder or one.kind == "lmdb":
                yield path
            elif not one.is_deep:
                yield from _below(one, path, options)
    elif one.is_folder and one.kind != "lmdb":
        yield from _below(one, one.path, options)
    else:
        yield one.path


def _below(one: _Input, folder: str, options: _Options) -> Iterator[str]:
    return files_below(one.given, one.store, folder, one.kind, options.told)


def _called(one: _Input, path: str) -> str:
    """The name of a file of an input; relative where the input is."""
    name = one.store.name(path)
    return name if is_remote(one.given) or os.path.isabs(one.given) else os.path.relpath(name)


def _of_parquets(one: _Input, options: _Options) -> Iterator[str | Chunk]:
    assumed = set[str]()

    def look(file: tuple[str, str]) -> tuple[Columns, list[int]]:
        with one.store.open(file[1], buffer=0) as opened:
            rows = ParquetRows(file[0], opened)
            return columns_of(rows, options.column), rows.groups

    with closing(ahead(look, _files(one, options))) as looked:
        for (name, path), (columns, groups) in looked:
            if columns.note and columns.note not in assumed:
                assumed.add(columns.note)
                options.told(f"{name}: {columns.note}; --column names another")
            if columns.images:
                for first, rows in slices(groups, options.most):
                    yield Chunk(0, "bytes", name, first, rows, columns.images, columns.paths)
                if max(groups, default=0) > MOST_PARTS * options.most and name not in assumed:
                    assumed.add(name)
                    options.told(
                        f"{name}: its row groups have up to {amount(max(groups), 'row')} and are cut into "
                        f"{MOST_PARTS} chunks at most; with smaller ones more workers can read it at once"
                    )
            else:
                with one.store.open(path) as opened:
                    yield from _paths(one, path, ParquetRows(name, opened), columns.paths, options)


def _paths(one: _Input, path: str, rows: ParquetRows, column: str, options: _Options) -> Iterator[str]:
    """The paths in a column. Relative ones begin in the working folder, or else beside the Parquet file."""
    folder = path.rpartition("/")[0]
    beside = True if is_remote(one.given) else None  # None: not known yet
    told, empty = False, 0
    for row, value in enumerate(rows.values(column, 0, sum(rows.groups))):
        if isinstance(value, CrnnDeployError):
            raise value
        name = (value or b"").decode(errors="surrogateescape")
        if not name:
            empty += 1
            yield f"{rows.name}#{row}"
        elif has_scheme(name) or os.path.isabs(name):
            yield name
        else:
            there = one.store.name(f"{folder}/{name}" if folder else name)
            if beside is None:
                beside = not os.path.lexists(name) and os.path.lexists(there)
            if beside and not told:
                told = True
                options.told(f"{rows.name}: relative paths in it begin in its folder")
            yield there if beside else name
    if empty:
        have = amount(empty, "row has", "rows have")
        options.told(f"{rows.name}: {have} no path in the column {column}; each becomes an error")
