"""Which format a file of boxes has, told by what is in it."""

from __future__ import annotations

import re
from typing import Any

from crnn_deploy.errors import shortened
from crnn_deploy.files import parse_json
from crnn_deploy.regions import alto, page_xml, table
from crnn_deploy.regions.coco import read_coco
from crnn_deploy.regions.icdar import is_icdar, read_icdar
from crnn_deploy.regions.labelme import read_labelme
from crnn_deploy.regions.markup import RootUnknown, parse_xml
from crnn_deploy.regions.paddle import is_paddle, read_paddle, read_paddle_json
from crnn_deploy.regions.page_boxes import BoxesInvalid, PageBoxes
from crnn_deploy.regions.text import json_of, numbered_lines, read_text

__all__ = ["FORMATS_OF_BOXES", "pages_in"]

FORMATS_OF_BOXES = (
    "ICDAR text lines, PaddleOCR labels, COCO JSON, labelme JSON, PAGE XML, ALTO XML, a TSV with a header, "
    "what infer --boxes writes"
)
_TOTAL_TEXT = re.compile(r"\s*x:\s*\[\[")


def pages_in(path: str) -> list[PageBoxes]:
    """All pages of a file. Raises BoxesInvalid."""
    text = read_text(path)
    lines = numbered_lines(text)
    _, line = next(lines, (1, ""))  # the first that says something
    if line.lstrip().startswith("<"):
        return [_of_xml(path, text)]
    if is_paddle(line):
        return list(read_paddle(path, text))
    if line.lstrip()[:1] in ("{", "["):
        return _of_json(path, text, line)
    if table.header_of(line, "\t") is not None:
        return table.read_tsv(path, text)
    if table.header_of(line, ",") is not None:
        return table.read_csv(path, text)
    if not line or is_icdar(line):
        return [read_icdar(path, text)]
    if _TOTAL_TEXT.match(line):
        raise BoxesInvalid(
            path, "has x: [[...]], y: [[...]] of Total-Text; write x1,y1,...,xn,yn,text instead"
        )
    raise _unknown(path, f"it begins with {shortened(line)!r}")


def _unknown(path: str, what: str) -> BoxesInvalid:
    return BoxesInvalid(path, f"has no form of boxes that is known: {what}; known are {FORMATS_OF_BOXES}")


def _of_xml(path: str, text: str) -> PageBoxes:
    try:
        root, document = parse_xml(path, text, {**page_xml.KIND, **alto.KIND})
    except RootUnknown as error:
        raise _unknown(
            path, f"its root is {shortened(error.name)!r}, neither PcGts (PAGE) nor alto"
        ) from None
    if root.name == "alto":
        return alto.read_alto(path, root)
    return page_xml.read_page_xml(path, root, document)


def _of_json(path: str, text: str, line: str) -> list[PageBoxes]:
    if table.is_row(_parsed(line)):
        return table.read_rows(path, text)
    whole = json_of(path, text)
    if isinstance(whole, dict):
        if "images" in whole and "annotations" in whole:
            return list(read_coco(path, whole))
        if "shapes" in whole:
            return [read_labelme(path, whole)]
        if "dt_polys" in whole:
            return [read_paddle_json(path, whole)]
        raise _unknown(path, f"its keys are {shortened(', '.join(whole))}")
    if isinstance(whole, list) and whole and isinstance(whole[0], dict) and "image_id" in whole[0]:
        raise BoxesInvalid(
            path, "is COCO's list of results, which names no files; write it into annotations, beside images"
        )
    raise _unknown(path, "it is a list of JSON")


def _parsed(line: str) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return None
