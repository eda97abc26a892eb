"""Shards of a store, whole on this machine: fetched once, shared by processes, the oldest removed first."""

from __future__ import annotations

import copy
import hashlib
import os
import stat
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from crnn_deploy.datasets import DatasetInvalid
from crnn_deploy.datasets.shards import Shard
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import OutputUnwritable, open_regular, temporary
from crnn_deploy.stores.local import LocalStore
from crnn_deploy.stores.store import Store

try:
    import fcntl
except ImportError:  # Windows: two processes may fetch the same shard, and one of them wins
    fcntl = None  # type: ignore[assignment]

__all__ = ["MOST_CACHED", "ShardCache", "ShardLost", "default_folder"]

MOST_CACHED = 16 * 10**9  # bytes
_PIECE = 2**22  # bytes that are fetched at a time
_ENDING, _PART = ".tar", ".part"
_ABANDONED = 3600  # seconds after which an unfinished file is that of a process that was killed


class ShardLost(DatasetInvalid):
    """A shard that a dataset has and that cannot be read, or is another one by now.

    It is not one sample's fault: what goes through a dataset ends, where it passes over what it cannot read.
    """


def default_folder() -> Path:
    """This user's, in the system's folder for temporary files."""
    return Path(tempfile.gettempdir(), f"crnn-deploy-shards-{getattr(os, 'getuid', lambda: 'own')()}")


class ShardCache:
    """A folder of shards, which processes share.

    limit: bytes; the shards that were used least recently are removed before another one is fetched. One
        that a process still reads takes its room until that process lets it go.
    Shards on this machine are read where they lie.
    """

    def __init__(self, folder: Path | None = None, limit: int = MOST_CACHED) -> None:
        self._folder, self._limit = folder or default_folder(), limit
        self._ahead: list[Shard] = []
        self._process = 0  # whose thread fetches ahead
        self._stores: dict[tuple[int, str], Store] = {}
        self._owning = threading.Lock()

    def open(self, shard: Shard) -> BinaryIO:
        """A shard, fetched where it is not here yet, and held against size and digest. Raises ShardLost."""
        try:
            if isinstance(shard.store, LocalStore):
                return self._checked(shard, shard.store.open(shard.path))
            path = self._folder / _name(shard)
            if (file := self._found(shard, path)) is not None:
                return file
            with self._alone(path):
                if (file := self._found(shard, path)) is None:
                    file = self._fetched(shard, path)
                return file
        except ShardLost:
            raise
        except CrnnDeployError as error:
            raise ShardLost(shard.name, str(error).removeprefix(f"{shard.name}: ")) from error

    def _found(self, shard: Shard, path: Path) -> BinaryIO | None:
        try:
            file = open_regular(path)
        except OSError:
            return None
        with suppress(OSError):  # removed by now; it is open
            os.utime(path)
        return self._checked(shard, file)

    def _checked(self, shard: Shard, file: BinaryIO) -> BinaryIO:
        size = os.fstat(file.fileno()).st_size
        if size != shard.size:
            file.close()
            raise _changed(shard, size)
        return file

    def _fetched(self, shard: Shard, path: Path) -> BinaryIO:
        self._make_room(shard.size)
        part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}{_PART}")
        digest = hashlib.sha256()
        try:
            with temporary(part), self._own(shard.store).open(shard.path, buffer=0) as source:
                with open(part, "xb") as target:
                    while data := source.read(_PIECE):
                        digest.update(data)
                        target.write(data)
                    size = target.tell()
                if size != shard.size:
                    raise _changed(shard, size)
                if shard.sha256 not in (None, digest.hexdigest()):
                    raise ShardLost(
                        shard.name, f"its SHA-256 is not the {shard.sha256} of its index; pack it anew"
                    )
                file = open_regular(part)
                os.replace(part, path)
                return file
        except OSError as error:
            if isinstance(error, CrnnDeployError):
                raise
            raise OutputUnwritable(path, error.strerror or str(error)) from error

    def _own(self, store: Store) -> Store:
        """A store with connections of this process, and not of the one that it was forked from."""
        with self._owning:
            key = os.getpid(), store.uri
            if key not in self._stores:
                self._stores = {key: copy.copy(store)}
            return self._stores[key]

    def _make_room(self, size: int) -> None:
        """Remove the oldest until one of `size` bytes more fits, and what killed processes have left."""
        there: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            with suppress(OSError):
                status = path.stat()
                if path.suffix == _ENDING:
                    there.append((status.st_mtime, status.st_size, path))
                elif path.suffix == _PART and time.time() - status.st_mtime > _ABANDONED:
                    path.unlink()
        taken = sum(one for _, one, _ in there)
        for _, one, path in sorted(there):
            if taken + size <= self._limit:
                break
            with suppress(OSError):
                path.unlink()
            taken -= one

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """No other thread or process fetches the same shard meanwhile; few others wait too."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self._folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or (fcntl and status.st_uid != os.getuid()):
                raise OutputUnwritable(
                    self._folder, "it is not a folder of this user; remove it, or name another one"
                )
            with open(self._folder / f"{path.name[:2]}.lock", "ab") as lock:
                if fcntl is not None:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            if isinstance(error, CrnnDeployError):
                raise
            raise OutputUnwritable(self._folder, error.strerror or str(error)) from error

    def fetch_ahead(self, shards: Sequence[Shard]) -> None:
        """Fetch these in the background, in their order, in place of what was asked for before.

        What goes wrong is told where the shard is opened.
        """
        self._ahead[:] = shards
        if self._ahead and self._process != os.getpid():
            self._process = os.getpid()
            threading.Thread(target=self._go_ahead, daemon=True).start()

    def _go_ahead(self) -> None:
        while True:
            try:
                shard = self._ahead.pop(0)
            except IndexError:
                self._process = 0
                return
            with suppress(ShardLost):
                self.open(shard).close()

    def __getstate__(self) -> tuple[Path, int]:
        return self._folder, self._limit

    def __setstate__(self, state: tuple[Path, int]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def _name(shard: Shard) -> str:
    told = f"{shard.name}\n{shard.size}\n{shard.sha256}"
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest() + _ENDING


def _changed(shard: Shard, size: int) -> ShardLost:
    return ShardLost(
        shard.name, f"has {size:,} bytes, and had {shard.size:,} when it was listed; run the command again"
    )
