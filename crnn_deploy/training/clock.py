"""The time that a training may take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

__all__ = ["Clock", "Part"]

Part = Literal["first batch", "step", "validation", "save"]


class Clock:
    """Says what still fits, by what it took before.

    until: the end, as `time.monotonic` says it; None: there is none
    """

    def __init__(self, until: float | None) -> None:
        self._until = until
        self._longest: dict[Part, float] = {}

    @contextmanager
    def timed(self, part: Part) -> Iterator[None]:
        """The longest time of each part is remembered."""
        start = time.monotonic()
        yield
        self._longest[part] = max(self._longest.get(part, 0.0), time.monotonic() - start)

    def fits(self, part: Part) -> bool:
        """Whether a part can be done, and the training then be ended, before the time is over.

        What was never done counts as nothing. To end takes a save, and once more the wait for the first
        batch: a worker that draws images ends with its window.
        """
        if self._until is None:
            return True
        needed = sum(self._longest.get(one, 0.0) for one in (part, "save", "first batch"))
        return time.monotonic() + needed < self._until
