"""Files of a store that a folder or a glob means, in the order in which `infer` takes local ones."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fnmatch import fnmatchcase

from crnn_deploy.stores.store import Folder, Store, StoreMissing

__all__ = ["below", "is_glob", "matches"]

_THREADS = 16
_MOST_LISTINGS = 64  # of folders that are begun before they are asked for


def is_glob(path: str) -> bool:
    return any(mark in path for mark in "*?[")


def below(store: Store, folder: str) -> Iterator[str]:
    """Paths of the files in a folder and below it; what is hidden is left out.

    Objects that no path names (`Folder.unnamed`) come as one path that ends in "//": reading it fails, and so
    they are not passed over in silence. Raises what a Store raises.
    """
    for path, listing in _walk(store, folder):
        for file in listing.files:
            if not file.path.rpartition("/")[2].startswith("."):
                yield file.path
        if listing.unnamed:
            yield f"{path}//"


def matches(store: Store, pattern: str) -> Iterator[tuple[str, bool]]:
    """Paths that fit a glob, with `**` for any number of folders, and whether each is a folder."""
    parts = [part for part in pattern.split("/") if part]
    if parts[-1] == "**":
        parts.append("*")
    yield from _match(store, "", tuple(parts), set())


def _match(
    store: Store, folder: str, parts: tuple[str, ...], seen: set[tuple[str, int]]
) -> Iterator[tuple[str, bool]]:
    """As in runtime.images.sources; `seen` keeps a second `**` from giving one twice."""
    if (folder, len(parts)) in seen:
        return
    seen.add((folder, len(parts)))
    part, rest = parts[0], parts[1:]
    if part == "**":
        for path, _ in _walk(store, folder):
            yield from _match(store, path, rest, seen)
        return
    if not is_glob(part):
        path = f"{folder}/{part}" if folder else part
        if rest:
            yield from _match(store, path, rest, seen)
        elif store.exists(path):
            yield path, store.is_folder(path)
        return
    try:
        listing = store.folder(folder)
    except StoreMissing:
        return
    found = [(file.path, False) for file in listing.files] + [(path, True) for path in listing.folders]
    for path, is_folder in sorted(found):
        name = path.rpartition("/")[2]
        if name.startswith(".") > part.startswith(".") or not fnmatchcase(name, part):
            continue
        if not rest:
            yield path, is_folder
        elif is_folder:
            yield from _match(store, path, rest, seen)


def _walk(store: Store, folder: str) -> Iterator[tuple[str, Folder]]:
    """Every folder from `folder` down with what is in it; some are listed before they are asked for."""
    pool = ThreadPoolExecutor(_THREADS, "listing")
    waiting, begun = [folder], dict[str, Future[Folder]]()
    try:
        while waiting:
            path = waiting.pop()
            future = begun.pop(path, None)
            try:
                listing = store.folder(path) if future is None else future.result()
            except StoreMissing:  # it is gone by now
                continue
            yield path, listing
            shown = [one for one in listing.folders if not one.rpartition("/")[2].startswith(".")]
            waiting += reversed(shown)
            for path in shown[: _MOST_LISTINGS - len(begun)]:
                begun[path] = pool.submit(store.folder, path)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
