"""What the formats of boxes have in common: a file's text, its JSON, and points in it."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from crnn_deploy.errors import shortened
from crnn_deploy.files import parse_json, read_regular
from crnn_deploy.regions.page_boxes import MOST_POINTS, MOST_REGIONS, BoxesInvalid
from crnn_deploy.regions.region import Point, Region

__all__ = ["bounded", "box", "decoded", "json_of", "number", "numbered_lines", "points_of", "read_text", "xy"]

# bytes; all of it is read at once, and one of a million boxes has some 100 MB
_MOST_BYTES = 2**28
_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?\s*", re.ASCII)
_LONGEST_NUMBER = 40  # characters


def read_text(path: str) -> str:
    """The text of a regular file. Raises BoxesInvalid."""
    try:
        return decoded(path, read_regular(path, _MOST_BYTES))
    except OSError as error:
        raise BoxesInvalid(path, f"cannot be read: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, BoxesInvalid):
            raise
        raise BoxesInvalid(path, f"cannot be read: {error}") from None


def decoded(path: str, data: bytes) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark. Raises BoxesInvalid."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise BoxesInvalid(path, "is UTF-32; convert it: iconv -f UTF-32 -t UTF-8")
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise BoxesInvalid(path, "begins as UTF-16 and is not; save it as UTF-8") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BoxesInvalid(
            path,
            f"line {line} is not UTF-8; convert the file: iconv -f CP1252 -t UTF-8, or from what it is in",
        ) from None
    if "\0" in text:
        raise BoxesInvalid(path, "holds NUL characters; it is no text in UTF-8")
    return text


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, without their ends, and their numbers from 1; LF, CRLF and CR end a line."""
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if line.strip():
            yield number, line


def json_of(path: str, text: str, place: str = "") -> Any:
    """The value of a JSON text. Raises BoxesInvalid.

    place: where in the file it stands, as `line 3: `
    """
    try:
        return parse_json(text)
    except ValueError as error:
        raise BoxesInvalid(path, f"{place}is not JSON: {error}") from None


def number(path: str, place: str, value: object) -> float:
    """A finite number, of JSON or written in digits. Raises BoxesInvalid."""
    if isinstance(value, str):
        fits = len(value) <= _LONGEST_NUMBER and _NUMBER.fullmatch(value) is not None
        found = float(value) if fits else math.nan
    else:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        found = float(value) if fits else math.nan  # type: ignore[arg-type]
    if math.isfinite(found):
        return found
    raise BoxesInvalid(path, f"{place}: {shortened(repr(value))} is no finite number")


def points_of(path: str, place: str, value: object) -> tuple[Point, ...]:
    """Points of JSON: [[x, y], ...], or their numbers one after the other. Raises BoxesInvalid."""
    if not isinstance(value, list):
        raise BoxesInvalid(path, f"{place}: its points are no list, such as [[x, y], ...]")
    if all(isinstance(one, list) for one in value):
        if any(len(one) != 2 for one in value):
            raise BoxesInvalid(path, f"{place}: a point is a list of two numbers, [x, y]")
        flat = [each for one in value for each in one]
    else:
        flat = value
    return _pairs(path, place, flat)


def xy(path: str, place: str, text: str) -> tuple[Point, ...]:
    """Points of "x,y x,y ..." or "x y x y ...". Raises BoxesInvalid."""
    return _pairs(path, place, text.replace(",", " ").split())


def _pairs(path: str, place: str, flat: Sequence[object]) -> tuple[Point, ...]:
    if len(flat) % 2:
        raise BoxesInvalid(path, f"{place}: {len(flat)} numbers make no points; each has an x and a y")
    if len(flat) > 2 * MOST_POINTS:
        raise BoxesInvalid(path, f"{place}: has more than {MOST_POINTS:,} points")
    numbers = [number(path, place, one) for one in flat]
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def box(path: str, place: str, left: float, top: float, right: float, bottom: float) -> tuple[Point, ...]:
    """The corners of an upright box, clockwise from its top left. Raises BoxesInvalid for swapped edges."""
    if right < left or bottom < top:
        raise BoxesInvalid(
            path, f"{place}: left {left:g}, top {top:g}, right {right:g}, bottom {bottom:g} are no box"
        )
    return ((left, top), (right, top), (right, bottom), (left, bottom))


def bounded(path: str, place: str, regions: Iterable[Region]) -> tuple[Region, ...]:
    """The regions of a page. Raises BoxesInvalid where they are too many.

    place: where the page stands in the file, as `line 3: `
    """
    found: list[Region] = []
    for region in regions:
        if len(found) == MOST_REGIONS:
            raise BoxesInvalid(path, f"{place}has more than {MOST_REGIONS:,} boxes on a page")
        found.append(region)
    return tuple(found)
