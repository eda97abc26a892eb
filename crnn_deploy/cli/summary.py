"""The line at the end of a run over images: how many, how fast, and which text is the least sure."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from crnn_deploy.cli.say import bars_are_hidden, say

if TYPE_CHECKING:
    from crnn_deploy.runtime.records import Record

__all__ = ["Summary"]


class Summary:
    """Counts records from the moment on that it is made.

    word: for what has a record each
    """

    def __init__(self, word: str) -> None:
        self._word = word
        self.count = self.failed = 0
        self._began = time.monotonic()
        self._least: tuple[float, str, int | None] | None = None  # confidence, path and box

    def add(self, records: Iterable[Record]) -> None:
        for record in records:
            self.count += 1
            self.failed += record.error is not None
            if record.text and record.confidence is not None:
                found = record.confidence, record.path, record.box
                self._least = (
                    found if self._least is None else min(self._least, found, key=lambda one: one[0])
                )

    def tell(self) -> None:
        """Say it on stderr; where that is no terminal, only how many images failed, if any."""
        if not bars_are_hidden():
            say(self._line(time.monotonic() - self._began), err=True)
        elif self.failed:
            say(f"{self.failed} of {self.count} {self._word} failed", err=True)

    def _line(self, seconds: float) -> str:
        rate = f"{self.count / max(seconds, 1e-9):,.1f}"
        line = f"{self.count - self.failed:,} {self._word} read, {self.failed:,} failed, {rate} per second"
        if self._least is None:
            return line
        confidence, path, box = self._least
        place = path if box is None else f"{path}: box {box}"
        return f"{line}; least sure: {place} ({confidence:.2f})"
