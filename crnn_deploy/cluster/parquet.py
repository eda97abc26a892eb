"""Parquet files that a stranger may have written or a crash has torn: no code runs, memory is bounded.

What a file says of its pages need not be so. Its columns are compressed with Snappy, which makes no more than
21 bytes of one, and texts are read as dictionaries, so that a value that stands for many rows is held once.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from crnn_deploy.cluster.footer import SNAPPY, Footer, footer_of
from crnn_deploy.errors import CrnnDeployError, first_line

__all__ = ["CODEC", "ParquetInvalid", "faults_told", "open_parquet"]

CODEC = "SNAPPY"
_MOST_LISTED = 2**16  # of what a footer lists: row groups, columns, metadata
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
    except KeyError as error:  # of a column that is to be read as a dictionary
        raise ParquetInvalid(name, f"it has no column {error}") from None
    except Exception as error:  # pyarrow raises nearly any, and so does what reads types of other libraries
        raise ParquetInvalid(name, f"it is not whole Parquet ({first_line(error)[:200]})") from None


def open_parquet(
    name: str,
    file: BinaryIO | bytes,
    columns: Mapping[str, pa.DataType],
    limit: int,
    metadata: pq.FileMetaData | None = None,
) -> pq.ParquetFile:
    """A Parquet file that has columns of these types, which are read as dictionaries where they are texts.

    name: for messages
    limit: bytes of such a column in a row group, compressed
    metadata: its footer, where it has been opened before
    Raises ParquetInvalid.
    """
    texts = [column for column, kind in columns.items() if not pa.types.is_integer(kind)]
    with faults_told(name):
        if metadata is None:
            _check_footer(name, io.BytesIO(file) if isinstance(file, bytes) else file, columns, limit)
        opened = pq.ParquetFile(
            pa.BufferReader(file) if isinstance(file, bytes) else file,
            metadata=metadata,
            read_dictionary=texts,
            pre_buffer=False,
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


def _check_footer(name: str, file: BinaryIO, columns: Mapping[str, pa.DataType], limit: int) -> None:
    footer = Footer(footer_of(file))
    if footer.has_foreign_types:
        raise ParquetInvalid(name, "it has types of other libraries")
    for chunk in footer.column_chunks():
        if chunk.path in columns and chunk.codec != SNAPPY:
            raise ParquetInvalid(name, f"its column {chunk.path} is not compressed with Snappy")
        if chunk.path in columns and not 0 <= chunk.compressed <= limit:
            raise ParquetInvalid(
                name, f"its column {chunk.path} has more than {limit:,} bytes in a row group"
            )
