"""Polygons, what is wrong with them, and the part of one that lies on a page."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crnn_deploy.regions.page_boxes import PageBoxes
from crnn_deploy.regions.region import Point, Region, area, clipped, problem

SQUARE = ((0.0, 0.0), (10.0, 0.0), (10.0, 5.0), (0.0, 5.0))
WHOLE = st.integers(-6, 6).map(float)
POLYGONS = st.lists(st.tuples(WHOLE, WHOLE), max_size=9) | st.lists(
    st.tuples(WHOLE, WHOLE), min_size=15, max_size=20
)


@pytest.mark.parametrize(
    ("polygon", "found"),
    [
        ((), "has no points"),
        (SQUARE[:1], "has 1 point; a polygon has 3 or more"),
        (SQUARE[:2], "has 2 points; a polygon has 3 or more"),
        (SQUARE, None),
        (SQUARE[::-1], None),
        ((*SQUARE, SQUARE[0]), None),
        ((SQUARE[0], *SQUARE), None),
        ((SQUARE[0], SQUARE[2], SQUARE[1], SQUARE[3]), "crosses itself"),
        ((*SQUARE[:3], (math.nan, 5.0)), "has a coordinate that is no finite number"),
        ((*SQUARE[:3], (0.0, -math.inf)), "has a coordinate that is no finite number"),
        ((*SQUARE[:3], (0.0, 1_000_001.0)), "has a coordinate beyond 1,000,000 pixels"),
        ((*SQUARE[:3], (0.0, 1_000_000.0)), None),
        (((0.1, 0.1), (0.2, 0.2), (0.7, 0.7)), "has no area"),
        ((SQUARE[0],) * 5, "has no area"),
        (((0.0, 0.0), (0.0, 0.0), (3.0, 0.0), (3.0, 0.0)), "has no area"),
        # a way there and back is no crossing
        (((0.0, 0.0), (10.0, 0.0), (15.0, 0.0), (10.0, 0.0), (10.0, 5.0), (0.0, 5.0)), None),
    ],
)
def test_what_is_wrong_is_said_in_words(polygon: tuple[Point, ...], found: str | None) -> None:
    assert problem(polygon) == found


@pytest.mark.parametrize(
    ("left", "top", "outside"),
    [
        *((0, 0, False), (-9, -4, False), (99, 49, False)),
        *((-10, 0, True), (100, 0, True), (0, -5, True), (0, 50, True), (300, 300, True)),
    ],
)
def test_a_polygon_may_lie_outside_in_part(left: float, top: float, outside: bool) -> None:
    moved = [(x + left, y + top) for x, y in SQUARE]
    assert problem(moved) is None
    found = problem(moved, (100, 50))
    assert found == ("lies outside the page of 100 x 50 pixels" if outside else None)


def test_a_polygon_around_the_page_lies_on_it() -> None:
    assert problem([(-50, -50), (50, -50), (50, 50), (-50, 50)], (10, 10)) is None
    assert area(clipped([(-50, -50), (50, -50), (50, 50), (-50, 50)], (10, 10))) == 100
    # and one whose box covers the page, but not itself: an edge passes a corner
    assert problem([(-50, 5), (5, -50), (-50, -50)], (10, 10)) == "lies outside the page of 10 x 10 pixels"


@example([(2, -2), (-6, 6), (2, -6), (-5, 5), (0, 5)], 0.1)
@example([(-3, 1), (0, -1), (2, -4), (-5, 3)], 1.3)
@given(POLYGONS, st.floats(0.01, 100))
def test_a_scaled_polygon_has_the_problems_of_the_first(polygon: list[Point], scale: float) -> None:
    """What touches itself does not cross itself, though rounding moves its points."""
    scaled = [(x * scale, y * scale / 7) for x, y in polygon]
    assert problem(scaled) == problem(polygon)


def side(a: Point, b: Point, c: Point) -> int:
    (ax, ay), (bx, by), (cx, cy) = (tuple(map(Fraction, each)) for each in (a, b, c))
    turn = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    return (turn > 0) - (turn < 0)


def crosses(polygon: list[Point]) -> bool:
    """Pair by pair, in fractions."""
    edges = list(zip(polygon, polygon[1:] + polygon[:1], strict=True))
    return any(
        side(a, b, c) * side(a, b, d) == -1 and side(c, d, a) * side(c, d, b) == -1
        for (a, b), (c, d) in combinations(edges, 2)
    )


def doubled_area(polygon: list[Point]) -> Fraction:
    found = Fraction(0)
    for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        found += Fraction(ax) * Fraction(by) - Fraction(bx) * Fraction(ay)
    return abs(found)


@given(POLYGONS)
def test_problems_are_those_that_fractions_find(polygon: list[Point]) -> None:
    found = problem(polygon)
    if len(polygon) < 3:
        assert found is not None and "point" in found
    elif crosses(polygon):
        assert found == "crosses itself"
    else:
        assert found == ("has no area" if doubled_area(polygon) == 0 else None)


@given(POLYGONS, st.integers(1, 4))
def test_a_polygon_that_covers_a_point_of_the_page_is_not_outside(polygon: list[Point], side: int) -> None:
    if problem(polygon) is None:
        grid = [at / 4 + 0.1 for at in range(4 * side)]
        if any(covers(polygon, x, y + 0.03) for x in grid for y in grid):
            assert problem(polygon, (side, side)) is None


@given(st.tuples(*[st.tuples(WHOLE, WHOLE)] * 3), st.integers(1, 4), st.integers(1, 4))
def test_a_triangle_is_outside_where_it_meets_no_inner_point_of_the_page(
    triangle: tuple[Point, ...], width: int, height: int
) -> None:
    if problem(triangle) is None:
        edges = zip(triangle, triangle[1:] + triangle[:1], strict=True)
        meets = any(passes(a, b, width, height) for a, b in edges)
        outside = problem(triangle, (width, height)) is not None
        assert outside == (not meets and not covers(list(triangle), width / 2, height / 2))


def passes(a: Point, b: Point, width: int, height: int) -> bool:
    """Whether a line has a point within the page's edges: its share that each edge leaves, in fractions."""
    low, high = Fraction(0), Fraction(1)
    for start, end, size in zip(a, b, (width, height), strict=True):
        if start == end:
            if not 0 < start < size:
                return False
        else:
            ends = sorted(
                (limit - Fraction(start)) / (Fraction(end) - Fraction(start)) for limit in (0, size)
            )
            low, high = max(low, ends[0]), min(high, ends[1])
    return low < high


