"""Which kind of labels a file or a folder holds, told from what stands in it."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from crnn_deploy.datasets import DatasetInvalid, Kind
from crnn_deploy.datasets.json_file import NAMES, TEXTS
from crnn_deploy.datasets.shards import INDEX, NOT_WHOLE, read_index
from crnn_deploy.datasets.text_file import CARRIAGE_RETURNS, first_lines
from crnn_deploy.files import open_regular, parse_json
from crnn_deploy.stores.store import open_store

__all__ = [
    "ICDAR_SCRIPT",
    "IMAGES",
    "NO_LABELS",
    "Told",
    "delimiter_of",
    "kind_of",
    "labels_in",
    "packed_shards",
    "stem",
    "transcriptions",
]

_LOOKED_AT = 20  # lines
_BEGINNING = 1000  # characters of a line that patterns see: names are shorter
_SUFFIXES: dict[str, Kind] = {
    **{".lmdb": "lmdb", ".mdb": "lmdb"},
    **{
        ".tar": "webdataset",
        ".csv": "csv",
        ".tsv": "tsv",
        ".json": "doctr",
        ".jsonl": "objects",
        ".ndjson": "objects",
    },
}
_LMDB_MAGIC = b"\xde\xc0\xef\xbe"  # of a little-endian machine, after the page header of 16 bytes
_LABELS = (".csv", ".json", ".jsonl", ".tsv", ".txt")
_EMBEDDED = (".parquet", ".arrow")
NO_LABELS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}  # Hugging Face's
NO_LABELS |= {"license.txt", "readme.txt", "requirements.txt", INDEX}
_PPOCRLABEL = {"Label.txt", "fileState.txt"}  # boxes and states, beside rec_gt.txt
_SHOWN = 3  # folders, in messages
IMAGES = ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp", "gif", "pgm", "ppm", "pbm")
_IMAGE = rf"[^,;|\t\"]+\.(?:{'|'.join(IMAGES)})"
_ICDAR = re.compile(rf"\s*{_IMAGE}\s*,\s*\"", re.IGNORECASE)
_SCRIPTS = "Arabic|Latin|Chinese|Japanese|Korean|Bangla|Hindi|Symbols|Mixed|None"
_ICDAR_BARE = re.compile(rf"\s*{_IMAGE}\s*,\s+[^\s\"]", re.IGNORECASE)
ICDAR_SCRIPT = re.compile(rf"\s*{_IMAGE}\s*,\s*(?:{_SCRIPTS})\s*,", re.IGNORECASE)
_DELIMITED = re.compile(rf"\"?(?:{_IMAGE})\"?([,;|\t])", re.IGNORECASE)
_MJSYNTH = re.compile(r"(?:\S*[/\\])?\d+_[^_/\s]+_(\d+)\.jpg(?: \1)?\Z", re.IGNORECASE)
_IAM = re.compile(r"[a-z]\d\d-\d{3}\w*(?:-\d\d){1,2} (?:ok|err) \d+ ")
_NUMBERS = re.compile(r"\S+(?: \d+){2,}\s*\Z")
_SEPARATED = re.compile(r"\S+ (\||;|:|::|=|=>|->|,) ")
_ATTACHED = re.compile(rf"{_IMAGE}(:|=|=>|->) ?[^\s\\\\/]", re.IGNORECASE)
_BOX_COLUMNS = {"bbox", "box", "polygon", "points", "xmin", "x_min", "x1", "x0", "left"}
_BOXES = re.compile(r"(?: *-?\d+(?:\.\d+)? *,){4} *\S|(?:\d+ ){4}\"")


class Told(NamedTuple):
    """A kind, and what to say where the labels could be of another."""

    kind: Kind
    note: str | None = None


def kind_of(path: str) -> Told:
    """The kind of a file of labels or an LMDB. Raises DatasetInvalid."""
    if os.path.isdir(path):
        return Told("lmdb")
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".csv":
        return _csv([line[:_BEGINNING] for line in first_lines(path, _LOOKED_AT)])
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
        raise DatasetInvalid(path, CARRIAGE_RETURNS)
    if "\t" in first:
        if _is_header(first.split("\t")):
            return Told("tabs", "its first line is read as a name and a text; --kind tsv reads a header")
        plain = sum("\t" not in line for line in found)
        if plain:
            return Told("tabs", f"{plain} of its first {len(found)} lines have no tab")
        if all(line.count("\t") > 1 for line in found):
            return Told("tabs", "its lines have more tabs; all after the first is the text")
        return Told("tabs", _kept(found, "\t"))
    if re.match(r"\s*\[\s*(\{|$)", first) or _is_object(first, one=len(found) == 1):
        return Told("objects", "its lines are JSON")
    begins = [line[:_BEGINNING] for line in found]
    if re.match(r"\s*\{\s*([\"']|$)", first):
        return Told("doctr", "it is JSON")
    if _is_icdar(begins, found):
        return Told("icdar", "its names end in a comma, as in ICDAR's files")
    if begins and (_DELIMITED.match(begins[0]) or _header_delimiter(begins[0])):
        return Told("csv", "its first line has a delimiter after the name")
    if begins and _BOXES.match(begins[0]):
        raise DatasetInvalid(
            path,
            "line 1 gives corners of a box, as labels of text detection do; cut the words out and label each "
            "(infer --boxes reads them as they are)",
        )
    if begins and all(map(_MJSYNTH.match, begins)):
        return Told("mjsynth", "its texts stand in the names of the images, as in MJSynth's lists")
    return _names(path, begins)


def _names(path: str, found: Sequence[str]) -> Told:
    """The kind that is left. Raises DatasetInvalid for what would give wrong texts in silence."""
    if any(map(_IAM.search, found)) and (found[0].startswith("#") or _IAM.match(found[0])):
        raise DatasetInvalid(
            path,
            "is a list of IAM, with boxes and tags before the text; write a file of name, tab and text, with "
            "names such as a01/a01-000u/a01-000u-00-00.png",
        )
    marks = {mark[1] if (mark := _SEPARATED.match(line) or _ATTACHED.match(line)) else "" for line in found}
    if len(found) > 1 and len(marks) == 1 and marks != {""}:
        raise DatasetInvalid(
            path,
            f"has {marks.pop()!r} between names and texts; write a tab instead, or, where it belongs to the "
            "texts, say --kind names",
        )
    if found and all(map(_NUMBERS.match, found)):
        return Told(
            "names",
            "its texts are numbers; where they are indexes into a character file, --characters names that",
        )
    if path.lower().endswith(".gt.txt") and len(found) == 1:
        folder, name = os.path.split(path)
        if not _names_a_file(folder, name):
            raise DatasetInvalid(path, "holds the text of one image; give the folder that it lies in")
    tabs = sum("\t" in line for line in found)
    if tabs:
        return Told("names", f"{tabs} of its first {len(found)} lines have a tab")
    return Told("names", _kept(found, " "))


def _kept(found: Sequence[str], separator: str) -> str | None:
    """What stands around all texts and is kept, where another tool may take it away."""
    texts = [line.partition(separator)[2] for line in found]
    if len(texts) > 1 and all(text.startswith(" ") for text in texts):
        return "its texts begin with a space, which is kept"
    if len(texts) > 1 and all(re.fullmatch(r"\".*\"", text) for text in texts):
        return "its texts stand in quotes, which are kept"
    return None


def _csv(found: Sequence[str]) -> Told:
    """Of a file that is called .csv: ICDAR's lines have a space between comma and quote, which no CSV has."""
    if found and all(map(_ICDAR.match, found)) and re.match(r"[^\"]*,\s+\"", found[0]):
        return Told("icdar", "a space stands between comma and quote, as in ICDAR's files")
    if found and all(map(_ICDAR_BARE.match, found)):
        return Told("csv", "its texts begin with a space, which is kept; --kind icdar passes it over")
    cells = re.split(r"[,;\t|]", found[0]) if found else []
    if _is_header(cells) and _BOX_COLUMNS & {cell.strip().strip('"').lower() for cell in cells}:
        return Told(
            "csv", "it has columns of boxes, which are not cut out: its images must be the words alone"
        )
    return Told("csv")


