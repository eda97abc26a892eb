"""Boxes of pages through a recogniser: the same as their crops read alone, a page decoded once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_pages import Quad, example_page, on_arc
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.plain_text import plain_text
from crnn_deploy.regions.page_boxes import PageBoxes
from crnn_deploy.regions.region import Region
from crnn_deploy.runtime import page_reader
from crnn_deploy.runtime.decoding.ctc import PageChar, Text
from crnn_deploy.runtime.images.crop import crop, region_of
from crnn_deploy.runtime.images.pixels import Pixels, read_image
from crnn_deploy.runtime.orientation import Rotate
from crnn_deploy.runtime.page_reader import PageBox, PageReader, pages_of
from crnn_deploy.runtime.pipeline import read_in_order
from crnn_deploy.runtime.recognizer import Recognizer


@pytest.fixture(scope="module")
def recognizer() -> Iterator[Recognizer]:
    made = Recognizer()
    yield made
    made.close()


def boxes_of(quads: list[Quad], **about: object) -> PageBoxes:
    return replace(PageBoxes("page.png", tuple(Region(quad) for quad in quads)), **about)  # type: ignore[arg-type]


def read(recognizer: Recognizer, pages: dict[str, PageBoxes | None]) -> list[tuple[str, str]]:
    """What is read in each box: the text, or the error."""
    boxes = (box for page in pages_of(pages, pages.__getitem__) for box in page.each)
    results = read_in_order(PageReader(recognizer), boxes, batch=3, workers=2)
    return [
        (str(box), str(result) if isinstance(result, CrnnDeployError) else result.text)
        for some in results
        for box, result in some
    ]


def test_a_region_is_read_as_its_crop_alone(recognizer: Recognizer) -> None:
    page, quads = example_page()
    whole = recognizer.read_regions(page, quads)
    assert [text.text for text in whole][:2] == ["Printed", "Grüße aus Köln"]
    alone = [recognizer.read(crop(page, region_of(quad), name="").pixels) for quad in quads]
    assert [(text.text, text.confidence, plain(text)) for text in whole] == [
        (text.text, text.confidence, plain(text)) for text in alone
    ]


def plain(text: Text) -> list[tuple[object, ...]]:
    """What is known of each character without the page."""
    return [(c.char, c.confidence, c.start, c.end, c.left, c.right) for c in text.chars]


@pytest.mark.parametrize("rotate", ["none", "180"])
def test_characters_are_placed_on_the_page(rotate: Rotate) -> None:
    """Those of an upright box are its columns; those of a box that stands on its head lie where they did."""
    recognizer = Recognizer(rotate=rotate)
    page, [quad, *_] = example_page()
    [text] = recognizer.read_regions(page, [quad])
    (left, top), (_, bottom) = quad[0], quad[2]
    for char in text.chars:
        assert isinstance(char, PageChar)
        first, last = left + char.left, left + char.right
        around = [(first, top), (last, top), (last, bottom), (first, bottom)]
        np.testing.assert_allclose(char.polygon, around, atol=0.01)
    height, width = page.shape
    on_head = [(width - x, height - y) for x, y in quad]
    [turned] = recognizer.read_regions(np.ascontiguousarray(np.rot90(page, 2)), [on_head])
    assert turned.text == text.text
    for char, before in zip(turned.chars, text.chars, strict=True):
        assert isinstance(char, PageChar) and isinstance(before, PageChar)
        back = [(width - x, height - y) for x, y in char.polygon]
        np.testing.assert_allclose(back, before.polygon, atol=5)  # a time step is 4 pixels wide


def test_characters_on_an_arc_stand_one_after_the_other(recognizer: Recognizer) -> None:
    strip = plain_text("Wednesday", (40, 190), (12, 29), 1.0, paper=235, ink=20, smooth=True)
    page, grid = on_arc(strip, 90)
    [text] = recognizer.read_regions(page, [grid[0][::10] + grid[2][::-1][::10]])
    assert text.text == "Wednesday"
    centre = np.array(grid[1])
    shares = []
    for char in text.chars:
        assert isinstance(char, PageChar)
        middle = np.mean(char.polygon, axis=0)
        distances = np.linalg.norm(centre - middle, axis=1)
        assert distances.min() < 4  # it lies on the arc's middle line
        shares.append(int(distances.argmin()))
    assert shares == sorted(shares) and shares[0] < 10 and shares[-1] > 45


PAGE, QUADS = example_page()


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(-3, 3)), min_size=1, max_size=12))
def test_a_region_does_not_depend_on_the_others(some: list[tuple[int, int]]) -> None:
    recognizer = Recognizer()
    regions = [[(x + by, y) for x, y in QUADS[at]] for at, by in some]
    together = recognizer.read_regions(PAGE, regions)
    for region, text in zip(regions, together, strict=True):
        [alone] = recognizer.read_regions(PAGE, [region])
        assert (text.text, text.confidence) == (alone.text, alone.confidence)


def test_regions_that_cannot_be_read_cost_no_other(recognizer: Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    cv2.imwrite(str(path), PAGE)
    crossing = [(0, 0), (50, 50), (50, 0), (0, 50)]
    first, second, third = recognizer.try_read_regions(path, [QUADS[0], crossing, QUADS[1]])
    assert str(second) == f"{path}: box 1 crosses itself"
    assert [first, third] == recognizer.read_regions(path, QUADS[:2])
    with pytest.raises(CrnnDeployError, match="box 1 crosses itself"):
        recognizer.read_regions(path, [QUADS[0], crossing])
    assert recognizer.read_regions(path, []) == []
    with pytest.raises(FileNotFoundError):
        recognizer.read_regions(tmp_path / "none.png", QUADS)


def test_tall_regions_are_turned_as_images_are() -> None:
    with_turns = Recognizer(rotate="90")
    page = np.ascontiguousarray(np.rot90(PAGE))
    height = page.shape[0]
    upright = [tuple((y, height - x) for x, y in (quad[1], quad[2], quad[3], quad[0])) for quad in QUADS]
    plain = with_turns.read_regions(PAGE, QUADS)
    assert [text.text for text in with_turns.read_regions(page, upright)] == [text.text for text in plain]


def test_a_page_is_decoded_once(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def counted(self: Recognizer, page: str) -> Pixels:
        decoded.append(page)
        return read_image(page, decoded_grey=self.manifest.decoded_grey)

    monkeypatch.setattr(Recognizer, "read_page", counted)
    paths = [str(tmp_path / f"{name}.png") for name in "abcd"]
    for path in paths:
        cv2.imwrite(path, PAGE)
    results = read(recognizer, {path: boxes_of(QUADS * 9) for path in paths})
    assert sorted(decoded) == paths
    assert [text for _, text in results] == [text.text for text in recognizer.read_regions(PAGE, QUADS)] * 36
    assert [name for name, _ in results][:2] == [f"{paths[0]}: box 0", f"{paths[0]}: box 1"]

    # where there is no room for two pages, the one that was decoded first is let go
    monkeypatch.setattr(page_reader, "MAX_PIXELS", PAGE.shape[0] * PAGE.shape[1])
    reader = PageReader(recognizer)
    pages = [*pages_of(paths[:2], lambda _: boxes_of(QUADS))]
    for page in pages:
        reader.prepare(page.each[0])
    assert [page.held for page in pages] == [0, PAGE.shape[0] * PAGE.shape[1]]
    decoded.clear()
    reader.prepare(pages[0].each[1])
    assert decoded == paths[:1] and [page.held > 0 for page in pages] == [True, False]


def test_what_is_wrong_with_a_page_is_said_of_each_of_its_boxes(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    page, bad, none = (str(tmp_path / name) for name in ("page.png", "bad.png", "none.png"))
    cv2.imwrite(page, PAGE)
    Path(bad).write_bytes(b"no image")
    height, width = PAGE.shape[:2]
    found = read(recognizer, {bad: boxes_of(QUADS[:2]), none: boxes_of([]), page: None})
    assert [name for name, _ in found] == [f"{bad}: box 0", f"{bad}: box 1", page]
    assert found[0][1] == found[1][1] and found[0][1].startswith(f"{bad}: ")
    assert found[2][1] == f"{page}: the file of boxes names no such page"
    [(_, said)] = read(recognizer, {page: boxes_of(QUADS[:1], size=(width * 2, height * 2))})
    assert said == (
        f"{page}: its boxes were made for a page of {width * 2} x {height * 2} pixels, and this one has "
        f"{width} x {height}; give the image that the boxes belong to"
    )
    assert read(recognizer, {page: boxes_of(QUADS[:1], size=(width + 1, height))})[0][1] == "Printed"


def test_boxes_in_tenths_of_a_millimetre_are_scaled_to_the_page(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    path = str(tmp_path / "page.png")
    cv2.imwrite(path, PAGE)
    height, width = PAGE.shape[:2]
    small: list[Quad] = [tuple((x / 4, y / 2) for x, y in quad) for quad in QUADS]
    [page] = pages_of([path], lambda _: boxes_of(small, size=(width / 4, height / 2), unit="mm10"))
    results = [*read_in_order(PageReader(recognizer), page.each, batch=3, workers=1)]
    texts = [getattr(result, "text", None) for some in results for _, result in some]
    assert texts == [text.text for text in recognizer.read_regions(PAGE, QUADS)]
    assert [box.polygon for box in page.each] == QUADS


def test_an_error_in_the_place_of_boxes_costs_that_page_alone(recognizer: Recognizer, tmp_path: Path) -> None:
    path = str(tmp_path / "page.png")
    cv2.imwrite(path, PAGE)

    def of(asked: str) -> PageBoxes:
        if asked != path:
            raise CrnnDeployError(f"{asked}.xml: broken")
        return boxes_of(QUADS[:1])

    boxes: list[PageBox] = [box for page in pages_of(["other", path], of) for box in page.each]
    with ThreadPoolExecutor(2) as pool:
        results = [*read_in_order(PageReader(recognizer), boxes, batch=1, workers=2, pool=pool)]
    said = [str(getattr(result, "text", result)) for some in results for _, result in some]
    assert said == ["other.xml: broken", "Printed"]
