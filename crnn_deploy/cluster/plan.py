"""What a run reads, chunk by chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Chunk"]


@dataclass(frozen=True)
class Chunk:
    """Inputs that are read together and whose rows stand in one file."""

    number: int
    kind: Literal["paths", "bytes", "lmdb", "tar"]
    source: str  # address of a Parquet file (paths, bytes), an LMDB or a tar
    first: int  # row or sample in it, from 0
    count: int | None  # inputs; None: of a tar, whose members are counted when it is read
    column: str = ""  # of a Parquet file: the one of paths or bytes
    name_column: str = ""  # of a bytes chunk: the one that names the image; without one it is FILE#ROW
