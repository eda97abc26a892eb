"""Any number of images through processes that share a recogniser's network: results in order, memory flat.

Python lets one thread of a process run at a time, and a small network leaves so little to native code that
two threads read hardly more than one. Each process here reads for itself, with one thread.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from itertools import chain, islice
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.batching import Groups
from crnn_deploy.runtime.decoding.ctc import Alternative, Char, Text, Turn
from crnn_deploy.runtime.images.pixels import share_memory
from crnn_deploy.runtime.order import InOrder, Result, Taken
from crnn_deploy.runtime.pipeline import MOST_COLUMNS, Reader, failure, read_each, read_in_order

__all__ = ["ReadingStopped", "read_in_processes"]

_FEW = 2  # batches; fewer images are read by threads
_BATCHES_IN_WINDOW = 64  # for each process
_BATCHES_AT_ONCE = 8  # images in so many are handed to a process at a time
_BATCHES_GIVEN = 8  # images in so many batches are given at once
_SLICE = 0.1  # seconds of work after which a process gives what it has and leaves the rest to all
_PATIENCE = 0.7  # seconds that what has begun may still take once the run is stopped
_TURN = 0.2  # seconds after which the parent looks whether the run is stopped
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of linux/prctl.h


class ReadingStopped(CrnnDeployError, RuntimeError):
    """A process that reads images has ended before its time."""

    exit_code = 1

    def __init__(self, first: object, last: object, status: int | None) -> None:
        how = f"signal {-status}" if status is not None and status < 0 else f"exit code {status}"
        super().__init__(
            f"a process that read images has ended ({how}); it had images from {first} to {last}. Signal 9 "
            "most likely means that memory was short; fewer --workers need less of it"
        )


def read_in_processes(
    reader: Reader[str, Any],
    paths: Iterable[str],
    *,
    batch: int,
    workers: int,
    chars: bool = True,
    stopped: Callable[[], bool] = lambda: False,
) -> Generator[list[Result[str]], None, None]:
    """Results of all paths in their order, some batches at a time, as of `pipeline.read_in_order`.

    chars: False leaves out the characters of texts, which takes less time than to make and to send them
    Threads read where there are too few images to share, or where the system has no locks for processes.
    Raises ReadingStopped.
    """
    remaining = iter(paths)
    first = [*islice(remaining, _FEW * batch)]
    everything = chain(first, remaining)
    context = get_context("fork")
    try:
        share_memory(context)
        is_stopped = context.RawValue("b", 0)
    except (OSError, ImportError):
        first = []
    if len(first) < _FEW * batch:
        yield from read_in_order(reader, everything, batch=batch, workers=workers, stopped=stopped)
        return
    processes = _Processes(reader, batch, chars, workers, is_stopped)
    order = InOrder(everything, _BATCHES_IN_WINDOW * batch * workers)
    try:
        yield from processes.results(order, stopped)
    finally:
        processes.end()


class _Processes:
    """The processes of one reading; another one is started when all are at work and there is more to do."""

    def __init__(
        self, reader: Reader[str, Any], batch: int, chars: bool, workers: int, is_stopped: Any
    ) -> None:
        self._reader, self._batch, self._chars, self._workers = reader, batch, chars, workers
        self._is_stopped = is_stopped  # shared by all
        self._all: list[_ReadingProcess] = []

    def results(
        self, order: InOrder[str], stopped: Callable[[], bool]
    ) -> Generator[list[Result[str]], None, None]:
        """Results in order, some batches at a time. Raises ReadingStopped."""
        left: deque[Taken[str]] = deque()
        until = math.inf
        while True:
            if stopped():
                self._is_stopped.value = 1
                until = min(until, time.monotonic() + _PATIENCE)
            else:
                self._hand_out(order, left)
            busy = {one.connection: one for one in self._all if one.handed is not None}
            if not busy or time.monotonic() > until:
                break
            for connection in wait([*busy], _TURN):
                assert isinstance(connection, Connection)
                reply = busy[connection].reply()
                if reply.left:
                    left.append(reply.left)
                order.add({place: _unpacked(result) for place, result in reply.results.items()})
            if len(order.ready) >= _BATCHES_GIVEN * self._batch:
                yield order.give()
        if order.ready:
            yield order.give()

    def end(self) -> None:
        self._is_stopped.value = 1
        for one in self._all:
            one.end()

    def _hand_out(self, order: InOrder[str], left: deque[Taken[str]]) -> None:
        """Give every process something to do that has nothing, as long as there is something."""
        idle = [one for one in self._all if one.handed is None]
        while idle or len(self._all) < self._workers:
            # in small parts at first, so that a few images are shared among all processes
            most = self._batch * (_BATCHES_AT_ONCE if order.taken >= _BATCHES_IN_WINDOW * self._batch else 1)
            some = left.popleft() if left else order.take(most)
            if not some:
                break
            (idle.pop() if idle else self._started()).hand(some)
        for one in idle:
            if one.waiting:
                one.hand([])

    def _started(self) -> _ReadingProcess:
        context = get_context("fork")
        ours, theirs = context.Pipe()
        others = [ours, *(one.connection for one in self._all)]
        process = context.Process(
            target=_read,
            args=(self._reader, self._batch, self._chars, theirs, others, self._is_stopped),
            daemon=True,
        )
        process.start()
        theirs.close()
        self._all.append(_ReadingProcess(process, ours))
        return self._all[-1]


class _ReadingProcess:
    """A process that reads, as its parent knows it."""

    def __init__(self, process: BaseProcess, connection: Connection[Any, Any]) -> None:
        self.process, self.connection = process, connection
        self.handed: Taken[str] | None = None  # what it is at; None where it waits for something to do
        self.waiting: Taken[str] = []  # images that it has prepared and not read

    def hand(self, taken: Taken[str]) -> None:
        """Images to read; none: read those of the batch that has waited longest."""
        self.handed = taken
        self._talk(lambda: self.connection.send(taken))

    def reply(self) -> _Reply:
        reply: _Reply = self._talk(self.connection.recv)
        handed, self.handed = self.handed or [], None
        gone = {place for place, _ in reply.left} | reply.results.keys()
        self.waiting = [one for one in (*self.waiting, *handed) if one[0] not in gone]
        return reply

    def _talk(self, function: Callable[[], Any]) -> Any:
        """Raises ReadingStopped."""
        try:
            return function()
        except (EOFError, OSError):
            self.process.join(1)
            held = [*self.waiting, *(self.handed or [])]
            raise ReadingStopped(held[0][1], held[-1][1], self.process.exitcode) from None

    def end(self) -> None:
        """It has nothing to do any more. One that works on is ended, as it may be in native code for ever."""
        self.connection.close()
        self.process.join(_PATIENCE if self.handed is None else 0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.process.close()


class _Reply(NamedTuple):
    """What a process has done with what it was handed; the rest waits in it for others of its width."""

    results: dict[int, Any]  # by place; texts as of `_packed`
    left: Taken[str]  # what it has not begun


class _WaitingImage(NamedTuple):
    """A prepared image."""

    place: int
    path: str
    image: Any


def _read(
    reader: Reader[str, Any],
    batch: int,
    chars: bool,
    connection: Connection[Any, Any],
    others: Sequence[Connection[Any, Any]],
    is_stopped: Any,
) -> None:
    """What a process does: read what it is handed until its parent closes the connection."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent answers them
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    for one in others:  # else they would stay open when the parent has closed them
        one.close()
    groups: Groups[_WaitingImage] = Groups(batch)
    with suppress(EOFError, OSError):
        while True:
            connection.send(_reply_to(reader, groups, connection.recv(), chars, is_stopped))
    os._exit(0)


