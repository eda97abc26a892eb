"""Image files in a folder, their texts in a file of labels."""

from __future__ import annotations

import csv
import io
import os
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TextIO

from crnn_deploy.datasets import MOST_LINE, DatasetInvalid, Kind, RecordInvalid, Sample
from crnn_deploy.files import LineTooLong, lines, open_regular, parse_json, read_regular

__all__ = ["UNUSABLE", "LabelledFiles", "characters_alphabet", "open_labels", "read_characters"]

UNUSABLE = "\ufffd"  # stands for a character that its file fails to give

_MOST_CHARACTERS = 2**24  # bytes of a character file
_MOST_JSON = 2**29  # bytes; all of it is read at once
_MOST_DIGITS = 9  # of an index
_SHOWN = 80  # characters of what a file has, in messages

_NAMES = {"file", "file_name", "filename", "filepath", "name", "path"}
_NAMES |= {"image", "image_path", "img", "img_path"}
_TEXTS = {"ground_truth", "gt", "label", "text", "transcription", "word", "words"}

Row = tuple[str, str]  # name of the image, text


class LabelledFiles:
    """Image files and their texts.

    All strings lie in one block of memory, about as large as the file of labels: millions of samples cost
    little, and worker processes that were forked share it.

    labels: the file that names them
    """

    def __init__(self, labels: str, folder: str, rows: Iterable[Row]) -> None:
        self._labels, self._folder = labels, folder
        data, ends = bytearray(), array("Q", [0])
        for string in chain.from_iterable(rows):
            data += string.encode()
            ends.append(len(data))
        self._data, self._ends = bytes(data), ends

    def __len__(self) -> int:
        return (len(self._ends) - 1) // 2

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        start, middle, end = self._ends[2 * index : 2 * index + 3]
        path = os.path.join(self._folder, self._data[start:middle].decode())
        return Sample(path, self._data[middle:end].decode(), path)

    def glance(self, index: int) -> str:
        sample = self[index]
        if not os.path.exists(sample.name):
            raise RecordInvalid(self._labels, sample.name, "is missing", "image missing", name=sample.name)
        return sample.text

    def files(self) -> Iterator[str]:
        yield self._labels
        yield from (self[at].name for at in range(len(self)))


def open_labels(path: str, kind: Kind, images: str | None, characters: str | None) -> LabelledFiles:
    """The images that a file of labels names; the arguments are those of `open_dataset`.

    Raises DatasetInvalid.
    """
    folder = os.path.dirname(path)
    if kind == "doctr":
        folder = os.path.join(folder, "images")
    rows: Iterator[Row]
    if kind == "indices":
        assert characters is not None
        rows = _indices(path, characters)
    elif kind == "doctr":
        rows = _doctr(path)
    elif kind in ("csv", "tsv"):
        rows = _table(path, "," if kind == "csv" else "\t")
    else:
        rows = ((name, text) for _, name, text in _lines(path, "\t" if kind == "tabs" else " "))
    try:
        dataset = LabelledFiles(path, folder if images is None else images, rows)
    except UnicodeEncodeError as error:  # JSON can say such a thing
        raise DatasetInvalid(path, f"{error.object[:_SHOWN]!r} holds half of a surrogate pair") from None
    if not len(dataset):
        raise DatasetInvalid(path, "no labels in it")
    return dataset


def read_characters(path: str) -> tuple[str, ...]:
    """The characters that the labels of 360CC are indexes into, one a line; the blank, line 0, is "".

    The file is UTF-8, or else GBK, as github.com/Sierkinhane/CRNN_Chinese_Characters_Rec has it
    (lib/dataset/txt/char_std_5990.txt). A line that is not one character in that encoding, of which that file
    has six, is `UNUSABLE`: it stands in a text where the character stood, and the others keep their indexes.
    Raises DatasetInvalid.
    """
    try:
        data = read_regular(path, _MOST_CHARACTERS)
    except OSError as error:
        raise DatasetInvalid(path, f"the character file cannot be read: {error.strerror}") from None
    try:
        encoding = "utf-8"
        data = data.decode("utf-8-sig").encode()
    except UnicodeDecodeError:
        encoding = "gbk"
    lines = [line.removesuffix(b"\r") for line in data.removesuffix(b"\n").split(b"\n")]
    if lines[0] != b"blank":
        raise DatasetInvalid(path, "line 0 of a character file says blank")
    return "", *(_character(line, encoding) for line in lines[1:])