def covers(polygon: list[Point], x: float, y: float) -> bool:
    odd = False
    for (ax, ay), (bx, by) in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        if (ay > y) != (by > y) and x < ax + (y - ay) * (bx - ax) / (by - ay):
            odd = not odd
    return odd


@given(POLYGONS)
def test_what_lies_on_the_page_is_kept_as_it_is(polygon: list[Point]) -> None:
    moved = [(x + 6, y + 6) for x, y in polygon]
    assert clipped(moved, (12, 12)) == tuple(moved)
    for x, y in clipped(polygon, (5, 3)):
        assert 0 <= x <= 5 and 0 <= y <= 3


def test_many_points_are_held_against_each_other_in_parts() -> None:
    around = [2 * math.pi * at / 3000 for at in range(3000)]
    circle = [(500 + 400 * math.cos(one), 500 + 400 * math.sin(one)) for one in around]
    assert problem(circle) is None
    circle[1000], circle[2500] = circle[2500], circle[1000]
    assert problem(circle) == "crosses itself"


def test_physical_units_are_scaled_to_the_image() -> None:
    region = Region(SQUARE, "a", ordered=False, baseline=((0.0, 4.0), (10.0, 4.0)))
    page = PageBoxes("a.jpg", (region,), (100.0, 50.0), "mm10")
    [scaled] = page.in_pixels(200, 25)
    assert scaled.polygon == ((0, 0), (20, 0), (20, 2.5), (0, 2.5))
    assert scaled.baseline == ((0, 2), (20, 2))
    assert (scaled.name, scaled.ordered) == ("a", False)
    assert PageBoxes("a.jpg", (region,), (100.0, 50.0)).in_pixels(200, 25) == (region,)
