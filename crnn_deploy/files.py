"""Files: only regular ones are read, they are written whole or not at all, and never over what is read.

`parse_json` reads JSON of strangers: any fault in it is a ValueError with a short line.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, AnyStr, NoReturn

from crnn_deploy.errors import CrnnDeployError

__all__ = [
    "LineTooLong",
    "OutputExists",
    "OutputIsInput",
    "OutputUnwritable",
    "RegularFile",
    "check_outputs",
    "discard_temporaries",
    "fitting_name",
    "keep",
    "lines",
    "open_regular",
    "parse_json",
    "read_regular",
    "replacing",
    "sha256",
    "temporary",
    "write",
]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MOST_DIGITS = 40  # of a whole number; 64 bits have 20
_LONGEST_NAME = 255  # bytes, on nearly every file system
_temporaries: set[Path] = set()  # that are neither removed nor in their place yet


class OutputExists(CrnnDeployError, FileExistsError):
    """An output file or folder that would be overwritten."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"{path} exists; go on with it (--resume), or name another one")


class OutputUnwritable(CrnnDeployError, OSError):
    """An output file that cannot be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot write {path}: {reason}")


class OutputIsInput(CrnnDeployError, ValueError):
    """An output file that the same command reads."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is read by this command and would be overwritten; name another output")


class RegularFile:
    """A regular file, open until its `with` ends; what is no file, as a FIFO or a device, is not waited for.

    A file whose length is 0 reads as empty: the kernel's own files (/proc/kmsg) say so and then never end.
    Raises OSError with a `strerror` that can be shown; ValueError for a path with a NUL.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            status = os.fstat(self.number)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", os.fspath(path))
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        except BaseException:
            os.close(self.number)
            raise
        self.size = status.st_size  # bytes, when it was opened

    def __enter__(self) -> RegularFile:
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self.number)

    def read(self, limit: int) -> bytes:
        """All of its bytes, in as few calls of the system as can be. Raises OSError where there are more."""
        data = b""
        if 0 < self.size <= limit:
            # one byte more than there are, for one that grows
            data = os.read(self.number, self.size + 1)
            while len(data) < self.size and (part := os.read(self.number, self.size + 1 - len(data))):
                data += part
        if max(self.size, len(data)) > limit:
            reason = f"it has more than the limit of {limit:,} bytes"
            raise OSError(errno.EFBIG, reason, os.fspath(self.path))
        return data


def open_regular(path: str | os.PathLike[str]) -> io.BufferedReader:
    """The file as `RegularFile` has it, to be read in parts. Raises what `RegularFile` raises."""
    file = RegularFile(path)
    if file.size:
        return os.fdopen(file.number, "rb")
    os.close(file.number)
    return open(os.devnull, "rb")


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes. Raises what `RegularFile.read` raises too."""
    with RegularFile(path) as file:
        return file.read(limit)


def sha256(file: str | os.PathLike[str] | io.BufferedReader) -> str:
    """SHA-256 of a regular file, or of the rest of an open one, in hexadecimal digits.

    Raises what `open_regular` raises.
    """
    if isinstance(file, str | os.PathLike):
        with open_regular(file) as opened:
            return sha256(opened)
    return hashlib.file_digest(file, "sha256").hexdigest()


class LineTooLong(Exception):
    """A line that is longer than any that its format has; the message says which."""


def lines(file: IO[AnyStr], limit: int) -> Iterator[AnyStr]:
    """Lines with their ends, none longer than `limit` bytes or characters. Raises LineTooLong, OSError."""
    number = 0
    while line := file.readline(limit + 1):
        number += 1
        if len(line) > limit:
            raise LineTooLong(f"line {number} is longer than {limit:,} characters")
        yield line


@contextmanager
def temporary(path: Path) -> Iterator[None]:
    """A file or folder that is gone when the block or the process ends, unless it was given to `keep`."""
    _temporaries.add(path)
    try:
        yield
    finally:
        if path in _temporaries:
            keep(path)
            _remove(path)


