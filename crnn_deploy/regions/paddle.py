"""Labels and results of PaddleOCR.

- A line for each page: path, tab, JSON. PPOCRLabel, tools/infer_det.py and predict_system.py write
  [{"points": [[x, y], ...], "transcription": ...}, ...], predict_det.py [[[x, y], ...], ...]
- JSON of PaddleOCR 3, {"input_path": ..., "dt_polys": [[[x, y], ...], ...]}

Four points go clockwise from the text's top left. More are a contour, which may begin anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from crnn_deploy.regions.page_boxes import BoxesInvalid, PageBoxes
from crnn_deploy.regions.region import Region
from crnn_deploy.regions.text import bounded, json_of, numbered_lines, points_of

__all__ = ["is_paddle", "read_paddle", "read_paddle_json"]


def is_paddle(line: str) -> bool:
    """Whether a line is a path, a tab and a list."""
    image, _, boxes = line.partition("\t")
    return bool(image.strip()) and image.lstrip()[0] not in "{[<" and boxes.lstrip().startswith("[")


def read_paddle(path: str, text: str) -> Iterator[PageBoxes]:
    """The pages of a file. Raises BoxesInvalid."""
    for at, line in numbered_lines(text):
        image, tab, boxes = line.partition("\t")
        if not tab or not image.strip():
            raise BoxesInvalid(path, f"line {at}: is not an image's path, a tab and a list of boxes")
        yield _page(path, f"line {at}", image.strip(), json_of(path, boxes, f"line {at}: "))


def read_paddle_json(path: str, whole: Mapping[str, Any]) -> PageBoxes:
    """The page of a result of PaddleOCR 3. Raises BoxesInvalid."""
    image = whole.get("input_path")
    return _page(path, "dt_polys", image if isinstance(image, str) else "", whole["dt_polys"])


def _page(path: str, place: str, image: str, boxes: object) -> PageBoxes:
    if not isinstance(boxes, list):
        raise BoxesInvalid(path, f"{place}: its boxes are no list")
    return PageBoxes(
        image,
        bounded(
            path, f"{place}: ", (_region(path, f"{place}, box {at}", one) for at, one in enumerate(boxes, 1))
        ),
    )


def _region(path: str, place: str, one: object) -> Region:
    points = points_of(path, place, one.get("points") if isinstance(one, dict) else one)
    return Region(points, ordered=len(points) == 4)
