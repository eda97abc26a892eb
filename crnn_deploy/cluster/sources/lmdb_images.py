"""Images of an LMDB of this machine, whether it has labels or not."""

from __future__ import annotations

from collections.abc import Iterator

from crnn_deploy.cluster.plan import Chunk
from crnn_deploy.cluster.sources.item import Item, bounded
from crnn_deploy.datasets import RecordInvalid
from crnn_deploy.datasets.lmdb_file import LmdbImages
from crnn_deploy.stores.store import Stores

__all__ = ["LmdbRange"]


class LmdbRange:
    """Some images, one after the other. An image is called FILE#KEY."""

    def __init__(self, chunk: Chunk, stores: Stores) -> None:
        self._chunk, self._path = chunk, stores.local(chunk.source)

    @property
    def names(self) -> list[str]:
        images = LmdbImages(self._path)
        return [self._name(images, index) for index in self._indices()]

    def __iter__(self) -> Iterator[Item]:
        images = LmdbImages(self._path)
        for index in self._indices():
            name = self._name(images, index)
            try:
                yield bounded(name, images[index])
            except RecordInvalid as error:
                yield Item(name, error)

    def _indices(self) -> range:
        return range(self._chunk.first, self._chunk.first + (self._chunk.count or 0))

    def _name(self, images: LmdbImages, index: int) -> str:
        return f"{self._chunk.source}#{images.key(index)}"
