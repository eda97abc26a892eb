"""One record for each image: the formats of the output.

Records are bytes from here on: a file name need not be text, so it goes out as the bytes it came in as
(in JSON, where that is not allowed, as Python's surrogate escapes).
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from crnn_deploy.errors import CrnnDeployError, ReadFailed, printable, printable_json
from crnn_deploy.runtime.decoding.ctc import Alternative, Char, Text, Turn

if TYPE_CHECKING:
    from crnn_deploy.regions.region import Point

__all__ = [
    *("BOX_COLUMNS", "COLUMNS", "FORMATS", "MOST_BYTES", "Csv", "Format", "Jsonl", "Record", "Status"),
    "box_key",
]

Status = Literal["ok", "low-confidence", "error"]
COLUMNS = ("path", "text", "confidence", "status", "error")
BOX_COLUMNS = ("path", "box", "text", "confidence", "status", "error", "polygon")  # where pages have boxes
MOST_BYTES = 2**24  # of a record

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPE = str.maketrans(_ESCAPES)
_UNESCAPE = {escaped: plain for plain, escaped in _ESCAPES.items()}
# what spreadsheets take for the beginning of a formula, and the mark that keeps them from it
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "'")


@dataclass(frozen=True)
class Record:
    """What became of one image."""

    path: str
    status: Status
    text: str = ""
    confidence: float | None = None  # 0-1; None for an error
    error: str | None = None  # one line
    chars: tuple[Char, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    rotated: Turn | None = (
        None  # how the image was turned; None for an error, and where no turns were asked for
    )
    box: int | None = None  # place in the page's boxes, from 0; None for an image, and a page without boxes
    polygon: tuple[Point, ...] | None = None  # of the box: pixels of the page

    @property
    def key(self) -> str:
        """What tells this record from those of other images and boxes."""
        return box_key(self.path, self.box)

    @classmethod
    def of(
        cls,
        path: str,
        result: Text | CrnnDeployError,
        min_confidence: float = 0.0,
        *,
        with_chars: bool = True,
        box: int | None = None,
        polygon: tuple[Point, ...] | None = None,
    ) -> Record:
        """The record of a text, or of the error that stands in its place.

        with_chars: False leaves the characters out, which are built when first asked for
        box, polygon: of a page, where its boxes are read
        """
        if isinstance(result, Text) and not _is_finite(result, with_chars):
            result = ReadFailed(path, "its confidence is not a number; see the temperature in the manifest")
        if isinstance(result, CrnnDeployError):
            error = " ".join(str(result).splitlines())
            return cls(path, "error", error=error, box=box, polygon=polygon)
        status: Status = "ok" if result.confidence >= min_confidence else "low-confidence"
        chars = result.chars if with_chars else ()
        return cls(
            *(path, status, result.text, result.confidence, None, chars, result.alternatives, result.rotated),
            *(box, polygon),
        )


def box_key(path: str, box: int | None) -> str:
    """What tells the record of a page's box from others; no path has a NUL."""
    return path if box is None else f"{path}\0{box}"


def _is_finite(text: Text, with_chars: bool) -> bool:
    figures = [text.confidence, *(one.score for one in text.alternatives)]
    if with_chars:
        figures += [char.confidence for char in text.chars]
    return all(map(math.isfinite, figures))


