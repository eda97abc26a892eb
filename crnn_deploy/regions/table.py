"""Boxes in a table with a header: TSV, and the TSV, CSV and JSON lines that `infer --boxes` writes.

A row is a box. Its page stands in one of `_PAGES`; its shape in `polygon` or `points` (JSON or "x,y x,y"), in
x1, y1, ..., x4, y4, in left, top and width, height or right, bottom, or in xmin, ymin, xmax, ymax. Four
points go clockwise from the text's top left, more promise nothing. Tesseract's TSV names no page; of its
rows those of lines (level 4) are read. Rows of a page need not stand together.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence

from crnn_deploy.errors import shortened
from crnn_deploy.regions.page_boxes import MOST_REGIONS, BoxesInvalid, PageBoxes
from crnn_deploy.regions.region import Point, Region
from crnn_deploy.regions.text import box, json_of, number, numbered_lines, points_of, xy

__all__ = ["header_of", "is_row", "read_csv", "read_rows", "read_tsv"]

_PAGES = ("path", "image", "page", "filename", "file")
_POLYGONS = ("polygon", "points")
_NAMES = ("id", "name", "box")
_CORNERS = tuple(f"{axis}{n}" for n in range(1, 5) for axis in "xy")
_WIDTHS, _EDGES = ("left", "top", "width", "height"), ("left", "top", "right", "bottom")
_MINIMA = ("xmin", "ymin", "xmax", "ymax")
_LINE_OF_TESSERACT = "4"  # among page, block, paragraph, line and word
_ESCAPED = re.compile(r"\\([\\tnr])")
_PLAIN = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}

_Row = tuple[str, Mapping[str, object]]  # where it stands, and its cells


def header_of(line: str, separator: str) -> list[str] | None:
    """The columns of a table that holds boxes, in small letters; None for a line that is no header."""
    columns = [one.strip().strip('"').lower() for one in line.split(separator)]
    return columns if len(columns) > 1 and _shape(columns) is not None else None


def is_row(value: object) -> bool:
    """Whether a value of JSON is a row."""
    return (
        isinstance(value, dict) and any(key in value for key in _POLYGONS) and any(k in value for k in _PAGES)
    )


def read_tsv(path: str, text: str) -> list[PageBoxes]:
    """The pages of a table with tabs. Raises BoxesInvalid."""
    lines = numbered_lines(text)
    columns = [one.strip().strip('"').lower() for one in next(lines)[1].split("\t")]
    own = {"path", "box", "polygon"} <= set(columns)

    def rows() -> Iterator[_Row]:
        for at, line in lines:
            cells = line.split("\t")
            if len(cells) != len(columns):
                raise BoxesInvalid(
                    path, f"line {at}: has {len(cells)} columns; the header has {len(columns)}"
                )
            row = dict(zip(columns, cells, strict=True))
            if own:  # a tab in a path is \t there, and nothing else has a backslash
                row["path"] = _ESCAPED.sub(lambda match: _PLAIN[match[1]], row["path"])
            yield f"line {at}", row

    return _pages(path, columns, rows())


def read_csv(path: str, text: str) -> list[PageBoxes]:
    """The pages of a table with commas. Raises BoxesInvalid."""
    reader = csv.reader(io.StringIO(text.lstrip(), newline=""), strict=True)

    def rows(columns: Sequence[str]) -> Iterator[_Row]:
        for cells in reader:
            if cells and len(cells) != len(columns):
                raise BoxesInvalid(
                    path, f"line {reader.line_num}: has {len(cells)} columns; the header has {len(columns)}"
                )
            if cells:
                yield f"line {reader.line_num}", dict(zip(columns, cells, strict=True))

    try:
        columns = next(cells for cells in reader if cells)
        columns = [one.strip().lower() for one in columns]
        return _pages(path, columns, rows(columns))
    except csv.Error as error:
        raise BoxesInvalid(path, f"line {reader.line_num}: is not CSV: {error}") from None


def read_rows(path: str, text: str) -> list[PageBoxes]:
    """The pages of JSON lines. Raises BoxesInvalid."""

    def rows() -> Iterator[_Row]:
        for at, line in numbered_lines(text):
            value = json_of(path, line, f"line {at}: ")
            if not isinstance(value, dict):
                raise BoxesInvalid(path, f"line {at}: is no object with a path and a polygon")
            yield f"line {at}", value

    first = next(iter(rows()))[1]
    return _pages(path, list(first), rows())


def _shape(columns: Sequence[str]) -> tuple[str, ...] | None:
    """The columns that hold a box's shape."""
    for group in (*((one,) for one in _POLYGONS), _CORNERS, _WIDTHS, _EDGES, _MINIMA):
        if all(one in columns for one in group):
            return group
    return None


def _pages(path: str, columns: Sequence[str], rows: Iterator[_Row]) -> list[PageBoxes]:
    repeated = [one for one in columns if columns.count(one) > 1]
    if repeated:
        raise BoxesInvalid(path, f"its header has {shortened(repeated[0])!r} twice")
    if (shape := _shape(columns)) is None:
        raise BoxesInvalid(
            path,
            f"its header is {shortened(repr(columns))}, which names no box; call the columns polygon, or "
            "x1, y1, ..., x4, y4, or left, top, width, height, or left, top, right, bottom",
        )
    page = next((one for one in _PAGES if one in columns), None)
    level = page is None and "level" in columns
    name = next((one for one in _NAMES if one in columns), None)
    found: dict[str, list[Region]] = {}
    of_tesseract: object = None  # the page that its rows are of
    for place, row in rows:
        if level and row["level"] != _LINE_OF_TESSERACT:
            continue
        if level and "page_num" in row:
            if of_tesseract not in (None, row["page_num"]):
                raise BoxesInvalid(path, f"{place}: begins another page; give each page a file of its own")
            of_tesseract = row["page_num"]
        image = row.get(page) if page is not None else ""
        if not isinstance(image, str):
            raise BoxesInvalid(path, f"{place}: has no {page}")
        regions = found.setdefault(image, [])
        if "box" in row and row["box"] in ("", None):  # what `infer` writes of a page without boxes
            continue
        if len(regions) == MOST_REGIONS:
            raise BoxesInvalid(path, f"{place}: is beyond the {MOST_REGIONS:,} boxes of a page")
        called = row.get(name) if name is not None else None
        points = _points(path, place, shape, row)
        regions.append(Region(points, "" if called is None else str(called), ordered=len(points) == 4))
    return [PageBoxes(image, tuple(regions)) for image, regions in found.items()]


def _points(path: str, place: str, shape: tuple[str, ...], row: Mapping[str, object]) -> tuple[Point, ...]:
    cells = [row.get(one) for one in shape]
    if shape == _CORNERS:
        return points_of(path, place, cells)
    if len(shape) == 4:
        left, top, *others = (number(path, place, one) for one in cells)
        right, bottom = (left + others[0], top + others[1]) if shape == _WIDTHS else others
        return box(path, place, left, top, right, bottom)
    [cell] = cells
    if isinstance(cell, str) and not cell.strip().startswith("["):
        return xy(path, place, cell)
    return points_of(path, place, json_of(path, cell, f"{place}: ") if isinstance(cell, str) else cell or [])
