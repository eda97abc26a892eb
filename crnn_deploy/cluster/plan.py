"""A plan: all inputs of a run in chunks, written once before the run and never changed.

A chunk says where some thousand images are, in few words. Where the planner had to list files itself, their
names stand in Parquet files beside the plan, a row group for each chunk, and the chunk names such a file as
it would name one of the user's. Names are bytes there, since a file's name need not be text.
"""

from __future__ import annotations

import io
import secrets
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, islice
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crnn_deploy.cluster.parquet import CODEC, ParquetInvalid, faults_told, open_parquet
from crnn_deploy.stores.store import Store

__all__ = [
    "NAMES",
    "PLAN",
    "RUN",
    "Chunk",
    "ChunkKind",
    "Plan",
    "decoded",
    "number_of",
    "part_of",
    "read_plan",
    "write_plan",
]

RUN = "_run"  # the folder that readers of the output pass over
PLAN = f"{RUN}/plan.parquet"
NAMES = f"{RUN}/names"

ChunkKind = Literal["paths", "bytes", "lmdb", "tar"]

_NAME = "path"  # the column of names
_IN_FOLDER = 1000  # parts
_ROWS = 2**16  # chunks in a row group of the plan
_MOST_CHUNKS = 2**31  # an input's id has 64 bits
_FILE = 2**24  # bytes of names after which another file begins
_MOST_BYTES = 2**26  # of a column of a row group, compressed
_OPEN = 8  # files of names whose footers are kept

