"""Parquet files that a stranger may have written or a crash has torn: no code runs, memory is bounded.

What a file says of its pages need not be so. Its columns are compressed with Snappy, which makes no more than
21 bytes of one, and texts are read as dictionaries, so that a value that stands for many rows is held once.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from crnn_deploy.errors import CrnnDeployError, first_line

__all__ = ["CODEC", "ParquetInvalid", "check_group", "faults_told", "open_parquet"]

CODEC = "SNAPPY"
_MOST_LISTED = 2**16  # of what a footer lists: row groups, columns, metadata
_MOST_TEXT = 2**24  # bytes of one text in a footer
_DEEPEST = 16  # nested columns


class ParquetInvalid(CrnnDeployError, ValueError):
    """A Parquet file that is torn, or is not what its place asks for."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.reason = reason


@contextmanager
def faults_told(name: str) -> Iterator[None]:
    """What goes wrong inside is the file's fault, but for errors of the toolkit. Raises ParquetInvalid."""
    try:
        yield
    except CrnnDeployError:
        raise
    except Exception as error:  # pyarrow raises nearly any, and so does what reads types of other libraries
        raise ParquetInvalid(name, f"it is not whole Parquet ({first_line(error)[:200]})") from None


def open_parquet(
    name: str,
    file: BinaryIO | pa.Buffer,
    columns: Mapping[str, pa.DataType],
    metadata: pq.FileMetaData | None = None,
) -> pq.ParquetFile:
    """A Parquet file that has columns of these types, which are read as dictionaries where they are texts.

    name: for messages
    metadata: its footer, where it is known already
    Raises ParquetInvalid.
    """
    texts = [column for column, kind in columns.items() if not pa.types.is_integer(kind)]
    with faults_told(name):
        opened = pq.ParquetFile(
            file,
            metadata=metadata,
            read_dictionary=texts,
            pre_buffer=False,
            thrift_string_size_limit=_MOST_TEXT,
            thrift_container_size_limit=_MOST_LISTED,
            schema_depth_limit=_DEEPEST,
            page_checksum_verification=True,
            arrow_extensions_enabled=False,
        )
        found = opened.schema_arrow
        for column, kind in columns.items():
            expected = pa.dictionary(pa.int32(), kind) if column in texts else kind
            if found.names.count(column) != 1 or found.field(column).type != expected:
                raise ParquetInvalid(name, f"it has no column {column} of type {kind}")
    return opened


def check_group(name: str, file: pq.ParquetFile, group: int, columns: Container[str], limit: int) -> None:
    """Refuse a row group whose columns would take too much memory. Raises ParquetInvalid.

    limit: bytes of a column, compressed
    """
    found = file.metadata.row_group(group)
    for at in range(found.num_columns):
        column = found.column(at)
        if column.path_in_schema not in columns:
            continue
        if column.compression != CODEC:
            raise ParquetInvalid(name, f"its column {column.path_in_schema} is not compressed with Snappy")
        if not 0 <= column.total_compressed_size <= limit:
            reason = f"its column {column.path_in_schema} has more than {limit:,} bytes in a row group"
            raise ParquetInvalid(name, reason)
