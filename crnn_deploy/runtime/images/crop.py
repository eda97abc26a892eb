"""One text of a page as an image of its own: what stands between a detector's box and a recogniser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.regions.region import Region, problem
from crnn_deploy.runtime.images.header import MAX_PIXELS, check_size
from crnn_deploy.runtime.images.pixels import Pixels
from crnn_deploy.runtime.images.text_sides import (
    Points,
    TextSides,
    clockwise,
    shifted,
    text_sides,
    upright_corners,
)

__all__ = ["Crop", "RegionGiven", "RegionUnreadable", "crop", "in_reading_order", "region_of"]

_MOST_SIDE = 2**15 - 2  # pixels of an image that OpenCV takes samples of
_MARGIN = 4  # pixels around what samples are taken of; a cubic kernel reaches 2
_FLAT = 1e-3  # of a quadrilateral's area: a corner whose triangle is smaller lies on a straight line


RegionGiven = Region | Sequence[Sequence[float]] | NDArray[Any]
_OnPage = Callable[[Points], Points]


class RegionUnreadable(CrnnDeployError, ValueError):
    """A box of a page that encloses nothing to read."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")


def region_of(given: RegionGiven) -> Region:
    """A region as it stands, or that of points (N, 2) which go clockwise from the text's own top left.

    Raises TypeError, ValueError for what is no list of points.
    """
    if isinstance(given, Region):
        return given
    points = np.asarray(given, np.float64)
    if points.size and (points.ndim != 2 or points.shape[1] != 2):
        raise ValueError(f"a polygon of shape {points.shape} is not (N, 2): points of x and y")
    return Region(tuple((float(x), float(y)) for x, y in points.reshape(-1, 2)))


@dataclass(frozen=True)
class Crop:
    """What a region encloses, and the way back to the page."""

    pixels: Pixels  # (H, W) or (H, W, 3), upright
    on_page: Callable[[Points], Points]  # points of the crop (N, 2), x and y, as they lie on the page


def in_reading_order(region: Region) -> Region:
    """The same region, its four corners clockwise from where the text is taken to begin."""
    if region.ordered or len(region.polygon) != 4 or problem(region.polygon):
        return region
    corners = upright_corners(np.array(region.polygon, np.float64)).tolist()
    return replace(region, polygon=tuple((x, y) for x, y in corners), ordered=True)


def crop(page: Pixels, region: Region, *, name: str, max_pixels: int = MAX_PIXELS) -> Crop:
    """What a region of a page, (H, W) or (H, W, 3), encloses.

    Four corners become a rectangle by a perspective transform as PaddleOCR makes it (get_rotate_crop_image):
    as wide as the longer of the two sides above and below, as high as the longer of the other two, cubic
    samples, the page's edge repeated beyond it. PaddleOCR turns what is tall; here --rotate decides that.
    Where the order of the corners says nothing, the top is the side that runs most to the right. A polygon of
    more points is straightened between its `text_sides`: as wide as their mean length, as high as the median
    of the distances between them.
    Raises RegionUnreadable, ImageTooLarge.
    """
    height, width = page.shape[:2]
    if reason := problem(region.polygon, (width, height)):
        raise RegionUnreadable(name, reason)
    points = _distinct(np.array(region.polygon, np.float64))
    page, origin = _around(page, points, name)
    points -= origin
    if len(points) == 4:
        corners = clockwise(points) if region.ordered else upright_corners(points)
        if _is_convex(corners):
            pixels, on_page = _rectified(page, corners, name, max_pixels)
        else:
            pixels, on_page = _straightened(page, TextSides(corners[:2], corners[:1:-1]), name, max_pixels)
    else:
        sides = text_sides(points, ordered=region.ordered)
        pixels, on_page = _straightened(page, sides, name, max_pixels)
    return Crop(pixels, lambda some: on_page(some) + origin)


def _distinct(points: Points) -> Points:
    """Points of which none is the one after it again."""
    return np.asarray(points[(points != shifted(points)).any(axis=1)])


