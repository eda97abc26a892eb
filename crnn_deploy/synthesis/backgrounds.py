"""What scene text stands on: crops of photographs, textures made here, and colours that go together.

Colours are taken from two clusters of a photograph's patch, as SynthText does (Gupta et al. 2016, `Synthetic
Data for Text Localisation in Natural Images`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError

__all__ = ["GROUNDS", "PhotographUnreadable", "Photographs", "blend", "lightness", "shade", "with_lightness"]

Image = NDArray[np.float32]  # (H, W, 3), BGR, 0-255
Plane = NDArray[np.float32]  # (H, W)
Colour = NDArray[np.float32]  # (3,), BGR
Shape = tuple[int, int]

GROUNDS = ("photograph", "clouds", "wood", "brick", "metal", "halftone", "stripes", "two_tone")
_GREY = np.array([0.114, 0.587, 0.299], np.float32)  # of B, G and R, as cv2 turns them to grey
_LARGEST = 640  # pixels of a photograph's longer side as it is kept
_PAINTS = np.array(  # what signs are painted with, BGR
    [
        *[
            (245, 245, 245),
            (235, 235, 235),
            (225, 230, 230),
            (20, 20, 20),
            (40, 30, 190),
            (150, 70, 20),
            (60, 110, 20),
            (40, 200, 245),
        ],
        *[(30, 60, 100), (128, 128, 128), (200, 215, 225), (60, 20, 60), (180, 150, 40), (30, 120, 240)],
    ],
    np.float32,
)


class PhotographUnreadable(CrnnDeployError, ValueError):
    """A photograph that OpenCV cannot read."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: no image that OpenCV reads; take it out of the photographs")


