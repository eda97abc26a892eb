"""Images that are files, by their names: local ones as paths, those of object stores as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import partial

from crnn_deploy.cluster.plan import Chunk, decoded
from crnn_deploy.cluster.sources.item import MOST_BYTES, Item
from crnn_deploy.cluster.sources.parquet_rows import ParquetRows
from crnn_deploy.cluster.sources.prefetch import ByteBudget, ahead
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.stores.address import has_scheme, is_remote
from crnn_deploy.stores.store import StoredTooLarge, Stores, StoreUnreachable

__all__ = ["ListedImages"]

_AHEAD = 2**26  # bytes of images that wait to be asked for


class ListedImages:
    """Images whose names the planner has written below OUTPUT."""

    def __init__(self, chunk: Chunk, stores: Stores) -> None:
        self._chunk, self._stores = chunk, stores
        self._names: list[str] | None = None

    @property
    def names(self) -> list[str]:
        if self._names is None:
            store, path = self._stores.open(self._chunk.source)
            with store.open(path, buffer=0) as file:
                rows = ParquetRows(self._chunk.source, file)
                names = rows.values(self._chunk.column, self._chunk.first, self._chunk.count or 0)
                self._names = [*map(_text, names)]
        return self._names

    def __iter__(self) -> Iterator[Item]:
        if not any(map(is_remote, self.names)):
            yield from map(self._local, self.names)
            return
        budget = ByteBudget(_AHEAD)
        numbered = enumerate(self.names)
        with closing(ahead(partial(self._fetched, budget), numbered)) as fetched:
            try:
                for _, item in fetched:
                    budget.give(len(item.image) if isinstance(item.image, bytes) else 0)
                    yield item
            finally:
                budget.close()

    def _local(self, name: str) -> Item:
        try:
            if has_scheme(name):
                store, path = self._stores.open(name)
                return Item(name, store.name(path))
            return Item(name, self._stores.local(name))
        except CrnnDeployError as error:
            return Item(name, error)

    def _fetched(self, budget: ByteBudget, numbered: tuple[int, str]) -> Item:
        place, name = numbered
        if not is_remote(name):
            return self._local(name)
        try:
            store, path = self._stores.open(name)
            with store.open(path, buffer=0) as file:
                size = file.seek(0, 2)
                if size > MOST_BYTES:
                    raise StoredTooLarge(name, MOST_BYTES)
                file.seek(0)
                budget.take(place, size)
                return Item(name, file.read())
        except StoreUnreachable:
            raise
        except CrnnDeployError as error:
            return Item(name, error)


def _text(value: bytes | CrnnDeployError | None) -> str:
    if isinstance(value, CrnnDeployError):
        raise value
    return decoded(value or b"")
