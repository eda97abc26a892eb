"""An image of a chunk, and what all kinds of inputs have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.stores.store import StoredTooLarge

__all__ = ["MOST_BYTES", "ChunkInput", "InputInvalid", "Item", "bounded"]

MOST_BYTES = 2**28  # of an encoded image


class InputInvalid(CrnnDeployError, ValueError):
    """An input that cannot be read as it is, or that may mean several things."""

    def __init__(self, given: str, reason: str) -> None:
        super().__init__(f"{given}: {reason}")


class Item(NamedTuple):
    """An image of a chunk."""

    name: str  # as the output has it: as `infer` has it where it is a file
    image: str | bytes | CrnnDeployError  # local path, encoded bytes, or why there are none


class ChunkInput(Protocol):
    """The images of a chunk, which are read while it is gone through; it may be gone through again."""

    @property
    def names(self) -> list[str]:
        """Names of all images in their order: quick to tell, those of a tar once it was gone through.

        Raises what iterating raises.
        """
        ...

    def __iter__(self) -> Iterator[Item]:
        """Every image, those that cannot be read too.

        Raises StoreUnreachable where a store stays away, and what opening the chunk's source raises
        (StoreMissing, StoreDenied, StoreUnreadable, ParquetInvalid, DatasetInvalid): the chunk is to be read
        again then.
        """
        ...


def bounded(name: str, image: bytes | CrnnDeployError) -> Item:
    """The item of an image; of one that is too large, why."""
    if isinstance(image, bytes) and len(image) > MOST_BYTES:
        image = StoredTooLarge(name, MOST_BYTES)
    return Item(name, image)
