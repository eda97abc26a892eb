"""An image between its file and the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.decoding.ctc import Char, PageChar, PlacedChar, Text
from crnn_deploy.runtime.images.pixels import Pixels
from crnn_deploy.runtime.images.prepare import content_width, prepare, prepare_contrasted
from crnn_deploy.runtime.orientation import ImageView, Rotate, views

if TYPE_CHECKING:
    from crnn_deploy.runtime.images.text_sides import Points

__all__ = ["CropPlace", "Prepared", "prepared_of"]


@dataclass(frozen=True)
class CropPlace:
    """Where the crop of a box lies on its page."""

    height: int  # pixels, of the crop
    on_page: Callable[[Points], Points]  # as of `images.crop.Crop`

    def placed(self, text: Text) -> Text:
        """A text that was read in the crop, with its characters on the page."""
        return text.placed(text.rotated, self._on_page)

    def _on_page(self, chars: Sequence[Char]) -> tuple[Char, ...]:
        if not chars:
            return ()
        corners = np.concatenate([self._corners(char) for char in chars])
        places = np.round(self.on_page(corners), 2).reshape(len(chars), 4, 2).tolist()
        return tuple(
            PageChar(
                *(char.char, char.confidence, char.start, char.end, char.left, char.right),
                tuple((x, y) for x, y in polygon),
            )
            for char, polygon in zip(chars, places, strict=True)
        )

    def _corners(self, char: Char) -> Points:
        """Clockwise from the top left, (4, 2)."""
        top, bottom = (char.top, char.bottom) if isinstance(char, PlacedChar) else (0, self.height)
        corners = [[char.left, top], [char.right, top], [char.right, bottom], [char.left, bottom]]
        return np.array(corners, np.float64)


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
    crop: CropPlace | None = None  # where the original lies on a page, if it is a box of one

    def placed(self, text: Text | CrnnDeployError) -> Text | CrnnDeployError:
        """What was read in it, with its characters on the page where it is a box of one."""
        return text if self.crop is None or isinstance(text, CrnnDeployError) else self.crop.placed(text)

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