def keep(path: Path) -> None:
    """What was given to `temporary` stays."""
    _temporaries.discard(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and is gone otherwise.

    Raises OutputUnwritable.
    """
    import tempfile  # with what it imports 7 ms, which most runs need not pay

    temporary = None
    prefix, suffix = f".{path.stem[:16]}.", path.suffix[:16]  # with 4 bytes a character short enough still
    try:
        try:
            _make_folder(path.parent)
            number, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=suffix)
        except OSError as error:
            raise OutputUnwritable(path, error.strerror or str(error)) from error
        os.close(number)
        temporary = Path(name)
        _temporaries.add(temporary)
        try:
            yield temporary
        except OSError as error:
            if error.errno in _FULL and error.filename is None:
                raise OutputUnwritable(path, error.strerror or str(error)) from error
            raise
        try:
            temporary.chmod(stat.S_IMODE(path.stat().st_mode) if path.is_file() else 0o666 & ~_umask())
            temporary.replace(path)
        except OSError as error:
            raise OutputUnwritable(path, error.strerror or str(error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
            _temporaries.discard(temporary)


def write(path: Path, data: bytes | str) -> None:
    """Write a whole file, text as UTF-8: after an error, what was there before is there still.

    A path that is no regular file, such as /dev/stdout, is written to as it is. Raises OutputUnwritable.
    """
    encoded = data.encode() if isinstance(data, str) else data
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(encoded)
            return
        with replacing(path) as temporary:
            temporary.write_bytes(encoded)
    except OSError as error:
        if isinstance(error, OutputUnwritable):
            raise
        raise OutputUnwritable(path, error.strerror or str(error)) from error


def check_outputs(
    outputs: Iterable[Path | None], inputs: Iterable[str | os.PathLike[str] | None] = ()
) -> None:
    """Refuse outputs that cannot be written, that are inputs, or that are one file, before the work begins.

    Links are seen through. The inputs are gone through only where an output exists.
    Raises OutputUnwritable, OutputIsInput.
    """
    named: dict[str, Path] = {}
    there: dict[tuple[int, int] | None, Path] = {}
    for output in outputs:
        if output is None:
            continue
        if output.is_dir():
            raise OutputUnwritable(output, "it is a folder")
        if named.setdefault(os.path.realpath(output), output) is not output:
            raise OutputUnwritable(output, "two outputs of this command have this name")
        above = next((folder for folder in output.parents if folder.exists()), Path(os.curdir))
        if not above.is_dir():
            raise OutputUnwritable(output, f"{above} is not a folder")
        if (identity := _identity(output)) is not None:
            there[identity] = output
    if not there:
        return
    for source in inputs:
        if source is not None and (known := there.get(_identity(source))) is not None:
            raise OutputIsInput(known)


def fitting_name(name: str, suffix: str) -> str:
    """A file's name and a suffix; where a file system takes no name so long, its beginning and a digest."""
    if len(os.fsencode(name + suffix)) <= _LONGEST_NAME:
        return name + suffix
    told = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    while len(os.fsencode(f"{name}~{told}{suffix}")) > _LONGEST_NAME:
        name = name[:-1]
    return f"{name}~{told}{suffix}"


def discard_temporaries() -> None:
    """Remove what has begun and is not finished, for a process that ends at once."""
    for path in list(_temporaries):
        _remove(path)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            import shutil  # which nearly no run needs

            shutil.rmtree(path)
        else:
            path.unlink()


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _make_folder(folder: Path) -> None:
    """With those above it, one after the other: `mkdir` of all at once is recursive."""
    missing = []
    while not folder.is_dir() and folder != folder.parent:
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        try:
            one.mkdir(exist_ok=True)
        except FileExistsError:
            raise NotADirectoryError(errno.ENOTDIR, f"{one} is not a folder", os.fspath(one)) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text that a stranger may have written.

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
