"""Images as their EXIF orientation wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["turned"]

# what shows an image upright whose rows and columns are stored as the number says (EXIF 2.32, tag 274)
_UPRIGHT: dict[int, Callable[[NDArray[Any]], Any]] = {
    2: lambda pixels: cv2.flip(pixels, 1),
    3: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_180),
    4: lambda pixels: cv2.flip(pixels, 0),
    5: cv2.transpose,
    6: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.flip(cv2.transpose(pixels), -1),
    8: lambda pixels: cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE),
}


def turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """An image (H, W) or (H, W, C) as it was stored, upright; what is no orientation changes nothing."""
    upright = _UPRIGHT.get(orientation)
    return pixels if upright is None else np.asarray(upright(pixels))