class Photographs:
    """Crops and colours of photographs; of textures made here where there are none."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)

    def crop(self, shape: Shape, rng: np.random.Generator) -> Image:
        """A crop of random size and place, scaled to a shape."""
        height, width = shape
        if not self._paths:
            return 128 + _clouds(shape, rng)[..., None] * rng.uniform(20, 70, 3).astype(np.float32)
        photograph = _photograph(self._paths[rng.integers(len(self._paths))])
        rows, columns = photograph.shape[:2]
        largest = min(rows / height, columns / width)
        scale = largest * float(rng.uniform(0.15, 1.0)) ** 1.5
        high, wide = max(2, int(height * scale)), max(2, int(width * scale))
        top, left = int(rng.integers(rows - high + 1)), int(rng.integers(columns - wide + 1))
        cut = photograph[top : top + high, left : left + wide]
        if rng.random() < 0.5:
            cut = cut[:, ::-1]
        way = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(cut, (width, height), interpolation=way), np.float32)

    def colours(self, rng: np.random.Generator) -> tuple[Colour, Colour]:
        """Two colours that lie side by side in a photograph, or on a painted sign."""
        if not self._paths or rng.random() < 0.4:
            first, second = _PAINTS[rng.choice(len(_PAINTS), 2, replace=False)]
            return _varied(first, rng), _varied(second, rng)
        patch = self.crop((8, 8), rng).reshape(-1, 3)
        along = patch @ _GREY
        low, high = along < np.median(along), along >= np.median(along)
        if not low.any():
            return patch[0], patch[-1]
        return patch[low].mean(axis=0), patch[high].mean(axis=0)


def _varied(colour: Colour, rng: np.random.Generator) -> Colour:
    return np.clip(colour + rng.normal(0, 14, 3), 0, 255).astype(np.float32)


@lru_cache(maxsize=256)
def _photograph(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None or min(image.shape[:2]) < 16:
        raise PhotographUnreadable(path)
    scale = _LARGEST / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(image, np.uint8)


def lightness(colour: NDArray[np.float32]) -> float:
    """The grey level of a colour."""
    return float(colour @ _GREY)


def with_lightness(colour: Colour, level: float) -> Colour:
    """A colour of the same hue, as near as can be, at a grey level."""
    level = min(max(level, 0.0), 255.0)
    now = lightness(colour)
    if level <= now:
        return colour * np.float32(level / now) if now else colour
    return colour + (255 - colour) * np.float32((level - now) / (255 - now))


def blend(image: Image, colour: NDArray[np.float32] | float, alpha: Plane) -> None:
    """Lay a colour (3,) or image over an image, in place."""
    image += alpha[..., None] * (colour - image)


def ground(
    name: str, shape: Shape, rng: np.random.Generator, colour: Colour, room: float, photographs: Photographs
) -> Image:
    """A background of some kind about a colour.

    name: of `GROUNDS`
    room: levels of grey that it may differ by from its colour
    """
    if name == "photograph":
        crop = photographs.crop(shape, rng)
        spread = crop - crop.mean(axis=(0, 1))
        size = float(np.abs(spread).mean()) + 1.0
        return np.asarray(colour + spread * np.float32(min(1.0, 0.45 * room / size)), np.float32)
    planes = {
        "clouds": _clouds,
        "wood": _wood,
        "brick": _brick,
        "metal": _metal,
        "halftone": _halftone,
        "stripes": _stripes,
        "two_tone": _two_tone,
    }
    plane = planes[name](shape, rng)
    hue = rng.uniform(0.75, 1.25, 3).astype(np.float32)
    return colour + plane[..., None] * hue * np.float32(0.5 * room)


def shade(shape: Shape, rng: np.random.Generator) -> Plane:
    """Light that falls off to one side, -1 to 1."""
    corners = rng.uniform(-1, 1, (2, 2)).astype(np.float32)
    # corners lie at the image's corners, not at the centres of its quarters
    big = cv2.resize(corners, (2 * shape[1], 2 * shape[0]), interpolation=cv2.INTER_LINEAR)
    top, left = shape[0] // 2, shape[1] // 2
    return np.asarray(big[top : top + shape[0], left : left + shape[1]], np.float32)


def smooth_noise(shape: Shape, rng: np.random.Generator, high: float, wide: float) -> Plane:
    """Noise whose blotches have a size in pixels, about -1 to 1."""
    rows, columns = max(2, int(shape[0] / high) + 2), max(2, int(shape[1] / wide) + 2)
    coarse = rng.standard_normal((rows, columns), np.float32) * np.float32(0.5)
    return np.asarray(cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC), np.float32)


def _clouds(shape: Shape, rng: np.random.Generator) -> Plane:
    """Noise at several scales."""
    plane = np.zeros(shape, np.float32)
    cell = float(max(shape[0], 8))
    share = 1.0
    while cell > 2 and share > 0.1:
        plane += smooth_noise(shape, rng, cell, cell) * np.float32(share)
        cell /= float(rng.uniform(1.8, 3.0))
        share *= float(rng.uniform(0.4, 0.9))
    return plane


def _wood(shape: Shape, rng: np.random.Generator) -> Plane:
    """Grain along the line."""
    bent = smooth_noise(shape, rng, shape[0] / 2, shape[0] * 2.0) * np.float32(rng.uniform(1, 3))
    rows = np.arange(shape[0], dtype=np.float32)[:, None] / shape[0]
    rings = np.sin((rows * rng.uniform(4, 14) + bent) * np.float32(2))
    return np.asarray(0.6 * rings + smooth_noise(shape, rng, 1.5, 16), np.float32)


def _brick(shape: Shape, rng: np.random.Generator) -> Plane:
    """A wall, each brick in its own tone."""
    high = int(max(5, shape[0] * rng.uniform(0.2, 0.6)))
    wide = int(high * rng.uniform(2, 3))
    rows, columns = shape[0] // high + 2, shape[1] // wide + 3
    tones = np.repeat(rng.normal(0.2, 0.3, (rows, columns)).astype(np.float32), high, axis=0)
    wall = np.repeat(tones, wide, axis=1)
    wall[::high] = -0.9
    for row in range(rows):
        part = wall[row * high : (row + 1) * high]
        part[:, ::wide] = -0.9
        if row % 2:
            part[:] = np.roll(part, wide // 2, axis=1)
    top, left = int(rng.integers(high)), int(rng.integers(wide))
    return wall[top : top + shape[0], left : left + shape[1]] + smooth_noise(shape, rng, 2, 2) * np.float32(
        0.3
    )


def _metal(shape: Shape, rng: np.random.Generator) -> Plane:
    """Brushed, with bands of light."""
    brushed = smooth_noise(shape, rng, 1, 40) * np.float32(rng.uniform(0.1, 0.5))
    bands = smooth_noise((1, shape[1]), rng, 1, max(4.0, shape[1] / rng.uniform(1, 4)))
    return np.asarray(brushed + bands * np.float32(1.5), np.float32)


def _halftone(shape: Shape, rng: np.random.Generator) -> Plane:
    """Dots of print, seen near."""
    pitch = float(rng.uniform(2.5, max(3.0, shape[0] / 8)))
    y, x = np.ogrid[: shape[0], : shape[1]]
    angle = float(rng.uniform(0, np.pi))
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    turn = 2 * np.pi / pitch
    return np.asarray(np.sin(u * turn) * np.sin(v * turn) + shade(shape, rng) * 0.5, np.float32)


def _stripes(shape: Shape, rng: np.random.Generator) -> Plane:
    pitch = float(rng.uniform(0.2, 1.5)) * shape[0]
    y, x = np.ogrid[: shape[0], : shape[1]]
    angle = float(rng.uniform(0, np.pi))
    across = x * np.cos(angle) + y * np.sin(angle)
    return np.asarray(np.clip(4 * np.sin(across * (2 * np.pi / pitch)), -1, 1), np.float32)


def _two_tone(shape: Shape, rng: np.random.Generator) -> Plane:
    """An edge across the image, or along it."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    angle = float(rng.normal(0, 0.25)) + (np.pi / 2 if rng.random() < 0.6 else 0.0)
    at_x, at_y = float(rng.uniform(0, shape[1])), float(rng.uniform(0, shape[0]))
    across = (x - at_x) * np.cos(angle) + (y - at_y) * np.sin(angle)
    return np.asarray(np.clip(across, -1, 1), np.float32)
