"""Rows of a Parquet file that hold images or their paths, in slices."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from crnn_deploy.cluster.parquet import ParquetInvalid, faults_told
from crnn_deploy.cluster.plain_footer import plain_footer
from crnn_deploy.errors import CrnnDeployError, did_you_mean, first_line, shortened

__all__ = ["MOST_PARTS", "Columns", "ParquetRows", "columns_of", "slices"]

_BUFFER = 2**20  # bytes of a column that are read at once
_SLICE = 2**24  # bytes of a column's values at once, as far as the footer tells the truth
_MOST_ROWS = 4096  # at once
_MOST_COLUMNS = 10_000
_MOST_IN_GROUP = 2**24  # rows; pyarrow writes 2**20
MOST_PARTS = 4  # that a row group of images is cut into: each reads those before it too

# of columns, the likeliest first
_IMAGES = ("image", "img", "picture", "bytes", "image_bytes", "content", "data", "jpg", "jpeg", "png")
_PATHS = (
    *("path", "file", "file_path", "filepath", "image_path", "file_name", "filename", "uri", "url"),
    *("image_file", "image_uri", "image_url", "image", "img", "key", "name"),
)


@dataclass(frozen=True)
class Columns:
    """Which columns of a Parquet file hold what, as paths of its leaves."""

    images: str = ""  # encoded images
    paths: str = ""  # of images, or their names where there are images too
    note: str = ""  # what was assumed


class ParquetRows:
    """An open Parquet file: no code of it runs, and of each column some MiB are in memory at once."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        """Raises ParquetInvalid, and what reading the file raises."""
        self.name, self._file = name, file
        self._footer = plain_footer(name, file)
        if self._footer.num_columns > _MOST_COLUMNS:
            raise ParquetInvalid(name, f"it has more than {_MOST_COLUMNS:,} columns")
        with faults_told(name):
            self.schema: pa.Schema = self._opened().schema_arrow
            self.groups = [self._footer.row_group(at).num_rows for at in range(self._footer.num_row_groups)]
        if any(not 0 <= rows <= _MOST_IN_GROUP for rows in self.groups):
            raise ParquetInvalid(name, f"it has a row group of more than {_MOST_IN_GROUP:,} rows")

    def _opened(self, *dictionaries: str) -> pq.ParquetFile:
        """The file; values of these columns that stand for many rows are in memory once."""
        return pq.ParquetFile(
            self._file,
            metadata=self._footer,
            read_dictionary=dictionaries,
            buffer_size=_BUFFER,
            pre_buffer=False,
            arrow_extensions_enabled=False,
        )

    def values(
        self, column: str, first: int, count: int
    ) -> Generator[bytes | CrnnDeployError | None, None, None]:
        """The values of a column of texts or bytes, exactly `count`, from row `first` on.

        Where a row group cannot be read, its remaining values are the reason. Raises ParquetInvalid where
        the file has not so many rows, and what reading the file raises.
        """
        starts = [0, *accumulate(self.groups)]
        if not 0 <= first <= first + count <= starts[-1]:
            raise ParquetInvalid(self.name, f"it has {starts[-1]:,} rows, and not {first + count:,} any more")
        for group, rows in enumerate(self.groups):
            begin, end = max(0, first - starts[group]), min(rows, first + count - starts[group])
            if begin < end:
                yield from self._of_group(group, column, begin, end)

    def _of_group(
        self, group: int, column: str, begin: int, end: int
    ) -> Iterator[bytes | CrnnDeployError | None]:
        at = given = 0
        reason = "a row group ends early"
        try:
            for batch in self._opened(column).iter_batches(
                self._slice(group, column), row_groups=[group], columns=[column], use_threads=False
            ):
                for value in _values(batch, column)[max(0, begin - at) : max(0, end - at)]:
                    yield value.as_py()
                    given += 1
                at += batch.num_rows
                if at >= end:
                    break
        except CrnnDeployError:
            raise
        except Exception as error:  # pyarrow raises nearly any
            reason = first_line(error)[:200]
        for _ in range(end - begin - given):
            yield ParquetInvalid(self.name, f"its rows cannot be read: {reason}")

    def _slice(self, group: int, column: str) -> int:
        """Rows that are read at once."""
        found = self._footer.row_group(group)
        sizes = [
            found.column(at).total_uncompressed_size
            for at in range(found.num_columns)
            if found.column(at).path_in_schema == column
        ]
        wanted: int = _SLICE * found.num_rows // max([1, *sizes])
        return max(1, min(_MOST_ROWS, wanted))


def _values(batch: pa.RecordBatch, column: str) -> pa.DictionaryArray:
    """A column, or the field of a structure, as bytes: texts of strangers need not be UTF-8."""
    [array] = batch.columns
    if batch.schema.names != [column]:
        [array] = array.flatten()
    return pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(pa.binary()))


def columns_of(rows: ParquetRows, column: str | None) -> Columns:
    """Which column holds the images or their paths.

    column: its name, if given
    Raises ParquetInvalid.
    """
    fields = [rows.schema.field(at) for at in range(len(rows.schema))]
    leaves = {field.name: found for field in fields if (found := _images_in(field))}
    texts = [field.name for field in fields if pa.types.is_string(field.type)]
    names = [field.name for field in fields]
    if column is not None:
        if names.count(column) != 1:
            hint = did_you_mean(column, names)
            raise ParquetInvalid(rows.name, f"it has no column {column!r}{hint}; {_listed(names)}")
        if column in leaves:
            return _with_names(leaves[column], texts)
        if column in texts:
            return Columns(paths=column)
        raise ParquetInvalid(
            rows.name, f"its column {column!r} holds neither images (bytes) nor paths (texts)"
        )
    chosen = _likeliest(list(leaves), _IMAGES)
    if chosen is None and len(leaves) == 1:
        [chosen] = leaves
    if chosen is not None and names.count(chosen) == 1:
        found = _with_names(leaves[chosen], texts)
        named = f", their names from {found.paths}" if found.paths else ""
        return Columns(found.images, found.paths, f"images are taken from the column {chosen}{named}")
    if not leaves and (chosen := _likeliest(texts, _PATHS)) is not None and names.count(chosen) == 1:
        return Columns(paths=chosen, note=f"paths of images are taken from the column {chosen}")
    raise ParquetInvalid(
        rows.name,
        "several columns, or none, may hold the images or their paths; name one with --column: "
        f"{_listed(names)}",
    )


def _images_in(field: pa.Field) -> Columns | None:
    """The images of a column of bytes, or of a structure of bytes and path as Hugging Face writes one."""
    if pa.types.is_binary(field.type):
        return Columns(field.name)
    if pa.types.is_struct(field.type):
        inner = {one.name: one.type for one in field.type}
        if "bytes" in inner and pa.types.is_binary(inner["bytes"]):
            named = "path" in inner and pa.types.is_string(inner["path"])
            return Columns(f"{field.name}.bytes", f"{field.name}.path" if named else "")
    return None


def _with_names(found: Columns, texts: Sequence[str]) -> Columns:
    """The columns of images, with one that names them where there is one."""
    return found if found.paths else Columns(found.images, _likeliest(texts, _PATHS) or "")


def _likeliest(names: Sequence[str], known: Sequence[str]) -> str | None:
    by_name = {name.lower(): name for name in reversed(names)}
    return next((by_name[name] for name in known if name in by_name), None)


def _listed(names: Sequence[str]) -> str:
    return f"it has the columns {shortened(', '.join(names), 200)}" if names else "it has no columns"


def slices(groups: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each chunk: whole row groups, of `most` rows at most where that goes.

    Rows in the midst of a row group cannot be read without those before them, so a large one is cut into
    four at most.
    """
    first = taken = 0
    for rows in groups:
        if taken and taken + rows > most:
            yield first, taken
            first, taken = first + taken, 0
        if rows <= most:
            taken += rows
            continue
        parts = min(MOST_PARTS, -(-rows // most))
        for part in range(parts):
            size = rows * (part + 1) // parts - rows * part // parts
            yield first, size
            first += size
    if taken:
        yield first, taken
