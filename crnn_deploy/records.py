"""One record for each image: the formats of the output, and going on with what a stopped run left.

Records are bytes from here on: a file name need not be text, so it goes out as the bytes it came in as
(in JSON, where that is not allowed, as Python's surrogate escapes).
"""

from __future__ import annotations

import csv
import errno
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from crnn_deploy.ctc import Alternative, Char, Text
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import OutputExists, OutputUnwritable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "COLUMNS",
    "FORMATS",
    "Done",
    "Format",
    "OutputMismatch",
    "Record",
    "Status",
    "open_output",
]

Status = Literal["ok", "low-confidence", "error"]
COLUMNS = ("path", "text", "confidence", "status", "error")

_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPE = str.maketrans(_ESCAPES)
_UNESCAPE = {escaped: plain for plain, escaped in _ESCAPES.items()}


class OutputMismatch(CrnnDeployError, ValueError):
    """A file that was not written with the format and columns it is to be resumed with."""

    def __init__(self, path: Path, number: int, form: Format) -> None:
        super().__init__(
            f"{path}: record {number} is not {form.name} with the columns {', '.join(form.columns)}; "
            f"resume with the --format, --show-chars and --nbest that it was written with"
        )


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

    @classmethod
    def of(
        cls,
        path: str,
        result: Text | CrnnDeployError,
        min_confidence: float = 0.0,
        *,
        with_chars: bool = True,
    ) -> Record:
        """The record of a text, or of the error that stands in its place.

        with_chars: False leaves the characters out, which are built when first asked for
        """
        if isinstance(result, CrnnDeployError):
            return cls(path, "error", error=" ".join(str(result).splitlines()))
        status: Status = "ok" if result.confidence >= min_confidence else "low-confidence"
        chars = result.chars if with_chars else ()
        return cls(path, status, result.text, result.confidence, None, chars, result.alternatives)


class Format:
    """How records stand in a file: a header, then records that each end in a line end."""

    name: str
    _fixed: tuple[str, ...] = COLUMNS

    def __init__(self, *, show_chars: bool = False, nbest: bool = False) -> None:
        self.show_chars, self.nbest = show_chars, nbest
        self.columns = (*self._fixed, *["chars"] * show_chars, *["alternatives"] * nbest)

    @property
    def header(self) -> bytes:
        """The first line of a file, or nothing."""
        return b""

    @property
    def opening(self) -> bytes:
        """How every file begins, as far as that is known."""
        return self.header

    def encode(self, record: Record) -> bytes:
        """A record's bytes, its line end included."""
        raise NotImplementedError

    def is_whole(self, data: bytes) -> bool:
        """Whether lines from the start of a record on are the whole record."""
        return data.endswith(b"\n")

    def path(self, data: bytes) -> str:
        """The path of an encoded record. Raises ValueError for what `encode` has not written."""
        raise NotImplementedError

    def _cells(self, record: Record) -> list[str]:
        """A record's columns in words."""
        confidence = "" if record.confidence is None else f"{record.confidence:.6f}"
        cells = [record.path, record.text, confidence, record.status, record.error or ""]
        if self.show_chars:
            cells.append(" ".join(f"{char.char}:{char.confidence:.6f}" for char in record.chars))
        if self.nbest:  # texts may hold any sign, so JSON parts them
            found = [[one.text, round(one.score, 6)] for one in record.alternatives]
            cells.append(json.dumps(found, ensure_ascii=False))
        return cells


class Tsv(Format):
    """Columns between tabs; inside them backslash, tab, LF and CR are `\\\\`, `\\t`, `\\n` and `\\r`."""

    name = "tsv"

    @property
    def header(self) -> bytes:
        return _line(self.columns)

    def encode(self, record: Record) -> bytes:
        return _line(self._cells(record))

    def path(self, data: bytes) -> str:
        cells = _decoded(data).removesuffix("\n").split("\t")
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} columns")
        return re.sub(r"\\.", lambda match: _UNESCAPE[match[0]], cells[0])


class PlainText(Tsv):
    """Path, tab, text; the text of an error or a low confidence is empty. Escaped as in `Tsv`, no header."""

    name = "text"
    _fixed = ("path", "text")

    @property
    def header(self) -> bytes:
        return b""

    def _cells(self, record: Record) -> list[str]:
        if record.status != "ok":
            return [record.path, *[""] * (len(self.columns) - 1)]
        path, text, _, _, _, *more = super()._cells(record)
        return [path, text, *more]


