"""The user's cache folder: what was worked out once for this machine and can be worked out again.

Nothing depends on it: where it cannot be read or written, the work is done again. An entry counts only when
it belongs to this user alone and its digest is that of its sidecar, so neither a torn write nor another user
can put a graph into a run.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

__all__ = ["find", "fingerprint", "folder", "load", "store"]

_MOST_ENTRIES = 32  # the least recently written go first


def folder() -> Path:
    """Where entries lie: $CRNN_DEPLOY_CACHE, else the system's place for caches."""
    if own := os.environ.get("CRNN_DEPLOY_CACHE"):
        return Path(own)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "crnn-deploy" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crnn-deploy"


@cache
def fingerprint() -> str:
    """The processor: what it is and which instructions it has (from /proc/cpuinfo, on Linux)."""
    lines = []
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.split(":")[0].strip() in ("model name", "flags", "CPU part", "Features"):
                lines.append(line)
            if not line.strip():  # the first processor stands for all
                break
    told = "".join(lines) or platform.processor()
    return hashlib.sha256(f"{platform.machine()}\n{told}".encode()).hexdigest()


def find(name: str) -> Path | None:
    """Where an entry lies, or None where there is none, or none that can be trusted."""
    try:
        path = folder() / name
        if not _is_ours(path.parent) or not _is_ours(path):
            return None
        digest = path.with_name(f"{name}.sha256").read_text(encoding="ascii")
        with open(path, "rb") as file:
            return path if hashlib.file_digest(file, "sha256").hexdigest() == digest else None
    except (OSError, ValueError):
        return None


def load(name: str) -> bytes | None:
    """An entry's bytes, or None as `find`."""
    try:
        return path.read_bytes() if (path := find(name)) else None
    except OSError:
        return None


def store(name: str, data: bytes) -> bool:
    """Write an entry, its sidecar first, each in one rename; False where the folder cannot be written."""
    try:
        path = folder() / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path.with_name(f"{name}.sha256"), hashlib.sha256(data).hexdigest().encode())
        _write(path, data)
        _prune(path.parent)
    except OSError:
        return False
    return True


def _is_ours(path: Path) -> bool:
    """Whether no other user can have written it, where the system tells."""
    if not hasattr(os, "getuid"):
        return True
    status = os.stat(path)
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _write(path: Path, data: bytes) -> None:
    import tempfile  # with what it imports 7 ms, which most runs need not pay

    number, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with open(number, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _prune(where: Path) -> None:
    kinds = (".bin", ".json", ".onnx")
    entries = [path for path in where.iterdir() if path.is_file() and path.suffix in kinds]
    entries.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in entries[_MOST_ENTRIES:]:
        with suppress(OSError):
            path.unlink()
            path.with_name(f"{path.name}.sha256").unlink()
