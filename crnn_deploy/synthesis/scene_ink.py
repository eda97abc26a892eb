"""How letters are painted, built or lit."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.backgrounds import (
    Colour,
    Image,
    Photographs,
    Plane,
    blend,
    lightness,
    smooth_noise,
    with_lightness,
)
from crnn_deploy.synthesis.scene_table import Dice

__all__ = ["AROUND", "Paint", "letters"]

AROUND = ("outline", "shadow", "soft_shadow", "extruded", "relief", "glow")


@dataclass(frozen=True)
class Paint:
    """Colours of a word, and how large it is."""

    ground: Colour
    ink: Colour
    unit: float  # letter height, pixels

    @property
    def room(self) -> float:
        """Levels of grey between ink and ground, positive for light ink."""
        return lightness(self.ink) - lightness(self.ground)


def letters(
    image: Image,
    alpha: Plane,
    paint: Paint,
    dice: Dice,
    photographs: Photographs,
    around: tuple[str, float] | None,
) -> None:
    """Lay letters on a ground, in place.

    alpha: (H, W), coverage 0-1
    around: what is drawn around them, of `AROUND`
    """
    rng = dice.rng
    if (width := dice.throw("hollow")) and paint.unit > 14:
        alpha = _hollow(alpha, width * paint.unit)
    elif (pitch := dice.throw("dotted")) and paint.unit > 20:
        alpha = _dotted(alpha, pitch * paint.unit, rng)
    if worn := dice.throw("worn"):
        cell = float(rng.uniform(0.06, 0.4)) * paint.unit
        holes = smooth_noise(alpha.shape, rng, cell, cell)
        alpha = alpha * np.clip(1 - worn * np.clip(holes * 1.6, 0, 1), 0, 1)
    if around is not None:
        name, amount = around
        if name == "relief":
            _relief(image, alpha, paint, amount, rng)
            return
        _AROUND[name](image, alpha, paint, amount, rng)
        if name == "glow" and paint.room > 0:
            paint = Paint(paint.ground, with_lightness(paint.ink, lightness(paint.ink) + 60), paint.unit)
    blend(image, _fill(alpha.shape, paint, dice, photographs), alpha)


def _fill(shape: tuple[int, ...], paint: Paint, dice: Dice, photographs: Photographs) -> NDArray[np.float32]:
    """The colour inside the letters: one (3,), or an image."""
    rng = dice.rng
    size = shape[0], shape[1]
    if gradient := dice.throw("gradient"):
        # towards the ground's lightness at one end
        other = with_lightness(
            np.roll(paint.ink, int(rng.integers(3))), lightness(paint.ink) - gradient * paint.room
        )
        if rng.random() < 0.6:
            way = np.linspace(0, 1, size[0], dtype=np.float32)[:, None]
        else:
            way = np.linspace(0, 1, size[1], dtype=np.float32)[None]
        if rng.random() < 0.3:
            way = (way > 0.5).astype(np.float32)
        elif rng.random() < 0.5:
            way = 1 - way
        mixed = np.broadcast_to(way, size)[..., None] * (other - paint.ink) + paint.ink
        return np.asarray(mixed, np.float32)
    if textured := dice.throw("textured"):
        if rng.random() < 0.5:
            crop = photographs.crop(size, rng)
            spread = crop - crop.mean(axis=(0, 1))
            spread *= np.float32(min(1.0, 0.4 * textured * abs(paint.room) / (np.abs(spread).mean() + 1.0)))
        else:
            cell = float(rng.uniform(0.05, 0.6)) * paint.unit
            spread = (smooth_noise(size, rng, cell, cell) * np.float32(0.5 * textured * abs(paint.room)))[
                ..., None
            ]
        return np.asarray(paint.ink + spread, np.float32)
    return paint.ink


def _outline(image: Image, alpha: Plane, paint: Paint, amount: float, rng: np.random.Generator) -> None:
    wide = _grown(alpha, amount * paint.unit)
    if rng.random() < 0.25:  # a second line around the first
        blend(image, paint.ink, _grown(wide, 0.6 * amount * paint.unit))
    # beyond the ground, or of a colour of its own, but always apart from the ink
    level = lightness(paint.ground) - paint.room * rng.uniform(-0.3, 0.8)
    blend(image, with_lightness(rng.uniform(20, 235, 3).astype(np.float32), level), wide)


def _shadow(image: Image, alpha: Plane, paint: Paint, amount: float, rng: np.random.Generator) -> None:
    x, y = _direction(rng) * amount * paint.unit
    blend(image, _shadow_colour(paint, rng), _moved(alpha, x, y))


def _soft_shadow(image: Image, alpha: Plane, paint: Paint, amount: float, rng: np.random.Generator) -> None:
    x, y = _direction(rng) * amount * paint.unit
    soft = _blurred(_moved(alpha, x, y), float(rng.uniform(0.4, 0.9)) * amount * paint.unit)
    blend(image, _shadow_colour(paint, rng), np.clip(soft * np.float32(1.3), 0, 0.9))


def _extruded(image: Image, alpha: Plane, paint: Paint, amount: float, rng: np.random.Generator) -> None:
    """Letters with sides, as those cut of a board."""
    x, y = _direction(rng) * amount * paint.unit
    steps = max(2, round(amount * paint.unit))
    side = alpha
    for step in range(1, steps + 1):
        side = np.maximum(side, _moved(alpha, x * step / steps, y * step / steps))
    blend(image, _shadow_colour(paint, rng), side)


def _relief(image: Image, alpha: Plane, paint: Paint, amount: float, rng: np.random.Generator) -> None:
    """Letters told by light and shade alone, raised or sunk."""
    x, y = _direction(rng) * max(0.6, amount * paint.unit)
    soft = _blurred(alpha, max(0.4, 0.4 * amount * paint.unit))
    light = _moved(soft, x, y) - _moved(soft, -x, -y)
    image += (light * np.float32(max(45.0, abs(paint.room)) * rng.uniform(0.7, 1.2)))[..., None]
    image += (alpha * np.float32(0.15 * paint.room))[..., None]


def _glow(image: Image, alpha: Plane, paint: Paint, amount: float, rng: np.random.Generator) -> None:
    near = _blurred(alpha, 0.3 * amount * paint.unit)
    far = _blurred(alpha, amount * paint.unit)
    level = lightness(paint.ground) + (0.5 if paint.room > 0 else -0.6) * paint.room
    colour = with_lightness(paint.ink if paint.room > 0 else paint.ground, level)
    blend(image, colour, np.clip(near * np.float32(0.6) + far * np.float32(1.2), 0, 0.95))


_AROUND = {
    "outline": _outline,
    "shadow": _shadow,
    "soft_shadow": _soft_shadow,
    "extruded": _extruded,
    "glow": _glow,
}


def _shadow_colour(paint: Paint, rng: np.random.Generator) -> Colour:
    """Darker than the ground under light ink, between both under dark ink."""
    level = lightness(paint.ground)
    if paint.room > 0:
        return with_lightness(paint.ground, level * rng.uniform(0.1, 0.7))
    return with_lightness(paint.ground, level + paint.room * rng.uniform(0.25, 0.55))


def _direction(rng: np.random.Generator) -> NDArray[np.float64]:
    """(2,), most often down and to the right."""
    angle = rng.normal(np.pi / 4, 0.6) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _moved(alpha: Plane, x: float, y: float) -> Plane:
    matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
    return np.asarray(cv2.warpAffine(alpha, matrix, (alpha.shape[1], alpha.shape[0])), np.float32)


def _blurred(alpha: Plane, sigma: float) -> Plane:
    return np.asarray(cv2.GaussianBlur(alpha, (0, 0), max(0.3, sigma)), np.float32)


def _grown(alpha: Plane, width: float) -> Plane:
    """Dilated by a width; below one pixel in part."""
    radius = int(np.ceil(width))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    grown = np.asarray(cv2.dilate(alpha, kernel), np.float32)
    if width < 1:
        grown = alpha + (grown - alpha) * np.float32(width)
    return grown


def _hollow(alpha: Plane, width: float) -> Plane:
    """Only the letters' edges."""
    radius = max(1, round(width))
    kernel = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
    inner = cv2.erode(alpha, kernel)
    edge = np.clip(_grown(alpha, 1) - inner, 0, 1)
    return np.asarray(edge, np.float32)


def _dotted(alpha: Plane, pitch: float, rng: np.random.Generator) -> Plane:
    """Letters of lamps."""
    y, x = np.ogrid[: alpha.shape[0], : alpha.shape[1]]
    turn = 2 * np.pi / pitch
    dots = np.cos(x * turn + rng.uniform(0, 6)) + np.cos(y * turn + rng.uniform(0, 6))
    return np.asarray(alpha * np.clip(0.75 + 0.75 * dots, 0.1, 1), np.float32)
