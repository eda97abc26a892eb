"""JSON from strangers: whatever is wrong with it is one kind of error."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

__all__ = ["loads"]

_MOST_DIGITS = 40  # of a whole number; 64 bits have 20


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises ValueError with a short line, also for a number of thousands of digits, for one that is no number
    (NaN, Infinity), for a key that an object has twice and for nesting beyond what Python reads.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refused, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it says {name[:80]!r} twice")
    return value


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"it has a number of {len(digits):,} digits")
    return int(digits)
