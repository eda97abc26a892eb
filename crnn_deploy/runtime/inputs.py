"""What `infer` reads, which of it is left, and the records of its results: images (pages: `boxes_input`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from crnn_deploy.runtime.images import sources
from crnn_deploy.runtime.output_file import Done
from crnn_deploy.runtime.pipeline import Result
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.runtime.records import Record

__all__ = ["ImagesInput", "Input"]


class Input(Protocol):
    """What is read."""

    word: str  # for what has a record each, in messages
    reader: Any  # `pipeline.Reader` of its keys

    def total(self, done: Done) -> int | None:
        """How many records are to come; None where that takes too long to tell."""

    def left(self, done: Done) -> Iterator[Any]:
        """The keys of what has no record yet."""

    def records(self, results: Sequence[Result[Any]], with_chars: bool) -> list[Record]:
        """Records to be written."""

    def make_files(self) -> list[str]:
        """Make what stands beside the records that were written; what could not be made, a line each."""

    def not_made(self, count: int, read: int) -> str:
        """How many files could not be drawn or written; read: records without an error."""

    def notes(self) -> Iterator[str]:
        """What is to be known at the end."""


class ImagesInput:
    """Images, each with a record."""

    word = "images"

    def __init__(
        self,
        recognizer: Recognizer,
        paths: Sequence[str],
        listed: Iterable[bytes],
        *,
        min_confidence: float,
        draw: Path | None,
        max_pixels: int,
    ) -> None:
        self.reader = recognizer
        self._paths, self._listed, self._min_confidence = paths, listed, min_confidence
        self._draw, self._max_pixels = draw, max_pixels
        self._not_drawn: list[str] = []  # of the records that were made last

    def total(self, done: Done) -> int:
        return max(0, sum(1 for _ in sources.find(self._paths, ())) - len(done))

    def left(self, done: Done) -> Iterator[str]:
        return (path for path in sources.find(self._paths, self._listed) if not done.take(path))

    def records(self, results: Sequence[Result[str]], with_chars: bool) -> list[Record]:
        with_chars = with_chars or self._draw is not None
        made = [
            Record.of(path, result, self._min_confidence, with_chars=with_chars) for path, result in results
        ]
        if self._draw is not None:  # before the records are written: what has one is not drawn by --resume
            from crnn_deploy.runtime.drawing import draw_all

            self._not_drawn = draw_all(made, self._draw, self._max_pixels)
        return made

    def make_files(self) -> list[str]:
        return self._not_drawn

    def not_made(self, count: int, read: int) -> str:
        return f"{count} of {read} images that were read are not drawn"

    def notes(self) -> Iterator[str]:
        yield from ()
