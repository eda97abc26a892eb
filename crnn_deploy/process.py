"""This process: the CPUs and the memory it may use, how a signal ends it, and when it may fork.

A fork waits until no thread is inside native code. A child that is forked has one thread, and a lock that
another thread held at that moment stays locked in it for ever: that of a module that is being imported, of
ONNX Runtime's memory, of OpenBLAS. So a thread that opens a model or reads says so (`not_forked`), and a fork
waits for it, as those that would begin wait for the fork.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

__all__ = [
    "INTERRUPTED",
    "Stop",
    "answer_signals",
    "cpus",
    "interrupted",
    "memory",
    "not_forked",
    "without_collector",
]

INTERRUPTED = 130  # exit code, 128 + SIGINT, as shells have it

_CONTROL_GROUPS = Path("/sys/fs/cgroup")  # of the second version, and below it those of the first

_GRACE = 1.5  # seconds between a signal and its answer
_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_FORK_WAITS = 10.0  # seconds that a fork waits; a child that may hang is better than a parent that does

_depths: dict[int, int] = {}  # of the threads inside, by identity
_door = threading.Lock()  # to go inside; closed while a fork waits and is made
_left = threading.Condition(threading.Lock())
_waiting = False

_Thing = TypeVar("_Thing")
_Handler = Callable[[int, FrameType | None], object] | int | None


def cpus() -> int:
    """CPUs that this process may use: those of its affinity, and no more than its container's quota gives.

    A quota such as `docker run --cpus 1.5` is rounded up.
    """
    found = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    for limit in ("cpu.max", "cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us"):
        with suppress(OSError, ValueError):  # also where there is no quota
            quota, period = _of_container(limit)
            if quota > 0:
                found.append(math.ceil(quota / period))
    return min(found)


def memory() -> int | None:
    """Bytes of memory that this process may fill; None where neither machine nor container tells."""
    found = []
    with suppress(AttributeError, ValueError, OSError):  # not on Windows
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            found += _of_container(limit)
    return min(found, default=None)


def _of_container(names: str) -> list[int]:
    """Numbers of files of control groups. Raises OSError, and ValueError where one is `max`: no limit."""
    words = " ".join((_CONTROL_GROUPS / name).read_text(encoding="ascii") for name in names.split())
    return [int(word) for word in words.split()]


@contextmanager
def without_collector() -> Iterator[None]:
    """Within it Python does not look for cycles of objects.

    For what makes many objects that stay, such as PyTorch's exporter: the search would take a second of 15.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Stop:
    """Ends a run in good order on Ctrl-C or SIGTERM; a second signal ends it at once.

    Inside `with`, the first signal ends the iteration of `until`, even while that waits for an input, and
    interrupts nothing else, so what is being written is written whole.

    finishes: what the run does before it ends, however long that takes, in the words of a message: stopping
        "when this step is saved"; a run without is ended by `answer_signals` soon after the signal
    """

    active: Stop | None = None  # the one whose block is running

    def __init__(self, *, finishes: str | None = None) -> None:
        self.finishes = finishes
        self._requested = False
        self._waiting = False
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> Stop:
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as for a job in the background
                self._before[number] = signal.signal(number, self._handle)
        Stop.active = self
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        Stop.active = None
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self._requested

    def _handle(self, number: int, frame: FrameType | None) -> None:
        _signals.came = True
        self._requested = True
        for handled in self._before:
            signal.signal(handled, signal.SIG_DFL)
        if self._waiting:
            raise KeyboardInterrupt

    def until(self, things: Iterable[_Thing]) -> Iterator[_Thing]:
        """The things that come before a signal."""
        remaining = iter(things)
        while not self._requested:
            try:
                self._waiting = True
                thing = next(remaining)
                self._waiting = False
            except (KeyboardInterrupt, StopIteration):
                self._waiting = False
                return
            yield thing


class _Signals:
    """Those of this process; without a lock, which a handler could wait for in vain."""

    came = False
    raised = False  # KeyboardInterrupt, wherever Python was


_signals = _Signals()


