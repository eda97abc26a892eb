"""The footer of a Parquet file without what would make types of other libraries.

Whatever process opens a Parquet file, pyarrow builds the types that its footer names under `ARROW:schema`,
and for those that a library has registered (ray.data does) it calls that library, which may read pickles
there. Here that entry gets another name before pyarrow sees it, so that columns have Parquet's plain types.
"""

from __future__ import annotations

from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from crnn_deploy.cluster.footer import Footer, footer_of
from crnn_deploy.cluster.parquet import ParquetInvalid, faults_told

__all__ = ["plain_footer"]

_MAGIC = b"PAR1"
_MOST_BYTES = 2**25
_MOST_LISTED = 2**20  # of what a footer lists: row groups, columns, metadata
_DEEPEST = 32  # nested columns
_CODECS = range(8)  # that pyarrow knows; any other ends the process
_KEY, _OTHER = b"ARROW:schema", b"-rrow:schema"


def plain_footer(name: str, file: BinaryIO) -> pq.FileMetaData:
    """The footer of an open Parquet file, to be passed to `pq.ParquetFile` as its metadata.

    name: for messages
    Raises ParquetInvalid, and what reading the file raises.
    """
    with faults_told(name):
        footer = footer_of(file, _MOST_BYTES).replace(_KEY, _OTHER)
        for chunk in Footer(footer).column_chunks():
            if chunk.codec not in _CODECS:
                raise ParquetInvalid(name, f"its column {chunk.path} is compressed in an unknown way")
        opened = pq.ParquetFile(
            pa.BufferReader(_MAGIC + footer + len(footer).to_bytes(4, "little") + _MAGIC),
            thrift_container_size_limit=_MOST_LISTED,
            schema_depth_limit=_DEEPEST,
            arrow_extensions_enabled=False,
        )
        return opened.metadata
