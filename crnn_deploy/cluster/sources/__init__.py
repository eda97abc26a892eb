"""What an INPUT is, cut into chunks, and the images of a chunk.

`plan_of` runs once, on the driver; `open_chunk` in every actor. Both understand addresses through `Stores`,
which the driver makes of all addresses on its command line and sends along: it holds the keys and the folder
that relative paths begin in, and no chunk does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from crnn_deploy.cluster.plan import Chunk
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.stores.store import Stores

__all__ = ["ChunkInput", "Item", "Planned", "open_chunk", "plan_of"]


class Item(NamedTuple):
    """An image of a chunk."""

    name: str  # as the output has it: as `infer` has it where it is a file
    image: str | bytes | CrnnDeployError  # local path, encoded bytes, or why there are none


class Planned(NamedTuple):
    """A chunk, and where the plan has listed files itself, their names.

    Such a chunk is of kind "paths" with an empty source: what keeps the names puts in where it does, as
    `replace(chunk, source=..., first=..., column=...)`. Names need not be UTF-8, so they are kept as binary
    values, `os.fsencode(name)`, and `open_chunk` takes a binary column of paths so.
    """

    chunk: Chunk
    names: Sequence[str] | None


class ChunkInput(Protocol):
    """The images of a chunk, which are read while it is gone through; it may be gone through again."""

    @property
    def names(self) -> list[str]:
        """Names of all images in their order, without reading them. Raises what iterating raises."""
        ...

    def __iter__(self) -> Iterator[Item]:
        """Every image, those that cannot be read too.

        Raises StoreUnreachable where a store stays away, and what opening the chunk's source raises
        (StoreMissing, StoreDenied, ParquetInvalid, DatasetInvalid): the chunk is to be read again then.
        """
        ...


def plan_of(
    inputs: Sequence[str],
    rows_per_file: int,
    *,
    column: str | None = None,
    listed: Iterable[bytes] = (),
    stores: Stores | None = None,
    told: Callable[[str], object] = lambda line: None,
) -> Iterator[Planned]:
    """The chunks of all inputs, in their order, numbered from 0; memory holds one chunk's names.

    inputs: images, folders and globs as for `infer`; a list of images, one a line (.txt, or - for `listed`);
        Parquet files, LMDBs, tars, and folders and globs of them
    rows_per_file: inputs of a chunk at most, as far as the input can be cut: a tar is one chunk, a Parquet
        file of images is cut between its row groups
    column: that of the paths or images of Parquet files; None: told by its type and name
    listed: lines of standard input
    told: called with a line for what was assumed
    Raises PathNotFound, ImagesMissing, InputInvalid, and what opening the inputs raises.
    """
    raise NotImplementedError


def open_chunk(chunk: Chunk, stores: Stores | None = None) -> ChunkInput:
    """The images of a chunk. Nothing is read yet."""
    raise NotImplementedError
