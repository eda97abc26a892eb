"""Files: only regular ones are read, they are written whole or not at all, and never over what is read."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from crnn_deploy.errors import CrnnDeployError

__all__ = [
    "OutputExists",
    "OutputIsInput",
    "OutputUnwritable",
    "check_outputs",
    "discard_temporaries",
    "open_regular",
    "read_regular",
    "replacing",
    "write",
]

_temporaries: set[Path] = set()  # that `replacing` has made and not yet renamed or removed


class OutputExists(CrnnDeployError, FileExistsError):
    """An output file that would be overwritten."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists; go on with it (--resume), or name another file")


class OutputUnwritable(CrnnDeployError, OSError):
    """An output file that cannot be written."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"cannot write {path}: {reason}")


class OutputIsInput(CrnnDeployError, ValueError):
    """An output file that the same command reads."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is read by this command and would be overwritten; name another output")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, opened to be read; what is no file, as a FIFO or a device, is not waited for.

    A file whose length is 0 reads as empty: the kernel's own files (/proc/kmsg) say so and then never end.
    Raises OSError with a `strerror` that can be shown; ValueError for a path with a NUL.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(number)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder, not a file", os.fspath(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        if status.st_size:
            return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise
    os.close(number)
    return io.BytesIO()


def read_regular(path: str | os.PathLike[str], limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises OSError with a `strerror` that can be shown; ValueError for a path with a NUL.
    """
    with open_regular(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        # one byte more than there are, for one that grows; room is made for as many as are asked for
        data = file.read(size + 1) if size <= limit else b""
    if max(size, len(data)) > limit:
        raise OSError(errno.EFBIG, f"it has more than the limit of {limit:,} bytes", os.fspath(path))
    return data


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and is gone otherwise.

    Raises OutputUnwritable.
    """
    import tempfile  # with what it imports 7 ms, which most runs need not pay

    temporary = None
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem[:64]}.", suffix=path.suffix)
        except OSError as error:
            raise OutputUnwritable(path, error.strerror or str(error)) from error
        os.close(number)
        temporary = Path(name)
        _temporaries.add(temporary)
        yield temporary
        try:
            temporary.chmod(0o666 & ~_umask())
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


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[str | os.PathLike[str] | None]) -> None:
    """Refuse outputs that cannot be written, or that are inputs, before the work begins.

    Links are seen through. Raises OutputUnwritable, OutputIsInput.
    """
    sources = [os.fspath(path) for path in inputs if path is not None]
    for output in outputs:
        if output is None:
            continue
        if output.is_dir():
            raise OutputUnwritable(output, "it is a folder")
        for source in sources:
            with suppress(OSError, ValueError):
                if os.path.samefile(source, output):
                    raise OutputIsInput(output)


def discard_temporaries() -> None:
    """Remove what `replacing` has begun and not finished, for a process that ends at once."""
    for path in list(_temporaries):
        with suppress(OSError):
            path.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
