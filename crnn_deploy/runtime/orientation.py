"""Images that may be turned: which turns are read, which reading counts, and where its characters are.

As EasyOCR (`rotation_info`) and MMOCR (`MultiRotateAugOCR`) do, an image is read in several turns and the
surest reading wins. That a crop is tall from 1.5 times its width on is PaddleOCR's rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.decoding.ctc import Char, PlacedChar, Text, Turn
from crnn_deploy.runtime.images.column import LaidOut, lay_out
from crnn_deploy.runtime.images.pixels import Pixels

__all__ = ["TALL", "ImageView", "Rotate", "check_rotate", "surest", "turns", "views"]

Rotate = Literal["none", "90", "auto", "180"]
TALL = 1.5  # height over width from which on an image may be a line on its end, or a column of characters

_CODES = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class ImageView:
    """One way to read an image, and the way back to it."""

    turn: Turn
    height: int  # pixels, of the original
    width: int
    column: LaidOut | None = None

    def placed(self, text: Text) -> Text:
        """A text that was read in this view, with its characters where they are in the original."""
        return text.placed(self.turn, lambda chars: tuple(map(self._placed, chars)))

    def _placed(self, char: Char) -> PlacedChar:
        low, high = char.left, char.right
        box: tuple[float, float, float, float]  # left, right, top, bottom
        if self.column is not None:
            edges = self.column.edges
            at = int(np.searchsorted(edges, (low + high) / 2, "right")) - 1
            slot = self.column.slots[min(max(at, 0), len(self.column.slots) - 1)]
            box = slot.left, slot.right, slot.top, slot.bottom
        elif self.turn == 90:
            box = 0, self.width, self.height - high, self.height - low
        elif self.turn == 270:
            box = 0, self.width, low, high
        elif self.turn == 180:
            box = self.width - high, self.width - low, 0, self.height
        else:
            box = low, high, 0, self.height
        left, right, top, bottom = map(float, box)
        return PlacedChar(char.char, char.confidence, char.start, char.end, left, right, top, bottom)


def check_rotate(rotate: str) -> None:
    """Raises ValueError for what is no `Rotate`."""
    if rotate not in get_args(Rotate):
        raise ValueError(f"rotate is {rotate!r}; it must be one of {', '.join(get_args(Rotate))}")


def turns(height: int, width: int, rotate: Rotate) -> tuple[Turn, ...]:
    """The turns in which an image of this size is read; of equally sure readings the first counts."""
    tall = height >= TALL * width
    if rotate == "none" or (not tall and rotate != "180"):
        return (0,)
    if not tall:
        return 0, 180
    if rotate == "90":
        return 90, 270
    return (0, 90, 270, "column") if rotate == "auto" else (0, 180, 90, 270, "column")


def views(image: Pixels, rotate: Rotate) -> Iterator[tuple[ImageView, Pixels]]:
    """An image in each of its turns, one in memory at a time; a column that cannot be cut is left out."""
    height, width = image.shape[:2]
    for turn in turns(height, width, rotate):
        if turn == "column":
            if (column := lay_out(image)) is not None:
                yield ImageView(turn, height, width, column), column.pixels
        else:
            yield ImageView(turn, height, width), _turned(image, turn)


def _turned(image: Pixels, degrees: int) -> Pixels:
    return np.asarray(cv2.rotate(image, _CODES[degrees]), np.uint8) if degrees else image


def surest(readings: Sequence[tuple[ImageView, Text | CrnnDeployError]]) -> Text | CrnnDeployError:
    """The reading that counts: the surest text, placed in the original, or the first error where no text is.

    How sure a text is, is the mean of its characters' confidences: their minimum, the usual confidence of a
    text, prefers short ones. A text with characters is surer than an empty one.
    """
    texts = [(view, reading) for view, reading in readings if isinstance(reading, Text)]
    if not texts:
        return readings[0][1]
    view, text = max(texts, key=lambda one: _sureness(one[1]))
    return view.placed(text)


def _sureness(text: Text) -> float:
    if not text.chars:
        return -1.0
    mean = sum(char.confidence for char in text.chars) / len(text.chars)
    return mean if mean == mean else -2.0  # NaN: no reading at all
