"""Files of labels as text: their encoding, their lines, and what is no text at all."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TextIO

from crnn_deploy.datasets import MOST_LINE, DatasetInvalid
from crnn_deploy.files import LineTooLong, lines, open_regular

__all__ = ["CARRIAGE_RETURNS", "decoded", "first_lines", "opened_text"]

CARRIAGE_RETURNS = "its lines end in CR alone; convert them: tr '\\r' '\\n' < FILE > NEW"

_HEAD = 4096  # bytes that tell the encoding
_PARQUET = (
    "a table of Hugging Face with its images inside; write them as files beside a metadata.jsonl of "
    "file_name and text, such as with datasets.load_dataset and image.save"
)
_PICKLE = "a pickle, which is not loaded since it can run code; write its names and texts as CSV"
_MARKUP = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*<(?:\?xml|!doctype|[a-z][^\n<>]*>(?:[ \r]*(?:\n|\Z)|<|[^\n]*</))", re.IGNORECASE
)
_OTHERS = {  # what files begin with that people take for labels, and what to do
    b"PAR1": f"Parquet, {_PARQUET}",
    b"ARROW1": f"Arrow, {_PARQUET}",
    b"PK\x03\x04": "a ZIP file or an Excel workbook; unpack it, or save the sheet as CSV in UTF-8",
    b"\x1f\x8b": "packed with gzip; unpack it",
    b"MATLAB": "a MATLAB file; write its names and texts as CSV",
    b"\x89HDF": "an HDF5 file; write its images as files and its texts as CSV",
    b"SQLite format 3": "an SQLite database; write its names and texts as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls); save the sheet as CSV in UTF-8",
    b"BZh": "packed with bzip2; unpack it",
    b"\xfd7zXZ": "packed with xz; unpack it",
    b"\x28\xb5\x2f\xfd": "packed with Zstandard; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), _PICKLE),
    b"\x93NUMPY": "an array of NumPy; write names and texts as CSV",
    b"\x89PNG": "an image; name the file of labels or the folder",
    b"\xff\xd8\xff": "an image; name the file of labels or the folder",
    b"%PDF": "a PDF; name a file of labels",
}


@contextmanager
def opened_text(path: str) -> Iterator[TextIO]:
    """A text in UTF-8, or in UTF-16 with a byte order mark; only a line feed ends a line.

    Raises DatasetInvalid, for what is wrong while it is read too.
    """
    encoding = "utf-8-sig"
    try:
        with open_regular(path) as file:
            head = file.read(_HEAD)
            encoding = _encoding(path, head)
            file.seek(0)
            with io.TextIOWrapper(file, encoding=encoding, newline="\n") as text:
                yield text
    except LineTooLong as error:
        raise DatasetInvalid(path, f"{error}; it is no file of labels") from None
    except UnicodeDecodeError:
        raise _not_text(path, encoding, _undecodable(path)) from None
    except OSError as error:
        raise DatasetInvalid(path, f"cannot be read: {error.strerror}") from None


def decoded(path: str, data: bytes) -> str:
    """The text of a whole file. Raises DatasetInvalid."""
    encoding = _encoding(path, data[:_HEAD])
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise _not_text(path, encoding, _first_undecodable(data.split(b"\n"))) from None


def first_lines(path: str, most: int) -> list[str]:
    """The first lines that are not empty, without their ends. Raises DatasetInvalid."""
    with opened_text(path) as file:
        stripped = (line.rstrip("\r\n") for line in lines(file, MOST_LINE))
        return list(islice((line for line in stripped if line.strip()), most))


def _encoding(path: str, head: bytes) -> str:
    for beginning, name in _OTHERS.items():
        if head.startswith(beginning):
            raise DatasetInvalid(path, f"is no file of labels but {name}")
    if _MARKUP.match(head):
        raise DatasetInvalid(path, "is no file of labels but XML or HTML; write its names and texts as CSV")
    if head[257:262] == b"ustar":
        raise DatasetInvalid(
            path, "is no file of labels but a tar archive; call it .tar, or say --kind webdataset"
        )
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise DatasetInvalid(path, "is UTF-32; convert it: iconv -f UTF-32 -t UTF-8")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if len(head) >= 8 and (0 in head[:8]):
        order = "LE" if head[1:8:2].count(0) >= head[0:8:2].count(0) else "BE"
        raise DatasetInvalid(
            path,
            f"is not UTF-8: it holds NUL characters; if it is UTF-16, convert it: iconv -f UTF-16{order} "
            "-t UTF-8",
        )
    return "utf-8-sig"


def _undecodable(path: str) -> int:
    with open_regular(path) as file:
        return _first_undecodable(lines(file, MOST_LINE))


def _first_undecodable(found: Iterable[bytes]) -> int:
    """The number of the first line that is not UTF-8."""
    for number, line in enumerate(found, 1):
        try:
            line.decode()
        except UnicodeDecodeError:
            return number
    return 1


def _not_text(path: str, encoding: str, line: int) -> DatasetInvalid:
    if encoding == "utf-16":
        return DatasetInvalid(path, "begins as UTF-16 and is not; save it as UTF-8")
    return DatasetInvalid(
        path,
        f"line {line} is not UTF-8; convert the file: iconv -f GBK -t UTF-8, or from CP1252 or what it is in "
        "(from Excel: save as CSV UTF-8)",
    )
