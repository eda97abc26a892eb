"""Things that are fetched from a store by many threads and given in order, in bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

__all__ = ["THREADS", "ByteBudget", "ahead"]

THREADS = 32
_AHEAD = 4 * THREADS  # things that are begun before they are asked for

Thing = TypeVar("Thing")
Fetched = TypeVar("Fetched")


def ahead(
    call: Callable[[Thing], Fetched], things: Iterable[Thing]
) -> Generator[tuple[Thing, Fetched], None, None]:
    """Each thing and what `call` gives for it, in order; an error of `call` is raised at its place."""
    remaining = iter(things)
    pool = ThreadPoolExecutor(THREADS, "prefetch")
    begun: deque[tuple[Thing, Future[Fetched]]] = deque()
    try:
        while True:
            for thing in islice(remaining, _AHEAD - len(begun)):
                begun.append((thing, pool.submit(call, thing)))
            if not begun:
                return
            thing, future = begun.popleft()
            yield thing, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class ByteBudget:
    """Bytes that wait in memory to be asked for. Who takes comes with its place, counted from 0.

    The one that is asked for next is never kept waiting, however large it is.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._next, self._closed = limit, 0, 0, False
        self._changed = threading.Condition()

    def take(self, place: int, size: int) -> None:
        """Wait until there is room."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or place <= self._next or self._used + size <= self._limit
            )
            self._used += size

    def give(self, size: int) -> None:
        """What came at the next place was handed on, and with it so many bytes."""
        with self._changed:
            self._used -= size
            self._next += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
