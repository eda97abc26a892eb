"""Images in a tar, as WebDataset has them: every member with an image's suffix that is not hidden."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from crnn_deploy.cluster.plan import Chunk
from crnn_deploy.cluster.sources.item import MOST_BYTES, InputInvalid, Item
from crnn_deploy.datasets.tar_file import Member, TarInvalid, members
from crnn_deploy.runtime.images.sources import IMAGE_SUFFIXES
from crnn_deploy.stores.store import StoredTooLarge, Stores

__all__ = ["TarImages"]


class TarImages:
    """The images of a whole tar, in its order. An image is called TAR#MEMBER.

    Their names are known once they were gone through; before, the whole tar is read for them.
    Where the tar is torn, or no tar, one more item with the tar's own name says so.
    """

    def __init__(self, chunk: Chunk, stores: Stores) -> None:
        self._source, self._stores = chunk.source, stores
        self._names: list[str] | None = None

    @property
    def names(self) -> list[str]:
        if self._names is None:
            self._names = [item.name for item in self._items(read=False)]
        return self._names

    def __iter__(self) -> Iterator[Item]:
        names = []
        for item in self._items(read=True):
            names.append(item.name)
            yield item
        self._names = names

    def _items(self, read: bool) -> Iterator[Item]:
        store, path = self._stores.open(self._source)
        with store.open(path) as file:
            try:
                for member in members(file):
                    if _is_image(member.name):
                        name = f"{self._source}#{member.name}"
                        yield self._read(name, file, member) if read else Item(name, b"")
            except TarInvalid as error:
                yield Item(self._source, InputInvalid(self._source, f"it {error}"))

    def _read(self, name: str, file: BinaryIO, member: Member) -> Item:
        if member.size > MOST_BYTES:
            return Item(name, StoredTooLarge(name, MOST_BYTES))
        file.seek(member.offset)
        return Item(name, file.read(member.size))


def _is_image(name: str) -> bool:
    base = name.rpartition("/")[2]
    return not base.startswith(".") and os.path.splitext(base)[1].lower() in IMAGE_SUFFIXES
