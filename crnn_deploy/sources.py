"""Which images a command line means: files, folders, globs, and a list on standard input."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence

from crnn_deploy.errors import CrnnDeployError

__all__ = ["IMAGE_SUFFIXES", "STDIN", "ImagesMissing", "PathNotFound", "check", "find"]

STDIN = "-"
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"}
    | {".tif", ".tiff", ".webp"}
    | {".avif", ".heic", ".jp2"}  # cannot be read: an error is seen, an image that is passed over is not
)


class PathNotFound(CrnnDeployError, FileNotFoundError):
    """A path on the command line that is neither there nor a glob that matches."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no file, folder or match at {path}")


class ImagesMissing(CrnnDeployError, ValueError):
    """A folder with nothing to read in it."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no images in {path} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")


def check(paths: Iterable[str]) -> None:
    """Raise PathNotFound or ImagesMissing for the first path that gives no input."""
    for path in paths:
        if os.path.isdir(path):
            if next(_below(path), None) is None:
                raise ImagesMissing(path)
        elif path != STDIN and not os.path.exists(path) and next(_expand(path), None) is None:
            raise PathNotFound(path)


def find(paths: Sequence[str], listed: Iterable[bytes]) -> Iterator[str]:
    """Every image that `paths` name, one by one, as often as it is named.

    A file is taken whatever its suffix. A folder gives the files below it that have an image suffix, sorted
    within each folder and hidden ones left out. A glob gives what a shell with `**` would give it; folders
    among its matches are taken as folders, except with `**`, which has been inside them already. `-` gives
    the lines of `listed`, unread and unchecked: one line is one image.
    """
    for path in paths:
        if path == STDIN:
            lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in listed)
            yield from (line for line in lines if line)
        elif os.path.isdir(path):
            yield from _below(path)
        elif _is_glob(path) and not os.path.exists(path):
            yield from _expand(path)
        else:
            yield path


def _below(folder: str) -> Iterator[str]:
    """Images in a folder and its subfolders."""
    for subfolder, names in _walk(folder):
        for name in names:
            hidden = name.startswith(".") and name != os.curdir
            if name == os.curdir or (not hidden and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES):
                yield os.path.join(subfolder, name)


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Every folder from `folder` down with the sorted names of its files; links are followed.

    A folder that is reached twice is walked once, so a loop of links ends. One that cannot be listed has "."
    for its only name: reading that path fails, and so it is not passed over in silence.
    """
    seen: set[tuple[int, int]] = set()
    unlisted: list[str] = []
    walk = os.walk(folder, followlinks=True, onerror=lambda error: unlisted.append(error.filename))
    for path, subfolders, names in walk:
        status = os.stat(path)
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            subfolders.clear()
            continue
        seen.add(identity)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        names.sort()
        yield path, names
    yield from ((path, [os.curdir]) for path in unlisted)


def _is_glob(path: str) -> bool:
    return any(mark in path for mark in "*?[")


def _expand(pattern: str) -> Iterator[str]:
    """Files that a glob means; none if `pattern` is not a glob."""
    if not _is_glob(pattern):
        return
    drive, tail = os.path.splitdrive(pattern)
    parts = tail.replace(os.altsep or os.sep, os.sep).split(os.sep)
    if parts[-1] == "**":
        parts.append("*")
    root = drive
    if tail.startswith(os.sep):
        root += os.sep
    deep = "**" in parts
    for match in _match(root, tuple(part for part in parts if part), set()):
        if os.path.isdir(match):
            yield from () if deep else _below(match)
        elif parts[-1]:
            yield match


def _match(folder: str, parts: tuple[str, ...], seen: set[tuple[str, int]]) -> Iterator[str]:
    """Paths below `folder` that fit the parts of a glob; `seen` keeps a second `**` from giving one twice."""
    if (folder, len(parts)) in seen:
        return
    seen.add((folder, len(parts)))
    part, rest = parts[0], parts[1:]
    if part == "**":
        for path, _ in _walk(folder or os.curdir):
            yield from _match(path if folder else path[2:], rest, seen)
        return
    if _is_glob(part):
        try:
            names = sorted(os.listdir(folder or os.curdir))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError:
            yield os.path.join(folder, os.curdir)  # as in _walk
            return
        names = [name for name in names if name.startswith(".") <= part.startswith(".")]
    else:
        names = [part]
    for name in fnmatch.filter(names, part) if _is_glob(part) else names:
        path = os.path.join(folder, name)
        if rest:
            yield from _match(path, rest, seen)
        elif os.path.lexists(path):
            yield path
