"""Whether the letters that were drawn can still be seen in the image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["visible"]

Plane = NDArray[np.float32]  # (H, W)

_LEAST_LIKENESS = 0.3  # correlation of strokes, or of their edges where light and shade tell them
_LEAST_LEVELS = 3.0  # of grey, standard deviation that the strokes bring


def visible(image: NDArray[np.uint8], alpha: Plane) -> bool:
    """Whether details of an image follow the letters, and stand out by a few levels of grey.

    image: (H, W, 3) BGR
    alpha: coverage of the letters in the same field of view, of any size
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32, copy=False)
    size = grey.shape[1], grey.shape[0]
    coverage = np.asarray(cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), np.float32)
    drawn, seen = _details(coverage), _details(grey)
    likeness = max(abs(_correlation(drawn, seen)), _correlation(_edges(drawn), _edges(seen)))
    return likeness >= _LEAST_LIKENESS and likeness * float(seen.std()) >= _LEAST_LEVELS


def _details(plane: NDArray[np.float32]) -> Plane:
    """What is as wide as strokes are: without noise, and without the light's slow changes."""
    height = plane.shape[0]
    fine = cv2.GaussianBlur(plane, (0, 0), 0.03 * height + 0.3)
    return np.asarray(fine - cv2.blur(fine, (height // 2, height // 2)), np.float32)


def _edges(plane: Plane) -> Plane:
    across, down = cv2.Sobel(plane, cv2.CV_32F, 1, 0), cv2.Sobel(plane, cv2.CV_32F, 0, 1)
    return np.asarray(cv2.magnitude(across, down), np.float32)


def _correlation(a: Plane, b: Plane) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm else 0.0
