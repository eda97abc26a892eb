"""PAGE XML with the texts of a page in it: a new document, or the one that the boxes came from.

In a document that is filled, only this changes; all else stays byte for byte (in UTF-8):
- Each line's TextEquivs are replaced by one with the text that was read; a line without a text has none.
- The Words of lines (and Glyphs in them) are taken out, since they hold another reading's texts.
- A TextRegion's own text is replaced by the texts of its lines, one below the other; it is taken out where
  one of them has no text, or where the region holds other regions. A region that had no text gets none.
- LastChange, and the encoding that the document says it has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from crnn_deploy.regions import page_xml
from crnn_deploy.regions.markup import Element, parse_xml
from crnn_deploy.regions.page_boxes import BoxesInvalid
from crnn_deploy.regions.region import Point, Region, clipped, problem

__all__ = ["ReadLine", "WrittenPage", "filled_page", "new_page"]

_NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_IN_PLACE = "\ufffd"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")  # of those that xsd:ID allows, the plain ones
_BEHIND_TEXT = ("TextStyle", "UserDefined", "Labels")  # what follows a TextEquiv in a TextLine
_WITH_CONF = "2013"  # the first year of a schema that has @conf, and needs no PlainText
_YEAR = re.compile(r"/(\d{4})-\d\d-\d\d$")
_DECLARED = re.compile(rb"""\A(\s*<\?xml[^>]*?\sencoding\s*=\s*["'])([A-Za-z0-9._-]+)""")


@dataclass(frozen=True)
class ReadLine:
    """A region and what was read in it."""

    region: Region
    text: str | None  # None: an error stands in its place
    confidence: float | None = None  # 0-1


@dataclass(frozen=True)
class WrittenPage:
    """A document, and what in it is otherwise than it was given."""

    document: bytes
    notes: tuple[str, ...]  # sentences for a person; () where there is nothing to say


class _TextWriter:
    """Texts as XML; counts the characters that it cannot hold."""

    def __init__(self) -> None:
        self.replaced = 0

    def text(self, text: str) -> str:
        return escape(self._plain(text), {"\r": "&#13;"})

    def attribute(self, text: str) -> str:
        return quoteattr(self._plain(text), {"\r": "&#13;", "\n": "&#10;", "\t": "&#9;"})

    def _plain(self, text: str) -> str:
        plain, count = _NOT_XML.subn(_IN_PLACE, text)
        self.replaced += count
        return plain

    def text_equiv(self, line: ReadLine, prefix: str = "", *, dated: str = _NAMESPACE) -> str:
        """A TextEquiv, as the schema of a namespace has it."""
        year = _YEAR.search(dated)
        modern = year is None or year[1] >= _WITH_CONF
        text = self.text(line.text or "")
        conf = ""
        if modern and line.confidence is not None:
            conf = f' conf="{line.confidence:.4f}"'
        plain = "" if modern else f"<{prefix}PlainText>{text}</{prefix}PlainText>"
        unicode = f"<{prefix}Unicode>{text}</{prefix}Unicode>"
        return f"<{prefix}TextEquiv{conf}>{plain}{unicode}</{prefix}TextEquiv>"

    @property
    def notes(self) -> list[str]:
        if not self.replaced:
            return []
        return [f"characters that XML cannot hold are written as U+FFFD: {self.replaced}"]


def new_page(
    image: str,
    size: tuple[int, int],
    lines: Sequence[ReadLine],
    *,
    creator: str,
    when: datetime | None = None,
) -> WrittenPage:
    """PAGE XML of 2019-07-15 with all lines in one TextRegion, in their order.

    Points are whole pixels of the page: what lies beyond its edge is cut off. A region that has no points, or
    points that are no numbers, is left out and noted.

    image: what to call the page's image
    size: its width and height in pixels
    creator: the program and its version
    when: the time of writing; None: now
    """
    writer, time = _TextWriter(), _time(when)
    width, height = size
    drawn: list[str] = []
    corners: list[tuple[int, int]] = []
    notes: list[str] = []
    ids = {"region"}
    for at, line in enumerate(lines, 1):
        if not (points := _points(line.region, size)):
            notes.append(f"box {at} is left out, since it {problem(line.region.polygon) or 'has no points'}")
            continue
        corners += points
        name = _id(line.region.name, at, ids)
        baseline = _within(line.region.baseline, size)
        drawn += [
            f"      <TextLine id={writer.attribute(name)}>",
            f'        <Coords points="{_shown(points)}"/>',
            *([f'        <Baseline points="{_shown(baseline)}"/>'] if len(baseline) > 1 else []),
            *([f"        {writer.text_equiv(line)}"] if line.text is not None else []),
            "      </TextLine>",
        ]
    if drawn:
        (left, right), (top, bottom) = ((min(each), max(each)) for each in zip(*corners, strict=True))
        around = _shown([(left, top), (right, top), (right, bottom), (left, bottom)])
        drawn = [
            '    <TextRegion id="region">',
            f'      <Coords points="{around}"/>',
            *drawn,
            "    </TextRegion>",
        ]
    document = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<PcGts xmlns="{_NAMESPACE}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        f' xsi:schemaLocation="{_NAMESPACE} {_NAMESPACE}/pagecontent.xsd">',
        "  <Metadata>",
        f"    <Creator>{writer.text(creator)}</Creator>",
        f"    <Created>{time}</Created>",
        f"    <LastChange>{time}</LastChange>",
        "  </Metadata>",
        f'  <Page imageFilename={writer.attribute(image)} imageWidth="{width}" imageHeight="{height}">',
        *drawn,
        "  </Page>",
        "</PcGts>",
        "",
    ]
    return WrittenPage("\n".join(document).encode(), (*writer.notes, *notes))


