"""Labels in JSON: docTR's object of names and texts, objects one by one, and mmocr's `data_list`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from crnn_deploy.datasets import MOST_LINE, DatasetInvalid
from crnn_deploy.datasets.text_file import decoded, first_lines, opened_text
from crnn_deploy.files import lines, parse_json, read_regular

__all__ = ["NAMES", "TEXTS", "read_json"]

NAMES = {"file", "file_name", "filename", "filepath", "name", "path"}
NAMES |= {"image", "image_name", "image_path", "img", "img_name", "img_path"}
TEXTS = {"ground_truth", "gt", "identity", "label", "labels", "text", "transcription", "word", "words"}

_MOST_JSON = 2**29  # bytes; all of it is read at once
_SHOWN = 80  # characters of what a file has, in messages
_DOCTR = 'is not an object of names and texts, {"img_1.jpg": "text", ...}'

JsonKind = Literal["doctr", "mmocr", "objects"]
Row = tuple[str, str]

_CUT = "cut the words out and label each (infer --boxes reads them as they are)"


def read_json(path: str, kind: str | None) -> tuple[JsonKind, Iterator[Row]]:
    """Which of the kinds of JSON a file holds, and names and texts.

    kind: what it shall hold; None: what it does
    Raises DatasetInvalid, and while rows are read.
    """
    if kind == "objects" and not _is_list(path):
        return "objects", _of_lines(path)
    try:
        data = read_regular(path, _MOST_JSON)
    except OSError as error:
        raise DatasetInvalid(path, f"cannot be read: {error.strerror}") from None
    try:
        whole = parse_json(decoded(path, data))
    except ValueError as error:
        if isinstance(error, DatasetInvalid):
            raise
        if kind is None and _has_lines(path):
            return "objects", _of_lines(path)
        raise DatasetInvalid(path, f"is not JSON: {error}") from None
    if isinstance(whole, dict) and "data_list" in whole and kind in (None, "mmocr"):
        return "mmocr", _mmocr(path, whole["data_list"])
    if kind == "mmocr":
        raise DatasetInvalid(path, 'is not of mmocr 1.x, {"metainfo": ..., "data_list": [...]}')
    if isinstance(whole, list) and whole and all(isinstance(one, dict) for one in whole) and kind != "doctr":
        return "objects", _objects(path, ((f"item {at}", one) for at, one in enumerate(whole)))
    if isinstance(whole, dict) and kind is None and _is_one_object(whole):
        return "objects", _objects(path, [("line 1", whole)])
    if not isinstance(whole, dict) or not all(isinstance(text, str) for text in whole.values()):
        raise DatasetInvalid(path, f"{_DOCTR}{_known(whole)}")
    return "doctr", iter(whole.items())


def _is_list(path: str) -> bool:
    return next(iter(first_lines(path, 1)), "").lstrip().startswith("[")


def _has_lines(path: str) -> bool:
    """Whether the first line is an object by itself."""
    try:
        return isinstance(parse_json(next(iter(first_lines(path, 1)), "")), dict)
    except ValueError:
        return False


def _is_one_object(whole: Mapping[str, Any]) -> bool:
    """JSON lines of a single line: {"filename": "a.png", "text": "x"} is no set of names and texts."""
    keys = {key.lower() for key in whole}
    return len(whole) >= 2 and bool(keys & NAMES) and bool(keys & TEXTS)


def _known(whole: Any) -> str:
    """What another tool's JSON is, and what to do."""
    if isinstance(whole, dict):
        if "annotations" in whole or "anns" in whole:
            return f"; it is COCO's, of text detection: {_CUT}"
        if any(isinstance(value, dict) and "polygons" in value for value in whole.values()):
            return "; it is docTR's of text detection, with polygons: cut the words out, and label each"
        if "metainfo" in whole:
            return "; mmocr's has a data_list"
        if "shapes" in whole:
            return f"; it has shapes, as labels of text detection: {_CUT}"
        if "_via_img_metadata" in whole:
            return "; it is VIA's, of text detection: cut the words out, and label each"
        lists = [value for value in whole.values() if isinstance(value, list)]
        if any(isinstance(one, dict) and "transcription" in one for value in lists for one in value):
            return (
                "; it has a list for each image, as LSVT and ArT have: cut the words out, and write the "
                "text of each alone"
            )
    return ""


def _of_lines(path: str) -> Iterator[Row]:
    yield from _objects(path, _parsed_lines(path))


def _parsed_lines(path: str) -> Iterator[tuple[str, Any]]:
    with opened_text(path) as file:
        for number, line in enumerate(lines(file, MOST_LINE), 1):
            if line.strip():
                try:
                    yield f"line {number}", parse_json(line)
                except ValueError as error:
                    raise DatasetInvalid(path, f"line {number}: is not JSON: {error}") from None


def _objects(path: str, found: Iterable[tuple[str, Any]]) -> Iterator[Row]:
    """One object for each image, such as mmocr 0.x's {"filename": "a.png", "text": "x"}."""
    keys: tuple[str, str] | None = None
    for place, one in found:
        if not isinstance(one, dict):
            raise DatasetInvalid(path, f'{place}: is not an object, such as {{"filename": ..., "text": ...}}')
        if keys is None:
            keys = _keys(path, place, one)
        yield _row(path, place, one.get(keys[0]), one.get(keys[1]), keys)


def _keys(path: str, place: str, one: Mapping[str, Any]) -> tuple[str, str]:
    names = [key for key in one if key.lower() in NAMES]
    texts = [key for key in one if key.lower() in TEXTS]
    if len(names) == len(texts) == 1:
        return names[0], texts[0]
    raise DatasetInvalid(
        path,
        f"{place}: its keys, {', '.join(one)[:_SHOWN]}, need one of {', '.join(sorted(NAMES))} "
        f"and one of {', '.join(sorted(TEXTS))}",
    )


def _row(path: str, place: str, name: Any, text: Any, keys: tuple[str, str]) -> Row:
    if isinstance(name, dict):
        raise DatasetInvalid(
            path, f"{place}: {keys[0]!r} holds the image itself; write the images as files and name these"
        )
    for key, value in zip(keys, (name, text), strict=True):
        if not isinstance(value, str):
            what = "is missing" if value is None else f"is {type(value).__name__}, not a text in quotes"
            raise DatasetInvalid(path, f"{place}: {key!r} {what}")
    return name, text


def _mmocr(path: str, found: Any) -> Iterator[Row]:
    """github.com/open-mmlab/mmocr 1.x: {"img_path": "a.png", "instances": [{"text": "x"}]}."""
    if not isinstance(found, list):
        raise DatasetInvalid(path, "its data_list is not a list")
    for at, one in enumerate(found):
        instances = one.get("instances") if isinstance(one, dict) else None
        if not isinstance(instances, list) or not all(isinstance(each, dict) for each in instances):
            raise DatasetInvalid(path, f"data_list {at}: has no list of instances")
        if len(instances) != 1 or {"polygon", "bbox"} & instances[0].keys():
            raise DatasetInvalid(
                path,
                f"data_list {at}: has {len(instances)} instances, as labels of text detection have; "
                "recognition has one, with a text",
            )
        yield _row(
            path, f"data_list {at}", one.get("img_path"), instances[0].get("text"), ("img_path", "text")
        )
