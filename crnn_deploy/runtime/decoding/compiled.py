"""Compiled by numba where it is installed, plain Python where it is not.

One source for both, so both give the same results: float64 throughout, no fast-math, ties broken by order.
Without numba (the extra `decode`) everything works, some hundred times slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

__all__ = ["COMPILED", "NEVER", "compiled", "log_add"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

try:
    from numba import njit

    COMPILED = True
except ImportError:
    COMPILED = False

NEVER = -math.inf  # log of 0


def compiled(function: _Function) -> _Function:
    """The function compiled, without the GIL; kept on disk if possible, since compiling takes seconds."""
    if not COMPILED:
        return function
    try:
        made = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        made = njit(nogil=True)(function)
    return cast(_Function, made)


@compiled
def log_add(one: float, other: float) -> float:
    if one < other:
        one, other = other, one
    if other == NEVER:
        return one
    return one + math.log1p(math.exp(other - one))