class Format:
    """How records stand in a file: a header, then records that each end in a line end."""

    name: str
    spans_lines = False  # whether a line end between quotes is part of a record
    _left_out: tuple[str, ...] = ()
    knows_first = True  # whether a file's torn first record is told from the only line of somebody's file

    def __init__(
        self, *, show_chars: bool = False, nbest: bool = False, rotated: bool = False, boxes: bool = False
    ) -> None:
        self.show_chars, self.nbest, self.rotated, self.boxes = show_chars, nbest, rotated, boxes
        columns = (
            *(BOX_COLUMNS if boxes else COLUMNS),
            *["rotated"] * rotated,
            *["chars"] * show_chars,
            *["alternatives"] * nbest,
        )
        self.columns = tuple(column for column in columns if column not in self._left_out)

    @property
    def header(self) -> bytes:
        """The first line of a file, or nothing."""
        return b""

    def encode(self, record: Record) -> bytes:
        """A record's bytes, its line end included; one that is too long becomes an error."""
        data = self._encode(record)
        if len(data) <= MOST_BYTES:
            return data
        reason = f"its record has more than {MOST_BYTES:,} bytes; leave out characters or alternatives"
        error = f"{printable(record.path)[:200]}: {reason}"
        return self._encode(Record(record.path, "error", error=error, box=record.box))

    def shown(self, data: bytes) -> bytes:
        """Encoded records for a terminal: without what it would obey."""
        return printable(_decoded(data)).encode()

    def key(self, data: bytes) -> str:
        """The key of an encoded record. Raises ValueError for what `encode` has not written."""
        raise NotImplementedError

    def is_torn(self, data: bytes) -> bool:
        """Whether bytes without a record's end are the beginning of one, and of one alone."""
        raise NotImplementedError

    def _encode(self, record: Record) -> bytes:
        raise NotImplementedError

    def _cells(self, record: Record) -> list[str]:
        """A record's columns in words."""
        cells = {
            "path": record.path,
            "text": record.text,
            "confidence": "" if record.confidence is None else f"{record.confidence:.6f}",
            "status": record.status,
            "error": record.error or "",
        }
        if self.boxes:
            cells["box"] = "" if record.box is None else str(record.box)
            cells["polygon"] = "" if record.polygon is None else json.dumps(_plain_points(record.polygon))
        if self.rotated:
            cells["rotated"] = "" if record.rotated is None else str(record.rotated)
        if self.show_chars:
            cells["chars"] = " ".join(f"{char.char}:{char.confidence:.6f}" for char in record.chars)
        if self.nbest:  # texts may hold any sign, so JSON parts them
            found = [[one.text, round(one.score, 6)] for one in record.alternatives]
            cells["alternatives"] = json.dumps(found, ensure_ascii=False, allow_nan=False)
        return [cells[column] for column in self.columns]


def _plain_points(polygon: Iterable[Point]) -> list[list[float | None]]:
    """Points as JSON has them: whole numbers without a decimal point, and null for what is no number."""
    return [[_plain_number(value) for value in point] for point in polygon]


