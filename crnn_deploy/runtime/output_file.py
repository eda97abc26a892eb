"""Where records are written to: a stream, or a file, and going on with what a stopped run left in it."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import OutputExists, OutputUnwritable
from crnn_deploy.runtime.records import MOST_BYTES, Csv, Format, Record

if TYPE_CHECKING:
    from crnn_deploy.runtime.run_record import RunRecord

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Done", "Output", "OutputDamaged", "RecordStream", "open_output"]


class OutputDamaged(CrnnDeployError, ValueError):
    """A file to go on with that no run has left so, wherever it was stopped."""

    def __init__(self, path: Path, number: int, form: Format) -> None:
        super().__init__(
            f"{path}: record {number} is not {form.name} with the columns {', '.join(form.columns)}, "
            "so nothing is cut off; mend it or take it out, or name another file with -o"
        )


class Done:
    """Which images and boxes have a record already, and how many, in 24 bytes for each."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        digests = np.fromiter(map(self._digest, keys), dtype="S16")
        self._digests, self._left = np.unique(digests, return_counts=True)

    def __len__(self) -> int:
        return int(self._left.sum())

    def take(self, key: str) -> bool:
        """Whether one more record of this key is there; it counts as taken from then on."""
        if not len(self._digests):
            return False
        digest = self._digest(key)
        at = self._digests.searchsorted(digest)
        if at == self._digests.searchsorted(digest, side="right") or not self._left[at]:
            return False
        self._left[at] -= 1
        return True

    @staticmethod
    def _digest(key: str) -> bytes:
        return hashlib.blake2b(key.encode(errors="surrogateescape"), digest_size=16).digest()


class RecordStream:
    """Records that are put out as they come.

    put: takes bytes
    terminal: whether that is one, which is given nothing that it would obey
    """

    def __init__(self, form: Format, put: Callable[[bytes], None], *, terminal: bool) -> None:
        self.done = Done()
        self._form, self._put, self._terminal = form, put, terminal
        self._add(form.header)

    def __enter__(self) -> RecordStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        """A stream stays open."""

    def write(self, records: Sequence[Record]) -> None:
        """Put records out. Raises what `put` raises."""
        self._add(b"".join(map(self._form.encode, records)))

    def _add(self, data: bytes) -> None:
        self._put(self._form.shown(data) if self._terminal else data)


class Output:
    """A file that whole records are added to; no other run writes to it until it is closed.

    done: what had a record when it was opened, by its key
    """

    def __init__(self, path: Path, form: Format, file: FileIO, end: int, done: Done) -> None:
        self.done = done
        self._path, self._form, self._file, self._end = path, form, file, end
        self._count = len(done)

    def __enter__(self) -> Output:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.close()

    def write(self, records: Sequence[Record]) -> None:
        """Add records, all of them or none: what a full disk lets through of them is cut off again.

        Raises OutputUnwritable.
        """
        self._add(b"".join(map(self._form.encode, records)))
        self._count += len(records)

    def begin(self) -> None:
        """Write the header. Raises OutputUnwritable."""
        self._add(self._form.header)

    def close(self) -> None:
        """Raises OutputUnwritable, as where a network's disk says only now that it is full."""
        try:
            self._file.close()
        except OSError as error:
            raise self._failed(error) from None

    def _add(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._end)
            raise self._failed(error) from None
        self._end += len(data)

    def _failed(self, error: OSError) -> OutputUnwritable:
        kept = f"{self._count:,} records in it are kept, and --resume goes on"
        return OutputUnwritable(self._path, f"{error.strerror or error}; {kept}")


def open_output(path: Path, form: Format, run: RunRecord, *, resume: bool) -> Output:
    """A file to add records to; what made it, the format included, is kept beside it.

    Without `resume` the file must be new. With it, a file that is there must have been made as this run would
    make it; it is read through, and a record at its end that a killed run has not finished is cut off. A file
    that is refused stays as it is. No other run may write to the file until it is closed (where the system
    has advisory locks).
    Raises OutputExists, OutputUnwritable, OutputDamaged, RunUnknown, RunDiffers, RunRecordInvalid.
    """
    run = replace(run, settings={**run.settings, **_settings(form)})
    new = not (resume and os.path.exists(path))
    file = _opened(path, new)
    try:
        _lock(file, path)
        size = os.fstat(file.fileno()).st_size
        if new and size:  # another run was faster
            raise OutputExists(path)
        try:
            if size:
                output = _gone_on(path, form, run, file, size)
            else:
                run.write(path)
                output = Output(path, form, file, 0, Done())
                output.begin()
        except BaseException:
            if new:
                with suppress(OSError):
                    path.unlink()
            raise
    except BaseException:
        file.close()
        raise
    return output


