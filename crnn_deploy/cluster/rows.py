"""What a chunk's Parquet file holds: a row for each input, and in its metadata what made it.

A file name need not be text. In the column `path`, which is text, a byte that is no UTF-8 stands as `\\udc80`
to `\\udcff`, as in the JSON of `infer`; every other name and every text stands as it is.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crnn_deploy.cluster.parquet import CODEC, ParquetInvalid, faults_told, open_parquet
from crnn_deploy.cluster.plan import decoded
from crnn_deploy.files import parse_json
from crnn_deploy.runtime.records import Record

__all__ = [
    "METADATA_KEY",
    "SCHEMA",
    "NamesDigest",
    "Origin",
    "Rows",
    "StoredRows",
    "as_shown",
    "encode",
    "id_of",
    "names_digest",
    "shown",
    "split",
    "table_of",
]

METADATA_KEY = b"crnn_deploy.chunk"
SCHEMA = pa.schema(
    {
        "id": pa.int64(),  # the chunk's number << 32 | the position in the chunk
        "path": pa.string(),
        "text": pa.string(),  # empty for an error
        "confidence": pa.float64(),  # every bit of what `infer` computes; null for an error
        "error": pa.string(),  # null for what was read
        "model": pa.dictionary(pa.int32(), pa.string()),  # SHA-256 of the model's file
        "version": pa.dictionary(pa.int32(), pa.string()),  # of crnn-deploy
    }
)
_CHARACTER = {"char": pa.string(), "confidence": pa.float64(), "start": pa.int32(), "end": pa.int32()}
_PLACE = {"left": pa.float64(), "right": pa.float64()}
_HEIGHT = {
    "top": pa.float64(),
    "bottom": pa.float64(),
}  # null for a character of an image that was not turned
_ALTERNATIVE = {"text": pa.string(), "score": pa.float64()}

_POSITIONS = 32  # bits of an id for the position in the chunk
_ROWS = 2**12  # in a row group: of a column that is read at once, some MiB
_MOST_BYTES = 2**25  # of such a column, compressed
_MOST_ROWS = 2**24  # of a file
_MOST_TEXTS = 2**30  # bytes of texts in a batch of rows
_READ = {"id": pa.int64(), "path": pa.string(), "error": pa.string()}


@dataclass(frozen=True)
class Origin:
    """What a chunk's file says of how it came about."""

    chunk: int
    inputs: int  # that the chunk turned out to have
    names: str  # digest of the names of its inputs
    run: str  # digest of what decides about texts, and of the plan


def id_of(chunk: int, position: int) -> int:
    """The id of an input: the same in every run of a plan."""
    return chunk << _POSITIONS | position