def interrupted() -> bool:
    """Whether a signal has raised KeyboardInterrupt: an error that follows is most likely its consequence.

    A library that is interrupted while it is imported raises ImportError, for one.
    """
    return _signals.raised


@contextmanager
def answer_signals() -> Iterator[None]:
    """Answer Ctrl-C and SIGTERM within two seconds, whatever native code the main thread is in.

    Python runs a signal's handler between two of its own instructions, and a library that computes for
    minutes lets it wait. So a thread is told of the signal by the system. After a grace in which the command
    may end by itself, it ends the process, without the files that were being written; a command that has
    something to finish (`Stop`) it lets go on, and says so.

    Before the block and after it the system's own answer is left: the process ends at once. A command that
    ends after a signal does not wait for threads that are within native code.

    A KeyboardInterrupt in a finalizer (`__del__`, or a callback of weakref: Python's import has one) reaches
    nobody. Python says so with a traceback; here it is left out, and the thread ends the process.
    """
    answered = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    hook = sys.unraisablehook
    try:
        sys.unraisablehook = lambda lost: None if lost.exc_type is KeyboardInterrupt else hook(lost)
        for number in answered:
            signal.signal(number, _raise)
        if hasattr(os, "register_at_fork"):  # not on Windows
            told, tells = os.pipe()
            os.set_blocking(tells, False)
            signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
            os.register_at_fork(after_in_child=_forget)
            threading.Thread(target=_answer, args=(told,), daemon=True, name="signals").start()
        yield
    finally:
        for number in answered:
            signal.signal(number, signal.SIG_DFL)
        sys.unraisablehook = hook
        others = set(threading.enumerate()) - {threading.main_thread()}
        if _signals.came and not all(thread.daemon for thread in others):
            _leave()


def _raise(number: int, frame: FrameType | None) -> None:
    _signals.came = _signals.raised = True
    raise KeyboardInterrupt


def _forget() -> None:
    """Of a process that was forked: a signal to it is none to its parent, with whom it shares the pipe."""
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        if signal.getsignal(number) == _raise:
            signal.signal(number, signal.SIG_DFL)


def _answer(told: int) -> None:
    while data := os.read(told, 64):
        if not set(_SIGNALS).intersection(data):
            continue
        _signals.came = True
        time.sleep(_GRACE)
        stop = Stop.active
        if stop is not None and stop.finishes is not None:
            _say(f"stopping {stop.finishes}; Ctrl-C again ends at once")
            continue
        _say("stopped")
        _leave()


def _leave() -> None:
    try:
        from crnn_deploy.files import discard_temporaries  # late: `import crnn_deploy` imports this module

        discard_temporaries()
    finally:
        os._exit(INTERRUPTED)


def _say(message: str) -> None:
    """A line on stderr, without Python's lock on it, which the main thread may hold."""
    with suppress(OSError):
        os.write(2, f"\n{message}\n".encode())


def not_forked() -> AbstractContextManager[None]:
    """While the block runs, other threads wait with `os.fork`. It may be entered again inside itself."""
    return _INSIDE


class _Inside:
    """A class and no generator, since it is entered twice for each image."""

    def __enter__(self) -> None:
        me = threading.get_ident()
        if me in _depths:
            _depths[me] += 1
        else:
            with _door:
                _depths[me] = 1

    def __exit__(self, *error: object) -> None:
        me = threading.get_ident()
        if _depths[me] > 1:
            _depths[me] -= 1
            return
        del _depths[me]
        if _waiting:
            with _left:
                _left.notify_all()


_INSIDE = _Inside()


def _before_fork() -> None:
    global _waiting
    _door.acquire()
    with _left:
        _waiting = True
        _left.wait_for(lambda: len(_depths) == (threading.get_ident() in _depths), _FORK_WAITS)
        _waiting = False


def _in_forked_child() -> None:
    global _left
    _left = threading.Condition(
        threading.Lock()
    )  # that of the parent may be held by a thread which the child has not
    for thread in set(_depths) - {threading.get_ident()}:
        del _depths[thread]
    _door.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_door.release, after_in_child=_in_forked_child)
