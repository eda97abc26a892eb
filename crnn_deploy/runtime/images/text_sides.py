"""The two long sides of a text whose outline is a polygon: what straightens it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["TextSides", "clockwise", "shifted", "text_sides", "upright_corners"]

_SAMPLES = 96  # points along an outline
_HALVES = 12, 49  # samples of the shorter way from end to end: at least, and below; the longer has the rest
_ACROSS = 16  # pairs of points for which the distance between the halves is taken
_LOOSE = 1.5  # times the least mean distance of two sides beyond which points do not stand across in pairs
# degrees of a side's curve for each height of its length, so that it does not follow single letters
_CURVES = 0.67
_MOST_CURVES = 5  # a half circle to 0.1 % of its radius

Points = NDArray[np.float64]  # (N, 2): x to the right, y downwards


@dataclass(frozen=True)
class TextSides:
    """Upper and lower side of a text, point k of one across from point k of the other."""

    top: Points  # (K, 2), from the text's beginning to its end
    bottom: Points
    downwards: bool = False  # whether they run down the page, so that the straightened text is turned upright


def text_sides(polygon: Points, *, ordered: bool) -> TextSides:
    """The sides of a text from its outline (N, 2), which crosses itself nowhere.

    ordered: whether the points promise to go around the text from its own top left. An even number of them
        stands across from one another then, as in CTW1500 and Total-Text, unless that makes far wider pairs
        than the outline allows.
    Where the order says nothing, the outline is folded: of all pairs of its points, the two count between
    which both ways round lie closest together. They are the text's ends; its beginning is the left one, or
    the upper one where the text is taller than wide. Smooth curves along both ways, as far apart as the
    outline reaches, are the sides.
    """
    polygon = clockwise(polygon)
    if not ordered or len(polygon) % 2 or len(polygon) < 4:
        return _folded(polygon)[0]
    half = len(polygon) // 2
    pairs = TextSides(polygon[:half], polygon[: half - 1 : -1])
    width = _lengths(pairs.top - pairs.bottom).mean()
    if (
        width <= _lengths(np.diff(pairs.top + pairs.bottom, axis=0)).sum() / 2
    ):  # as texts are: longer than high
        return pairs
    folded, least = _folded(polygon)
    return pairs if width <= _LOOSE * least else folded


def clockwise(polygon: Points) -> Points:
    """The same outline as the eye goes clockwise around it, from the same first point."""
    x, y = (polygon - polygon[0]).T
    area = x[:-1] @ y[1:] - y[:-1] @ x[1:]  # the edge that ends in the first point adds nothing
    return polygon if area >= 0 else np.concatenate([polygon[:1], polygon[:0:-1]])


def shifted(points: NDArray[Any]) -> NDArray[Any]:
    """Each point's next one; np.roll takes 40 microseconds for it."""
    return np.concatenate([points[1:], points[:1]])


def upright_corners(corners: Points) -> Points:
    """Four corners (4, 2) clockwise from the top left, if nothing but the page says where up is."""
    corners = clockwise(corners)
    along = shifted(corners) - corners
    rightwards = along[:, 0] / np.maximum(_lengths(along), np.finfo(float).tiny)
    return np.roll(corners, -int(rightwards.argmax()), axis=0)


def _folded(polygon: Points) -> tuple[TextSides, float]:
    """The sides of an outline that goes clockwise, and the mean distance between its halves."""
    points = _resampled(np.concatenate([polygon, polygon[:1]]), _SAMPLES + 1)[:-1]
    step = float(_lengths(points[1] - points[0]))
    apart = _lengths(points[:, None] - points[None])
    widths = apart.ravel()[_pairs_of_folds()]  # (begin, way to the end, share of both ways)
    means = widths.sum(axis=2) / _ACROSS
    begin, way = np.unravel_index(means.argmin(), means.shape)
    height, mean = float(np.median(widths[begin, way])), float(means[begin, way])
    way = int(way) + _HALVES[0]
    # half of either end's own edge belongs to each half of the outline
    one_way, other_way = np.arange(way + 1), np.arange(_SAMPLES - way + 1)
    top = _without_ends(points[(begin + one_way) % _SAMPLES], height / 2 / step)
    bottom = _without_ends(points[(begin - other_way) % _SAMPLES], height / 2 / step)
    across = top[-1] + bottom[-1] - top[0] - bottom[0]
    downwards = bool(abs(across[1]) > abs(across[0]))
    if across[1 if downwards else 0] < 0:
        top, bottom = bottom[::-1], top[::-1]
    length = float(_lengths(np.diff((top + bottom) / 2, axis=0)).sum())
    degree = int(np.clip(1 + _CURVES * length / max(height, 1e-9), 1, _MOST_CURVES))
    middle = _smooth((top + bottom) / 2, degree)
    ahead = np.gradient(middle, axis=0)
    upwards = np.stack([ahead[:, 1], -ahead[:, 0]], axis=1) / np.maximum(_lengths(ahead), 1e-9)[:, None]
    above = ((top - middle) * upwards).sum(axis=1, keepdims=True)
    below = ((bottom - middle) * upwards).sum(axis=1, keepdims=True)
    upper, lower = _smooth(above, 1), _smooth(below, 1)
    upper, lower = upper + (above - upper).max(), lower + (below - lower).min()
    return TextSides(middle + upper * upwards, middle + lower * upwards, downwards), mean


@lru_cache(maxsize=1)
def _pairs_of_folds() -> NDArray[np.intp]:
    """Which points lie across from one another where an outline is folded: places in a table of distances.

    (begin, way to the end, share of both ways); the way is the shorter one: either end may be the beginning
    """
    begins, ways = np.arange(_SAMPLES)[:, None, None], np.arange(*_HALVES)[None, :, None]
    shares = np.linspace(0, 1, _ACROSS)
    forward = np.rint(begins + ways * shares).astype(np.intp) % _SAMPLES
    back = np.rint(begins - (_SAMPLES - ways) * shares).astype(np.intp) % _SAMPLES
    return np.asarray(forward * _SAMPLES + back)


def _without_ends(half: Points, cut: float) -> Points:
    """A half of an outline, sampled evenly, without so many of its samples at either end."""
    cut = min(cut, (len(half) - 1) / 2 - 1)
    at = np.linspace(cut, len(half) - 1 - cut, _SAMPLES // 2)
    return np.stack([np.interp(at, np.arange(len(half)), half[:, axis]) for axis in (0, 1)], axis=1)


def _smooth(points: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """Points (K, D) moved onto the curve of this degree that is nearest to them."""
    at = np.linspace(-1, 1, len(points))
    powers = np.polynomial.legendre.legvander(at, degree)
    fitted: NDArray[np.float64] = powers @ np.linalg.lstsq(powers, points, rcond=None)[0]
    return fitted


def _resampled(line: Points, count: int) -> Points:
    """So many points at equal distances along a line (N, 2)."""
    ways = np.concatenate([[0.0], np.cumsum(_lengths(np.diff(line, axis=0)))])
    at = np.linspace(0, ways[-1], count)
    return np.stack([np.interp(at, ways, line[:, axis]) for axis in (0, 1)], axis=1)


def _lengths(vectors: NDArray[Any]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.hypot(vectors[..., 0], vectors[..., 1])
    return lengths
