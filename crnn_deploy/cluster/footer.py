"""The footer of a Parquet file without what would make types of other libraries.

Whatever process opens a Parquet file, pyarrow builds the types that its footer names under `ARROW:schema`,
and for those that a library has registered (ray.data does) it calls that library, which may read pickles
there. Here that entry gets another name before pyarrow sees it, so that columns have Parquet's plain types.
"""

from __future__ import annotations

import os
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from crnn_deploy.cluster.parquet import ParquetInvalid, faults_told

__all__ = ["read_footer"]

_MAGIC = b"PAR1"
_END = 8  # bytes of the footer's length and of the magic
_MOST = 2**28  # bytes of a footer
_MOST_LISTED = 2**22  # of what a footer lists: row groups, columns, metadata
_MOST_TEXT = 2**26  # bytes of one text in a footer
_DEEPEST = 32  # nested columns
_KEY, _OTHER = b"ARROW:schema", b"-rrow:schema"


def read_footer(name: str, file: BinaryIO) -> pq.FileMetaData:
    """The footer of an open Parquet file, to be passed to `pq.ParquetFile` as its metadata.

    name: for messages
    Raises ParquetInvalid, and what reading the file raises.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END))
    end = file.read(_END)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != _MAGIC or size < length + _END + len(_MAGIC):
        raise ParquetInvalid(name, "it is no Parquet file, or it was cut short")
    if length > _MOST:
        raise ParquetInvalid(name, f"its footer has more than {_MOST:,} bytes")
    file.seek(size - _END - length)
    footer = file.read(length).replace(_KEY, _OTHER)
    with faults_told(name):
        opened = pq.ParquetFile(
            pa.BufferReader(_MAGIC + footer + end),
            thrift_string_size_limit=_MOST_TEXT,
            thrift_container_size_limit=_MOST_LISTED,
            schema_depth_limit=_DEEPEST,
            arrow_extensions_enabled=False,
        )
        return opened.metadata
