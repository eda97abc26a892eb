"""Transparent images: what is laid beneath them, black or white."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["on_paper"]

_OPAQUE = 255
_VISIBLE = 0.5  # of the alpha of the most visible pixel, from which on a pixel counts
_UNLIKE = 96  # grey levels by which something stands out from what surrounds it
_DRAWN = 0.02  # of the visible pixels, that stand out where a picture brings its own background
_MIDDLE = 128


def on_paper(pixels: NDArray[Any], alpha: NDArray[Any], premultiplied: bool = False) -> NDArray[Any]:
    """A transparent image, laid on white or on black paper: on the one on which its text is legible.

    pixels: uint8, (H, W) grey or (H, W, 3) BGR; it is changed
    alpha: uint8, (H, W)
    premultiplied: whether the colours are multiplied by alpha already

    What is visible is letters alone or letters on a background of their own. Pixels at least half as visible
    as the most visible one count; those of them that touch others are the rim (or, where none do, those that
    are not opaque). Where at least 2 % of them differ from the rim's mean by more than 96 grey levels, and at
    least twice the share that does so in the rim itself (a shadow does), there is contrast already, and the
    paper goes on with the rim: white from level 128 on, else black. So a light label stays light around its
    letters, and an outline does not double. Else the paper is the opposite of the visible pixels' mean: black
    from level 128 on, else white. An image that is nowhere transparent is not changed, and one that is
    nowhere visible is white.
    """
    white = _is_white(pixels, alpha, premultiplied)
    if pixels.ndim == 3:
        alpha = cv2.cvtColor(alpha, cv2.COLOR_GRAY2BGR)
    if not premultiplied:
        cv2.multiply(pixels, alpha, dst=pixels, scale=1 / 255)  # rounds
    return cv2.add(pixels, cv2.bitwise_not(alpha)) if white else pixels


def _is_white(pixels: NDArray[Any], alpha: NDArray[Any], premultiplied: bool) -> bool:
    most = int(alpha.max())
    if most == 0 or alpha.min() == _OPAQUE:
        return True
    tones: NDArray[Any] = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY) if pixels.ndim == 3 else pixels
    if premultiplied:
        tones = cv2.divide(tones, alpha, scale=_OPAQUE)
    visible = alpha >= _VISIBLE * most
    beyond = cv2.dilate(np.uint8(1) - visible, np.ones((3, 3), np.uint8))
    rim = visible & (beyond > 0)
    if not rim.any():
        rim = visible & (alpha < _OPAQUE)
    edge = float(tones[rim].mean())
    unlike = (tones < round(edge) - _UNLIKE) | (tones > round(edge) + _UNLIKE)
    if unlike[visible].mean() >= max(_DRAWN, 2 * unlike[rim].mean()):
        return edge >= _MIDDLE
    return float(tones[visible].mean()) < _MIDDLE
