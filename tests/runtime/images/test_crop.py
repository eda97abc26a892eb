"""Boxes of pages as images: against PaddleOCR's rule, plain slices, and text that was bent on purpose."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from drawn_pages import on_arc
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from crnn_deploy.plain_text import plain_text
from crnn_deploy.regions.region import Region
from crnn_deploy.runtime.images.crop import RegionUnreadable, crop, region_of
from crnn_deploy.runtime.images.header import ImageTooLarge
from crnn_deploy.runtime.recognizer import Recognizer

NOISE = np.random.default_rng(5).integers(0, 256, (90, 160, 3)).astype(np.uint8)


def of_paddle(page: NDArray[Any], points: NDArray[np.float32]) -> NDArray[Any]:
    """PaddleOCR's get_rotate_crop_image (tools/infer/utility.py), before it turns what is tall."""
    wide = int(max(np.linalg.norm(points[0] - points[1]), np.linalg.norm(points[2] - points[3])))
    high = int(max(np.linalg.norm(points[0] - points[3]), np.linalg.norm(points[1] - points[2])))
    corners = np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float32)
    transform = cv2.getPerspectiveTransform(points, corners)
    border, flags = cv2.BORDER_REPLICATE, cv2.INTER_CUBIC
    return np.asarray(cv2.warpPerspective(page, transform, (wide, high), borderMode=border, flags=flags))


@given(
    st.floats(-10, 150),
    st.floats(-10, 80),
    st.floats(4, 90),
    st.floats(4, 60),
    st.floats(-180, 180),
    st.lists(st.floats(-0.15, 0.15), min_size=8, max_size=8),
)
def test_four_corners_are_cut_out_as_paddleocr_does(
    x: float, y: float, wide: float, high: float, degrees: float, moved: list[float]
) -> None:
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2 + np.array(moved).reshape(4, 2)
    turn = np.radians(degrees)
    turned = square * (wide, high) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    points = (turned + np.array([x, y])).astype(np.float32)
    try:
        made = crop(NOISE, region_of(points), name="box").pixels
    except RegionUnreadable as error:
        assert "outside the page" in str(error) or "less than one" in str(error)
        return
    np.testing.assert_array_equal(made, of_paddle(NOISE, points))


def corners_of(left: int, top: int, right: int, bottom: int) -> list[tuple[float, float]]:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


@given(st.integers(0, 140), st.integers(0, 70), st.integers(2, 60), st.integers(2, 60), st.integers(0, 3))
def test_an_upright_rectangle_is_a_slice(left: int, top: int, wide: int, high: int, start: int) -> None:
    right, bottom = min(160, left + wide), min(90, top + high)
    corners = corners_of(left, top, right, bottom)
    part = NOISE[top:bottom, left:right]
    grey = np.ascontiguousarray(NOISE[:, :, 1])
    np.testing.assert_array_equal(crop(NOISE, region_of(corners), name="").pixels, part)
    np.testing.assert_array_equal(crop(grey, region_of(corners), name="").pixels, part[:, :, 1])
    # where the points promise nothing, the page says what is up
    some = corners[start:] + corners[:start]
    for points in (some, some[::-1]):
        np.testing.assert_array_equal(crop(NOISE, Region(tuple(points), ordered=False), name="").pixels, part)
    # else the first point does; and nothing is ever mirrored
    turned = of_paddle(NOISE, np.array(some, np.float32))
    for points in (some, [some[0], *some[:0:-1]]):
        np.testing.assert_array_equal(crop(NOISE, region_of(points), name="").pixels, turned)


STRIP = plain_text("Wednesday", (40, 190), (12, 29), 1.0, paper=235, ink=20, smooth=True)


