"""A fork waits until no thread is inside native code.

A child that is forked has one thread. A lock that another thread held at that moment stays locked in it for
ever: that of a module that is being imported, of ONNX Runtime's memory, of OpenBLAS. So a thread that opens a
model or reads says so, and a fork waits for it, as those that would begin wait for the fork.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from threading import Condition, Lock, get_ident

__all__ = ["not_forked"]

_LONGEST = 10.0  # seconds that a fork waits; a child that may hang is better than a parent that does

_depths: dict[int, int] = {}  # of the threads inside, by identity
_door = Lock()  # to go inside; closed while a fork waits and is made
_left = Condition(Lock())
_waiting = False


def not_forked() -> AbstractContextManager[None]:
    """While the block runs, other threads wait with `os.fork`. It may be entered again inside itself."""
    return _INSIDE


class _Inside:
    """A class and no generator, since it is entered twice for each image."""

    def __enter__(self) -> None:
        me = get_ident()
        if me in _depths:
            _depths[me] += 1
        else:
            with _door:
                _depths[me] = 1

    def __exit__(self, *error: object) -> None:
        me = get_ident()
        if _depths[me] > 1:
            _depths[me] -= 1
            return
        del _depths[me]
        if _waiting:
            with _left:
                _left.notify_all()


_INSIDE = _Inside()


def _before() -> None:
    global _waiting
    _door.acquire()
    with _left:
        _waiting = True
        _left.wait_for(lambda: len(_depths) == (get_ident() in _depths), _LONGEST)
        _waiting = False


def _in_child() -> None:
    global _left
    _left = Condition(Lock())  # that of the parent may be held by a thread which the child has not
    for thread in set(_depths) - {get_ident()}:
        del _depths[thread]
    _door.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_door.release, after_in_child=_in_child)
