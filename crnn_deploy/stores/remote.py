"""Object stores through pyarrow: S3, Google Cloud Storage and, not run by any test, HDFS."""

from __future__ import annotations

import io
import os
import random
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from uuid import uuid4

from crnn_deploy.errors import CrnnDeployError, LibraryMissing, first_line
from crnn_deploy.stores import store
from crnn_deploy.stores.address import Address
from crnn_deploy.stores.store import (
    BUFFER,
    Entry,
    Folder,
    Store,
    StoreDenied,
    StoredTooLarge,
    StoreMissing,
    StoreUnreachable,
)

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

__all__ = ["RemoteStore"]

_CONNECT = 5.0  # seconds for a connection
_ANSWER = 20.0  # seconds without a byte
_RETRIED = timedelta(seconds=5)  # for which Google's library tries again itself
_FIRST_PAUSE = 0.2  # seconds before a call is made again; each further pause is twice as long
_LONGEST_PAUSE = 5.0

_MISSING = re.compile(
    r"\bNO_SUCH_(KEY|BUCKET)\b|\bNoSuch(Key|Bucket)\b|HTTP status 404|No such file or directory"
)
_REFUSED = re.compile(  # as pyarrow words it; any other error is one of the store or of the way to it
    r"\b(ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|REQUEST_TIME_TOO_SKEWED)\b"
    r"|HTTP status (30\d|40[0-35-7]|41\d)|Permission denied|PERMISSION_DENIED|UNAUTHENTICATED"
    r"|Not a regular file|Is a directory"
)

Value = TypeVar("Value")


