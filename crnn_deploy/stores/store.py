"""A place that files are read from and written to: a folder of this machine or of an object store."""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NamedTuple

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.stores.address import Address, address_of, environment, has_scheme

__all__ = [
    "BUFFER",
    "PATIENCE",
    "Entry",
    "Folder",
    "Store",
    "StoreDenied",
    "StoreMissing",
    "StoreUnreachable",
    "StoredTooLarge",
    "Stores",
    "open_store",
]

PATIENCE = 60.0  # seconds for which a store may be away
_MOST_STORES = 64  # that are held open
BUFFER = 2**22  # bytes that an opened file reads ahead


class StoreMissing(CrnnDeployError, FileNotFoundError):
    """Nothing lies at this path."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no file at {name}")


class StoreDenied(CrnnDeployError, PermissionError):
    """A store that refuses what it is asked for."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"{name}: access was refused ({reason}); check the rights of this user, or the keys of the store"
        )


class StoreUnreachable(CrnnDeployError, ConnectionError):
    """A store that does not answer, or only with errors of its own."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be reached: {reason}; try it again when the store answers")


class StoredTooLarge(CrnnDeployError, OSError):
    """A file of more bytes than its reader takes."""

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(f"{name}: it has more than the limit of {limit:,} bytes")


class Entry(NamedTuple):
    """A file of a store."""

    path: str  # below the store's root
    size: int  # bytes


class Folder(NamedTuple):
    """What lies in a folder, without what lies in its subfolders."""

    files: list[Entry]  # sorted
    folders: list[str]  # paths below the store's root, sorted
    unnamed: bool = False  # objects lie below it that no path names, as their keys have "//"


class Store(ABC):
    """Files below a root, by paths with "/"; shared by threads and sent to other processes.

    A store that does not answer is asked again for PATIENCE seconds; what is missing or denied is told at
    once. Every method raises StoreDenied and StoreUnreachable.
    """

    uri: str  # of the root, without keys, for messages

    @abstractmethod
    def name(self, path: str) -> str:
        """The address of a path, for messages and lists; it holds no keys."""

    @abstractmethod
    def below(self, path: str) -> Store:
        """The same store with another root."""

    @abstractmethod
    def read(self, path: str, start: int = 0, size: int | None = None, limit: int | None = None) -> bytes:
        """The bytes of a file from `start` on, all or at most `size`.

        Raises StoreMissing; StoredTooLarge where there are more than `limit`.
        """

    @abstractmethod
    def open(self, path: str, buffer: int = BUFFER) -> BinaryIO:
        """A file opened to be read from any place; 0 for `buffer` reads what is asked for and no more.

        Raises StoreMissing; reading raises what `read` raises.
        """

    @abstractmethod
    def size(self, path: str) -> int:
        """Bytes of a file. Raises StoreMissing."""

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether a file or a folder is there."""

    @abstractmethod
    def is_folder(self, path: str) -> bool:
        """Whether a folder is there. In an object store it is one as long as something lies in it."""

    @abstractmethod
    def folder(self, path: str = "") -> Folder:
        """What lies in a folder. Raises StoreMissing."""

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Write a whole file, or leave what was there before. Raises OutputUnwritable."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Remove a file; one that is not there is none."""

    def list(self, path: str = "") -> Iterator[Entry]:
        """All files in a folder and below it, sorted by path; none where it is missing.

        Memory holds one folder's files at a time, and those of the folders above it. A local folder that is
        a link is not gone into.
        """
        try:
            waiting = [iter(_sorted(self.folder(path)))]
        except StoreMissing:
            return
        while waiting:
            for one in waiting[-1]:
                if isinstance(one, Entry):
                    yield one
                    continue
                try:
                    waiting.append(iter(_sorted(self.folder(one))))
                except StoreMissing:  # it is gone by now
                    continue
                break
            else:
                waiting.pop()


def _sorted(folder: Folder) -> list[Entry | str]:
    """Files and folders in the order of the paths that begin with theirs."""
    both: list[Entry | str] = [*folder.files, *folder.folders]
    both.sort(key=lambda one: one.path if isinstance(one, Entry) else f"{one}/")
    return both


def open_store(uri: str) -> tuple[Store, str]:
    """The store that an address is in, and the path within it.

    uri: a local path, or one with file://, s3://, gs:// or hdfs://. Those of object stores may hold keys
        (s3://KEY:SECRET@BUCKET/...) and, at their end, options of pyarrow such as
        ?endpoint_override=HOST:PORT&scheme=http&region=...; AWS_ENDPOINT_URL and the other variables of AWS
        are heeded too.
    Nothing is asked of the store yet. Raises StoreAddressInvalid, LibraryMissing.
    """
    address = address_of(uri)
    return _store_at(address), address.path


def _store_at(address: Address) -> Store:
    if address.scheme == "file":
        from crnn_deploy.stores.local import LocalStore

        return LocalStore(address.place)
    from crnn_deploy.stores.remote import RemoteStore

    return RemoteStore(address, "")


class Stores:
    """Opens stores, each once. What the given addresses say of a bucket (keys, options) holds for all of it.

    So lists and plans hold addresses without keys. It is sent to other processes with the keys, and relative
    paths mean there what they mean here.

    given: addresses as a person gave them
    """

    def __init__(self, given: Iterable[str] = ()) -> None:
        self._known: dict[tuple[str, str], Address] = {}
        for uri in given:
            address = address_of(uri)
            known = self._known.get((address.scheme, address.place))
            if known is None or address.user or address.options != environment(address.scheme):
                self._known[address.scheme, address.place] = address
        self._folder = os.getcwd()
        self._forget()

    def _forget(self) -> None:
        self._opened: dict[tuple[str, str], Store] = {}
        self._opening = threading.Lock()

    def local(self, path: str) -> str:
        """A local path as this process opens it: a relative one begins where this object was made."""
        return path if os.getcwd() == self._folder else os.path.join(self._folder, path)

    def open(self, uri: str) -> tuple[Store, str]:
        """As `open_store`, for an address from a list: options and keys in it are not heeded.

        Raises StoreAddressInvalid, LibraryMissing.
        """
        address = address_of(uri if has_scheme(uri) else self.local(uri))
        key = address.scheme, address.place
        with self._opening:
            if key not in self._opened:
                if len(self._opened) >= _MOST_STORES:  # a list may name any number of buckets
                    del self._opened[next(iter(self._opened))]
                self._opened[key] = _store_at(self._known.get(key) or Address(*key, "", environment(key[0])))
            return self._opened[key], address.path

    def __getstate__(self) -> dict[str, Any]:
        return {"_known": self._known, "_folder": self._folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()