def _settings(form: Format) -> dict[str, str | bool | list[str]]:
    return {
        "format": form.name,
        "columns": list(form.columns),
        "csv-safe": isinstance(form, Csv) and form.safe,
    }


def _opened(path: Path, new: bool) -> FileIO:
    flags = os.O_CREAT | os.O_EXCL if new else getattr(os, "O_NONBLOCK", 0)  # no FIFO is waited for
    flags |= os.O_RDWR | getattr(os, "O_BINARY", 0)
    if not new and not os.path.isfile(path):  # to open a device may do something
        raise OutputUnwritable(path, "it is not a regular file")
    try:
        file = FileIO(path, "r+", opener=lambda name, _: os.open(name, flags, 0o666))
    except FileExistsError:
        if not os.path.isfile(path):
            raise OutputUnwritable(path, "it is there and not a regular file") from None
        raise OutputExists(path) from None
    except OSError as error:
        raise OutputUnwritable(path, error.strerror or str(error)) from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OutputUnwritable(path, "it is not a regular file")
    return file


def _lock(file: FileIO, path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputUnwritable(path, "another run is writing to it") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # not every file system has locks
            raise OutputUnwritable(path, error.strerror or str(error)) from None


def _gone_on(path: Path, form: Format, run: RunRecord, file: FileIO, size: int) -> Output:
    """An output that has something in it already."""
    if size == len(form.header) and file.read(size) == form.header:
        run.write(path)  # no record yet that another run could have made
        return Output(path, form, file, size, Done())
    run.check(path)
    file.seek(0)
    with open(file.fileno(), "rb", closefd=False) as stream:
        written = _Written(path, form, stream)
        done = Done(written)
    try:
        if written.end < size:
            file.truncate(written.end)
    except OSError as error:
        raise OutputUnwritable(path, error.strerror or str(error)) from None
    file.seek(written.end)
    output = Output(path, form, file, written.end, done)
    if not written.end:
        output.begin()
    return output


class _Written:
    """Keys of the whole records in a file; once they are read, `end` is where the last one ends."""

    def __init__(self, path: Path, form: Format, stream: BinaryIO) -> None:
        self.end = 0
        self._path, self._form, self._stream = path, form, stream
        self._number = 0  # of the record that is read

    def __iter__(self) -> Iterator[str]:
        lines: list[bytes] = []
        size, between_quotes = 0, False
        while line := self._stream.readline(MOST_BYTES + 1 - size):
            lines.append(line)
            size += len(line)
            if size > MOST_BYTES:
                self._number += 1
                raise self._damaged()
            if self._form.spans_lines and line.count(b'"') % 2:
                between_quotes = not between_quotes
            if between_quotes or not line.endswith(b"\n"):
                continue
            yield from self._keys(b"".join(lines))
            self.end += size
            lines, size = [], 0
        self._number += 1
        if not self._is_torn(b"".join(lines)):
            raise self._damaged()

    def _keys(self, data: bytes) -> Iterator[str]:
        """The key of a record; none of the header."""
        if not self.end and self._form.header:
            if data != self._form.header:
                self._number += 1
                raise self._damaged()
            return
        self._number += 1
        try:
            yield self._form.key(data)
        except (ValueError, KeyError):
            raise self._damaged() from None

    def _is_torn(self, data: bytes) -> bool:
        """Whether what follows the last whole record, or the header, can be what a killed run has begun."""
        data = data.rstrip(b"\0")  # of a file whose length was written and not its content
        if not self.end and self._form.header:
            return self._form.header.startswith(data)
        return not data or (self._form.is_torn(data) and (self.end > 0 or self._form.knows_first))

    def _damaged(self) -> OutputDamaged:
        return OutputDamaged(self._path, self._number, self._form)
