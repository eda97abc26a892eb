"""A region of a page: the polygon around one text, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["FARTHEST", "LEAST_AREA", "Point", "Region", "area", "clipped", "problem"]

Point = tuple[float, float]  # x to the right, y downwards: pixels of the page as it is shown upright

FARTHEST = 1e6  # pixels, to any side; the largest image that OpenCV opens is 2**20 wide
LEAST_AREA = 1e-6  # square pixels; what lies below is the rounding of points on one line

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
    points = np.array(polygon, np.float64)
    if not np.isfinite(points).all():
        return "has a coordinate that is no finite number"
    if np.abs(points).max() > FARTHEST:
        return f"has a coordinate beyond {FARTHEST:,.0f} pixels"
    points = points[(points != np.roll(points, 1, axis=0)).any(axis=1)] if len(points) > 1 else points
    if len(polygon) < 3:
        return f"has {len(polygon)} point{'s' * (len(polygon) > 1)}; a polygon has 3 or more"
    if _crosses_itself(points):
        return "crosses itself"
    if area(points) < LEAST_AREA:
        return "has no area"
    if size is not None and area(clipped(polygon, size)) < LEAST_AREA:
        return f"lies outside the page of {size[0]:g} x {size[1]:g} pixels"
    return None


def area(polygon: Sequence[Point] | NDArray[np.float64]) -> float:
    """Square pixels within a polygon that does not cross itself; 0 where a number is beyond all images."""
    if len(polygon) < 3:
        return 0.0
    points = np.asarray(polygon, np.float64)
    if not (np.abs(points) <= FARTHEST).all():
        return 0.0
    x, y = (points - points[0]).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


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


def _crosses_itself(points: NDArray[np.float64]) -> bool:
    """Whether two edges of a polygon (N, 2) cross at a point that is an end of neither."""
    ends = np.roll(points, -1, axis=0)
    rows = max(1, _BLOCK // max(1, len(points)))
    for first in range(0, len(points), rows):
        start, end = points[first : first + rows, None], ends[first : first + rows, None]
        apart = _side(start, end, points) * _side(start, end, ends) < 0
        apart &= _side(points, ends, start) * _side(points, ends, end) < 0
        if apart.any():
            return True
    return False


def _side(
    start: NDArray[np.float64], end: NDArray[np.float64], point: NDArray[np.float64]
) -> NDArray[np.int8]:
    """1, -1 or 0 of points that lie right of, left of or on lines; arrays (..., 2) broadcast."""
    along, to = end - start, point - start
    turn = along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]
    return np.sign(turn).astype(np.int8)
