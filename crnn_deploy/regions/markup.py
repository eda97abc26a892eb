"""XML of strangers as a tree: no DOCTYPE, no entities, bounded in depth and elements.

The tree remembers where its elements stand in the document, so that one can be changed and the rest kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from xml.parsers import expat

from crnn_deploy.errors import shortened
from crnn_deploy.regions.page_boxes import BoxesInvalid

__all__ = ["Element", "RootUnknown", "parse_xml"]

_MOST_ELEMENTS = 1_000_000  # a page of 100,000 lines has half of that; some 500 bytes of memory each
_TEXT = 4096  # characters that a name or a unit may have
_DEEPEST = 100  # a word of a region of a table of a page lies 8 deep
_TAG = re.compile(rb"""<[^"'>]*(?:"[^"]*"[^"'>]*|'[^']*'[^"'>]*)*>""")
_ENCODING = re.compile(r"""\A\s*<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z0-9._-]+)["']""")


class Element:
    """An element; offsets are bytes of the document in UTF-8."""

    __slots__ = ("attributes", "children", "end", "line", "opened", "start", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str], line: int, start: int, opened: int) -> None:
        self.tag = tag  # with its prefix
        self.attributes = attributes
        self.line = line
        self.start, self.opened, self.end = start, opened, opened  # of `<`, behind its `>`, behind all of it
        self.children: list[Element] = []
        self.text = (
            ""  # the first characters that stand directly in it, at least _TEXT where there are so many
        )

    @property
    def name(self) -> str:
        """The name without its prefix."""
        return self.tag.rpartition(":")[2]

    @property
    def is_closed_at_once(self) -> bool:
        """Whether it is written as <name/>."""
        return self.opened == self.end

    def first(self, name: str) -> Element | None:
        """The first child of a name."""
        return next((one for one in self.children if one.name == name), None)

    def below(self) -> Iterator[Element]:
        """All elements in it, in the order of the document."""
        waiting = self.children[::-1]
        while waiting:
            one = waiting.pop()
            yield one
            waiting += one.children[::-1]


class RootUnknown(BoxesInvalid):
    """A document of another kind."""

    def __init__(self, path: str, name: str) -> None:
        super().__init__(path, f"its root is {shortened(name)!r}")
        self.name = name


class _Refused(Exception):
    pass


class _Builder:
    def __init__(self, path: str, data: bytes, kinds: Mapping[str, frozenset[str]]) -> None:
        self.path, self.data, self.kinds = path, data, kinds
        self.closed: frozenset[str] = frozenset()
        self.parser = parser = expat.ParserCreate("utf-8")  # whatever the document says of itself
        parser.buffer_text = True
        parser.StartElementHandler = self.start
        parser.EndElementHandler = self.end
        parser.CharacterDataHandler = self.characters
        parser.StartDoctypeDeclHandler = self.doctype
        self.root: Element | None = None
        self.open: list[Element] = []
        self.depth = self.count = 0
        self.skipped = 0  # depth of the element whose inside is left out

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _Refused(f"its elements are nested deeper than {_DEEPEST}")
        if self.skipped:
            return
        self.count += 1
        if self.count > _MOST_ELEMENTS:
            raise _Refused(f"it has more than {_MOST_ELEMENTS:,} elements")
        at = self.parser.CurrentByteIndex
        found = _TAG.match(self.data, at)
        if found is None:
            raise _Refused("its tag has no end")
        one = Element(tag, attributes, self.parser.CurrentLineNumber, at, found.end())
        if self.open:
            self.open[-1].children.append(one)
        elif one.name in self.kinds:
            self.root, self.closed = one, self.kinds[one.name]
        else:
            raise RootUnknown(self.path, one.name)
        self.open.append(one)
        if one.name in self.closed:
            self.skipped = self.depth

    def end(self, tag: str) -> None:
        if not self.skipped or self.skipped == self.depth:
            self.skipped = 0
            one = self.open.pop()
            if self.data[one.opened - 2 : one.opened] != b"/>":
                one.end = self.data.index(b">", self.parser.CurrentByteIndex) + 1
        self.depth -= 1

    def characters(self, data: str) -> None:
        if not self.skipped and len(self.open[-1].text) < _TEXT:
            self.open[-1].text += data[:_TEXT]

    def doctype(self, *about: object) -> None:
        raise _Refused("it has a DOCTYPE, which may define entities; take it out")


def parse_xml(path: str, text: str, kinds: Mapping[str, frozenset[str]]) -> tuple[Element, bytes]:
    """The root of a document, and the document in UTF-8, to which its offsets belong.

    kinds: names of roots, and for each the elements whose inside is left out of the tree
    Raises BoxesInvalid, RootUnknown.
    """
    data = text.encode()
    declared = _ENCODING.match(text)
    if declared and not text.isascii() and declared[1].lower() not in ("utf-8", "utf8", "utf-16"):
        raise BoxesInvalid(
            path, f"says that it is {shortened(declared[1])} and is read as UTF-8 or UTF-16; convert it"
        )
    builder = _Builder(path, data, kinds)
    try:
        builder.parser.Parse(data, True)
    except expat.ExpatError as error:
        reason = expat.ErrorString(error.code) or "it is no XML"
        raise BoxesInvalid(path, f"line {error.lineno}: is not XML: {reason}") from None
    except _Refused as error:
        raise BoxesInvalid(path, f"line {builder.parser.CurrentLineNumber}: {error}") from None
    assert builder.root is not None  # expat asks for one
    return builder.root, data