def _is_icdar(begins: Sequence[str], found: Sequence[str]) -> bool:
    """Whether lines that begin with a name and a comma are ICDAR's, and not those of a CSV.

    begins: the beginnings of the lines that were found
    """
    if not begins:
        return False
    if ICDAR_SCRIPT.match(begins[0]) or all(map(_ICDAR_BARE.match, begins)):
        return True
    if not _ICDAR.match(begins[0]):
        return False
    if any(re.match(r"[^\"]*,\s+\"", line) for line in begins):
        return True
    try:
        return any(len(row) != 2 for row in csv.reader(found, strict=True) if row)
    except csv.Error:
        return True


def _is_header(cells: Sequence[str]) -> bool:
    named = [cell.strip().strip('"').lower() for cell in cells]
    return sum(cell in NAMES for cell in named) == sum(cell in TEXTS for cell in named) == 1


def _header_delimiter(first: str) -> str | None:
    """The delimiter of a line that is a header."""
    return next((mark for mark in ",;|\t" if _is_header(first.split(mark))), None)


def _is_object(line: str, *, one: bool) -> bool:
    """Whether a line is an object; the only one of a file must be that of an image, and not the whole."""
    if not line.lstrip().startswith("{"):
        return False
    try:
        found = parse_json(line)
    except ValueError:
        return False
    return isinstance(found, dict) and (not one or _is_header([*found]))


def delimiter_of(first: str) -> str:
    """The delimiter of a table, told from its first line; a comma where nothing tells."""
    first = first[:_BEGINNING]
    if declared := re.fullmatch(r"\"?sep=(.)\"?", first.strip()):  # Excel's
        return declared[1]
    if named := _DELIMITED.match(first):
        return named[1]
    if header := _header_delimiter(first):
        return header
    counts = {delimiter: first.count(delimiter) for delimiter in ",;\t|"}
    return "," if counts[","] else max(counts, key=lambda delimiter: counts[delimiter])


