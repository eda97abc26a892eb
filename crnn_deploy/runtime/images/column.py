"""A column of upright characters, cut into its characters and laid out as a line.

Characters of two parts (二, 三, i) have a gap inside, so a gap alone is no cut. The characters of a column
follow each other at about one pitch: the cuts are those that go through the least ink at the most even
distances, found by dynamic programming for several pitches at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.runtime.images.pixels import Pixels

__all__ = ["LaidOut", "Slot", "lay_out"]

_ACROSS = 12  # rows of the profile for as many pixels as the ink is wide
_PITCHES = np.geomspace(0.75, 2.4, 16)  # from one character to the next, times the width of the ink
_LONGEST = 100  # height of the ink over its width; beyond, it is no column
_USUAL_PITCH = 1.15  # of square characters
_UNEVEN, _UNUSUAL = 4.0, 0.1  # costs of a height's and a pitch's squared logarithm; 1 is a row full of ink
_MARGIN = 0.08  # around each character of the line, times the tallest character


@dataclass(frozen=True)
class Slot:
    """The ink of one character of a column, in pixels of the column's image."""

    left: int
    right: int  # one past
    top: int
    bottom: int  # one past


@dataclass(frozen=True)
class LaidOut:
    """The characters of a column side by side."""

    pixels: Pixels  # (H, W) or (H, W, 3)
    slots: tuple[Slot, ...]  # from top to bottom
    edges: tuple[int, ...]  # where each slot begins in `pixels`, and the end of the last


def lay_out(image: Pixels) -> LaidOut | None:
    """A column as a line; None where there are not two characters in it.

    image: uint8 (H, W) or (H, W, 3), one column of characters
    """
    background = _background(image)
    ink = _ink(image, background)
    columns, rows = np.flatnonzero(ink.any(axis=0)), np.flatnonzero(ink.any(axis=1))
    if not len(rows):
        return None
    top, bottom, across = int(rows[0]), int(rows[-1]) + 1, int(columns[-1] - columns[0]) + 1
    if bottom - top > _LONGEST * across:
        return None
    profile = ink[top:bottom].sum(axis=1) / across
    cuts = [top + cut for cut in _cuts(profile, across)]
    slots = [slot for a, b in pairwise(cuts) if (slot := _slot(ink, a, b)) is not None]
    return _side_by_side(image, slots, background) if len(slots) > 1 else None


def _background(image: Pixels) -> NDArray[np.uint8]:
    """The median level of the image's edge, by channel."""
    planes = image.reshape(*image.shape[:2], -1)
    edge = np.concatenate([planes[0], planes[-1], planes[:, 0], planes[:, -1]])
    return np.asarray(np.median(edge, axis=0), np.uint8)


def _ink(image: Pixels, background: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels are not background, by Otsu's threshold."""
    levels: Any = background[0] if image.ndim == 2 else background
    apart = cv2.absdiff(image, np.full_like(image, levels))
    if apart.ndim == 3:
        apart = apart.max(axis=2)
    threshold, _ = cv2.threshold(apart, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.asarray(apart > max(threshold, 8))


def _cuts(profile: NDArray[Any], across: int) -> list[int]:
    """Rows at which a column is cut, its first and its end among them.

    profile: share of ink in each row; across: width of the ink in pixels
    """
    count = max(2, round(len(profile) * _ACROSS / across))
    edges = np.linspace(0, len(profile), count + 1).astype(int)
    rows = np.minimum.reduceat(profile, edges[:-1])
    pitches = _PITCHES * _ACROSS
    heights = np.arange(1, int(1.5 * pitches[-1]) + 1)
    logs = np.log(heights[None, :] / pitches[:, None])
    inner = _UNEVEN * logs**2
    outer = _UNEVEN * np.maximum(0, logs) ** 2  # the margin of an outer character is not in the profile
    longest, every = len(heights), np.arange(len(pitches))
    best = np.full(
        (len(pitches), longest + count + 1), np.inf
    )  # best[:, longest + y]: costs of a cut at row y
    back = np.zeros((len(pitches), count + 1), int)  # height of the character above that cut
    best[:, longest] = 0
    for y in range(1, count + 1):
        costs = best[:, y : y + longest][:, ::-1] + (outer if y == count else inner)  # at heights 1, 2, ...
        if y <= longest:  # the first character
            costs[:, y - 1] = outer[:, y - 1]
        found = costs.argmin(axis=1)
        best[:, longest + y] = costs[every, found] + (rows[y] if y < count else 0)
        back[:, y] = found + 1
    ways = []
    for heights_above in back.tolist():
        way = [count]
        while way[-1] > 0:
            way.append(way[-1] - heights_above[way[-1]])
        ways.append(way[::-1])
    unusual = _UNUSUAL * np.log(_PITCHES / _USUAL_PITCH) ** 2
    pitch = int((best[:, -1] / [len(way) - 1 for way in ways] + unusual).argmin())
    return [0, *(_emptiest(profile, edges, y) for y in ways[pitch][1:-1]), len(profile)]


def _emptiest(profile: NDArray[Any], edges: NDArray[Any], row: int) -> int:
    """The row of the image with the least ink among those from one edge to the next."""
    first = int(edges[row])
    return first + int(profile[first : max(first + 1, int(edges[row + 1]))].argmin())


def _slot(ink: NDArray[np.bool_], top: int, bottom: int) -> Slot | None:
    """The ink between two cuts."""
    part = ink[top:bottom]
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not len(rows):
        return None
    return Slot(int(columns[0]), int(columns[-1]) + 1, top + int(rows[0]), top + int(rows[-1]) + 1)


def _side_by_side(image: Pixels, slots: Sequence[Slot], background: NDArray[np.uint8]) -> LaidOut:
    """Each slot with a margin, at half the height of the line."""
    tallest = max(slot.bottom - slot.top for slot in slots)
    margin = max(1, round(_MARGIN * tallest))
    edges = np.cumsum([0, *(slot.right - slot.left + 2 * margin for slot in slots)]).tolist()
    line = np.empty((tallest + 2 * margin, edges[-1], *image.shape[2:]), np.uint8)
    line[:] = background[0] if image.ndim == 2 else background
    for slot, x in zip(slots, edges, strict=False):
        y = margin + (tallest - (slot.bottom - slot.top)) // 2
        part = image[slot.top : slot.bottom, slot.left : slot.right]
        line[y : y + part.shape[0], x + margin : x + margin + part.shape[1]] = part
    return LaidOut(line, tuple(slots), tuple(edges))
