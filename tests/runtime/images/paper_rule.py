"""The rule by which a transparent image lies on black or white, stated again in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["on_paper", "paper_of"]

Array = NDArray[Any]


def grey_of(rgb: Array) -> Array:
    """Rec. 601 with OpenCV's rounding, within a level."""
    grey: Array = (rgb.astype(np.float64) @ [0.299, 0.587, 0.114]).round()
    return grey


def paper_of(tones: Array, alpha: Array) -> int:
    """0 or 255; tones: (H, W), not multiplied by alpha; alpha: (H, W), 0 to 255."""
    if alpha.min() == 255 or alpha.max() == 0:
        return 255
    visible = alpha >= alpha.max() / 2
    padded = np.pad(visible, 1, constant_values=True)
    height, width = alpha.shape
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    rim = visible & ~np.all(shifted, axis=0)
    if not rim.any():
        rim = visible & (alpha < 255)
    edge = tones[rim].mean()
    unlike = np.abs(tones.astype(int) - round(edge)) > 96
    if unlike[visible].mean() >= max(0.02, 2 * unlike[rim].mean()):
        return 255 if edge >= 128 else 0
    return 255 if tones[visible].mean() < 128 else 0


def on_paper(rgba: Array) -> Array:
    """RGB as real numbers, (H, W, 3), from RGBA of uint8."""
    alpha = rgba[..., 3:] / 255
    paper = paper_of(grey_of(rgba[..., :3]), rgba[..., 3])
    laid: Array = rgba[..., :3] * alpha + paper * (1 - alpha)
    return laid
