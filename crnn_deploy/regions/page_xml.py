"""PAGE XML of 2009 to 2024: the lines of a page.

They come in the order of the document, those of a region before those of regions inside it. Where there is a
ReadingOrder, regions come in that one, and those that it does not name last. A page that holds no TextLine
at all is read by its TextRegions, each as one line. Coords may be points="x,y x,y" or, up to 2010, Point
elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from crnn_deploy.regions.markup import Element
from crnn_deploy.regions.page_boxes import BoxesInvalid, PageBoxes
from crnn_deploy.regions.region import Point, Region
from crnn_deploy.regions.text import bounded, number, points_of, xy

__all__ = ["KIND", "lines_of", "page_of", "read_page_xml"]

KIND = {"PcGts": frozenset({"Grid", "Labels", "TextEquiv", "TextStyle", "UserDefined", "Word"})}


def read_page_xml(path: str, root: Element, document: bytes) -> PageBoxes:
    """The boxes of a page. Raises BoxesInvalid."""
    page = page_of(path, root)
    lines, note = lines_of(path, page), ""
    if lines and lines[0].name == "TextRegion":
        note = f"it has no TextLine; each of its {len(lines)} TextRegions is read as one line"
    elif lines and (without := sum(map(_is_without_lines, page.below()))):
        note = f"TextRegions without a TextLine are not read beside those with one: {without}"
    size = None
    if "imageWidth" in page.attributes and "imageHeight" in page.attributes:
        width, height = (
            number(path, f"line {page.line}: {name}", page.attributes[name])
            for name in ("imageWidth", "imageHeight")
        )
        size = (width, height)
    regions = bounded(path, "", (_region(path, line) for line in lines))
    return PageBoxes(page.attributes.get("imageFilename", ""), regions, size, document=document, note=note)


def page_of(path: str, root: Element) -> Element:
    """The Page of a document. Raises BoxesInvalid."""
    if (page := root.first("Page")) is None:
        raise BoxesInvalid(path, "its PcGts holds no Page")
    return page


def lines_of(path: str, page: Element) -> list[Element]:
    """The elements that are read, TextLines or TextRegions, in reading order. Raises BoxesInvalid."""
    order: dict[str, int] = {}
    if (given := page.first("ReadingOrder")) is not None:
        for reference in _references(path, given):
            order.setdefault(reference, len(order))
    lines: list[tuple[float, Element]] = []
    regions: list[tuple[float, Element]] = []
    waiting: list[tuple[Element, float]] = [(page, math.inf)]
    while waiting:
        one, place = waiting.pop()
        if one.name == "TextLine":
            lines.append((place, one))
            continue
        place = order.get(one.attributes.get("id", ""), place)
        if _is_without_lines(one):
            regions.append((place, one))
        children = sorted(one.children, key=lambda child: child.name != "TextLine")
        waiting += [(child, place) for child in reversed(children)]
    return [one for _, one in sorted(lines or regions, key=lambda found: found[0])]


def _is_without_lines(one: Element) -> bool:
    """Whether it is a TextRegion that holds neither lines nor other TextRegions."""
    return one.name == "TextRegion" and not any(
        child.name in ("TextLine", "TextRegion") for child in one.children
    )


def _references(path: str, group: Element) -> Iterator[str]:
    """Ids of regions, in the order of a group and of the groups in it."""
    children = group.children
    if group.name.startswith("OrderedGroup"):
        children = sorted(
            children,
            key=lambda one: number(path, f"line {one.line}: index", one.attributes.get("index", "0")),
        )
    for one in children:
        if "regionRef" in one.attributes:
            yield one.attributes["regionRef"]
        yield from _references(path, one)


def _region(path: str, line: Element) -> Region:
    return Region(
        _points(path, line.first("Coords")),
        line.attributes.get("id", ""),
        ordered=False,
        baseline=_points(path, line.first("Baseline")),
    )


def _points(path: str, one: Element | None) -> tuple[Point, ...]:
    if one is None:
        return ()
    place = f"line {one.line}: {one.name}"
    if "points" in one.attributes:
        return xy(path, place, one.attributes["points"])
    points = [child for child in one.children if child.name == "Point"]
    return points_of(path, place, [[each.attributes.get(axis, "") for axis in "xy"] for each in points])