_COLUMNS: dict[str, pa.DataType] = {
    **{"kind": pa.binary(), "source": pa.binary(), "first": pa.int64(), "count": pa.int64()},
    **{"column": pa.binary(), "name_column": pa.binary()},
}


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where some inputs are, one after the other."""

    number: int  # from 0; the rows of this chunk lie in part_of(number)
    kind: ChunkKind
    source: (
        str  # the address of a Parquet file (paths, bytes), an LMDB or a tar; below OUTPUT where it is listed
    )
    first: int  # row or sample in it, from 0
    count: int | None  # inputs, 1 or more; None for a tar, whose members are counted when it is read
    column: str = ""  # of the Parquet file: the paths or the images
    name_column: str = ""  # that names the images of a bytes chunk; "" where they are FILE#ROW

    @property
    def listed(self) -> bool:
        """Whether its names were listed by the planner and stand in the output."""
        return self.source.startswith(f"{NAMES}/")


def part_of(number: int) -> str:
    """Where the rows of a chunk lie below OUTPUT."""
    return f"{number // _IN_FOLDER:05}/part-{number:08}.parquet"


def number_of(path: str) -> int | None:
    """The chunk whose rows lie at a path below OUTPUT; None for any other file."""
    digits = path.rpartition("/part-")[2].removesuffix(".parquet")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        return None
    number = int(digits)
    return number if part_of(number) == path else None


class Plan:
    """The chunks of a run by their numbers. It holds some 40 bytes a chunk; threads share it.

    store: OUTPUT, where the names of listed chunks are
    """

    def __init__(self, store: Store, table: pa.Table) -> None:
        self._store, self._table = store, table
        self._footers: dict[str, tuple[pq.FileMetaData, list[int]]] = {}
        self._opening = threading.Lock()

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, number: int) -> Chunk:
        if not 0 <= number < len(self):
            raise IndexError(f"chunk {number} of {len(self)}")
        [row] = self._table.slice(number, 1).to_pylist()
        return _chunk(number, row)

    def __iter__(self) -> Iterator[Chunk]:
        number = 0
        for batch in self._table.to_batches(max_chunksize=1024):
            for row in batch.to_pylist():
                yield _chunk(number, row)
                number += 1

    def counts(self) -> NDArray[np.int64]:
        """The number of inputs of each chunk; -1 of a tar that nobody has counted."""
        counts = pc.fill_null(self._table.column("count"), -1).to_numpy()
        return np.array(counts, np.int64)

    def names(self, chunk: Chunk) -> pa.BinaryArray | None:
        """The names of a listed chunk as they stand in the plan; None of any other, whose source has them.

        `decoded` makes text of one. Raises ParquetInvalid, and what a Store raises.
        """
        if not chunk.listed:
            return None
        name = self._store.name(chunk.source)
        with self._store.open(chunk.source, buffer=0) as file, faults_told(name):
            with self._opening:
                footer, starts = self._footers.get(chunk.source, (None, []))
            opened = open_parquet(name, file, {_NAME: pa.binary()}, _MOST_BYTES, footer)
            if footer is None:
                footer = opened.metadata
                rows = (footer.row_group(group).num_rows for group in range(footer.num_row_groups))
                starts = [0, *accumulate(rows)]
                with self._opening:
                    while len(self._footers) >= _OPEN:
                        del self._footers[next(iter(self._footers))]
                    self._footers[chunk.source] = footer, starts
            group = bisect_right(starts, chunk.first) - 1
            if starts[group : group + 2] != [chunk.first, chunk.first + (chunk.count or 0)]:
                raise ParquetInvalid(
                    name, f"it has no row group of the {chunk.count} names of chunk {chunk.number}"
                )
            column = opened.read_row_group(group, columns=[_NAME], use_threads=False).column(_NAME)
            names = column.combine_chunks().dictionary_decode()
            if len(names) != chunk.count or names.null_count:
                raise ParquetInvalid(name, f"it has not the {chunk.count} names of chunk {chunk.number}")
            return names


def decoded(name: bytes) -> str:
    """A name of a plan as it was given."""
    return name.decode(errors="surrogatepass")


def write_plan(store: Store, chunks: Iterable[tuple[Chunk, Sequence[str]]]) -> Plan:
    """Write a plan below OUTPUT.

    chunks: by number, from 0. Where names of its inputs were listed, a chunk comes with them, and its source,
        first and column are filled in; of the others the names are empty.
    Memory holds the names of one file, some 16 MiB. Raises what a Store raises.
    """
    placed, number = _placed(store, chunks, secrets.token_hex(4)), 0
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, pa.schema(_COLUMNS), compression=CODEC, write_page_checksum=True) as writer:
        while taken := [*islice(placed, _ROWS)]:
            assert [chunk.number for chunk in taken] == [*range(number, number + len(taken))]
            number += len(taken)
            columns = {name: [_plain(getattr(chunk, name)) for chunk in taken] for name in _COLUMNS}
            writer.write_table(pa.table(columns, pa.schema(_COLUMNS)))
    store.write(PLAN, sink.getvalue())
    return read_plan(store)


def read_plan(store: Store) -> Plan:
    """The plan below OUTPUT. Raises ParquetInvalid, and StoreMissing where there is none."""
    name = store.name(PLAN)
    with store.open(PLAN) as file, faults_told(name):
        opened = open_parquet(name, file, _COLUMNS, _MOST_BYTES)
        if opened.metadata.num_rows > _MOST_CHUNKS:
            raise ParquetInvalid(name, f"it has more than {_MOST_CHUNKS:,} chunks")
        table = opened.read(columns=[*_COLUMNS], use_threads=False).unify_dictionaries()
        _check(name, table)
    return Plan(store, table)


def _placed(store: Store, chunks: Iterable[tuple[Chunk, Sequence[str]]], own: str) -> Iterator[Chunk]:
    """The chunks, while their names are written, a file when it is full.

    own: what the names of these files begin with, so that no other plan overwrites them
    """
    file = _NameFile(own, 0)
    for chunk, names in chunks:
        if not names:
            yield chunk
            continue
        if file.size >= _FILE:
            file.write(store)
            file = _NameFile(own, file.number + 1)
        yield file.put(chunk, names)
    file.write(store)


class _NameFile:
    """A file of names that is not yet written."""

    def __init__(self, own: str, number: int) -> None:
        self.number, self._path, self._rows = number, f"{NAMES}/{own}-{number:05}.parquet", 0
        self._sink = io.BytesIO()
        self._schema = pa.schema({_NAME: pa.binary()})
        self._writer = pq.ParquetWriter(
            *(self._sink, self._schema), compression=CODEC, use_dictionary=False, write_page_checksum=True
        )

    @property
    def size(self) -> int:
        """Bytes that it will have."""
        return self._sink.tell()

    def put(self, chunk: Chunk, names: Sequence[str]) -> Chunk:
        """The chunk with the place of its names."""
        first, self._rows = self._rows, self._rows + len(names)
        table = pa.table({_NAME: [*map(_plain, names)]}, self._schema)
        self._writer.write_table(table, row_group_size=len(names))
        return replace(chunk, source=self._path, first=first, count=len(names), column=_NAME)

    def write(self, store: Store) -> None:
        self._writer.close()
        if self._rows:
            store.write(self._path, self._sink.getvalue())


def _plain(value: object) -> object:
    return value.encode(errors="surrogatepass") if isinstance(value, str) else value


def _chunk(number: int, row: dict[str, Any]) -> Chunk:
    values: dict[str, Any] = {
        name: decoded(value) if isinstance(value, bytes) else value for name, value in row.items()
    }
    return Chunk(number, **values)


def _check(name: str, table: pa.Table) -> None:
    """Refuse what no plan holds. Raises ParquetInvalid, UnicodeDecodeError."""
    for column in table.column_names:
        values = table.column(column)
        if column != "count" and values.null_count:
            raise ParquetInvalid(name, f"its column {column} has gaps")
        if column in ("first", "count"):
            least = pc.min(values).as_py()
            if least is not None and least < (column == "count"):
                raise ParquetInvalid(name, f"its column {column} has a {least}")
            continue
        texts = {decoded(value) for value in pc.unique(values.combine_chunks()).to_pylist()}
        if column == "kind" and (others := texts - set(get_args(ChunkKind))):
            raise ParquetInvalid(name, f"it has chunks of kind {min(others)[:40]!r}")
