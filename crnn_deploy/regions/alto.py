"""ALTO XML, versions 1 to 4: the lines of a page, in the order of the document.

A line is its Shape's Polygon, else its box HPOS, VPOS, WIDTH, HEIGHT. A file that names no MeasurementUnit
is in tenths of a millimetre, as the schema says. A BASELINE of one number is
a level line across the line's box.
"""

from __future__ import annotations

from crnn_deploy.errors import shortened
from crnn_deploy.regions.markup import Element
from crnn_deploy.regions.page_boxes import BoxesInvalid, PageBoxes, Unit
from crnn_deploy.regions.region import Point, Region
from crnn_deploy.regions.text import bounded, box, number, xy

__all__ = ["KIND", "read_alto"]

KIND = {"alto": frozenset({"HYP", "SP", "String", "Styles", "Tags"})}
_UNITS: dict[str, Unit] = {"pixel": "pixel", "mm10": "mm10", "inch1200": "inch1200"}
_BOX = ("HPOS", "VPOS", "WIDTH", "HEIGHT")


def read_alto(path: str, root: Element) -> PageBoxes:
    """The boxes of a page. Raises BoxesInvalid."""
    named: dict[str, str] = {}  # the first text of each name
    pages: list[Element] = []
    for one in root.below():
        named.setdefault(one.name, one.text.strip())
        if one.name == "Page":
            pages.append(one)
    if len(pages) != 1:
        raise BoxesInvalid(path, f"has {len(pages)} pages; write a file for each page")
    [page] = pages
    unit = _UNITS.get(named.get("MeasurementUnit", "mm10"))
    if unit is None:
        raise BoxesInvalid(
            path,
            f"its MeasurementUnit is {shortened(named['MeasurementUnit'])!r}; {', '.join(_UNITS)} are read",
        )
    size = None
    if "WIDTH" in page.attributes and "HEIGHT" in page.attributes:
        width, height = _numbers(path, page, ("WIDTH", "HEIGHT"))
        size = (width, height)
    if unit != "pixel" and (size is None or min(size) <= 0):
        raise BoxesInvalid(path, f"is in {unit}, and its Page has no WIDTH and HEIGHT to scale by")
    lines = (one for one in page.below() if one.name == "TextLine")
    regions = bounded(path, "", (_region(path, line) for line in lines))
    return PageBoxes(named.get("fileName", ""), regions, size, unit)


def _region(path: str, line: Element) -> Region:
    polygon: tuple[Point, ...] = ()
    shape = line.first("Shape")
    drawn = None if shape is None else shape.first("Polygon")
    if drawn is not None:
        polygon = xy(path, f"line {drawn.line}: Polygon", drawn.attributes.get("POINTS", ""))
    is_box = not polygon and all(name in line.attributes for name in _BOX)
    if is_box:
        left, top, width, height = _numbers(path, line, _BOX)
        polygon = box(path, f"line {line.line}", left, top, left + width, top + height)
    baseline: tuple[Point, ...] = ()
    given = line.attributes.get("BASELINE", "").split()
    if len(given) == 1 and "," not in given[0]:
        level = number(path, f"line {line.line}: BASELINE", given[0])
        across = [x for x, _ in polygon]
        baseline = ((min(across), level), (max(across), level)) if across else ()
    elif given:
        baseline = xy(path, f"line {line.line}: BASELINE", " ".join(given))
    return Region(polygon, line.attributes.get("ID", ""), ordered=is_box, baseline=baseline)


def _numbers(path: str, one: Element, names: tuple[str, ...]) -> list[float]:
    return [number(path, f"line {one.line}: {name}", one.attributes[name]) for name in names]
