"""Any number of images through a recogniser: several at a time, results in order, memory flat."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import FrameType, TracebackType
from typing import Protocol

from crnn_deploy.ctc import Text
from crnn_deploy.errors import CrnnDeployError, ReadFailed

__all__ = ["Reader", "Result", "Stop", "cpus", "read_in_order"]

Result = tuple[str, Text | CrnnDeployError]  # the path of an image and what was read in it


def cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Reader(Protocol):
    """What is used of a Recognizer; called from several threads at once."""

    def try_read(self, images: Sequence[str], /) -> Sequence[Text | CrnnDeployError]: ...


def read_in_order(
    reader: Reader,
    paths: Iterable[str],
    *,
    chunk: int,
    workers: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[list[Result], None, None]:
    """Results of all paths in their order, at most `chunk` at a time.

    `workers` threads read a chunk each. `paths` is drawn on only as far as two chunks for each worker ahead
    of what was yielded. An image that cannot be read gives its error. Once `stopped()` is true, chunks that
    no thread has begun are dropped.
    """
    waiting: deque[Future[list[Result]]] = deque()
    remaining = iter(paths)
    pool = ThreadPoolExecutor(workers)
    try:
        while some := list(islice(remaining, chunk)):
            waiting.append(pool.submit(_read, reader, some))
            while waiting and (len(waiting) >= 2 * workers or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            if stopped():
                for future in reversed(waiting):  # threads begin them in order, so what is left is unbroken
                    future.cancel()
            if waiting[0].cancelled():
                break
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _read(reader: Reader, paths: list[str]) -> list[Result]:
    try:
        return list(zip(paths, reader.try_read(paths), strict=True))
    except Exception as error:
        if len(paths) == 1:
            known = isinstance(error, CrnnDeployError)
            reason = str(error) if known else f"unexpected {type(error).__name__}: {error}"
            return [(paths[0], ReadFailed(paths[0], reason))]
        return [result for path in paths for result in _read(reader, [path])]  # the others are not to blame


class Stop:
    """Ends a run in good order on Ctrl-C or SIGTERM; a second signal ends it at once.

    Inside `with`, the first signal ends the iteration of `until`, even while that waits for an input, and
    interrupts nothing else, so what is being written is written whole.
    """

    def __init__(self) -> None:
        self._requested = False
        self._waiting = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) != signal.SIG_IGN:  # as for a job in the background
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self._requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        for handled in self._before:
            signal.signal(handled, signal.SIG_DFL)
        if self._waiting:
            raise KeyboardInterrupt

    def until(self, paths: Iterable[str]) -> Iterator[str]:
        """The paths that come before a signal."""
        remaining = iter(paths)
        while not self._requested:
            try:
                self._waiting = True
                path = next(remaining)
                self._waiting = False
            except (KeyboardInterrupt, StopIteration):
                self._waiting = False
                return
            yield path
