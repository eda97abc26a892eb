"""What lies between a word and the camera: objects in front, reflections, highlights and shadows."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.backgrounds import Image, Photographs, Plane, blend
from crnn_deploy.synthesis.scene_table import Dice

__all__ = ["in_front"]


def in_front(
    image: Image, box: NDArray[np.float32], unit: float, dice: Dice, photographs: Photographs
) -> None:
    """All of them, each at random, in place.

    box: (4,) left, top, right, bottom of the ink
    unit: letter height, pixels
    """
    if (amount := dice.throw("cast_shadow")) is not None:
        _cast_shadow(image, amount, dice.rng)
    if (amount := dice.throw("bar")) is not None:
        _bar(image, max(1.0, amount * unit), dice.rng)
    if (amount := dice.throw("wire")) is not None:
        _wire(image, max(0.8, amount * unit), dice.rng)
    if (amount := dice.throw("cover")) is not None:
        _cover(image, box, amount * unit, dice.rng, photographs)
    if (amount := dice.throw("reflection")) is not None:
        _reflection(image, amount, dice.rng, photographs)
    if (amount := dice.throw("highlight")) is not None:
        _highlight(image, amount, unit, dice.rng)


def _cast_shadow(image: Image, amount: float, rng: np.random.Generator) -> None:
    """Darker beyond an edge."""
    side = _half_plane(image, rng, float(rng.uniform(0.5, 0.3 * image.shape[0] + 1)))
    image *= (1 - np.float32(amount) * side)[..., None]


def _bar(image: Image, width: float, rng: np.random.Generator) -> None:
    """A straight post or rail, with a light and a dark side."""
    height, columns = image.shape[:2]
    mask = np.zeros((height, columns), np.uint8)
    if rng.random() < 0.6:
        x = rng.uniform(0, columns)
        lean = rng.normal(0, 0.2) * height
        ends = (round(16 * (x - lean)), 0), (round(16 * (x + lean)), 16 * height)
    else:
        y = rng.uniform(0, height)
        climb = rng.normal(0, 0.1) * height
        ends = (0, round(16 * (y - climb))), (16 * columns, round(16 * (y + climb)))
    cv2.line(mask, *ends, 255, max(1, round(width)), cv2.LINE_AA, 4)
    colour = rng.uniform(10, 245) + rng.normal(0, 15, 3)
    blend(image, np.clip(colour, 0, 255).astype(np.float32), mask.astype(np.float32) / np.float32(255))


def _wire(image: Image, width: float, rng: np.random.Generator) -> None:
    """A thin line that hangs."""
    height, columns = image.shape[:2]
    x = np.linspace(0, columns, 12)
    sag = rng.normal(0, 0.4) * height
    start, end = rng.uniform(-0.2, 1.2, 2) * height
    y = start + (end - start) * x / columns + sag * (1 - (2 * x / columns - 1) ** 2)
    mask = np.zeros((height, columns), np.uint8)
    points = np.round(np.stack([x, y], -1) * 16).astype(np.int32)
    cv2.polylines(mask, [points], False, 255, max(1, round(width)), cv2.LINE_AA, 4)
    colour = np.full(3, rng.choice((15.0, 40.0, 230.0)), np.float32)
    blend(image, colour, mask.astype(np.float32) * np.float32(min(1.0, width) / 255))


def _cover(
    image: Image, box: NDArray[np.float32], reach: float, rng: np.random.Generator, photographs: Photographs
) -> None:
    """An object that reaches over the ink from above, below or a corner."""
    height, columns = image.shape[:2]
    mask = np.zeros((height, columns), np.uint8)
    left, top, right, bottom = box.tolist()
    at = rng.uniform(left, right)
    half = rng.uniform(0.3, 1.2) * (bottom - top)
    if rng.random() < 0.5:
        centre, edge = (at, bottom + half), bottom - reach
    else:
        centre, edge = (at, top - half), top + reach
    tall = abs(edge - centre[1])
    if rng.random() < 0.5:
        axes = round(16 * half), round(16 * tall)
        cv2.ellipse(
            mask, (round(16 * centre[0]), round(16 * centre[1])), axes, 0, 0, 360, 255, -1, cv2.LINE_AA, 4
        )
    else:
        lean = rng.normal(0, 0.3) * half
        corners = [
            (at - half, centre[1]),
            (at - half, edge - 0.2 * lean),
            (at + half, edge + 0.2 * lean),
            (at + half + lean, centre[1]),
        ]
        cv2.fillConvexPoly(mask, np.round(np.array(corners) * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    if rng.random() < 0.5:
        colour: NDArray[np.float32] = photographs.crop((height, columns), rng)
    else:
        colour = np.clip(rng.uniform(10, 245) + rng.normal(0, 25, 3), 0, 255).astype(np.float32)
    blend(image, colour, mask.astype(np.float32) / np.float32(255))


def _reflection(image: Image, amount: float, rng: np.random.Generator, photographs: Photographs) -> None:
    """What a pane in front mirrors, in whole or beyond an edge."""
    mirrored = photographs.crop((image.shape[0], image.shape[1]), rng)
    change = np.float32(amount) * (mirrored - 0.5 * image)
    if rng.random() < 0.5:
        change *= _half_plane(image, rng, 1.0)[..., None]
    image += change


def _highlight(image: Image, amount: float, unit: float, rng: np.random.Generator) -> None:
    """A spot or a streak of light on a glossy ground."""
    height, columns = image.shape[:2]
    y, x = np.ogrid[:height, :columns]
    at_x, at_y = rng.uniform(0, columns), rng.uniform(0, height)
    long, short = rng.uniform(0.5, 2.5) * unit, rng.uniform(0.2, 0.6) * unit
    angle = rng.uniform(0, np.pi)
    u = (x - at_x) * np.cos(angle) + (y - at_y) * np.sin(angle)
    v = (y - at_y) * np.cos(angle) - (x - at_x) * np.sin(angle)
    spot = np.exp(-((u / long) ** 2 + (v / short) ** 2)).astype(np.float32)
    image += np.float32(amount) * spot[..., None] * (255 - image)


def _half_plane(image: Image, rng: np.random.Generator, softness: float) -> Plane:
    """One side of a straight edge through the image, 0-1."""
    height, columns = image.shape[:2]
    y, x = np.ogrid[:height, :columns]
    angle = rng.uniform(0, 2 * np.pi)
    at_x, at_y = rng.uniform(0.1, 0.9) * columns, rng.uniform(0.1, 0.9) * height
    across = (x - at_x) * np.cos(angle) + (y - at_y) * np.sin(angle)
    return np.asarray(np.clip(across / softness + 0.5, 0, 1), np.float32)