def labels_in(folder: str) -> tuple[str, Told | None]:
    """The file of labels in a folder: the only one that can be, or the one called labels.

    Where texts lie beside images, the folder itself, and the kind `beside`. Raises DatasetInvalid.
    """
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise DatasetInvalid(folder, f"cannot be read: {error.strerror}") from None
    texts = transcriptions(names)
    labels = [
        name
        for name in names
        if name.lower().endswith(_LABELS) and name not in texts and name.lower() not in NO_LABELS
    ]
    if "rec_gt.txt" in labels:
        labels = [name for name in labels if name not in _PPOCRLABEL]
    named = [name for name in labels if name.lower().startswith("labels.")]
    stems = {stem(name) for name in names if _is_image(name)}
    beside = [name for name in labels if name.lower().endswith(".txt") and name[:-4] in stems]
    if named or (len(labels) == 1 and not texts and not beside):
        note = "texts lie beside its images too; --kind beside reads these" if texts or beside else None
        path = os.path.join(folder, (named or labels)[0])
        if len(named) > 1:
            raise DatasetInvalid(folder, f"which of {', '.join(named)} holds the labels? Name the file")
        return path, None if note is None else Told(kind_of(path).kind, note)
    if texts:
        return folder, Told("beside", _besides(labels))
    if beside and len(beside) == len(labels):
        if len(beside) == 1 and _names_a_file(folder, beside[0]):
            return os.path.join(folder, beside[0]), None
        return folder, Told("beside", "its .txt files have the names of its images")
    if len(labels) > 1:
        raise DatasetInvalid(folder, f"which of {', '.join(labels)} holds the labels? Name the file")
    if any(name.lower().endswith(".tar") for name in names):
        return folder, Told("webdataset")
    if embedded := [name for name in names if name.endswith(_EMBEDDED)]:
        return os.path.join(folder, embedded[0]), Told("names")  # which its first bytes refuse
    return _deeper(folder, any(map(_is_image, names)))


def packed_shards(folder: str) -> Told | None:
    """What the index in a folder names, LMDBs or tars; None where there is none. Raises DatasetInvalid."""
    if not os.path.isfile(os.path.join(folder, INDEX)):
        return None
    store, path = open_store(folder)
    index = read_index(store, path)
    if index.packing is not None and not index.packing.whole:
        raise DatasetInvalid(folder, NOT_WHOLE)
    return Told("lmdb" if any(one.name.endswith(".lmdb") for one in index.shards) else "webdataset")


def _deeper(folder: str, images: bool) -> tuple[str, Told]:
    """Texts beside images in the folders of a folder, as tesstrain looks for them. Raises DatasetInvalid."""
    holding: list[str] = []
    for above, _, names in os.walk(folder):
        if transcriptions(names):
            return folder, Told("beside", "the .gt.txt files in its folders are read")
        if above != folder and ("data.mdb" in names or any(map(_holds_labels, names))):
            holding.append(os.path.relpath(above, folder))
        if len(holding) > _SHOWN:
            break
    reason = (
        f"no dataset in this folder: neither data.mdb nor labels ({', '.join(_LABELS)}) nor .gt.txt files "
        "beside images"
    )
    if holding:
        more = " and others" if len(holding) > _SHOWN else ""
        reason += f"; {', '.join(sorted(holding[:_SHOWN]))}{more} in it may be datasets: name each by itself"
    elif images:
        reason += "; texts in the names of images are not read: write a file of name, tab and text"
    raise DatasetInvalid(folder, reason)


def transcriptions(names: Iterable[str]) -> set[str]:
    """Those names that end in .gt.txt, in any case."""
    return {name for name in names if name.lower().endswith(".gt.txt")}


def _is_image(name: str) -> bool:
    return name.lower().rpartition(".")[2] in IMAGES


def _holds_labels(name: str) -> bool:
    return name.lower().endswith((*_LABELS, *_EMBEDDED, ".tar")) and name.lower() not in NO_LABELS


def stem(name: str) -> str:
    """An image's name without its suffix, as its text has it: `a` of a.png, a.bin.png and a.raw.png."""
    return re.sub(r"\.(bin|nrm|raw|dew)$", "", name.rpartition(".")[0], flags=re.IGNORECASE)


def _besides(labels: list[str]) -> str | None:
    if not labels:
        return None
    return f"its .gt.txt files are read; it holds {', '.join(labels[:3])} too, which can be named"


def _names_a_file(folder: str, name: str) -> bool:
    """Whether the first line of a file begins with the name of a file beside it."""
    first = next(iter(first_lines(os.path.join(folder, name), 1)), "")
    begins = re.split(r"[\t ,;]", first)[0]
    return bool(begins) and os.path.isfile(os.path.join(folder, begins))