def filled_page(document: bytes, lines: Sequence[ReadLine], *, when: datetime | None = None) -> WrittenPage:
    """A PAGE XML document with other texts; the module's docstring says what changes.

    document: `PageBoxes.document`
    lines: of the regions that were read from it, all of them and in their order
    when: the time of writing; None: now
    Raises BoxesInvalid for what is no such document.
    """
    root, data = parse_xml("the document", document.decode(), page_xml.KIND)
    page = page_xml.page_of("the document", root)
    found = page_xml.lines_of("the document", page)
    if len(found) != len(lines):
        raise BoxesInvalid("the document", f"has {len(found)} lines; {len(lines)} were read")
    prefix, _, _ = root.tag.rpartition(":")
    namespace = root.attributes.get(f"xmlns:{prefix}" if prefix else "xmlns", "")
    writer, edits = _TextWriter(), _Edits(data)
    texts: dict[int, ReadLine] = {}  # by where its element starts
    for element, line in zip(found, lines, strict=True):
        texts[element.start] = line
        edits.take_out(element, "Word", "TextEquiv")
        if line.text is not None and not element.is_closed_at_once:
            edits.put_in(element, writer.text_equiv(line, _prefix(element), dated=namespace))
    for region in page.below():
        if region.name != "TextRegion" or region.start in texts or region.first("TextEquiv") is None:
            continue
        edits.take_out(region, "TextEquiv")
        if (whole := _joined(region, texts)) is not None:
            edits.put_in(region, writer.text_equiv(whole, _prefix(region), dated=namespace))
    if (about := root.first("Metadata")) is not None and (changed := about.first("LastChange")) is not None:
        edits.replace_text(changed, _time(when))
    made = edits.made()
    if (declared := _DECLARED.match(made)) and declared[2].lower() != b"utf-8":
        made = made[: declared.start(2)] + b"UTF-8" + made[declared.end(2) :]
    return WrittenPage(made, tuple(writer.notes))


class _Edits:
    """Changes of a document, by offset."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.found: list[tuple[int, int, bytes]] = []  # from, to, what stands there then

    def take_out(self, element: Element, *names: str) -> None:
        """Children of these names, with the white space before them."""
        for child in element.children:
            if child.name in names:
                start = child.start
                while self.data[start - 1 : start].isspace():
                    start -= 1
                self.found.append((start, child.end, b""))

    def put_in(self, element: Element, text: str) -> None:
        """A TextEquiv at the place that the schemas give it, below what stands before it."""
        kept = [one for one in element.children if one.name not in ("Word", "TextEquiv")]
        before = [one for one in kept if one.name not in _behind(element)]
        at = max((one.end for one in before), default=element.opened)
        blank = at if not before else before[-1].start
        start = blank
        while self.data[start - 1 : start].isspace():
            start -= 1
        self.found.append((at, at, self.data[start:blank] + text.encode()))

    def replace_text(self, element: Element, text: str) -> None:
        if not element.is_closed_at_once and not element.children:
            end = self.data.rindex(b"<", element.opened, element.end)
            self.found.append((element.opened, end, text.encode()))

    def made(self) -> bytes:
        parts, at = [], 0
        for start, end, text in sorted(self.found, key=lambda edit: edit[:2]):
            parts += [self.data[at:start], text]
            at = max(at, end)
        return b"".join([*parts, self.data[at:]])


def _behind(element: Element) -> tuple[str, ...]:
    return _BEHIND_TEXT if element.name == "TextLine" else _BEHIND_TEXT[:1]


def _prefix(element: Element) -> str:
    return element.tag[: -len(element.name)]


def _joined(region: Element, texts: dict[int, ReadLine]) -> ReadLine | None:
    """The texts of a region's lines below each other; None where one is missing."""
    if any(child.name.endswith("Region") for child in region.children):
        return None
    lines = [texts.get(child.start) for child in region.children if child.name == "TextLine"]
    found = [line.text for line in lines if line is not None and line.text is not None]
    whole = _NOT_XML.sub(_IN_PLACE, "\n".join(found))  # those of the lines are counted already
    return ReadLine(Region(()), whole) if 0 < len(found) == len(lines) else None


def _time(when: datetime | None) -> str:
    return (when or datetime.now(UTC)).isoformat(timespec="seconds")


def _id(name: str, at: int, ids: set[str]) -> str:
    """A name as xsd:ID wants it, given to no other."""
    found, number = (name, 0) if _NAME.fullmatch(name) else (f"line_{at}", 0)
    while (one := f"{found}_{number}" if number else found) in ids:
        number += 1
    ids.add(one)
    return one


def _points(region: Region, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Whole pixels of a polygon on the page; [] where it has no points that are numbers."""
    if problem(region.polygon, size) is None and len(cut := _within(clipped(region.polygon, size), size)) > 2:
        return cut
    held = _within(region.polygon, size)
    return held * 2 if len(held) == 1 else held  # the schema asks for two


def _within(points: Sequence[Point], size: tuple[int, int]) -> list[tuple[int, int]]:
    """Points moved onto the page and rounded; of equal neighbours one."""
    if not points or not np.isfinite(points).all():
        return []
    moved = [(min(max(_round(x), 0), size[0]), min(max(_round(y), 0), size[1])) for x, y in points]
    return [one for at, one in enumerate(moved) if at == 0 or one != moved[at - 1]]


def _round(value: float) -> int:
    return math.floor(value + 0.5)


def _shown(points: Sequence[tuple[int, int]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)