def _reply_to(
    reader: Reader[str, Any], groups: Groups[_WaitingImage], handed: Taken[str], chars: bool, is_stopped: Any
) -> _Reply:
    results: dict[int, Any] = {}

    def run(items: Sequence[_WaitingImage]) -> None:
        texts = read_each(reader, [item.image for item in items], [item.path for item in items])
        results.update((item.place, _packed(text, chars)) for item, text in zip(items, texts, strict=True))

    if not handed:
        run(groups.pop_oldest())
    until = time.monotonic() + _SLICE
    for at, (place, path) in enumerate(handed):
        if is_stopped.value or (at and time.monotonic() > until):
            return _Reply(results, handed[at:])
        try:
            image = reader.prepare(path)
        except Exception as error:
            results[place] = failure(path, error)
            continue
        if full := groups.add(image.columns, _WaitingImage(place, path, image)):
            run(full)
        while groups.columns > MOST_COLUMNS:
            run(groups.pop_oldest())
    return _Reply(results, [])


_Packed = tuple[str, float, tuple[Char, ...] | None, tuple[Alternative, ...], Turn | None]


def _packed(result: Text | CrnnDeployError, chars: bool) -> _Packed | CrnnDeployError:
    """A result as it is sent."""
    if isinstance(result, CrnnDeployError):
        return result
    return (
        result.text,
        result.confidence,
        result.chars if chars else None,
        result.alternatives,
        result.rotated,
    )


def _unpacked(packed: _Packed | CrnnDeployError) -> Text | CrnnDeployError:
    if isinstance(packed, CrnnDeployError):
        return packed
    text, confidence, chars, alternatives, rotated = packed
    return Text(text, confidence, chars or (), alternatives, rotated)
