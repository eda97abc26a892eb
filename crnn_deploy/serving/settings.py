"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crnn_deploy.runtime.images.header import MAX_PIXELS
from crnn_deploy.runtime.opening import Opening

__all__ = ["ServerSettings"]


@dataclass(frozen=True)
class ServerSettings:
    """A server's models, limits and address; limits are of each worker process."""

    models: tuple[Opening, ...]
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any that is free
    workers: int = 1  # processes
    queue: int = 512  # images that wait or are read; a request that would exceed it is answered 503
    max_batch: int = 8  # images that run together
    max_wait: float = 0.05  # seconds for which fuller batches of other widths may run first
    max_bytes: int = 2**25  # of a request's body
    max_images: int = 256  # of a request
    max_pixels: int = MAX_PIXELS  # of an image
    body_time: float = 30.0  # seconds in which a request's body must have come
    token_file: Path | None = None
    open_to_all: bool = False  # serve other hosts without a token
