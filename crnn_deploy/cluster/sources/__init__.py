"""What an INPUT is, cut into chunks, and the images of a chunk.

`plan_of` runs once, on the driver; `open_chunk` in every actor. Both understand addresses through `Stores`,
which the driver makes of all addresses on its command line and sends along: it holds the keys and the folder
that relative paths begin in, and no chunk does.
"""

from __future__ import annotations

from crnn_deploy.cluster.plan import Chunk
from crnn_deploy.cluster.sources.item import ChunkInput, InputInvalid, Item
from crnn_deploy.cluster.sources.planner import Planned, plan_of
from crnn_deploy.stores.store import Stores

__all__ = ["ChunkInput", "InputInvalid", "Item", "Planned", "open_chunk", "plan_of"]


def open_chunk(chunk: Chunk, stores: Stores) -> ChunkInput:
    """The images of a chunk. Nothing is read yet.

    chunk: that of a listed one has the whole address of its names as its source
    """
    from crnn_deploy.cluster.sources.listed import ListedImages
    from crnn_deploy.cluster.sources.lmdb_images import LmdbRange
    from crnn_deploy.cluster.sources.parquet_images import ParquetImages
    from crnn_deploy.cluster.sources.tar_images import TarImages

    if chunk.kind == "paths":
        return ListedImages(chunk, stores)
    if chunk.kind == "bytes":
        return ParquetImages(chunk, stores)
    return LmdbRange(chunk, stores) if chunk.kind == "lmdb" else TarImages(chunk, stores)