def _plain_number(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


@dataclass(frozen=True)
class _Syntax:
    """Patterns of what a table is made of."""

    cell: bytes
    torn_cell: bytes  # the beginning of one
    separator: bytes
    end: bytes
    torn_end: bytes


class _Table(Format):
    """Cells in a row."""

    syntax: _Syntax

    def __init__(self, **shown: bool) -> None:
        super().__init__(**shown)
        given = self.syntax
        statuses = "|".join(get_args(Status)).encode()
        number, digits = rb"(?:\d+\.\d{6})?+", rb"\d*+"
        known = {"confidence": number, "status": b"(?:" + statuses + b")", "box": b"(" + digits + b")"}
        begun = {"confidence": rb"[\d.]*+", "status": b"[a-z-]*+", "box": digits}
        cells = [known.get(column, given.cell) for column in self.columns]
        record = b"(" + cells[0] + b")" + b"".join(given.separator + cell for cell in cells[1:]) + given.end
        torn, after = given.torn_end, b""
        for column, cell in zip(reversed(self.columns), reversed(cells), strict=True):
            torn = b"(?:" + cell + after + torn + b"|" + begun.get(column, given.torn_cell) + b")"
            after = given.separator
        self._record, self._later, self._torn = map(re.compile, (record, b"\n" + record, torn))

    def key(self, data: bytes) -> str:
        found = self._record.fullmatch(data)
        if found is None:
            raise ValueError("other columns")
        path = self._plain(_decoded(found[1]))
        return box_key(path, int(found[2])) if self.boxes and found[2] else path

    def is_torn(self, data: bytes) -> bool:
        # a quote that is opened and not closed may have hidden whole records
        return self._torn.fullmatch(data) is not None and self._later.search(data) is None

    def _plain(self, cell: str) -> str:
        """What a cell says."""
        raise NotImplementedError


class Tsv(_Table):
    """Columns between tabs; inside them backslash, tab, LF and CR are `\\\\`, `\\t`, `\\n` and `\\r`."""

    name = "tsv"
    _cell = rb"[^\t\n\r\\]*+(?:\\[\\tnr][^\t\n\r\\]*+)*+"
    syntax = _Syntax(_cell, _cell + rb"\\?+", b"\t", b"\n", b"")

    @property
    def header(self) -> bytes:
        return _line(self.columns)

    def _plain(self, cell: str) -> str:
        return _unescaped(cell)

    def _encode(self, record: Record) -> bytes:
        return _line(self._cells(record))


class PlainText(Tsv):
    """Path, tab, text; the text of an error or a low confidence is empty. Escaped as in `Tsv`, no header.

    Turns are not shown, as statuses are not.
    """

    name = "text"
    knows_first = False
    _left_out = ("confidence", "status", "error", "polygon", "rotated")

    @property
    def header(self) -> bytes:
        return b""

    def _cells(self, record: Record) -> list[str]:
        cells = super()._cells(record)
        if record.status == "ok":
            return cells
        told = {"path", "box"}
        return [cell if column in told else "" for column, cell in zip(self.columns, cells, strict=True)]


class Csv(_Table):
    """RFC 4180, as Python's csv module writes it by default.

    safe: for spreadsheets: control characters and backslashes are escaped, as in `Tsv` or `\\x1b`, and a cell
        that would be a formula begins with an apostrophe, as does one that begins with an apostrophe itself
    """

    name = "csv"
    spans_lines = True
    _cell = rb'(?:"[^"]*+(?:""[^"]*+)*+"|[^",\r\n]*+)'
    syntax = _Syntax(_cell, _cell.replace(b'*+"|', b'*+"?+|'), b",", rb"\r\n", rb"\r?+")

    def __init__(self, *, safe: bool = False, **shown: bool) -> None:
        super().__init__(**shown)
        self.safe = safe

    @property
    def header(self) -> bytes:
        return self._row(self.columns)

    def shown(self, data: bytes) -> bytes:
        return super().shown(data.replace(b"\r\n", b"\n"))

    def _plain(self, cell: str) -> str:
        if cell.startswith('"'):
            cell = cell[1:-1].replace('""', '"')
        return _unescaped(cell.removeprefix("'")) if self.safe else cell

    def _encode(self, record: Record) -> bytes:
        cells = self._cells(record)
        return self._row(map(_safe, cells) if self.safe else cells)

    @staticmethod
    def _row(cells: Iterable[str]) -> bytes:
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerow(cells)
        return _encoded(buffer.getvalue())


class Jsonl(Format):
    """One JSON object on each line; the confidence has every digit, so it reads back to the same float."""

    name = "jsonl"

    _opening = b'{"path": "'
    _json = json.JSONEncoder(ensure_ascii=False, allow_nan=False)  # json.dumps would make one for each record

    def shown(self, data: bytes) -> bytes:
        return printable_json(_decoded(data)).encode()

    def key(self, data: bytes) -> str:
        try:
            values = json.loads(data, parse_constant=_refuse)
        except RecursionError:
            raise ValueError("nested") from None
        if not isinstance(values, dict) or tuple(values) != self.columns:
            raise ValueError("other keys")
        match values:
            case {
                "path": str(path),
                "text": str(),
                "confidence": None | int() | float(),
                "status": "ok" | "low-confidence" | "error",
                "error": None | str(),
            }:
                box = values.get("box")
                if box is None or type(box) is int:
                    return box_key(path, box)
        raise ValueError("other values")

    def is_torn(self, data: bytes) -> bool:
        return data.startswith(self._opening) or self._opening.startswith(data)

    def values(self, record: Record) -> dict[str, Any]:
        """A record as JSON has it, by column."""
        columns = BOX_COLUMNS if self.boxes else COLUMNS
        values: dict[str, Any] = {column: getattr(record, column) for column in columns}
        if record.polygon is not None and self.boxes:
            values["polygon"] = _plain_points(record.polygon)
        if self.rotated:
            values["rotated"] = record.rotated
        if self.show_chars:
            values["chars"] = [vars(char) for char in record.chars]
        if self.nbest:
            values["alternatives"] = [vars(one) for one in record.alternatives]
        return values

    def _encode(self, record: Record) -> bytes:
        line = self._json.encode(self.values(record)) + "\n"
        return line.encode(errors="backslashreplace")  # what is not text is \udc80 to \udcff in JSON too


FORMATS: dict[str, type[Format]] = {form.name: form for form in (PlainText, Tsv, Jsonl, Csv)}


def _line(cells: Iterable[str]) -> bytes:
    return _encoded("\t".join(cell.translate(_ESCAPE) for cell in cells) + "\n")


def _safe(cell: str) -> str:
    escaped = printable(cell.translate(_ESCAPE))
    return f"'{escaped}" if escaped.startswith(_FORMULA) else escaped


def _unescaped(cell: str) -> str:
    return re.sub(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|.)", _plain, cell) if "\\" in cell else cell


def _plain(match: re.Match[str]) -> str:
    code = match[1] or match[2]
    return chr(int(code, 16)) if code else _UNESCAPE[match[0]]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _decoded(data: bytes) -> str:
    return data.decode(errors="surrogateescape")
