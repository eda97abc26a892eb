"""A region of a page: the polygon around one text, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import numpy as np

__all__ = ["FARTHEST", "LEAST_AREA", "Point", "Region", "area", "clipped", "problem"]

Point = tuple[float, float]  # x to the right, y downwards: pixels of the page as it is shown upright

FARTHEST = 1e6  # pixels, to any side; the largest image that OpenCV opens is 2**20 wide
LEAST_AREA = 1e-6  # square pixels; what lies below is the rounding of points on one line

_ROUNDING = 1e-12  # of a difference, as a share of what it is between
_FEW = 16  # points that are gone through sooner without arrays
_BLOCK = 2**20  # pairs of edges that are held against each other at once


@dataclass(frozen=True)
class Region:
    """Where one text of a page is."""

    polygon: tuple[Point, ...]  # as the file has it; `problem` says what is wrong with it
    name: str = ""  # what the file calls it
    ordered: bool = True  # whether the points promise to go clockwise from the top left of the text itself
    baseline: tuple[Point, ...] = ()  # the line that the text stands on, in reading direction


def problem(polygon: Sequence[Point], size: tuple[float, float] | None = None) -> str | None:
    """What is wrong with a polygon, as a phrase that follows a name; None where nothing is.

    A polygon that touches itself, or goes a way there and back, does not cross itself. Its last point may
    be its first one again.

    size: width and height of the page in pixels; where it is given, a part of the polygon must lie on it
    """
    if len(polygon) == 0:
        return "has no points"
    points = [(float(x), float(y)) for x, y in polygon]
    if not all(map(math.isfinite, chain.from_iterable(points))):
        return "has a coordinate that is no finite number"
    if max(map(abs, chain.from_iterable(points))) > FARTHEST:
        return f"has a coordinate beyond {FARTHEST:,.0f} pixels"
    if len(points) < 3:
        return f"has {len(points)} point{'s' * (len(points) > 1)}; a polygon has 3 or more"
    if _crosses_itself(points):
        return "crosses itself"
    if area(points) < LEAST_AREA:
        return "has no area"
    if size is not None and area(clipped(points, size)) < LEAST_AREA:
        return f"lies outside the page of {size[0]:g} x {size[1]:g} pixels"
    return None


def area(polygon: Sequence[Point]) -> float:
    """Square pixels within a polygon that does not cross itself."""
    left, top = polygon[0] if len(polygon) else (0.0, 0.0)
    moved = [(x - left, y - top) for x, y in polygon]
    return abs(sum(moved[at - 1][0] * y - x * moved[at - 1][1] for at, (x, y) in enumerate(moved))) / 2


def clipped(polygon: Sequence[Point], size: tuple[float, float]) -> tuple[Point, ...]:
    """The part of a polygon that lies on a page of a width and height, in the same direction; () where none.

    Parts that the page's edge cuts apart stay joined along that edge (Sutherland and Hodgman).
    """
    points = [(float(x), float(y)) for x, y in polygon]
    for axis in (0, 1):
        for sign, limit in ((1.0, 0.0), (-1.0, -float(size[axis]))):
            points = _cut(points, axis, sign, limit)
    return tuple(points)


def _cut(points: list[Point], axis: int, sign: float, limit: float) -> list[Point]:
    """The part of a polygon where sign * coordinate >= limit."""
    kept: list[Point] = []
    for at, end in enumerate(points):
        start = points[at - 1]
        inside, was_inside = sign * end[axis] >= limit, sign * start[axis] >= limit
        if inside != was_inside:
            share = (sign * limit - start[axis]) / (end[axis] - start[axis])
            other = start[1 - axis] + share * (end[1 - axis] - start[1 - axis])
            kept.append((sign * limit, other) if axis == 0 else (other, sign * limit))
        if inside:
            kept.append(end)
    return kept


def _crosses_itself(points: Sequence[Point]) -> bool:
    """Whether two edges of a polygon cross at a point that is an end of neither."""
    ends = [*points[1:], points[0]]
    if len(points) <= _FEW:
        return any(
            _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0
            for (a, b), (c, d) in combinations(zip(points, ends, strict=True), 2)
        )
    starts, stops = np.array(points).T, np.array(ends).T  # (2, N)
    low, high = np.minimum(starts, stops), np.maximum(starts, stops)
    rows = _BLOCK // len(points) + 1
    for first in range(0, len(points), rows):
        # only edges whose boxes overlap can cross
        left, top = low[:, first : first + rows, None]
        right, bottom = high[:, first : first + rows, None]
        near = (left < high[0, first:]) & (right > low[0, first:])
        near &= (top < high[1, first:]) & (bottom > low[1, first:])
        one, other = (each + first for each in np.nonzero(near))
        a, b, c, d = starts[:, one], stops[:, one], starts[:, other], stops[:, other]
        if ((_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0)).any():
            return True
    return False


def _side(start: Any, end: Any, point: Any) -> Any:
    """Above 0 for a point to the right of a line, below 0 to its left: of points or of arrays (2, N).

    0 for what lies on it but for the rounding of numbers, as after a scaling.
    """
    along = (end[0] - start[0]) * (point[1] - start[1])
    across = (end[1] - start[1]) * (point[0] - start[0])
    turn = along - across
    return turn * (abs(turn) > _ROUNDING * (abs(along) + abs(across)))