class Csv(Format):
    """RFC 4180, as Python's csv module writes it by default."""

    name = "csv"

    @property
    def header(self) -> bytes:
        return self._row(self.columns)

    def encode(self, record: Record) -> bytes:
        return self._row(self._cells(record))

    def is_whole(self, data: bytes) -> bool:
        return data.endswith(b"\n") and data.count(b'"') % 2 == 0  # odd: a line end between quotes

    def path(self, data: bytes) -> str:
        try:
            [cells] = csv.reader(io.StringIO(_decoded(data), newline=""), strict=True)
        except csv.Error as error:
            raise ValueError(str(error)) from error
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} columns")
        return cells[0]

    @staticmethod
    def _row(cells: Iterable[str]) -> bytes:
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerow(cells)
        return _encoded(buffer.getvalue())


class Jsonl(Format):
    """One JSON object on each line; the confidence has every digit, so it reads back to the same float."""

    name = "jsonl"

    @property
    def opening(self) -> bytes:
        return b'{"path": "'

    def encode(self, record: Record) -> bytes:
        values: dict[str, Any] = {column: getattr(record, column) for column in COLUMNS}
        if self.show_chars:
            values["chars"] = [vars(char) for char in record.chars]
        if self.nbest:
            values["alternatives"] = [vars(one) for one in record.alternatives]
        line = json.dumps(values, ensure_ascii=False) + "\n"
        return line.encode(errors="backslashreplace")  # what is not text is \udc80 to \udcff in JSON too

    def path(self, data: bytes) -> str:
        values = json.loads(data)
        if (
            not isinstance(values, dict)
            or tuple(values) != self.columns
            or not isinstance(values["path"], str)
        ):
            raise ValueError("other keys")
        return values["path"]


FORMATS: dict[str, type[Format]] = {form.name: form for form in (PlainText, Tsv, Jsonl, Csv)}


def _line(cells: Iterable[str]) -> bytes:
    return _encoded("\t".join(cell.translate(_ESCAPE) for cell in cells) + "\n")


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _decoded(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


class Done:
    """Which paths have a record already, and how many, in 24 bytes for each."""

    def __init__(self, paths: Iterable[str] = ()) -> None:
        digests = np.fromiter(map(self._digest, paths), dtype="S16")
        self._digests, self._left = np.unique(digests, return_counts=True)

    def __len__(self) -> int:
        return int(self._left.sum())

    def take(self, path: str) -> bool:
        """Whether one more record of this path is there; it counts as taken from then on."""
        if not len(self._digests):
            return False
        digest = self._digest(path)
        at = self._digests.searchsorted(digest)
        if at == self._digests.searchsorted(digest, side="right") or not self._left[at]:
            return False
        self._left[at] -= 1
        return True

    @staticmethod
    def _digest(path: str) -> bytes:
        return hashlib.blake2b(_encoded(path), digest_size=16).digest()


def open_output(path: Path, form: Format, *, resume: bool) -> tuple[BinaryIO, Done]:
    """A file to append records to, and the paths it has already.

    Without `resume` the file must be new. With it, a file that is there is read through, and a record at its
    end that a killed run has not finished is cut off. No other run may write to the file until it is closed
    (where the system has advisory locks).
    Raises OutputExists, OutputUnwritable, OutputMismatch.
    """
    kept = resume and path.exists()
    try:
        stream: BinaryIO = open(path, "r+b" if kept else "xb")  # noqa: SIM115
    except FileExistsError:
        raise OutputExists(path) from None
    except OSError as error:
        raise OutputUnwritable(path, error.strerror or str(error)) from None
    try:
        _lock(stream, path)
        written = _Written(path, form, stream if kept else io.BytesIO())
        done = Done(written)
        if kept:
            stream.truncate(written.end)
        stream.seek(written.end)
        if not written.end:
            stream.write(form.header)
    except BaseException:
        stream.close()
        raise
    return stream, done


def _lock(stream: BinaryIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputUnwritable(path, "another run is writing to it") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # not every file system has locks
            raise OutputUnwritable(path, error.strerror or str(error)) from None


class _Written:
    """Paths of the whole records in a file; once they are read, `end` is where the last one ends."""

    def __init__(self, path: Path, form: Format, stream: BinaryIO) -> None:
        self.path, self.form, self.stream = path, form, stream
        self.end = 0

    def __iter__(self) -> Iterator[str]:
        data, number = b"", 0
        for line in self.stream:
            data += line
            if not self.form.is_whole(data):
                continue
            if self.end or not self.form.header:
                number += 1
                yield self._path(data, number)
            elif data != self.form.header:
                raise OutputMismatch(self.path, 1, self.form)
            self.end += len(data)
            data = b""
        # a torn beginning may be cut off, a file of another kind must not be; text has nothing to know it by
        opening = self.form.opening
        torn = opening and (data.startswith(opening) or opening.startswith(data))
        if data and not self.end and not torn:
            raise OutputMismatch(self.path, 1, self.form)

    def _path(self, data: bytes, number: int) -> str:
        try:
            return self.form.path(data)
        except (ValueError, KeyError):
            raise OutputMismatch(self.path, number, self.form) from None