def characters_alphabet(path: str) -> tuple[str, ...]:
    """The usable characters of `read_characters`, in their order. Raises DatasetInvalid."""
    return tuple(character for character in read_characters(path)[1:] if character != UNUSABLE)


def _character(line: bytes, encoding: str) -> str:
    text = line.decode(encoding, "replace")
    return text if len(text) == 1 else UNUSABLE


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """A text in UTF-8; only a line feed ends a line."""
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="\n") as file:
            yield file
    except LineTooLong as error:
        raise DatasetInvalid(path, f"{error}; it is no file of labels") from None
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except OSError as error:
        raise DatasetInvalid(path, f"cannot be read: {error.strerror}") from None


def _not_utf8(path: str) -> DatasetInvalid:
    return DatasetInvalid(path, "is not UTF-8; convert it, such as: iconv -f GBK -t UTF-8")


def _lines(path: str, separator: str) -> Iterator[tuple[int, str, str]]:
    """Number of each line that is not empty, and what stands before and after its first separator."""
    with _opened(path) as file:
        for number, line in enumerate(lines(file, MOST_LINE), 1):
            if line := line.removesuffix("\n").removesuffix("\r"):
                name, _, text = line.partition(separator)
                yield number, name, text


def _indices(path: str, characters: str) -> Iterator[Row]:
    table = read_characters(characters)
    for number, name, rest in _lines(path, " "):
        text = ""
        for item in rest.split():
            index = int(item) if item.isascii() and item.isdigit() and len(item) <= _MOST_DIGITS else 0
            if not 0 < index < len(table):
                raise DatasetInvalid(
                    path,
                    f"line {number}: {item[:_SHOWN]!r} is not an index from 1 to {len(table) - 1} "
                    f"({characters})",
                )
            text += table[index]
        yield name, text


def _table(path: str, delimiter: str) -> Iterator[Row]:
    """Rows of a CSV or TSV (RFC 4180), with a header that names its columns or with two columns."""
    with _opened(path) as file:
        reader = csv.reader(lines(file, MOST_LINE), delimiter=delimiter, strict=True)
        try:
            first = next((row for row in reader if row), [])
            columns = _columns(path, first)
            for row in reader if columns else chain([first], reader):
                if row and len(row) != len(first):
                    raise DatasetInvalid(
                        path,
                        f"line {reader.line_num} has {len(row)} fields, the first row has {len(first)}; "
                        "quote a text that holds the delimiter",
                    )
                if row:
                    name, text = columns or (0, 1)
                    yield row[name], row[text]
        except csv.Error as error:
            raise DatasetInvalid(
                path,
                f"line {reader.line_num}: {error}; quotes are doubled inside a quoted field (RFC 4180)"
                + (", or read the file as --kind tabs, without quoting" if delimiter == "\t" else ""),
            ) from None


def _columns(path: str, row: list[str]) -> tuple[int, int] | None:
    """Columns of name and text, when the first row of a table is a header."""
    header = [cell.strip().lower() for cell in row]
    names = [at for at, cell in enumerate(header) if cell in _NAMES]
    texts = [at for at, cell in enumerate(header) if cell in _TEXTS]
    if len(names) == len(texts) == 1:
        return names[0], texts[0]
    if not row or (len(row) == 2 and header[0] not in _NAMES):
        return None
    raise DatasetInvalid(
        path,
        f"its first row, {', '.join(row)[:_SHOWN]}, needs one column of {', '.join(sorted(_NAMES))} "
        f"and one of {', '.join(sorted(_TEXTS))}",
    )


def _doctr(path: str) -> Iterator[Row]:
    """github.com/mindee/doctr, references/recognition: {"img_1.jpg": "text", ...}."""
    try:
        texts = parse_json(read_regular(path, _MOST_JSON).decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except ValueError as error:
        raise DatasetInvalid(path, f"is not JSON: {error}") from None
    except OSError as error:
        raise DatasetInvalid(path, f"cannot be read: {error.strerror}") from None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise DatasetInvalid(path, 'is not an object of names and texts, {"img_1.jpg": "text", ...}')
    yield from texts.items()
