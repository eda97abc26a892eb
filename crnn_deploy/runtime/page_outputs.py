"""What is made of whole pages once their boxes are read: drawings, and PAGE XML."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import write
from crnn_deploy.regions.page_boxes import PageBoxes
from crnn_deploy.regions.written_page import ReadLine, WrittenPage, filled_page, new_page
from crnn_deploy.runtime.backends.installed import version_of
from crnn_deploy.runtime.drawing import NotDrawn, place, write_drawing
from crnn_deploy.runtime.images.pixels import MAX_PIXELS, Pixels
from crnn_deploy.runtime.page_reader import Page, PageBox
from crnn_deploy.runtime.records import Record

__all__ = ["PageNotWritten", "PageOutputs", "drawn_page"]

_COLOURS = {"ok": (60, 140, 30), "low-confidence": (0, 140, 230), "error": (40, 40, 210)}  # BGR
_SCALES = 0.3, 1.2  # of OpenCV's letters, which are 20 to 30 pixels high at 1


class PageNotWritten(CrnnDeployError):
    """A page that was read and whose PAGE XML could not be written."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is read and its PAGE XML is not written: {reason}")


class PageOutputs:
    """Collects the records of a page until its last box is read, and makes the page's files then.

    draw: folder of the drawings
    page_xml: folder of the PAGE XML files
    """

    def __init__(self, draw: Path | None, page_xml: Path | None, max_pixels: int = MAX_PIXELS) -> None:
        self._draw, self._page_xml, self._max_pixels = draw, page_xml, max_pixels
        self._records: list[Record] = []  # of the page whose boxes come now
        self._ended: list[tuple[Page, list[Record]]] = []  # pages whose files are to be made
        self._written: set[Path] = set()  # by this run

    def lacks(self, page: Page) -> bool:
        """Whether a page has no PAGE XML yet, where one is wanted."""
        return self._page_xml is not None and not os.path.lexists(place(page.path, self._page_xml, ".xml"))

    def add(self, box: PageBox, record: Record) -> None:
        """Take the next record."""
        self._records.append(record)
        if box.number is not None and box.number + 1 == len(box.page.regions):
            if box.page.size is not None:  # else it cannot be read, which its records say
                self._ended.append((box.page, self._records))
            self._records = []

    def make(self) -> tuple[list[str], list[str]]:
        """Make the files of the pages that have ended, whose records are written by then.

        What could not be made, and what is to be known of what was made, a line each.
        """
        failed: list[str] = []
        notes: list[str] = []
        for page, records in self._ended:
            if self._draw is not None:
                draw = partial(drawn_page, records=records)
                try:
                    write_drawing(page.path, self._draw, draw, self._max_pixels)
                except NotDrawn as error:
                    failed.append(str(error))
            if self._page_xml is not None:
                try:
                    notes += self._write_xml(page, records, place(page.path, self._page_xml, ".xml"))
                except PageNotWritten as error:
                    failed.append(str(error))
        self._ended = []
        return failed, notes

    def _write_xml(self, page: Page, records: Sequence[Record], target: Path) -> list[str]:
        """Raises PageNotWritten."""
        if target in self._written:  # the page was named twice
            return []
        if os.path.lexists(target):
            raise PageNotWritten(page.path, f"{target} is there and not written over; name another folder")
        try:
            written = _page_xml(page, records)
            write(target, written.document)
        except (CrnnDeployError, OSError) as error:
            raise PageNotWritten(page.path, str(error)) from None
        self._written.add(target)
        return [f"{target}: {note}" for note in written.notes]


def _page_xml(page: Page, records: Sequence[Record]) -> WrittenPage:
    lines = [
        ReadLine(region, record.text if record.error is None else None, record.confidence)
        for region, record in zip(page.regions, records, strict=True)
    ]
    assert isinstance(page.boxes, PageBoxes) and page.size is not None
    if page.boxes.document:
        return filled_page(page.boxes.document, lines)
    name = os.fsencode(os.path.basename(page.path)).decode(errors="replace")
    return new_page(name, page.size, lines, creator=f"crnn-deploy {version_of('crnn-deploy')}")


def drawn_page(pixels: Pixels, records: Sequence[Record]) -> NDArray[Any]:
    """A page (H, W) or (H, W, 3) BGR with its boxes, and beside it the texts in their places: (H, 2 W, 3).

    Green boxes were read, orange ones with a low confidence, red ones not. OpenCV's letters are ASCII: where
    a text has others, and in a box that could not be read, the number of the box stands, with a #.
    """
    page: NDArray[Any] = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR) if pixels.ndim == 2 else pixels.copy()
    texts = np.full_like(page, 255)
    for record in records:
        if not record.polygon or not np.isfinite(record.polygon).all():
            continue
        points = np.clip(np.rint(np.array(record.polygon)), -(2**15), 2**15).astype(np.int32)
        colour = _COLOURS[record.status]
        for side in (page, texts):
            cv2.polylines(side, [points.reshape(-1, 1, 2)], True, colour, 1, cv2.LINE_AA)
        plain = record.text.isascii() and record.text.isprintable()
        label = record.text if record.error is None and plain else f"#{record.box}"
        if label:
            _label(texts, label, points, colour)
    return np.hstack([page, texts])


def _label(drawn: NDArray[Any], label: str, points: NDArray[np.int32], colour: tuple[int, ...]) -> None:
    """A text in the middle of its box, as large as fits in."""
    (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    (wide, tall), _ = cv2.getTextSize(label, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    fitting = min((right - left) / max(1, wide), 0.6 * (bottom - top) / tall)
    scale = float(np.clip(fitting, *_SCALES))
    at = round((left + right - wide * scale) / 2), round((top + bottom + tall * scale) / 2)
    cv2.putText(drawn, label, at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, 1, cv2.LINE_AA)
