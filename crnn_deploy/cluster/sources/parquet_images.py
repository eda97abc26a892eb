"""Images in a column of a Parquet file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from crnn_deploy.cluster.plan import Chunk
from crnn_deploy.cluster.sources.item import InputInvalid, Item, bounded
from crnn_deploy.cluster.sources.parquet_rows import ParquetRows
from crnn_deploy.stores.store import Stores

__all__ = ["ParquetImages"]

_LONGEST_NAME = 2**16  # bytes


class ParquetImages:
    """The images of some rows. One without a name of its own is called FILE#ROW, the first row being 0."""

    def __init__(self, chunk: Chunk, stores: Stores) -> None:
        self._chunk, self._stores = chunk, stores
        self._names: list[str] | None = None

    @property
    def names(self) -> list[str]:
        if self._names is None:
            store, path = self._stores.open(self._chunk.source)
            with store.open(path) as file:
                self._names = self._read_names(ParquetRows(self._chunk.source, file))
        return self._names

    def _read_names(self, rows: ParquetRows) -> list[str]:
        first, last = self._chunk.first, self._chunk.first + (self._chunk.count or 0)
        unnamed = [f"{self._chunk.source}#{row}" for row in range(first, last)]
        if not self._chunk.name_column:
            return unnamed
        given = rows.values(self._chunk.name_column, first, len(unnamed))
        return [
            name.decode(errors="surrogateescape")
            if isinstance(name, bytes) and 0 < len(name) <= _LONGEST_NAME
            else other
            for name, other in zip(given, unnamed, strict=True)
        ]

    def __iter__(self) -> Iterator[Item]:
        names = self.names
        store, path = self._stores.open(self._chunk.source)
        with store.open(path) as file:
            rows = ParquetRows(self._chunk.source, file)
            with closing(rows.values(self._chunk.column, self._chunk.first, len(names))) as images:
                for name, image in zip(names, images, strict=True):
                    yield bounded(name, InputInvalid(name, "it has no image") if image is None else image)
