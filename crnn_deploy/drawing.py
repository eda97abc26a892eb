"""Images with a box around every character that was read in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy import image
from crnn_deploy.ctc import Char
from crnn_deploy.files import OutputUnwritable
from crnn_deploy.image import Pixels

__all__ = ["boxed", "place", "write_boxed"]

_LEAST_HEIGHT = 96  # pixels; a smaller image is drawn enlarged
_MOST_WIDTH = 16_384  # pixels of the enlarged image
_LABELS = 28  # pixels of the strip above, for the characters that were read
_COLORS = ((180, 90, 20), (30, 60, 200))  # BGR, in turn


def boxed(pixels: Pixels, chars: Sequence[Char]) -> NDArray[Any]:
    """An image (H, W) or (H, W, 3) BGR, enlarged by a whole factor, with boxes, and labels above them.

    A box spans the character's frames and the image's height. OpenCV's letters are ASCII: other characters
    have a box without a label.
    """
    height, width = pixels.shape[:2]
    factor = max(1, min(math.ceil(_LEAST_HEIGHT / height), _MOST_WIDTH // width))
    drawn: NDArray[Any] = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR) if pixels.ndim == 2 else pixels
    drawn = cv2.resize(drawn, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    drawn = cv2.copyMakeBorder(drawn, _LABELS, 0, 0, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    for at, char in enumerate(chars):
        left, right = round(char.left * factor), max(round(char.right * factor) - 1, 0)
        color = _COLORS[at % len(_COLORS)]
        cv2.rectangle(drawn, (left, _LABELS), (right, drawn.shape[0] - 1), color, 1)
        if char.char.isascii() and char.char.isprintable():
            (wide, _), _ = cv2.getTextSize(char.char, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
            at_pixel = (max(0, (left + right - wide) // 2), _LABELS - 9)
            cv2.putText(drawn, char.char, at_pixel, cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, 1, cv2.LINE_AA)
    return drawn


def place(path: str, folder: Path) -> Path:
    """Where an image of this path is drawn: the same path below a folder, and never outside it."""
    pure = PurePath(path)
    parts = ["__" if part == ".." else part for part in pure.parts if part != pure.anchor]
    return folder.joinpath(*parts[:-1], f"{parts[-1] if parts else 'image'}.png")


def write_boxed(path: str, chars: Sequence[Char], folder: Path, max_pixels: int = image.MAX_PIXELS) -> None:
    """Draw the image at a path below a folder, as a PNG. Raises OutputUnwritable."""
    target = place(path, folder)
    encoded: NDArray[np.uint8] = cv2.imencode(".png", boxed(image.read(path, max_pixels=max_pixels), chars))[
        1
    ]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(encoded.tobytes())
    except OSError as error:
        raise OutputUnwritable(target, error.strerror or str(error)) from None
