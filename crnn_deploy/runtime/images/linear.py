"""OpenCV's linear resize of uint8 as it is on x86, to the bit, for CPUs on which OpenCV computes another one.

On ARM, opencv-python-headless 5.0 resizes through libraries of its own (KleidiCV, Carotene). They round
otherwise; and where a grey image gets wider and lower, they extrapolate its first columns, whose levels wrap
around then: black for white. The rule here is that of modules/imgproc/src/resize.cpp: weights of 11 bits, the
horizontal pass first, 4 bits dropped between the passes.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["NEEDED", "resized"]

NEEDED = platform.machine().lower() in ("aarch64", "arm64")

_Pixels = NDArray[np.uint8]  # (H, W) or (H, W, C)


def resized(image: _Pixels, rows: int, columns: int, factors: tuple[float, float] | None = None) -> _Pixels:
    """An image of (rows, columns[, C]).

    factors: across and down, where they are given in the place of the sizes, which are rounded products then
    """
    height, width = image.shape[:2]
    if (height, width) == (rows, columns):
        return image.copy()
    across, down = factors or (columns / width, rows / height)
    if 1 / across == 1 / down == 2:  # a mean of four pixels
        half = cv2.resize(image, (0, 0), fx=across, fy=down, interpolation=cv2.INTER_AREA)
        return np.asarray(half, np.uint8)
    left, right, left_weight, right_weight = _taps(width, columns, 1 / across, True)
    upper, lower, upper_weight, lower_weight = _taps(height, rows, 1 / down, False)
    if image.ndim == 3:
        left_weight, right_weight = left_weight[:, None], right_weight[:, None]
    beside: tuple[Any, ...] = (slice(None), *(None,) * (image.ndim - 1))

    def line(row: NDArray[np.intp], weight: NDArray[np.int32]) -> NDArray[np.int32]:
        taken = image[row]
        sums = taken[:, left] * left_weight + taken[:, right] * right_weight
        levels: NDArray[np.int32] = (sums >> 4) * weight[beside] >> 16
        return levels

    return ((line(upper, upper_weight) + line(lower, lower_weight) + 2) >> 2).astype(np.uint8)


@lru_cache(maxsize=256)
def _taps(source: int, target: int, scale: float, clamped: bool) -> tuple[NDArray[Any], ...]:
    """Of each pixel of the target: two pixels of the source and their weights, of which 2048 is the whole.

    clamped: a pixel beyond the source's first or last centre has that one's level alone; else it has both
        weights, which round apart
    """
    at = ((np.arange(target) + 0.5) * scale - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.intp)
    part = at - np.floor(at)
    if clamped:
        part[(first < 0) | (first >= source - 1)] = 0
    weights = (np.rint((1 - part) * 2048).astype(np.int32), np.rint(part * 2048).astype(np.int32))
    return (np.clip(first, 0, source - 1), np.clip(first + 1, 0, source - 1), *weights)
