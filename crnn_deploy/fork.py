"""A fork waits until no thread is inside native code.

A child that is forked has one thread. A lock that another thread held at that moment stays locked in it for
ever: that of a module that is being imported, of ONNX Runtime's memory, of OpenBLAS. So a thread that opens a
model or reads says so, and a fork waits for it, as those that would begin wait for the fork.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock, get_ident

__all__ = ["not_forked"]

_LONGEST = 10.0  # seconds that a fork waits; a child that may hang is better than a parent that does

_inside: set[int] = set()  # identities of the threads that must not be forked
_door = Lock()  # to go inside; closed while a fork waits and is made
_left = Condition(Lock())


@contextmanager
def not_forked() -> Iterator[None]:
    """While the block runs, other threads wait with `os.fork`. It may be entered again inside itself."""
    me = get_ident()
    if me in _inside:
        yield
        return
    with _door:
        _inside.add(me)
    try:
        yield
    finally:
        with _left:
            _inside.discard(me)
            _left.notify_all()


def _before() -> None:
    _door.acquire()
    with _left:
        _left.wait_for(lambda: _inside <= {get_ident()}, _LONGEST)


def _in_child() -> None:
    global _left
    _left = Condition(Lock())  # of a thread that the child has not
    _inside.intersection_update({get_ident()})
    _door.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_door.release, after_in_child=_in_child)
