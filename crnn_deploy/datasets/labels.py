"""Image files in a folder, their texts in a file of labels."""

from __future__ import annotations

import csv
import os
import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

from crnn_deploy.datasets import MOST_LINE, DatasetInvalid, Kind, RecordInvalid, Sample
from crnn_deploy.datasets.json_file import NAMES, TEXTS, read_json
from crnn_deploy.datasets.kinds import ICDAR_SCRIPT, delimiter_of
from crnn_deploy.datasets.text_file import CARRIAGE_RETURNS, first_lines, opened_text
from crnn_deploy.files import lines, parse_json, read_regular

__all__ = ["UNUSABLE", "LabelledFiles", "characters_alphabet", "open_labels", "read_characters"]

UNUSABLE = "\ufffd"  # stands for a character that its file fails to give

_MOST_CHARACTERS = 2**24  # bytes of a character file
_MOST_DIGITS = 9  # of an index
_BEGINNING = 1000  # characters of a line that a pattern sees
_SHOWN = 80  # characters of what a file has, in messages

_DETECTED = re.compile(r"[\"'](?:transcription|points)[\"']\s*:")

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
        if "\\" in path and os.sep == "/" and not os.path.exists(path):  # labels written on Windows
            path = os.path.join(self._folder, self._data[start:middle].decode().replace("\\", "/"))
        return Sample(path, self._data[middle:end].decode(), path)

    def glance(self, index: int) -> str:
        sample = self[index]
        if not os.path.exists(sample.name):
            raise RecordInvalid(self._labels, sample.name, "is missing", "image missing", name=sample.name)
        return sample.text

    def files(self) -> Iterator[str]:
        yield self._labels
        yield from (self[at].name for at in range(len(self)))


def open_labels(
    path: str, kind: Kind, images: str | None, characters: str | None, *, sure: bool = True
) -> LabelledFiles:
    """The images that a file of labels names; the arguments are those of `open_dataset`.

    sure: the kind is the user's; a kind that was told may turn out to be another of JSON
    Raises DatasetInvalid.
    """
    folder = os.path.dirname(path)
    rows: Iterator[Row]
    if kind == "indices":
        assert characters is not None
        rows = _indices(path, characters)
    elif kind in ("doctr", "mmocr", "objects"):
        found, rows = read_json(path, kind if sure or kind == "objects" else None)
        if found == "doctr":
            folder = os.path.join(folder, "images")
    elif kind in ("csv", "tsv"):
        rows = _table(path, None if kind == "csv" else "\t")
    elif kind == "icdar":
        rows = _icdar(path)
    elif kind == "mjsynth":
        rows = _mjsynth(path)
    elif kind == "tabs":
        rows = _tabs(path)
    else:
        rows = ((name, text) for _, name, text in _lines(path, " "))
    try:
        dataset = LabelledFiles(path, folder if images is None else images, rows)
    except UnicodeEncodeError as error:  # JSON can say such a thing
        raise DatasetInvalid(path, f"{error.object[:_SHOWN]!r} holds half of a surrogate pair") from None
    if not len(dataset):
        raise DatasetInvalid(path, "no labels in it")
    if not sure and kind == "names" and not any(" " in line for _, line, _ in _lines(path, "\n")):
        raise DatasetInvalid(
            path,
            "no line has a space, and a text after it; say how to read it (--kind, docs/datasets.md)",
        )
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


def _lines(path: str, separator: str) -> Iterator[tuple[int, str, str]]:
    """Number of each line that is not empty, and what stands before and after its first separator."""
    with opened_text(path) as file:
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


def _tabs(path: str) -> Iterator[Row]:
    """Name, tab, text; PaddleOCR's may name several images of one text as a JSON list."""
    for number, name, text in _lines(path, "\t"):
        if text.lstrip().startswith("[") and _DETECTED.search(text):
            raise DatasetInvalid(
                path,
                f"line {number}: is a label of text detection, as PPOCRLabel's Label.txt has them; export "
                "the recognition results there (rec_gt.txt), or cut the boxes out and label each (infer "
                "--boxes reads them as they are)",
            )
        names = _name_list(name) if name.startswith("[") else None
        if names is not None and not (names and all(isinstance(one, str) for one in names)):
            raise DatasetInvalid(path, f'line {number}: needs names in its list, as in ["a.png", "b.png"]')
        yield from ((one, text) for one in ([name] if names is None else names))


def _name_list(name: str) -> list[Any] | None:
    """What a JSON list holds; None where it is another name."""
    try:
        names = parse_json(name)
    except ValueError:
        return None
    return names if isinstance(names, list) else None