class RemoteStore(Store):
    """Objects below a path of a bucket."""

    def __init__(self, address: Address, root: str) -> None:
        self._address, self._root = address, root.strip("/")
        self.uri = address.shown(self._root)
        self._opening = threading.Lock()
        self._filesystem: FileSystem | None = None
        _import_fs()

    def __getstate__(self) -> tuple[Address, str]:
        return self._address, self._root

    def __setstate__(self, state: tuple[Address, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def name(self, path: str) -> str:
        return self._address.shown(self._within(path))

    def below(self, path: str) -> RemoteStore:
        return RemoteStore(self._address, self._within(path))

    def read(self, path: str, start: int = 0, size: int | None = None, limit: int | None = None) -> bytes:
        def read(filesystem: FileSystem) -> bytes:
            with filesystem.open_input_file(self._full(path)) as file:
                there = max(0, file.size() - start)
                wanted = there if size is None else min(size, there)
                if limit is not None and wanted > limit:
                    raise StoredTooLarge(self.name(path), limit)
                data: bytes = file.read_at(wanted, start) if wanted else b""
                if len(data) < wanted:
                    raise OSError(f"{len(data):,} of {wanted:,} bytes came")
                return data

        return self._patiently(path, read)

    def open(self, path: str, buffer: int = BUFFER) -> BinaryIO:
        raw = _RemoteFile(self, path)
        return cast(BinaryIO, io.BufferedReader(raw, buffer) if buffer else raw)

    def size(self, path: str) -> int:
        def size(filesystem: FileSystem) -> int:
            info = filesystem.get_file_info(self._full(path))
            if not info.is_file:
                raise StoreMissing(self.name(path))
            return int(info.size)

        return self._patiently(path, size)

    def exists(self, path: str) -> bool:
        kind = _import_fs().FileType
        return bool(self._type(path) != kind.NotFound)

    def is_folder(self, path: str) -> bool:
        kind = _import_fs().FileType
        return bool(self._type(path) == kind.Directory)

    def _type(self, path: str) -> Any:
        try:
            return self._patiently(path, lambda filesystem: filesystem.get_file_info(self._full(path)).type)
        except StoreMissing:  # of a bucket that is not there
            return _import_fs().FileType.NotFound

    def folder(self, path: str = "") -> Folder:
        fs = _import_fs()
        whole = self._full(path)
        # of Google's folders pyarrow shows only those that it has made itself, so all below is listed there
        selector = fs.FileSelector(whole, recursive=self._address.scheme == "gs")
        infos = self._patiently(path, lambda filesystem: filesystem.get_file_info(selector))
        found: list[Entry] = []
        folders: set[str] = set()
        unnamed = False
        for info in infos:
            name, deeper, _ = info.path[len(whole) :].lstrip("/").partition("/")
            below = f"{path}/{name}" if path else name
            if info.path.rstrip("/") == whole.rstrip("/"):  # of a key with "//"
                unnamed = True
            elif deeper or info.type == fs.FileType.Directory:
                folders.add(below)
            else:
                found.append(Entry(below, int(info.size)))
        return Folder(sorted(found), sorted(folders), unnamed)

    def write(self, path: str, data: bytes) -> None:
        whole = self._full(path)
        if self._address.scheme == "hdfs":
            self._patiently(path, lambda filesystem: _write_and_move(filesystem, whole, data))
            return

        def upload(filesystem: FileSystem) -> None:
            with filesystem.open_output_stream(whole) as stream:
                stream.write(data)

        self._patiently(path, upload)

    def delete(self, path: str) -> None:
        try:
            self._patiently(path, lambda filesystem: filesystem.delete_file(self._full(path)))
        except StoreMissing:
            return

    def _within(self, path: str) -> str:
        return f"{self._root}/{path}" if self._root and path else self._root or path

    def _full(self, path: str) -> str:
        """A path as pyarrow has it, the bucket before it."""
        within = self._within(path)
        if self._address.scheme == "hdfs":
            return f"/{within}"
        return f"{self._address.place}/{within}" if within else self._address.place

    def _patiently(self, path: str, call: Callable[[FileSystem], Value]) -> Value:
        """What a call gives, made again with growing pauses where the store does not answer it."""
        until, pause = None, _FIRST_PAUSE
        while True:
            try:
                return call(self._opened())
            except CrnnDeployError:
                raise
            except FileNotFoundError:
                raise StoreMissing(self.name(path)) from None
            except ValueError as error:  # pyarrow has no such path
                raise StoreDenied(self.name(path), first_line(error)) from None
            except OSError as error:
                reason = self._reason(error)
                if _MISSING.search(reason):
                    raise StoreMissing(self.name(path)) from None
                if isinstance(error, PermissionError) or _REFUSED.search(reason):
                    raise StoreDenied(self.name(path), reason) from None
                now = time.monotonic()
                until = now + store.PATIENCE if until is None else until
                if now + pause > until:
                    raise StoreUnreachable(self.name(path), reason) from None
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _reason(self, error: OSError) -> str:
        reason = first_line(error)
        return reason.replace(self._address.secret, "...") if self._address.secret else reason

    def _opened(self) -> FileSystem:
        with self._opening:
            if self._filesystem is None:
                self._filesystem = _KINDS[self._address.scheme](self._address)
            return self._filesystem


class _RemoteFile(io.RawIOBase):
    """An object that is read with a store's patience; its bytes are fetched as they are asked for."""

    def __init__(self, parent: RemoteStore, path: str) -> None:
        self._store, self._path, self._at = parent, path, 0
        full = parent._full(path)
        self._file = parent._patiently(path, lambda filesystem: filesystem.open_input_file(full))
        self._size = int(self._file.size())

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        """As many bytes as asked for; fewer only at the end."""
        there = max(0, self._size - self._at)
        wanted = there if size is None or size < 0 else min(size, there)

        def read(filesystem: FileSystem) -> bytes:
            data: bytes = self._file.read_at(wanted, self._at)
            if len(data) < wanted:
                raise OSError(f"{len(data):,} of {wanted:,} bytes came")
            return data

        data = self._store._patiently(self._path, read) if wanted else b""
        self._at += wanted
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def _write_and_move(filesystem: FileSystem, path: str, data: bytes) -> None:
    folder, _, last = path.rpartition("/")
    temporary = f"{folder}/.{last[:16]}.{uuid4().hex}"
    filesystem.create_dir(folder or "/", recursive=True)
    try:
        with filesystem.open_output_stream(temporary) as stream:
            stream.write(data)
        filesystem.move(temporary, path)
    except OSError:
        with suppress(OSError):
            filesystem.delete_file(temporary)
        raise


def _s3(address: Address) -> FileSystem:
    fs = _import_fs()
    options: dict[str, Any] = dict(address.options)
    if (
        "endpoint_override" in options
    ):  # others than Amazon's may not know the checksums that its library adds
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    for name in ("allow_bucket_creation", "force_virtual_addressing", "anonymous"):
        if name in options:
            options[name] = options[name].lower() in ("1", "true", "yes")
    if address.user:
        options |= {"access_key": address.user, "secret_key": address.secret}
    return fs.S3FileSystem(
        **options,
        allow_delayed_open=True,  # one request for a small file, where there would be three
        connect_timeout=_CONNECT,
        request_timeout=_ANSWER,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
    )


def _gs(address: Address) -> FileSystem:
    options: dict[str, Any] = dict(address.options)
    if "anonymous" in options or address.user == "anonymous":
        options["anonymous"] = options.get("anonymous", "true").lower() in ("1", "true", "yes")
    return _import_fs().GcsFileSystem(**options, retry_time_limit=_RETRIED)


def _hdfs(address: Address) -> FileSystem:
    options: dict[str, Any] = dict(address.options)
    for name in ("replication", "buffer_size", "default_block_size"):
        if name in options:
            options[name] = int(options[name])
    host, _, port = address.place.partition(":")
    user = options.pop("user", None) or address.user or None
    return _import_fs().HadoopFileSystem(host or "default", int(port or 0), user=user, **options)


_KINDS: dict[str, Callable[[Address], FileSystem]] = {"s3": _s3, "gs": _gs, "hdfs": _hdfs}


def _import_fs() -> Any:
    try:
        from pyarrow import fs
    except ImportError as error:
        raise LibraryMissing("an object store", "pyarrow", "ray") from error
    return fs