def likeness(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Correlation of the pixels of two images, the first brought to the size of the second."""
    resized = cv2.resize(one, other.shape[1::-1], interpolation=cv2.INTER_AREA)
    levels = np.stack([resized.ravel(), other.ravel()]).astype(np.float64)
    return float(np.asarray(np.corrcoef(levels))[0, 1])


def outline(grid: list[list[tuple[float, float]]], step: int) -> list[tuple[float, float]]:
    return grid[0][::step] + grid[2][::-1][::step]


@pytest.mark.parametrize("degrees", [30, 90, 150])
def test_bent_text_is_straightened(degrees: float) -> None:
    page, grid = on_arc(STRIP, degrees)
    made = crop(page, region_of(outline(grid, 10)), name="").pixels
    assert abs(made.shape[1] - 190) <= 8 and abs(made.shape[0] - 40) <= 1
    assert likeness(made, STRIP) > 0.95
    upright = page[: page.shape[0] // 2]
    assert likeness(upright, STRIP) < 0.5  # it was bent


@pytest.mark.parametrize("degrees", [20, 60, 100])
@pytest.mark.parametrize("reverse", [False, True])
def test_an_outline_in_any_order_is_straightened(degrees: float, reverse: bool) -> None:
    """The points start anywhere, go either way, and hug the letters as outlines of PAGE XML do."""
    page, grid = on_arc(STRIP, degrees)
    chance = np.random.default_rng(7)
    upper, middle, lower = (np.array(row) for row in grid)
    hugging = [
        tuple(edge + chance.uniform(0, 0.15) * 2 * (centre - edge))
        for edges in ((upper, middle), (lower[::-1], middle[::-1]))
        for edge, centre in zip(*edges, strict=True)
    ]
    points = hugging[37:] + hugging[:37]
    made = crop(page, Region(tuple(points[:: -1 if reverse else 1]), ordered=False), name="").pixels
    assert likeness(made, STRIP) > 0.5
    recognizer = Recognizer()
    assert recognizer.read(made).text == recognizer.read(STRIP).text == "Wednesday"


def test_a_tall_outline_stays_upright() -> None:
    """--rotate decides how it is read, as of an upright box."""
    points = [(20, 5), (40, 5), (41, 30), (40, 60), (39, 80), (21, 80), (20, 40)]
    soft = np.asarray(cv2.blur(NOISE, (7, 7)), np.uint8)
    made = crop(soft, Region(tuple(points), ordered=False), name="").pixels
    assert made.shape[0] > 3 * made.shape[1]
    assert likeness(made, soft[5:80, 20:40]) > 0.7 > 0.3 > likeness(np.rot90(made, 2), soft[5:80, 20:40])


@pytest.mark.parametrize(
    ("points", "ordered"),
    [
        ([(20, 12), (90, 30), (85, 60), (12, 45)], True),
        ([(90, 30), (85, 60), (12, 45), (20, 12)], False),
        ([(10, 10), (80, 35), (150, 10), (80, 85)], True),  # an arrowhead
        ([(10, 40), (50, 20), (90, 25), (130, 50), (125, 80), (88, 55), (52, 50), (18, 66)], True),
        ([(10, 40), (50, 20), (90, 25), (130, 50), (125, 80), (88, 55), (52, 50), (18, 66)], False),
        ([(20, 5), (40, 5), (41, 30), (40, 60), (39, 80), (21, 80), (20, 40)], False),  # downwards
    ],
)
@pytest.mark.parametrize("left", [0, 33_000])
def test_a_crop_knows_where_its_pixels_are_on_the_page(
    points: list[tuple[float, float]], ordered: bool, left: int
) -> None:
    page = np.asarray(cv2.blur(NOISE[:, :, 0], (5, 5)), np.uint8)
    if left:  # a page that is too long for OpenCV
        page = np.concatenate([np.zeros((90, left), np.uint8), page], axis=1)
    region = Region(tuple((x + left, y) for x, y in points), ordered=ordered)
    made = crop(page, region, name="")
    height, width = made.pixels.shape
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
    grid = np.stack([columns.ravel(), rows.ravel()], axis=1)
    if height > 2 * width:  # turned upright: a pixel's sample lies at its right edge, which was its upper one
        grid[:, 0] += 1
    x, y = (made.on_page(grid) - (left, 0)).T.reshape(2, height, width).astype(np.float32)
    part = page[:, left:]
    again = cv2.remap(part, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    inside = (x > 2) & (x < 157) & (y > 2) & (y < 87)  # beyond, the page's edge is repeated
    difference = np.abs(again.astype(int) - made.pixels)[inside]
    assert inside.mean() > 0.9 and np.quantile(difference, 0.99) <= 6


def test_an_arrowhead_is_straightened_not_projected() -> None:
    """A perspective of corners that turn inwards goes through infinity."""
    points = np.array([(10, 10), (80, 35), (150, 10), (80, 85)], np.float32)
    made = crop(NOISE, region_of(points), name="").pixels
    assert made.size and made.dtype == np.uint8


def test_an_outline_that_goes_round_and_round_is_no_text() -> None:
    around = corners_of(10, 10, 150, 80) * 300  # its sides are longer than any image that OpenCV makes
    with pytest.raises(RegionUnreadable, match=r"^box is longer than 32,766 pixels; cut it into several$"):
        crop(NOISE, region_of(around), name="box")


def test_a_page_longer_than_opencv_takes_is_cut_first() -> None:
    page = np.zeros((40, 40_000), np.uint8)
    page[:, 39_800:39_960] = NOISE[:40, :, 0]
    made = crop(page, region_of(corners_of(39_800, 0, 39_900, 40)), name="").pixels
    np.testing.assert_array_equal(made, NOISE[:40, :100, 0])
    with pytest.raises(RegionUnreadable, match=r"^box is longer than 32,766 pixels; cut it into several$"):
        crop(page, region_of(corners_of(0, 0, 40_000, 40)), name="box")


@pytest.mark.parametrize(
    ("points", "said"),
    [
        ([], "p.png: box 0 has no points"),
        ([(1, 1), (9, 9)], "p.png: box 0 has 2 points; a polygon has 3 or more"),
        ([(0, 0), (50, 50), (50, 0), (0, 50)], "p.png: box 0 crosses itself"),
        ([(0, 0), (10, 10), (20, 20)], "p.png: box 0 has no area"),
        ([(0, float("nan")), (10, 10), (20, 0)], "p.png: box 0 has a coordinate that is no finite number"),
        (corners_of(160, 0, 200, 20), "p.png: box 0 lies outside the page of 160 x 90 pixels"),
        ([(5, 5), (5.4, 5), (5.4, 25), (5, 25)], "p.png: box 0 is 0.4 x 20 pixels, less than one"),
    ],
)
def test_a_box_without_anything_to_read_says_so(points: list[tuple[float, float]], said: str) -> None:
    with pytest.raises(RegionUnreadable) as raised:
        crop(NOISE, region_of(points), name="p.png: box 0")
    assert str(raised.value) == said


def test_a_crop_has_a_limit_of_pixels() -> None:
    with pytest.raises(ImageTooLarge, match="more than the limit of 100"):
        crop(NOISE, region_of(corners_of(0, 0, 20, 20)), name="box", max_pixels=100)
    far = [(0, 0), (900_000, 0), (900_000, 80), (0, 80)]
    with pytest.raises((ImageTooLarge, RegionUnreadable)):
        crop(NOISE, region_of(far), name="box")


@pytest.mark.parametrize("given", [[1, 2, 3], np.zeros((4, 3)), np.zeros((2, 4, 2)), [[1], [2], [3]]])
def test_what_is_no_list_of_points_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="is not \\(N, 2\\): points of x and y"):
        region_of(given)


@given(st.lists(st.tuples(st.floats(-30, 190), st.floats(-30, 120)), min_size=3, max_size=14), st.booleans())
def test_any_polygon_gives_an_image_or_one_clear_line(
    points: list[tuple[float, float]], ordered: bool
) -> None:
    assume(len({*points}) > 2)
    try:
        made = crop(NOISE, Region(tuple(points), ordered=ordered), name="p.png: box 7").pixels
    except (RegionUnreadable, ImageTooLarge) as error:
        assert str(error).startswith("p.png: box 7") and "\n" not in str(error)
    else:
        assert made.ndim == 3 and made.size and made.dtype == np.uint8
