"""Pages with words of `examples/` on them, and where these stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.runtime.images.pixels import read_image

__all__ = ["Quad", "example_page", "on_arc"]

EXAMPLES = Path(__file__).parents[1] / "examples" / "images"
Quad = tuple[tuple[float, float], ...]


def example_page(names: tuple[str, ...] = ("01", "02", "04")) -> tuple[NDArray[np.uint8], list[Quad]]:
    """A white page (H, W) with example images below one another, and their corners from the top left."""
    images = [read_image(EXAMPLES / f"{name}.png", decoded_grey=True) for name in names]
    page = np.full((60 * len(images) + 20, 60 + max(image.shape[1] for image in images)), 255, np.uint8)
    quads: list[Quad] = []
    for at, image in enumerate(images):
        (height, width), top, left = image.shape[:2], 10 + 60 * at, 15 + 5 * at
        page[top : top + height, left : left + width] = image
        right, bottom = left + width, top + height
        quads.append(((left, top), (right, top), (right, bottom), (left, bottom)))
    return page, quads


def on_arc(strip: NDArray[Any], degrees: float) -> tuple[NDArray[np.uint8], list[list[tuple[float, float]]]]:
    """A page on which an image (H, W) is bent to an arc, and a grid of its points.

    The grid has 3 rows (upper edge, middle, lower edge) of 61 points from left to right.
    """
    height, width = strip.shape
    angle = np.radians(degrees)
    radius = width / angle
    side = int(2 * (radius + height)) + 40
    centre = side / 2
    y, x = np.mgrid[:side, :side].astype(np.float32) - np.float32(centre)
    along = (np.arctan2(x, -y) + angle / 2) / angle * width
    down = radius + height / 2 - np.hypot(x, y)
    places = along.astype(np.float32), down.astype(np.float32)
    page = cv2.remap(strip, *places, cv2.INTER_CUBIC, borderMode=cv2.BORDER_CONSTANT, borderValue=(235,))

    def point(share: float, depth: float) -> tuple[float, float]:
        turn, distance = (share - 0.5) * angle, radius + height / 2 - depth * height
        return float(centre + distance * np.sin(turn)), float(centre - distance * np.cos(turn))

    grid = [[point(share, depth) for share in np.linspace(0, 1, 61)] for depth in (0, 0.5, 1)]
    return np.asarray(page, np.uint8), grid
