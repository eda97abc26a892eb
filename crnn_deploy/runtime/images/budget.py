"""What threads, and processes that were forked for it, may hold together, such as pixels in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["MemoryBudget"]

_SMALL = 64  # a part of the whole that is not worth counting
_NOTHING = nullcontext()


class _Held:
    """A number."""

    value = 0


class MemoryBudget:
    """An amount of which each thread takes a part while it works.

    A thread waits until its part fits in; those that come later wait behind it. A part that is larger than
    the whole waits until it is the only one, so that every part fits at last. Parts below 1/64 are not
    counted and never wait. A thread that holds a part must not ask for another.
    """

    def __init__(self, whole: int) -> None:
        self._whole, self._shared = whole, False
        self._clear()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._clear)  # what the parent's threads hold never returns

    def _clear(self) -> None:
        if self._shared:
            return
        self._held: Any = _Held()
        self._first: Any = Lock()  # of the one that waits for room
        self._room: Any = Condition(Lock())

    def share(self, context: BaseContext) -> None:
        """From now on the whole is that of this process and those that it forks, all together.

        No thread may hold a part. Raises OSError where the system has no locks for several processes.
        """
        if not self._shared:
            held, first, room = context.RawValue("q", 0), context.Lock(), context.Condition(context.Lock())
            self._held, self._first, self._room, self._shared = held, first, room, True

    def part(self, amount: int) -> AbstractContextManager[None]:
        """Take a part, waiting until there is room for it, and give it back when the block ends."""
        return self._counted(min(amount, self._whole)) if amount > self._whole // _SMALL else _NOTHING

    @contextmanager
    def _counted(self, amount: int) -> Iterator[None]:
        with self._first, self._room:
            self._room.wait_for(lambda: self._held.value + amount <= self._whole)
            self._held.value += amount
        try:
            yield
        finally:
            with self._room:
                # a child that was forked meanwhile begins with 0
                self._held.value = max(0, self._held.value - amount)
                self._room.notify_all()