def _around(page: Pixels, points: Points, name: str) -> tuple[Pixels, NDArray[np.int_]]:
    """The page, or of one that is too long for OpenCV the part around a polygon; and where that begins."""
    if max(page.shape[:2]) <= _MOST_SIDE:
        return page, np.zeros(2, int)
    size = page.shape[1::-1]
    low = np.clip(np.floor(points.min(axis=0)) - _MARGIN, 0, size).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)) + _MARGIN, 0, size).astype(int)
    wide, tall = (high - low).tolist()
    _check_side(wide, tall, name)
    return page[low[1] : high[1], low[0] : high[0]], low


def _is_convex(corners: Points) -> bool:
    before = shifted(corners) - corners
    after = shifted(before)
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    return bool((turns > _FLAT * turns.sum()).all())


def _rectified(page: Pixels, corners: Points, name: str, max_pixels: int) -> tuple[Pixels, _OnPage]:
    source = corners.astype(np.float32)  # what OpenCV takes, and of which PaddleOCR takes the lengths
    top, right, bottom, left = np.linalg.norm(source - shifted(source), axis=1)
    width, height = _size(max(top, bottom), max(left, right), name, max_pixels)
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    transform = cv2.getPerspectiveTransform(source, target)
    made = cv2.warpPerspective(
        page, transform, (width, height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )

    def on_page(some: Points) -> Points:
        moved = cv2.perspectiveTransform(some[None].astype(np.float64), np.linalg.inv(transform))[0]
        return np.asarray(moved, np.float64)

    return np.asarray(made, np.uint8), on_page


def _straightened(page: Pixels, sides: TextSides, name: str, max_pixels: int) -> tuple[Pixels, _OnPage]:
    ways = [_ways(side) for side in (sides.top, sides.bottom)]
    distances = np.linalg.norm(sides.top - sides.bottom, axis=1)
    length = float(sum(way[-1] for way in ways)) / 2
    width, height = _size(length, float(np.median(distances)), name, max_pixels)
    _check_side(width, height, name)
    # a point of the sides lies at the mean of its ways along them, as shares of their lengths
    shares = sum(way / max(way[-1], 1e-9) for way in ways) / 2

    def between(along: NDArray[np.float64], down: NDArray[np.float64]) -> Points:
        """Points at shares of the way along the text, and of the way from its upper to its lower side."""
        top, bottom = (_curve(side, shares, along) for side in (sides.top, sides.bottom))
        return np.asarray(top * (1 - down) + bottom * down)

    down = (np.arange(height) / height)[:, None, None]
    places = between(np.arange(width) / width, down).astype(np.float32)
    made = cv2.remap(page, places, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    if sides.downwards:
        made = cv2.rotate(made, cv2.ROTATE_90_CLOCKWISE)

    def on_page(some: Points) -> Points:
        x, y = (some[:, 1], height - some[:, 0]) if sides.downwards else some.T
        return between(x / width, (y / height)[:, None])

    return np.asarray(made, np.uint8), on_page


def _size(width: float, height: float, name: str, max_pixels: int) -> tuple[int, int]:
    columns, rows = int(width), int(height)
    if columns < 1 or rows < 1:
        raise RegionUnreadable(name, f"is {width:.2g} x {height:.2g} pixels, less than one")
    check_size(columns, rows, name, max_pixels)
    return columns, rows


def _check_side(width: int, height: int, name: str) -> None:
    if max(width, height) > _MOST_SIDE:
        raise RegionUnreadable(name, f"is longer than {_MOST_SIDE:,} pixels; cut it into several")


def _ways(side: Points) -> NDArray[np.float64]:
    """How far each point of a side lies along it, in pixels."""
    steps = np.diff(side, axis=0)
    return np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])


def _curve(points: Points, knots: NDArray[np.float64], at: NDArray[np.float64]) -> Points:
    """A smooth line through points (K, 2): cubic between them, its slopes those of their neighbours."""
    knots = np.maximum.accumulate(knots + np.arange(len(knots)) * 1e-9)
    slopes = np.gradient(points, knots, axis=0)
    left = np.clip(np.searchsorted(knots, at, "right") - 1, 0, len(knots) - 2)
    span = (knots[left + 1] - knots[left])[:, None]
    t = ((at - knots[left]) / span[:, 0])[:, None]
    begin, end = points[left], points[left + 1]
    into, out = slopes[left] * span, slopes[left + 1] * span
    return np.asarray(
        (2 * t**3 - 3 * t**2 + 1) * begin
        + (t**3 - 2 * t**2 + t) * into
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * out
    )
