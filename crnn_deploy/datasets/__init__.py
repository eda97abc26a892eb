"""Labelled images, one by one, wherever they are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from crnn_deploy.image import Source

__all__ = ["Dataset", "Sample"]


@dataclass(frozen=True)
class Sample:
    """An image and the text that stands in it."""

    image: Source  # path, encoded bytes, array or Pillow image, for `image.read`
    text: str
    name: str  # where it is kept, for messages and reports


class Dataset(Protocol):
    """Labelled images in a fixed order; safe to read from several threads and processes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Sample 0 <= index < len(self). Raises IndexError beyond."""
        ...
