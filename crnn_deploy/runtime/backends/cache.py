"""The user's cache folder: what was worked out once for this machine and can be worked out again.

Nothing depends on it: where it cannot be read or written, the work is done again. Entries lie in a folder of
their own with a mark (https://bford.info/cachedir); what else may lie there is neither used nor removed. An
entry counts only when it belongs to this user alone and its digest is that of its sidecar, so neither a torn
write nor another user can put a graph into a run.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from crnn_deploy.errors import ModelUnreadable
from crnn_deploy.files import keep, read_regular, sha256, temporary
from crnn_deploy.runtime.backends import cpu
from crnn_deploy.runtime.backends.installed import version_of

__all__ = ["find", "fingerprint", "folder", "key", "load", "making", "store"]

_NAME = "crnn-deploy-v1"
_MARK = "CACHEDIR.TAG"
_MARKED = (
    b"Signature: 8a477f597d28d172789f06886806bc55\n"
    b"# crnn-deploy keeps here what it can make again; it removes old files; you may remove the folder.\n"
)
_ENTRY = r"[0-9a-f]{64}\.(?:json|onnx)"
_PART = r"[0-9a-f]{32}\.bin"  # of an entry, which names it in its sidecar
_OWN = rf"(?:{_ENTRY})(?:\.sha256)?|{_PART}|\.[0-9a-f]{{16}}\.tmp|{re.escape(_MARK)}"
_MOST_ENTRIES = 32  # the least recently written go first
_ABANDONED = 3600  # seconds after which a file that belongs to no entry is that of a run that was killed
_MOST_IN_SIDECAR = 10_000  # bytes


def folder() -> Path | None:
    """Where entries lie: below $CRNN_DEPLOY_CACHE or the system's place for caches; None where neither is."""
    where = os.environ.get("CRNN_DEPLOY_CACHE")
    if not where:
        own = "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME"
        where = os.environ.get(own) or os.path.expanduser(os.path.join("~", ".cache"))
        if not os.path.isabs(where):  # no home that the system knows
            return None
    return Path(where, _NAME)


@cache
def fingerprint() -> str:
    """The CPU: what it is and which instructions it has."""
    told = "\n".join(f"{name}: {value}" for name, value in cpu.described().items()) or platform.processor()
    return hashlib.sha256(f"{platform.machine()}\n{told}".encode()).hexdigest()


def key(path: Path) -> str:
    """What an answer about a model file hangs on: its content, the inference libraries, the CPU.

    Raises ModelUnreadable.
    """
    try:
        content = sha256(path)
    except OSError as error:
        raise ModelUnreadable(path, f"cannot be read: {error.strerror}") from error
    versions = (
        f"{name} {version_of(name) or '-'}" for name in ("onnxruntime", "onnxruntime-gpu", "openvino")
    )
    return " ".join((content, *versions, fingerprint()))


def find(name: str) -> Path | None:
    """Where an entry lies, its part beside it; None where there is none, or none that can be trusted."""
    try:
        if (where := folder()) is None or not _is_ours(where, stat.S_ISDIR) or not _is_marked(where):
            return None
        digests = _digests(where / f"{name}.sha256")
        trusted = name in digests and all(
            (one == name or re.fullmatch(_PART, one))
            and _is_ours(where / one, stat.S_ISREG)
            and sha256(where / one) == digest
            for one, digest in digests.items()
        )
        return where / name if trusted else None
    except (OSError, ValueError):
        return None


def load(name: str) -> bytes | None:
    """An entry's bytes, or None as `find`."""
    try:
        return path.read_bytes() if (path := find(name)) else None
    except OSError:
        return None


def store(name: str, data: bytes) -> bool:
    """Write an entry; False where the folder cannot be written."""
    with making(name) as path:
        if path is not None:
            try:
                path.write_bytes(data)
            except OSError:
                path.unlink(missing_ok=True)
    return find(name) is not None


@contextmanager
def making(name: str, part: str | None = None) -> Iterator[Path | None]:
    """A file to be written, which becomes an entry when the block ends well; None where nothing can be kept.

    part: the name of a second file beside it, which the block may write too and the first may name: 32
        random hexadecimal digits and .bin
    """
    try:
        where = _made()
    except OSError:
        where = None
    if where is None:
        yield None
        return
    path = where / f".{os.urandom(8).hex()}.tmp"
    beside = where / (part or path.name)
    with temporary(path), temporary(beside):
        yield path
        with suppress(OSError):
            files = {name: path, **({beside.name: beside} if part and beside.exists() else {})}
            lines = [f"{sha256(file)} {one}\n" for one, file in files.items()]
            for file in files.values():
                file.chmod(0o600)
            _write(where / f"{name}.sha256", "".join(lines).encode())
            path.replace(where / name)
            keep(beside)
            _prune(where)


def _digests(sidecar: Path) -> dict[str, str]:
    """Name and digest of an entry and of its part, as the entry's sidecar has them."""
    text = read_regular(sidecar, _MOST_IN_SIDECAR).decode("ascii")
    return {name: digest for digest, name in (line.split(" ") for line in text.splitlines())}


def _made() -> Path | None:
    """The folder, made and marked where it is not there; None where it is somebody else's or not the cache's.

    Raises OSError.
    """
    where = folder()
    if where is None:
        return None
    where.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_ours(where, stat.S_ISDIR):
        return None
    if not _is_marked(where):
        if not all(re.fullmatch(_OWN, name) for name in os.listdir(where)):
            return None
        _write(where / _MARK, _MARKED)
    return where


def _is_marked(where: Path) -> bool:
    try:
        return read_regular(where / _MARK, len(_MARKED)) == _MARKED
    except OSError:
        return False


def _is_ours(path: Path, kind: Callable[[int], bool]) -> bool:
    """Whether it is of this kind, no link, and no other user can have written it, where one can tell."""
    status = os.lstat(path)
    if not hasattr(os, "getuid"):
        return kind(status.st_mode)
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return kind(status.st_mode) and status.st_uid == os.getuid() and not shared


def _write(path: Path, data: bytes) -> None:
    written = path.with_name(f".{os.urandom(8).hex()}.tmp")
    with temporary(written):
        written.write_bytes(data)
        written.chmod(0o600)
        written.replace(path)


def _prune(where: Path) -> None:
    """Remove the oldest entries and what killed runs have left: regular files of the cache's own names."""
    written = {}
    for file in os.scandir(where):
        if re.fullmatch(_OWN, file.name) and file.is_file(follow_symlinks=False) and file.name != _MARK:
            written[file.name] = file.stat(follow_symlinks=False).st_mtime
    entries = sorted(
        (name for name in written if re.fullmatch(_ENTRY, name)), key=written.__getitem__, reverse=True
    )
    kept, old = entries[:_MOST_ENTRIES], entries[_MOST_ENTRIES:]
    needed = {file for name in kept for file in _files(where, name)}
    dropped = {file for name in old for file in _files(where, name)}
    abandoned = time.time() - _ABANDONED
    dropped |= {file for file in written if written[file] < abandoned}
    for file_name in dropped & written.keys() - needed:
        with suppress(OSError):
            (where / file_name).unlink()


def _files(where: Path, name: str) -> set[str]:
    """The names of an entry's files."""
    sidecar = f"{name}.sha256"
    try:
        return {name, sidecar, *_digests(where / sidecar)}
    except (OSError, ValueError):
        return {name, sidecar}
