"""Any number of images through processes that share a recogniser's network: results in order, memory flat.

In one process, only one thread at a time runs Python code, and a small network leaves little to native
code. So two threads read hardly more than one. Each process here reads for itself, with one thread.
"""

from __future__ import annotations

import ctypes
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack, suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.batching import Groups
from crnn_deploy.runtime.decoding.ctc import Alternative, Char, Text, Turn
from crnn_deploy.runtime.images.budget import SharedBudget
from crnn_deploy.runtime.images.pixels import join_budgets
from crnn_deploy.runtime.order import InOrder, Result, Taken
from crnn_deploy.runtime.pipeline import MOST_COLUMNS, Reader, failure, read_each, read_in_order

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["ReadingStopped", "read_in_processes"]

_FEW = 2  # batches; fewer images are read by threads
# for each process; with 64, each found too few images of one width, and a third more batches were run
_BATCHES_IN_WINDOW = 256
_BATCHES_AT_ONCE = 8  # images in so many are handed to a process at a time
_BATCHES_ONE_BY_ONE = 64  # at the beginning, so that a few images are shared among all processes
_BATCHES_GIVEN = 8  # images in so many batches are given at once
_SLICE = 0.1  # seconds of work after which a process gives what it has and leaves the rest to all
_PATIENCE = 0.7  # seconds that what has begun may still take once the run is stopped
_TURN = 0.2  # seconds after which the parent looks whether the run is stopped
_SPARE_FILES = 16  # that the parent may open besides, such as folders and the images that it draws
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
    Threads read where there are too few images to share, or where no process can be made.
    Raises ReadingStopped, after the results before the first gap.
    """
    remaining = iter(paths)
    first = [*islice(remaining, _FEW * batch)]
    everything = chain(first, remaining)
    processes = None
    if len(first) == _FEW * batch:
        with suppress(OSError, ImportError):
            processes = _Processes(reader, batch, chars, workers)
    if processes is None:
        yield from read_in_order(reader, everything, batch=batch, workers=workers, stopped=stopped)
        return
    order = InOrder(everything, _BATCHES_IN_WINDOW * batch * workers)
    try:
        yield from processes.results(order, stopped)
    except ReadingStopped:
        if order.ready:
            yield order.give()
        raise
    finally:
        processes.end()


class _Processes:
    """The processes of one reading; another one is started when all are at work and there is more to do.

    Raises OSError or ImportError where not even one can be made.
    """

    def __init__(self, reader: Reader[str, Any], batch: int, chars: bool, workers: int) -> None:
        from multiprocessing import get_context  # late: a start with one image takes no time for it
        from multiprocessing.connection import wait

        context = get_context("fork")
        self._pipe, self._wait = context.Pipe, wait
        self._batch, self._workers = batch, workers
        self._is_stopped = context.RawValue("b", 0)
        budgets = SharedBudget(context), SharedBudget(context)
        self._loop = _Loop(reader, batch, chars, self._is_stopped, budgets)
        self._all: list[_ReadingProcess] = []
        self._start()

    def results(
        self, order: InOrder[str], stopped: Callable[[], bool]
    ) -> Generator[list[Result[str]], None, None]:
        """Results in order, some batches at a time. Raises ReadingStopped."""
        left: deque[Taken[str]] = deque()
        until = math.inf
        while True:
            started = False
            if stopped():
                self._is_stopped.value = 1
                until = min(until, time.monotonic() + _PATIENCE)
            else:
                started = self._hand_out(order, left)
            busy: dict[Any, _ReadingProcess] = {
                one.connection: one for one in self._all if one.handed is not None
            }
            if not busy or time.monotonic() > until:
                break
            for connection in self._wait([*busy], 0 if started else _TURN):
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

    def _hand_out(self, order: InOrder[str], left: deque[Taken[str]]) -> bool:
        """Give every process something to do that has nothing, as long as there is something.

        Whether one more was started: before another is, what those before have done is looked at.
        """
        most = self._batch * (_BATCHES_AT_ONCE if order.taken >= _BATCHES_ONE_BY_ONE * self._batch else 1)
        idle = [one for one in self._all if one.handed is None]
        while idle and (some := left.popleft() if left else order.take(most)):
            idle.pop().hand(some)
        for one in idle:
            if one.waiting:
                one.hand([])
        if idle or len(self._all) == self._workers:
            return False
        if not (some := left.popleft() if left else order.take(most)):
            return False
        try:
            self._start()
        except OSError:  # there are as many as the system allows
            self._workers = len(self._all)
            left.appendleft(some)
            return False
        self._all[-1].hand(some)
        return True

    def _start(self) -> None:
        """Raises OSError, also where too few files could be opened afterwards."""
        ours, theirs = self._pipe()
        # the system sends that signal when the thread that forks ends, so only the main thread asks for it
        with_parent = threading.current_thread() is threading.main_thread()
        try:
            with ExitStack() as spare:
                for _ in range(_SPARE_FILES):
                    spare.callback(os.close, os.dup(ours.fileno()))
            number = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if not number:
            code = 1
            try:
                # else they would stay open when the parent has closed them
                for one in [ours, *(one.connection for one in self._all)]:
                    one.close()
                self._loop(theirs, with_parent)
                code = 0
            finally:
                os._exit(code)
        theirs.close()
        self._all.append(_ReadingProcess(number, ours))


class _ReadingProcess:
    """A process that reads, as its parent knows it."""

    def __init__(self, number: int, connection: Connection[Any, Any]) -> None:
        self.connection = connection
        self.handed: Taken[str] | None = None  # what it is at; None where it waits for something to do
        self.waiting: Taken[str] = []  # images that it has prepared and not read
        self._number = number

    def hand(self, taken: Taken[str]) -> None:
        """Images to read; none: read those of the batch that has waited longest. Raises ReadingStopped."""
        self.handed = taken
        self._talk(lambda: self.connection.send(taken))

    def reply(self) -> _Reply:
        """What it has done with what it was handed. Raises ReadingStopped."""
        reply: _Reply = self._talk(self.connection.recv)
        handed, self.handed = self.handed or [], None
        gone = {place for place, _ in reply.left} | reply.results.keys()
        self.waiting = [one for one in (*self.waiting, *handed) if one[0] not in gone]
        return reply

    def _talk(self, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except (EOFError, OSError):
            held = [*self.waiting, *(self.handed or [])]
            raise ReadingStopped(held[0][1], held[-1][1], self._ended(_PATIENCE)) from None

    def end(self) -> None:
        """It has nothing to do any more. One that works on is ended, as it may be in native code for ever."""
        self.connection.close()
        self._ended(_PATIENCE if self.handed is None else 0)

    def _ended(self, patience: float) -> int | None:
        """Its exit code, or the signal that ended it below 0; None where that is not known."""
        until = time.monotonic() + patience
        try:
            while not (found := os.waitpid(self._number, os.WNOHANG))[0]:
                if time.monotonic() > until:
                    os.kill(self._number, signal.SIGKILL)
                    found = os.waitpid(self._number, 0)
                    break
                time.sleep(0.002)
        except ChildProcessError:  # it was waited for before, or by the program around
            return None
        return os.waitstatus_to_exitcode(found[1])


class _Reply(NamedTuple):
    """What a process has done with what it was handed; the rest waits in it for others of its width."""

    results: dict[int, Any]  # by place; texts as of `_packed`
    left: Taken[str]  # what it has not begun


class _WaitingImage(NamedTuple):
    """A prepared image."""

    place: int
    path: str
    image: Any


class _Loop:
    """What a process does: read what it is handed until its parent closes the connection."""

    def __init__(
        self,
        reader: Reader[str, Any],
        batch: int,
        chars: bool,
        is_stopped: Any,
        budgets: tuple[SharedBudget, SharedBudget],
    ) -> None:
        self._reader, self._chars, self._is_stopped, self._budgets = reader, chars, is_stopped, budgets
        self._groups: Groups[_WaitingImage] = Groups(batch)

    def __call__(self, connection: Connection[Any, Any], with_parent: bool) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):  # the parent answers them
            signal.signal(number, signal.SIG_IGN)
        if with_parent:
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        join_budgets(*self._budgets)
        with suppress(EOFError, OSError):
            while True:
                connection.send(self._reply(connection.recv()))

    def _reply(self, handed: Taken[str]) -> _Reply:
        results: dict[int, Any] = {}
        if not handed:
            self._run(self._groups.pop_oldest(), results)
        until = time.monotonic() + _SLICE
        for at, (place, path) in enumerate(handed):
            if self._is_stopped.value or (at and time.monotonic() > until):
                return _Reply(results, handed[at:])
            try:
                image = self._reader.prepare(path)
            except Exception as error:
                results[place] = failure(path, error)
                continue
            if full := self._groups.add(image.columns, _WaitingImage(place, path, image)):
                self._run(full, results)
            while self._groups.columns > MOST_COLUMNS:
                self._run(self._groups.pop_oldest(), results)
        return _Reply(results, [])

    def _run(self, batch: Sequence[_WaitingImage], results: dict[int, Any]) -> None:
        texts = read_each(self._reader, [one.image for one in batch], [one.path for one in batch])
        for one, text in zip(batch, texts, strict=True):
            results[one.place] = _packed(text, self._chars)


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
