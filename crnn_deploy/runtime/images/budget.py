"""What threads, and processes that were forked for it, may hold together, such as pixels in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["MemoryBudget", "SharedBudget"]

_SMALL = 64  # a part of the whole that is not worth counting
_NOTHING = nullcontext()


class _Held:
    """A number."""

    value = 0


class SharedBudget:
    """What several processes that are forked hold of a budget together.

    Raises OSError where the system has no locks for several processes.
    """

    def __init__(self, context: BaseContext) -> None:
        self.held, self.first = context.RawValue("q", 0), context.Lock()
        self.room = context.Condition(context.Lock())


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
        self._held: Any = _Held()
        self._first: Any = Lock()  # of the one that waits for room
        self._room: Any = Condition(Lock())

    def join(self, shared: SharedBudget) -> None:
        """From now on the whole is that of all processes that join. No thread of this one may hold a part."""
        self._held, self._first, self._room = shared.held, shared.first, shared.room

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
