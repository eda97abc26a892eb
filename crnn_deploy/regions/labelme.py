"""JSON of labelme and of what follows it (AnyLabeling): one file for each image.

Polygons, rectangles and rotated rectangles are read. Other shapes are refused, since no text stands in a
point or a line. The image inside the file (imageData) is never decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crnn_deploy.errors import shortened
from crnn_deploy.regions.page_boxes import BoxesInvalid, PageBoxes
from crnn_deploy.regions.region import Region
from crnn_deploy.regions.text import bounded, box, number, points_of

__all__ = ["read_labelme"]


def read_labelme(path: str, whole: Mapping[str, Any]) -> PageBoxes:
    """The boxes of a page; a region is called by its label. Raises BoxesInvalid."""
    shapes = whole["shapes"]
    if not isinstance(shapes, list) or not all(isinstance(one, dict) for one in shapes):
        raise BoxesInvalid(path, "shapes is no list of objects")
    image = whole.get("imagePath")
    size = None
    if whole.get("imageWidth") is not None and whole.get("imageHeight") is not None:
        size = (
            number(path, "imageWidth", whole["imageWidth"]),
            number(path, "imageHeight", whole["imageHeight"]),
        )
    return PageBoxes(
        image if isinstance(image, str) else "",
        bounded(path, "", (_region(path, f"shape {at}", one) for at, one in enumerate(shapes, 1))),
        size,
    )


def _region(path: str, place: str, shape: Mapping[str, Any]) -> Region:
    kind, label = shape.get("shape_type") or "polygon", shape.get("label")
    name = label if isinstance(label, str) else ""
    if kind not in ("polygon", "rectangle", "rotation"):
        raise BoxesInvalid(
            path, f"{place}: is a {shortened(str(kind))}; polygons and rectangles are read, so take it out"
        )
    points = points_of(path, place, shape.get("points"))
    if kind == "rectangle" and len(points) == 2:
        (left, right), (top, bottom) = (sorted(each) for each in zip(*points, strict=True))
        return Region(box(path, place, left, top, right, bottom), name)
    return Region(points, name, ordered=False)
