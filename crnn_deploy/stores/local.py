"""Folders of this machine as a store: only regular files are read, and they are written whole."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from crnn_deploy import files
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.stores.store import BUFFER, Entry, Folder, Store, StoreDenied, StoredTooLarge, StoreMissing

__all__ = ["LocalStore", "StoreUnreadable"]


class StoreUnreadable(CrnnDeployError, OSError):
    """A local file or folder that cannot be read, though it is there."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be read: {reason}")


class LocalStore(Store):
    """Files below a folder. Beyond what a Store raises, every method raises StoreUnreadable."""

    def __init__(self, root: str) -> None:
        self.uri = root

    def name(self, path: str) -> str:
        return os.path.join(self.uri, path) if path else self.uri

    def below(self, path: str) -> LocalStore:
        return LocalStore(self.name(path))

    def read(self, path: str, start: int = 0, size: int | None = None, limit: int | None = None) -> bytes:
        with self._told(path), files.open_regular(self.name(path)) as file:
            there = max(0, os.fstat(file.fileno()).st_size - start)
            wanted = there if size is None else min(size, there)
            if limit is not None and wanted > limit:
                raise StoredTooLarge(self.name(path), limit)
            file.seek(start)
            return file.read(wanted)

    def open(self, path: str, buffer: int = BUFFER) -> BinaryIO:
        with self._told(path):
            return files.open_regular(self.name(path))

    def size(self, path: str) -> int:
        with self._told(path):
            status = os.stat(self.name(path))
            if not stat.S_ISREG(status.st_mode):
                raise StoreMissing(self.name(path))
            return status.st_size

    def exists(self, path: str) -> bool:
        return os.path.exists(self.name(path))

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(self.name(path))

    def folder(self, path: str = "") -> Folder:
        found: list[Entry] = []
        folders: list[str] = []
        with self._told(path), os.scandir(self.name(path)) as entries:
            for entry in entries:
                below = f"{path}/{entry.name}" if path else entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(below)
                    continue
                with suppress(OSError):  # gone by now, or a link to nothing
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode):
                        found.append(Entry(below, status.st_size))
        return Folder(sorted(found), sorted(folders))

    def write(self, path: str, data: bytes) -> None:
        files.write(Path(self.name(path)), data)

    def delete(self, path: str) -> None:
        with self._told(path), suppress(FileNotFoundError):
            os.unlink(self.name(path))

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """What the system raises becomes an error with the file's name."""
        try:
            yield
        except CrnnDeployError:
            raise
        except (FileNotFoundError, NotADirectoryError):
            raise StoreMissing(self.name(path)) from None
        except PermissionError as error:
            raise StoreDenied(self.name(path), error.strerror or str(error)) from None
        except OSError as error:
            raise StoreUnreadable(self.name(path), error.strerror or str(error)) from None
        except ValueError:  # a NUL in the path
            raise StoreMissing(self.name(path)) from None
