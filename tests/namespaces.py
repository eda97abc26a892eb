"""Commands in a network of their own: Ray listens on all interfaces, where nobody shall reach it."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

__all__ = ["alone", "needs_namespaces", "start_alone"]

# a process group of its own with all that it starts, which end with it
_ALONE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")
_UP = 'ip link set lo up && exec "$@"'


@functools.cache
def _works() -> bool:
    try:
        run = subprocess.run([*_ALONE, "sh", "-c", _UP, "sh", "true"], capture_output=True, check=False)
    except OSError:
        return False
    return run.returncode == 0


needs_namespaces = pytest.mark.skipif(
    "not __import__('namespaces')._works()",
    reason="needs the right to make network namespaces (root, iproute2 and util-linux)",
)


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "RAY_TMPDIR": str(folder), "HOME": str(folder), "OMP_NUM_THREADS": "1"}


def start_alone(script: str, folder: Path) -> subprocess.Popen[str]:
    """A shell script in which `$python` is this Python.

    folder: for Ray's files; the paths of its sockets must be short
    """
    return subprocess.Popen(
        [*_ALONE, "sh", "-c", _UP, "sh", "sh", "-c", script],
        env={**_environment(folder), "python": sys.executable},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def alone(script: str, folder: Path, *, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """What a shell script says, and its exit code."""
    process = start_alone(script, folder)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it does not end:\n{out}\n{err}") from None
    return subprocess.CompletedProcess(script, process.returncode, out, err)
