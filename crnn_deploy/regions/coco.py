"""COCO's JSON: images, and annotations with polygons or boxes.

Of an annotation with several polygons the one with the largest area is taken. Masks (RLE) are refused.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from crnn_deploy.errors import shortened
from crnn_deploy.regions.page_boxes import BoxesInvalid, PageBoxes
from crnn_deploy.regions.region import Point, Region, area
from crnn_deploy.regions.text import bounded, box, number, points_of

__all__ = ["read_coco"]


def read_coco(path: str, whole: Mapping[str, Any]) -> Iterator[PageBoxes]:
    """The pages of a file, in the order of its images. Raises BoxesInvalid."""
    images, annotations = whole["images"], whole["annotations"]
    for name, found in (("images", images), ("annotations", annotations)):
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise BoxesInvalid(path, f"{name} is no list of objects")
    regions: dict[int | str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for at, one in enumerate(annotations, 1):
        regions[_id(path, f"annotation {at}", one.get("image_id"))].append((f"annotation {at}", one))
    known: set[int | str] = set()
    for at, image in enumerate(images, 1):
        place = f"image {at}"
        if (named := _id(path, place, image.get("id"))) in known:
            raise BoxesInvalid(path, f"{place}: its id {shortened(repr(named))} is that of another image")
        known.add(named)
        if not isinstance(image.get("file_name"), str):
            raise BoxesInvalid(path, f"{place}: has no file_name")
        found = regions.pop(named, [])
        yield PageBoxes(
            image["file_name"],
            bounded(path, f"{place}: ", (_region(path, where, one) for where, one in found)),
            _size(path, place, image),
        )
    for left in regions.values():
        raise BoxesInvalid(path, f"{left[0][0]}: its image_id is the id of no image")


def _id(path: str, place: str, value: object) -> int | str:
    if isinstance(value, int | str):
        return value
    raise BoxesInvalid(path, f"{place}: its id {shortened(repr(value))} is neither a whole number nor a text")


def _size(path: str, place: str, image: Mapping[str, Any]) -> tuple[float, float] | None:
    if image.get("width") is None or image.get("height") is None:
        return None
    return number(path, place, image["width"]), number(path, place, image["height"])


def _region(path: str, place: str, one: Mapping[str, Any]) -> Region:
    name = str(one["id"]) if isinstance(one.get("id"), int | str) else ""
    parts = one.get("segmentation")
    if isinstance(parts, dict):
        raise BoxesInvalid(path, f"{place}: its segmentation is a mask (RLE); write polygons or boxes")
    if parts:
        return Region(_largest(path, place, parts), name, ordered=False)
    if (given := one.get("bbox")) is None:
        return Region((), name, ordered=False)
    if not isinstance(given, list) or len(given) != 4:
        raise BoxesInvalid(path, f"{place}: its bbox is no list of x, y, width and height")
    x, y, width, height = (number(path, place, each) for each in given)
    return Region(box(path, place, x, y, x + width, y + height), name)


def _largest(path: str, place: str, parts: object) -> tuple[Point, ...]:
    if not isinstance(parts, list):
        raise BoxesInvalid(path, f"{place}: its segmentation is no list of polygons")
    nested = parts if isinstance(parts[0], list) else [parts]  # some tools write the one polygon alone
    return max((points_of(path, place, part) for part in nested), key=area)
