"""Text lines of ICDAR's challenges and of the data sets that follow them: numbers, and perhaps a text.

- ICDAR 2015, MLT, SROIE: x1,y1,x2,y2,x3,y3,x4,y4[,text]
- ICDAR 2013: xmin,ymin,xmax,ymax[,"text"], with commas or blanks
- CTW1500, Total-Text: x1,y1,...,xn,yn[,text], from 3 points
- CTW1500's labels of 32 numbers: a box, and 14 points as offsets from its top left

A text may begin with numbers (`12,5` behind eight others), so where the points end is settled for the whole
file. Each reading of `_READINGS` that fits all lines is tried, and those that fit must agree. A text is not
taken to begin with four numbers or more.

Four points go clockwise from the text's top left. More promise nothing: CTW1500's begin at the bottom left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crnn_deploy.errors import shortened
from crnn_deploy.regions.page_boxes import BoxesInvalid, PageBoxes
from crnn_deploy.regions.region import Point, Region
from crnn_deploy.regions.text import bounded, box, number, numbered_lines, points_of

__all__ = ["is_icdar", "read_icdar"]

_NUMBER = r"[-+]?(?:\d++(?:\.\d*+)?|\.\d++)"
_BLANKS = re.compile(rf"\s*(?:{_NUMBER}[ \t]+){{3}}{_NUMBER}(?:[ \t]|$)", re.ASCII)
_COMMAS = re.compile(rf"\s*(?:{_NUMBER}\s*,\s*){{3}}{_NUMBER}\s*(?:,|$)", re.ASCII)
_PLAIN = re.compile(rf"\s*{_NUMBER}\s*", re.ASCII)
_TEXT_OF_NUMBERS = 4  # numbers that no text is taken to begin with
_OFFSETS = 32  # numbers of CTW1500's box with offsets
_LOOSE = 1  # pixels that its box may be wider than what they span


@dataclass(frozen=True)
class _IcdarLine:
    at: int  # line of the file
    numbers: tuple[str, ...]  # that it begins with
    has_text: bool  # whether something follows them
    commas: bool  # what stands between them


@dataclass(frozen=True)
class _Reading:
    name: str
    fits: Callable[[_IcdarLine, int], bool]  # a line, and the least count of numbers in a line of the file
    count: Callable[[_IcdarLine, int], int]  # numbers of it that are coordinates


def _fixed(name: str, count: int, text: bool) -> _Reading:
    def fits(line: _IcdarLine, least: int) -> bool:
        more = len(line.numbers) - count
        if not text:
            return more == 0 and not line.has_text
        if not line.commas and more:
            return False
        return 0 <= more < _TEXT_OF_NUMBERS and (more > 0 or line.has_text)

    return _Reading(name, fits, lambda line, least: count)


def _fits_as_many(line: _IcdarLine, least: int) -> bool:
    more = len(line.numbers) - least
    return least % 2 == 0 and least > 8 and more < _TEXT_OF_NUMBERS and (more > 0 or line.has_text)


_READINGS = (
    _fixed("a box of 4 numbers", 4, text=False),
    _fixed("a box of 4 numbers and a text", 4, text=True),
    _fixed("4 points", 8, text=False),
    _fixed("4 points and a text", 8, text=True),
    _Reading(
        "points alone",
        lambda line, least: not line.has_text and len(line.numbers) % 2 == 0 and len(line.numbers) >= 6,
        lambda line, least: len(line.numbers),
    ),
    _Reading(
        "points and a text that is no number",
        lambda line, least: line.has_text and len(line.numbers) % 2 == 0 and len(line.numbers) >= 6,
        lambda line, least: len(line.numbers),
    ),
    _Reading("as many points in each line and a text", _fits_as_many, lambda line, least: least),
    _Reading(
        "points and a number",
        lambda line, least: not line.has_text and len(line.numbers) % 2 == 1 and len(line.numbers) >= 9,
        lambda line, least: len(line.numbers) - 1,
    ),
)
# where a file of polygons has texts that are numbers among others, none of those above fits
_LAST = _Reading(
    "points and a text",
    lambda line, least: (
        len(line.numbers) >= 9 - line.has_text and (line.has_text or len(line.numbers) % 2 == 1)
    ),
    lambda line, least: len(line.numbers) // 2 * 2,
)


def is_icdar(line: str) -> bool:
    """Whether a line begins with four numbers."""
    return bool(_BLANKS.match(line) or _COMMAS.match(line))


def read_icdar(path: str, text: str) -> PageBoxes:
    """The boxes of a page. Raises BoxesInvalid."""
    found = [_line(path, at, line) for at, line in numbered_lines(text)]
    if not found:
        return PageBoxes("", ())
    least = min(len(line.numbers) for line in found)
    reading = _reading(path, found, least)
    return PageBoxes(
        "", bounded(path, "", (_region(path, line, reading.count(line, least)) for line in found))
    )


def _line(path: str, at: int, line: str) -> _IcdarLine:
    commas = _COMMAS.match(line) is not None
    if not commas and not _BLANKS.match(line):
        raise BoxesInvalid(path, f"line {at}: {shortened(line)!r} does not begin with four numbers")
    fields = line.split(",") if commas else line.split()
    count = next((n for n, one in enumerate(fields) if not _PLAIN.fullmatch(one)), len(fields))
    return _IcdarLine(at, tuple(fields[:count]), count < len(fields), commas)


def _reading(path: str, found: Sequence[_IcdarLine], least: int) -> _Reading:
    fitting: Sequence[_Reading] = _READINGS
    for line in found:
        if left := [one for one in fitting if one.fits(line, least)]:
            fitting = left
        elif all(_LAST.fits(each, least) for each in found):
            return _LAST
        else:
            raise BoxesInvalid(
                path,
                f"line {line.at}: begins with {len(line.numbers)} numbers; lines have 4 (left, top, right, "
                "bottom), 8 (4 points) or those of more points, and all have a text behind them or none has",
            )
    for line in found:
        counts = {one.count(line, least): one.name for one in fitting}
        if len(counts) > 1:
            raise BoxesInvalid(
                path,
                f"line {line.at}: may be {' or '.join(counts.values())}; put a text in quotes, "
                'as ...,"12,5", and write points alone as JSON or TSV',
            )
    return fitting[0]


def _region(path: str, line: _IcdarLine, count: int) -> Region:
    place = f"line {line.at}"
    if count == 4:
        left, top, right, bottom = (number(path, place, one) for one in line.numbers[:4])
        return Region(box(path, place, left, top, right, bottom))
    points = points_of(path, place, list(line.numbers[:count]))
    if count == _OFFSETS:
        points = _from_offsets(path, place, points)
    return Region(points, ordered=len(points) == 4)


def _from_offsets(path: str, place: str, points: tuple[Point, ...]) -> tuple[Point, ...]:
    """The polygon of 16 points; where the first two are a box, and the others offsets in it, that of 14."""
    (left, top), (right, bottom), *others = points
    across, down = zip(*others, strict=True)
    room = (min(across), min(down), right - left - max(across), bottom - top - max(down))
    if min(room) < 0:
        return points
    if max(room) > _LOOSE:
        raise BoxesInvalid(
            path, f"{place}: may be 16 points, or a box and 14 points as offsets that do not fill it"
        )
    return tuple((left + x, top + y) for x, y in others)
