"""Text in the font that OpenCV brings: no font file and no other library, and the same pixels everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["plain_text"]


def plain_text(
    text: str,
    shape: Sequence[int],
    at: tuple[int, int],
    scale: float,
    *,
    paper: int,
    ink: int,
    thickness: int = 2,
    smooth: bool = False,
) -> NDArray[np.uint8]:
    """A line of text on plain paper.

    shape: of the image, (H, W) or (H, W, channels)
    at: where the text begins: pixels from the left, and its baseline from the top
    scale: of the font, whose capitals are 21 pixels high
    smooth: whether edges have greys
    """
    pixels = np.full(shape, paper, np.uint8)
    line = cv2.LINE_AA if smooth else cv2.LINE_8
    cv2.putText(pixels, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (ink, ink, ink), thickness, line)
    return pixels
