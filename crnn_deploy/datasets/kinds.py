"""Which kind of labels a file or a folder holds, told from what stands in it."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from crnn_deploy.datasets import DatasetInvalid, Kind
from crnn_deploy.datasets.text_file import first_lines
from crnn_deploy.files import open_regular, parse_json

__all__ = ["Told", "delimiter_of", "kind_of", "labels_in"]

_LOOKED_AT = 20  # lines
_BEGINNING = 1000  # characters of a line that patterns see: names are shorter
_SUFFIXES: dict[str, Kind] = {
    **{".lmdb": "lmdb", ".mdb": "lmdb"},
    **{".csv": "csv", ".tsv": "tsv", ".json": "doctr", ".jsonl": "objects", ".ndjson": "objects"},
}
_LMDB_MAGIC = b"\xde\xc0\xef\xbe"  # of a little-endian machine, after the page header of 16 bytes
_LABELS = (".csv", ".json", ".jsonl", ".tsv", ".txt")
_EMBEDDED = (".parquet", ".arrow")
_IMAGES = ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp", "gif", "pgm", "ppm", "pbm")
_IMAGE = rf"[^,;|\t\"]+\.(?:{'|'.join(_IMAGES)})"
_ICDAR = re.compile(rf"\s*{_IMAGE}\s*,\s*\"", re.IGNORECASE)
_SCRIPTS = "Arabic|Latin|Chinese|Japanese|Korean|Bangla|Hindi|Symbols|Mixed|None"
_ICDAR_MLT = re.compile(rf"\s*{_IMAGE}\s*,\s*(?:{_SCRIPTS})\s*,", re.IGNORECASE)
_DELIMITED = re.compile(rf"\"?(?:{_IMAGE})\"?([,;|\t])", re.IGNORECASE)
_HEADER = re.compile(r"\"?(?:file_?name|image|path|img_path|image_path|name)\"?([,;|])", re.IGNORECASE)
_MJSYNTH = re.compile(r"(?:\S*/)?\d+_[^_/\s]+_(\d+)\.jpg(?: \1)?\Z", re.IGNORECASE)
_BOXES = re.compile(r"(?: *-?\d+(?:\.\d+)? *,){4} *\S")


class Told(NamedTuple):
    """A kind, and what to say where the labels could be of another."""

    kind: Kind
    note: str | None = None


def kind_of(path: str) -> Told:
    """The kind of a file of labels or an LMDB. Raises DatasetInvalid."""
    if os.path.isdir(path):
        return Told("lmdb")
    suffix = os.path.splitext(path)[1].lower()
    if suffix in _SUFFIXES:
        return Told(_SUFFIXES[suffix])
    try:
        with open_regular(path) as file:
            if file.read(20)[16:] == _LMDB_MAGIC:
                return Told("lmdb")
    except OSError as error:
        raise DatasetInvalid(path, f"cannot be read: {error.strerror}") from None
    found = first_lines(path, _LOOKED_AT)
    first = found[0] if found else ""
    if len(found) == 1 and "\r" in first:
        raise DatasetInvalid(path, "its lines end in CR alone; convert them: tr '\\r' '\\n' < FILE > NEW")
    begins = first[:_BEGINNING]
    if "\t" in first:
        plain = sum("\t" not in line for line in found)
        return Told("tabs", f"{plain} of its first {len(found)} lines have no tab" if plain else None)
    if _is_object(first) or re.match(r"\s*\[\s*(\{|$)", first):
        return Told("objects", "its lines are JSON")
    if _ICDAR.match(begins) or _ICDAR_MLT.match(begins):
        return Told("icdar", "its names end in a comma, as in ICDAR's files")
    if _DELIMITED.match(begins) or (_HEADER.match(begins) and " " not in begins.split(",")[0]):
        return Told("csv", "its first line has a delimiter after the name")
    if _BOXES.match(begins):
        raise DatasetInvalid(
            path,
            "line 1 gives corners of a box, as labels of text detection do; cut the words out, label each",
        )
    if found and all(map(_MJSYNTH.match, found)):
        return Told("mjsynth", "its texts stand in the names of the images, as in MJSynth's lists")
    tabs = sum("\t" in line for line in found)
    return Told("names", f"{tabs} of its first {len(found)} lines have a tab" if tabs else None)


def _is_object(line: str) -> bool:
    if not line.lstrip().startswith("{"):
        return False
    try:
        return isinstance(parse_json(line), dict)
    except ValueError:
        return False


def delimiter_of(first: str) -> str:
    """The delimiter of a table, told from its first line; a comma where nothing tells."""
    first = first[:_BEGINNING]
    if declared := re.fullmatch(r"\"?sep=(.)\"?", first.strip()):  # Excel's
        return declared[1]
    if named := _DELIMITED.match(first) or _HEADER.match(first):
        return named[1]
    counts = {delimiter: first.count(delimiter) for delimiter in ",;\t|"}
    return "," if counts[","] else max(counts, key=lambda delimiter: counts[delimiter])


def labels_in(folder: str) -> tuple[str, Told | None]:
    """The file of labels in a folder: the only one that can be, or the one called labels.

    Where texts lie beside images, the folder itself, and the kind `beside`. Raises DatasetInvalid.
    """
    names = sorted(os.listdir(folder))
    labels = [name for name in names if name.lower().endswith(_LABELS) and not name.endswith(".gt.txt")]
    named = [name for name in labels if name.lower().startswith("labels.")]
    stems = {stem(name) for name in names if name.lower().rpartition(".")[2] in _IMAGES}
    beside = [name for name in labels if name.endswith(".txt") and name[:-4] in stems]
    transcribed = any(name.endswith(".gt.txt") for name in names)
    if named or (len(labels) == 1 and not transcribed and not beside):
        note = "texts lie beside its images too; --kind beside reads these" if transcribed or beside else None
        path = os.path.join(folder, (named or labels)[0])
        if len(named) > 1:
            raise DatasetInvalid(folder, f"which of {', '.join(named)} holds the labels? Name the file")
        return path, None if note is None else Told(kind_of(path).kind, note)
    if transcribed:
        return folder, Told("beside", _besides(labels))
    if beside and len(beside) == len(labels):
        if len(beside) == 1 and _names_a_file(folder, beside[0]):
            return os.path.join(folder, beside[0]), None
        return folder, Told("beside", "its .txt files have the names of its images")
    if len(labels) > 1:
        raise DatasetInvalid(folder, f"which of {', '.join(labels)} holds the labels? Name the file")
    if labels:
        return os.path.join(folder, labels[0]), None
    if embedded := [name for name in names if name.endswith(_EMBEDDED)]:
        return os.path.join(folder, embedded[0]), Told("names")  # which its first bytes refuse
    raise DatasetInvalid(
        folder,
        f"no dataset in this folder: neither data.mdb nor labels ({', '.join(_LABELS)}) nor .gt.txt files "
        "beside images",
    )


def stem(name: str) -> str:
    """An image's name without its suffix, as its text has it: `a` of a.png, a.bin.png and a.nrm.png."""
    return re.sub(r"\.(bin|nrm|dew)$", "", name.rpartition(".")[0], flags=re.IGNORECASE)


def _besides(labels: list[str]) -> str | None:
    if not labels:
        return None
    return f"its .gt.txt files are read; it holds {', '.join(labels[:3])} too, which can be named"


def _names_a_file(folder: str, name: str) -> bool:
    """Whether the first line of a file begins with the name of a file beside it."""
    first = next(iter(first_lines(os.path.join(folder, name), 1)), "")
    begins = re.split(r"[\t ,;]", first)[0]
    return bool(begins) and os.path.isfile(os.path.join(folder, begins))
