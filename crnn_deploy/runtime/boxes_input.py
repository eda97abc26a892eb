"""What `infer --boxes` reads: pages; which of their boxes are left, and the records of results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

from crnn_deploy.errors import amount
from crnn_deploy.regions.boxes_file import Boxes
from crnn_deploy.regions.page_boxes import PageBoxes
from crnn_deploy.runtime.images import sources
from crnn_deploy.runtime.output_file import Done
from crnn_deploy.runtime.page_outputs import PageOutputs
from crnn_deploy.runtime.page_reader import PageBox, PageReader, pages_of
from crnn_deploy.runtime.pipeline import Result
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.runtime.records import Record

__all__ = ["BoxesInput"]

_SHOWN = 3  # names in a note


class BoxesInput:
    """Pages, each box of which has a record.

    say: is given what is to be known at once, a line each
    Raises BoxesInvalid.
    """

    word = "boxes"

    def __init__(
        self,
        recognizer: Recognizer,
        paths: Sequence[str],
        listed: Iterable[bytes],
        boxes: Path,
        *,
        min_confidence: float,
        draw: Path | None,
        page_xml: Path | None,
        max_pixels: int,
        say: Callable[[str], None],
    ) -> None:
        self.reader = PageReader(recognizer)
        self._boxes, self._paths, self._listed = Boxes(boxes), paths, listed
        self._min_confidence, self._say = min_confidence, say
        self._outputs = None if draw is page_xml is None else PageOutputs(draw, page_xml, max_pixels)
        self._recorded: set[PageBox] = set()  # those that are read again for the sake of their page's files
        self._empty = 0  # pages without boxes
        self._lone = False  # whether the boxes are those of a page that they do not name
        self._told: set[str] = set()

    def total(self, done: Done) -> int | None:
        if self._boxes.is_folder:  # its files are read when their pages' turn comes
            return None
        pages = pages_of(sources.find(self._paths, ()), self._of)
        return max(0, sum(len(page.each) for page in pages) - len(done))

    def left(self, done: Done) -> Iterator[PageBox]:
        for page in pages_of(sources.find(self._paths, self._listed), self._of):
            each = page.each
            recorded = [done.take(box.key) for box in each]
            self._empty += not each
            if all(recorded) and (self._outputs is None or not self._outputs.lacks(page)):
                continue
            for box, is_recorded in zip(each, recorded, strict=True):
                if is_recorded and self._outputs is None:
                    continue
                if is_recorded:
                    self._recorded.add(box)
                yield box

    def records(self, results: Sequence[Result[PageBox]], with_chars: bool) -> list[Record]:
        made: list[Record] = []
        for box, result in results:
            record = Record.of(
                box.page.path,
                result,
                self._min_confidence,
                with_chars=with_chars,
                box=box.number,
                polygon=box.polygon,
            )
            if self._outputs is not None:
                self._outputs.add(box, record)
            if box in self._recorded:
                self._recorded.remove(box)
            else:
                made.append(record)
        return made

    def make_files(self) -> list[str]:
        if self._outputs is None:
            return []
        failed, notes = self._outputs.make()
        for note in notes:
            self._say(note)
        return failed

    def not_made(self, count: int, read: int) -> str:
        return f"{amount(count, 'page was', 'pages were')} read and {'has' if count == 1 else 'have'} no file"

    def notes(self) -> Iterator[str]:
        if self._empty:
            pages = amount(self._empty, "page has", "pages have")
            yield f"{pages} no boxes in {self._boxes.path}, and so no records"
        if (unasked := self._boxes.unasked) and not self._lone:
            some = ", ".join(unasked[:_SHOWN]) + (", ..." if len(unasked) > _SHOWN else "")
            pages = amount(len(unasked), "page")
            yield f"{self._boxes.path} has boxes of {pages} that PAGE does not name: {some}"

    def _of(self, path: str) -> PageBoxes | None:
        found = self._boxes.of(path)
        if found is None and self._is_one_page and (found := self._boxes.only) is not None:
            self._lone = True
            self._say_once(f"{self._boxes.path} names the page {found.image}; its boxes are taken for {path}")
        if found is not None and found.note:
            self._say_once(f"{path}: {found.note}")
        return found

    @cached_property
    def _is_one_page(self) -> bool:
        """Whether the command line names one page alone."""
        return sources.STDIN not in self._paths and len([*islice(sources.find(self._paths, ()), 2)]) == 1

    def _say_once(self, note: str) -> None:
        if note not in self._told:
            self._told.add(note)
            self._say(note)
