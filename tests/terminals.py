"""A terminal of one's own, where the system gives any."""

from __future__ import annotations

import pty

import pytest

__all__ = ["open_terminal"]


def open_terminal() -> tuple[int, int]:
    """Both ends of a new terminal: what a person sees, and what a process writes to."""
    try:
        return pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminal can be opened here: {error}")