def _icdar(path: str) -> Iterator[Row]:
    """`word_1.png, "text"` of ICDAR's Robust Reading Competitions; MLT has a script between them.

    A quote inside a text has a backslash before it. The first line says whether there are scripts.
    """
    scripts = ICDAR_SCRIPT.match(next(iter(first_lines(path, 1)), "")[:_BEGINNING]) is not None
    for number, name, rest in _lines(path, ","):
        if not name.strip() or not rest:
            raise DatasetInvalid(
                path, f'line {number}: is not a name, a comma and a text, such as a.png, "x"'
            )
        _, comma, after = rest.partition(",")
        if scripts and not comma:
            raise DatasetInvalid(path, f"line {number}: has no script and text, as line 1 has")
        text = after if scripts else rest
        if quoted := re.fullmatch(r'\s*"(.*)"\s*', text, re.DOTALL):
            text = re.sub(r"\\([\\\"])", r"\1", quoted[1])
        else:
            text = text.removeprefix(" ")
        yield name.strip(), text


def _mjsynth(path: str) -> Iterator[Row]:
    """`./2425/1/115_Lube_45484.jpg 45484`: the text stands in the image's name (MJSynth, Jaderberg 2014)."""
    for number, name, _ in _lines(path, " "):
        parts = re.split(r"[/\\]", name)[-1].split("_")
        if len(parts) < 3:
            raise DatasetInvalid(
                path, f"line {number}: {name[:_SHOWN]!r} has no text in its name, as 115_Lube_45484.jpg has"
            )
        yield name, "_".join(parts[1:-1])


def _table(path: str, delimiter: str | None) -> Iterator[Row]:
    """Rows of a CSV or TSV (RFC 4180), with a header that names its columns or with two columns.

    delimiter: None: told from the first line
    """
    first_line = next(iter(first_lines(path, 1)), "")
    delimiter = delimiter or delimiter_of(first_line)
    with opened_text(path) as file:
        source = lines(file, MOST_LINE)
        if first_line.strip().strip('"').startswith("sep="):  # Excel's line before the table
            next(source)
        raw: list[str] = []
        reader = csv.reader(_kept(source, raw), delimiter=delimiter, strict=True)
        try:
            first = next((row for row in reader if row), [])
            columns = _columns(path, first)
            raw.clear()
            easyocr = [cell.strip().lower() for cell in first] == ["filename", "words"]
            for row in reader if columns else chain([first], reader):
                if easyocr and len(row) > 2 and len(raw) == 1:  # its trainer splits at the first comma alone
                    row = raw[0].rstrip("\r\n").split(delimiter, 1)
                raw.clear()
                if not any(cell.strip() for cell in row):  # Excel writes rows of delimiters alone
                    continue
                if len(row) != len(first):
                    raise DatasetInvalid(
                        path,
                        f"line {reader.line_num} has {len(row)} fields, the first row has {len(first)}; "
                        f"quote a text that holds the delimiter {delimiter!r}"
                        + ("" if columns or delimiter != "," else ", or say --kind icdar"),
                    )
                name, text = columns or (0, 1)
                yield row[name], row[text]
        except csv.Error as error:
            if "new-line character" in str(error):
                raise DatasetInvalid(path, CARRIAGE_RETURNS) from None
            other = {"\t": "tabs, without quoting", ",": "icdar, with \\ before a quote"}.get(delimiter)
            raise DatasetInvalid(
                path,
                f"line {reader.line_num}: {error}; quotes are doubled inside a quoted field (RFC 4180)"
                + (f", or read the file as --kind {other}" if other else ""),
            ) from None


def _kept(source: Iterator[str], raw: list[str]) -> Iterator[str]:
    """The same lines, which are put into a list as they come."""
    for line in source:
        raw.append(line)
        yield line


def _columns(path: str, row: list[str]) -> tuple[int, int] | None:
    """Columns of name and text, when the first row of a table is a header."""
    header = [cell.strip().lower() for cell in row]
    names = [at for at, cell in enumerate(header) if cell in NAMES]
    texts = [at for at, cell in enumerate(header) if cell in TEXTS]
    if len(names) == len(texts) == 1:
        return names[0], texts[0]
    if not row or (len(row) == 2 and header[0] not in NAMES):
        return None
    raise DatasetInvalid(
        path,
        f"its first row, {', '.join(row)[:_SHOWN]}, needs one column of {', '.join(sorted(NAMES))} "
        f"and one of {', '.join(sorted(TEXTS))}",
    )
