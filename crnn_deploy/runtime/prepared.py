"""An image between its file and the network."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.images.pixels import Pixels
from crnn_deploy.runtime.images.prepare import content_width, prepare, prepare_contrasted
from crnn_deploy.runtime.orientation import ImageView, Rotate, views

__all__ = ["Prepared", "prepared_of"]


@dataclass(frozen=True)
class Prepared:
    """An image as the network takes it, and what it takes to place its characters."""

    pixels: NDArray[np.float32]  # (C, H, W)
    name: str  # for messages
    span: float  # pixels of the original that the network's whole input spans
    width: int  # pixels, of the original
    view: ImageView | None = None  # how the original is turned; None where it is taken as it stands
    others: tuple[Prepared, ...] = ()  # the other views of the same image
    contrasted: NDArray[np.float32] | None = None  # (C, H, W) for a second reading, where that differs

    @property
    def columns(self) -> int:
        """Width of the network's widest input; images of equal columns run together best."""
        return max(int(view.pixels.shape[2]) for view in (self, *self.others))

    @property
    def nbytes(self) -> int:
        """Bytes of its pixels and of those of its other views."""
        return sum(view.pixels.nbytes for view in (self, *self.others))


def prepared_of(pixels: Pixels, rule: Manifest, name: str, rotate: Rotate) -> Prepared:
    """Pixels as the network takes them, in all the views in which they are read.

    rule: the manifest by which images are prepared, as `long_lines.uncut` makes it
    """
    if rotate == "none":
        return _of_view(pixels, rule, name)
    first, *others = [_of_view(turned, rule, name, view) for view, turned in views(pixels, rotate)]
    return replace(first, others=tuple(others))


def _of_view(pixels: Pixels, rule: Manifest, name: str, view: ImageView | None = None) -> Prepared:
    prepared = prepare(pixels, rule)
    width = pixels.shape[1]
    span = prepared.shape[2] * width / content_width(pixels.shape, rule)
    contrasted = prepare_contrasted(pixels, rule)
    return Prepared(prepared, name, span, width, view, contrasted=contrasted)
