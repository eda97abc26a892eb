"""What threads of this process may hold together, such as pixels in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Condition, Lock

__all__ = ["MemoryBudget"]

_SMALL = 64  # a part of the whole that is not worth counting
_NOTHING = nullcontext()


class MemoryBudget:
    """An amount of which each thread takes a part while it works.

    A thread waits until its part fits in; those that come later wait behind it. A part that is larger than
    the whole waits until it is the only one, so that every part fits at last. Parts below 1/64 are not
    counted and never wait. A thread that holds a part must not ask for another.
    """

    def __init__(self, whole: int) -> None:
        self._whole = whole
        self._clear()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._clear)  # what the parent's threads hold never returns

    def _clear(self) -> None:
        self._held = 0
        self._first = Lock()  # of the one that waits for room
        self._room = Condition(Lock())

    def part(self, amount: int) -> AbstractContextManager[None]:
        """Take a part, waiting until there is room for it, and give it back when the block ends."""
        return self._counted(min(amount, self._whole)) if amount > self._whole // _SMALL else _NOTHING

    @contextmanager
    def _counted(self, amount: int) -> Iterator[None]:
        with self._first, self._room:
            self._room.wait_for(lambda: self._held + amount <= self._whole)
            self._held += amount
        try:
            yield
        finally:
            with self._room:
                self._held = max(0, self._held - amount)  # a child that was forked meanwhile begins with 0
                self._room.notify_all()