def split(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of chunks and the positions in them; an id that is none has a negative number."""
    return ids >> _POSITIONS, ids & (2**_POSITIONS - 1)


def shown(name: str) -> str:
    """A name as the column `path` has it."""
    return name.encode(errors="backslashreplace").decode()


def as_shown(names: pa.BinaryArray) -> pa.BinaryArray:
    """Names of a plan as the column `path` has them."""
    try:
        names.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([shown(decoded(name)).encode() for name in names.to_pylist()], pa.binary())
    return names


def table_of(
    chunk: int,
    records: Sequence[Record],
    *,
    first: int = 0,
    model: str,
    version: str,
    show_chars: bool = False,
    nbest: bool = False,
    rotated: bool = False,
) -> pa.Table:
    """Rows of a chunk: SCHEMA, and after it the columns that are asked for.

    records: of inputs one after the other
    first: position of the first of them in the chunk
    model: SHA-256 of the model's file
    """
    count = len(records)
    columns: list[pa.Array | pa.ChunkedArray] = [
        pa.array(np.arange(first, first + count, dtype=np.int64) | (chunk << _POSITIONS)),
        _texts(record.path for record in records),
        _texts(record.text for record in records),
        pa.array([record.confidence for record in records], pa.float64()),
        _texts(record.error for record in records),
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [model]),
        pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), [version]),
    ]
    schema = SCHEMA
    if rotated:
        columns.append(_texts(None if one.rotated is None else str(one.rotated) for one in records))
        schema = schema.append(pa.field("rotated", pa.string()))
    if show_chars:
        kind = pa.list_(pa.struct(_CHARACTER | _PLACE | (_HEIGHT if rotated else {})))
        columns.append(pa.array([[*map(vars, one.chars)] for one in records], kind))
        schema = schema.append(pa.field("characters", kind))
    if nbest:
        kind = pa.list_(pa.struct(_ALTERNATIVE))
        columns.append(pa.array([[*map(vars, one.alternatives)] for one in records], kind))
        schema = schema.append(pa.field("alternatives", kind))
    return pa.table(columns, schema)


def encode(table: pa.Table, chunk: int, inputs: int, names_digest: str, run: str) -> bytes:
    """The Parquet file of a chunk's rows. Equal rows give equal bytes."""
    origin = json.dumps(asdict(Origin(chunk, inputs, names_digest, run)))
    sink = io.BytesIO()
    pq.write_table(
        table.replace_schema_metadata({METADATA_KEY: origin}),
        sink,
        row_group_size=_ROWS,
        use_dictionary=["model", "version"],
        compression=CODEC,
        write_page_checksum=True,
    )
    return sink.getvalue()


class NamesDigest:
    """A digest of names in their order, as the column `path` has them."""

    def __init__(self) -> None:
        self._lengths, self._letters = hashlib.sha256(), hashlib.sha256()

    def add(self, names: pa.BinaryArray) -> None:
        """The next names."""
        lengths = pc.binary_length(names).to_numpy(zero_copy_only=False)
        self._lengths.update(lengths.astype("<i8").tobytes())
        offsets = np.frombuffer(names.buffers()[1], np.int32)[names.offset : names.offset + len(names) + 1]
        if len(names) and (letters := names.buffers()[2]) is not None:
            self._letters.update(memoryview(letters)[offsets[0] : offsets[-1]])

    def hexdigest(self) -> str:
        """64 hexadecimal digits."""
        return hashlib.sha256(self._lengths.digest() + self._letters.digest()).hexdigest()


def names_digest(names: Iterable[str]) -> str:
    """The digest of names as they were given."""
    digest, waiting = NamesDigest(), iter(names)
    while taken := [shown(name).encode() for name in islice(waiting, _ROWS)]:
        digest.add(pa.array(taken, pa.binary()))
    return digest.hexdigest()


@dataclass(frozen=True)
class Rows:
    """Some rows that were read back."""

    ids: NDArray[np.int64]
    paths: pa.BinaryArray  # UTF-8, though a stranger's file may hold other bytes
    errors: int  # rows with one


class StoredRows:
    """The ids and names of a Parquet file of rows, read some thousand at a time.

    name: for messages
    file: opened, or its bytes
    Here and while it is read, ParquetInvalid is raised for a file that is torn or is no file of rows.
    """

    def __init__(self, name: str, file: BinaryIO | bytes) -> None:
        self._name = name
        self._file = open_parquet(name, file, _READ, _MOST_BYTES)
        found = self._file.metadata
        if not 0 <= found.num_rows <= _MOST_ROWS:
            raise ParquetInvalid(name, f"it has more than {_MOST_ROWS:,} rows")
        self.origin = _origin(found.metadata or {})  # None where the file does not say what made it

    def __iter__(self) -> Iterator[Rows]:
        there = 0
        with faults_told(self._name):
            for batch in self._file.iter_batches(_ROWS, columns=[*_READ], use_threads=False):
                ids, paths, errors = (batch.column(name) for name in _READ)
                if ids.null_count or paths.null_count:
                    raise ParquetInvalid(self._name, "it has rows without an id or a path")
                there += len(ids)
                lengths = pc.binary_length(paths.dictionary).take(paths.indices)
                if (pc.sum(lengths).as_py() or 0) > _MOST_TEXTS:
                    raise ParquetInvalid(self._name, "its paths are too long")
                yield Rows(
                    ids.to_numpy(),
                    paths.dictionary_decode().cast(pa.binary()),
                    len(errors) - errors.null_count,
                )
            if there != self._file.metadata.num_rows:
                raise ParquetInvalid(
                    self._name, f"it has {there:,} of its {self._file.metadata.num_rows:,} rows"
                )


def _origin(metadata: dict[bytes, bytes]) -> Origin | None:
    try:
        plain = parse_json(metadata.get(METADATA_KEY, b""))
    except ValueError:
        plain = None
    match plain:
        case {"chunk": int(chunk), "inputs": int(inputs), "names": str(names), "run": str(run)}:
            return Origin(chunk, inputs, names, run) if inputs >= 0 else None
    return None


def _texts(values: Iterable[str | None]) -> pa.Array | pa.ChunkedArray:
    given = [*values]
    try:
        return pa.array(given, pa.string())
    except UnicodeEncodeError:
        return pa.array([value if value is None else shown(value) for value in given], pa.string())
