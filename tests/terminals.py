"""A terminal of one's own, where the system gives any."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["open_terminal", "run_on_terminal"]

ROOT = Path(__file__).parents[1]


def open_terminal() -> tuple[int, int]:
    """Both ends of a new terminal: what a person sees, and what a process writes to."""
    try:
        return pty.openpty()
    except OSError as error:
        pytest.skip(f"no terminal can be opened here: {error}")


def run_on_terminal(words: list[str], folder: Path, **environment: str) -> tuple[int, str]:
    """Exit code of a command and what it says on stderr, which is a terminal, unlike its stdout."""
    ours, theirs = open_terminal()
    process = subprocess.Popen(
        [sys.executable, "-m", "crnn_deploy", *words],
        cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")},
            **{"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "120", **environment},
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(ours)
    return process.wait(timeout=60), seen.decode()
