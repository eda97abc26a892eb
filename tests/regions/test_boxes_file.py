"""Which boxes are a page's: by path, by name, and by the file of a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from box_examples import ALTO_4, EXAMPLES, LABELME, PADDLE, PAGE_2019

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.regions.boxes_file import Boxes, BoxesAmbiguous
from crnn_deploy.regions.page_boxes import BoxesInvalid


def labels(folder: Path, *images: str) -> Boxes:
    """PaddleOCR's labels of images, the n-th with n boxes."""
    lines = []
    for count, image in enumerate(images, 1):
        points = [[0, 0], [count, 0], [count, 5], [0, 5]]
        lines.append(f"{image}\t{json.dumps([{'points': points}] * count)}\n")
    path = folder / "Label.txt"
    path.write_text("".join(lines))
    return Boxes(path)


def count(boxes: Boxes, page: str | Path) -> int | None:
    found = boxes.of(str(page))
    return None if found is None else len(found.regions)


def test_the_path_from_the_file_comes_first(tmp_path: Path) -> None:
    boxes = labels(tmp_path, "a.jpg", "x/a.jpg", "x/y/a.jpg", "other/b.jpg")
    assert [count(boxes, tmp_path / name) for name in ("a.jpg", "x/a.jpg", "x/y/a.jpg")] == [1, 2, 3]
    assert boxes.unasked == ["other/b.jpg"]
    assert count(boxes, "anywhere/b.jpg") == 4 and boxes.unasked == []
    assert count(boxes, tmp_path / "c.jpg") is None


def test_links_to_a_page_are_the_page(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a.jpg").touch()
    (tmp_path / "link").symlink_to(tmp_path / "x")
    boxes = labels(tmp_path, "x/a.jpg", "y/a.jpg")
    assert count(boxes, tmp_path / "link/a.jpg") == 1
    assert count(boxes, tmp_path / "x/../x/a.jpg") == 1  # asked for a second time


@pytest.mark.parametrize(
    ("page", "images", "found"),
    [
        ("/data/set/x/a.jpg", ("x/a.jpg", "y/a.jpg"), 1),
        ("x/a.jpg", ("/home/me/x/a.jpg", "/home/me/y/a.jpg"), 1),
        ("/data/x/a.jpg", ("a.jpg", "x/a.jpg", "other/x/a.jpg"), 2),
        ("/data/x/a.jpg", (".\\x\\a.jpg", "C:\\y\\a.jpg"), 1),
        ("/data/x/a.jpg", ("z/a.jpg", "z/b.jpg"), 1),  # the only one of this name
        ("/data/x/A.jpg", ("x/a.jpg",), None),
        ("/data/x/a.png", ("x/a.jpg",), None),
    ],
)
def test_equal_trailing_parts_tell_a_page(
    tmp_path: Path, page: str, images: tuple[str, ...], found: int | None
) -> None:
    assert count(labels(tmp_path, *images), page) == found


@pytest.mark.parametrize(
    ("page", "images"),
    [
        ("a.jpg", ("x/a.jpg", "longer/y/a.jpg")),
        ("/data/z/a.jpg", ("x/a.jpg", "y/a.jpg")),
        ("/data/x/a.jpg", ("x/a.jpg", "x/a.jpg")),
    ],
)
def test_two_pages_that_fit_alike_are_asked_about(tmp_path: Path, page: str, images: tuple[str, ...]) -> None:
    boxes = labels(tmp_path, *images)
    with pytest.raises(BoxesAmbiguous, match="2 pages that may be it") as error:
        boxes.of(page)
    assert isinstance(error.value, ValueError | CrnnDeployError)
    assert f"{images[0]!r} and {images[1]!r}" in str(error.value)


def test_boxes_are_given_to_one_page_alone(tmp_path: Path) -> None:
    boxes = labels(tmp_path, "a.jpg")
    assert count(boxes, "x/a.jpg") == 1
    with pytest.raises(
        BoxesAmbiguous, match=r"were given to .*x/a\.jpg; read the two pages one after the other"
    ):
        boxes.of("y/a.jpg")


def test_a_page_without_a_name_is_that_of_any_image(tmp_path: Path) -> None:
    path = tmp_path / "boxes"
    path.write_bytes(EXAMPLES["icdar 2015"])
    boxes = Boxes(path)
    assert count(boxes, "any.jpg") == 4
    with pytest.raises(BoxesAmbiguous, match="a page without a name"):
        boxes.of("another.jpg")


def test_the_only_page_can_be_taken_for_another_image(tmp_path: Path) -> None:
    path = tmp_path / "boxes"
    path.write_text(PAGE_2019)
    boxes = Boxes(path)
    assert boxes.of("0001.png") is None and boxes.unasked == ["scans/0001.tif"]
    assert boxes.only is not None and len(boxes.only.regions) == 6
    path.write_text(PADDLE)
    assert Boxes(path).only is None


def test_names_that_no_system_has_are_no_page(tmp_path: Path) -> None:
    path = tmp_path / "boxes"
    path.write_text(json.dumps({"shapes": [], "imagePath": "x/\0\ud800/a.jpg"}))
    assert Boxes(path).of("a.jpg") is not None
    path.write_text(json.dumps({"shapes": [], "imagePath": "/"}))
    assert Boxes(path).of("a.jpg") is None


@pytest.mark.parametrize(
    "name",
    [
        *("a.xml", "a.json", "a.txt", "gt_a.txt", "res_a.txt", "a.jpg.txt", "a.page.xml", "a.alto.xml"),
        *("a.jpg.xml", "a.tsv"),
    ],
)
def test_a_folder_has_a_file_for_each_page(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "boxes"
    folder.mkdir()
    data = {
        ".xml": ALTO_4,
        ".json": LABELME,
        ".txt": "1,2,9,5\n",
        ".tsv": "page\tpolygon\nz.jpg\t1,2 3,4 4,7\n",
    }
    (folder / name).write_text(data[Path(name).suffix])
    (folder / "b.txt").write_text("")
    (folder / "a.jpg").touch()
    boxes = Boxes(folder)
    found = boxes.of("anywhere/a.jpg")
    assert found is not None and len(found.regions) > 0
    assert boxes.unasked == ["b.txt"] and boxes.only is None
    assert boxes.of("c.jpg") is None
    assert count(boxes, "b.jpg") == 0 and boxes.unasked == []


def test_two_files_of_a_page_are_asked_about(tmp_path: Path) -> None:
    for name in ("a.txt", "gt_a.txt"):
        (tmp_path / name).write_text("1,2,9,5\n")
    with pytest.raises(BoxesAmbiguous, match=r"a\.txt and gt_a\.txt"):
        Boxes(tmp_path).of("a.jpg")


def test_a_file_of_a_folder_may_hold_more_pages(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(PADDLE.replace("img_1.jpg", "a.jpg"))
    assert count(Boxes(tmp_path), "x/a.jpg") == 1


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BoxesInvalid, match=r"absent: cannot be read: No such file"):
        Boxes(tmp_path / "absent")
    with pytest.raises(BoxesInvalid, match="cannot be read: it is not a regular file"):
        Boxes("/dev/zero")
