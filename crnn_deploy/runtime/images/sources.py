"""Which images a command line means: files, folders, globs, and a list on standard input.

What is named and cannot be read is an image that fails: it costs its own record and nothing else.
"""

from __future__ import annotations

import codecs
import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

from crnn_deploy.errors import CrnnDeployError

__all__ = ["IMAGE_SUFFIXES", "STDIN", "ImagesMissing", "PathNotFound", "check", "find", "lines_of"]

STDIN = "-"
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"}
    | {".tif", ".tiff", ".webp"}
    | {".avif", ".heic", ".jp2"}  # cannot be read: an error is seen, an image that is passed over is not
)

_AROUND = " \t\ufeff\"'~"  # what stands around a path and is no part of it
_LONGEST_LINE = 2**16  # bytes, of a list


class PathNotFound(CrnnDeployError, FileNotFoundError):
    """A path on the command line that is neither there nor a glob that matches."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no file, folder or match at {path or 'an empty path'}")


class ImagesMissing(CrnnDeployError, ValueError):
    """A folder with nothing to read in it."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no images in {path} (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")


def check(paths: Iterable[str]) -> None:
    """Refuse paths before anything is read.

    Raises PathNotFound where none of them is there, for the first glob that matches nothing and for an empty
    path; ImagesMissing for the first folder without images.
    """
    missing: list[str] = []
    found = False
    for path in paths:
        if os.path.isdir(path):
            if next(_below(path), None) is None:
                raise ImagesMissing(path)
        elif path != STDIN and not os.path.lexists(path):
            if not path or (_is_glob(path) and next(_expand(path), None) is None):
                raise PathNotFound(path)
            if not _is_glob(path):
                missing.append(path)
                continue
        found = True
    if missing and not found:
        raise PathNotFound(missing[0])


def find(paths: Sequence[str], listed: Iterable[bytes]) -> Iterator[str]:
    """Every image that `paths` name, one by one, as often as it is named.

    A file is taken whatever its suffix. A folder gives the files below it that have an image suffix, sorted
    within each folder and hidden ones left out. A glob gives what a shell with `**` would give it; folders
    among its matches are taken as folders, except with `**`, which has been inside them already. `-` gives
    the lines of `listed`: one line is one image, whether it is there or not. Where none is called as the line
    stands, blanks and quotes around it and `~` are taken as a shell takes them, if so one is there.
    """
    for path in paths:
        if path == STDIN:
            lines = (os.fsdecode(line.rstrip(b"\r\n")) for line in listed)
            yield from (_meant(line) for line in lines if line)
        elif os.path.isdir(path):
            yield from _below(path)
        elif _is_glob(path) and not os.path.lexists(path):
            yield from _expand(path)
        else:
            yield path


def lines_of(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a list as they come, the first 64 KiB of one that is longer: no path is so long.

    A list that begins with a byte order mark is UTF-8 or UTF-16, as Windows' programs write it. One whose
    first line has a NUL, which no path has, is parted by NULs, as that of `find -print0`.
    """
    line = stream.readline(_LONGEST_LINE)
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield from _of_utf16(line, stream)
        return
    line = line.removeprefix(codecs.BOM_UTF8)
    if b"\0" in line:
        yield from _between_nuls(line, stream)
        return
    while line:
        yield line
        while not line.endswith(b"\n") and (line := stream.readline(_LONGEST_LINE)):
            pass
        line = stream.readline(_LONGEST_LINE)


def _of_utf16(part: bytes, stream: BinaryIO) -> Iterator[bytes]:
    decoder, text = codecs.getincrementaldecoder("utf-16")("replace"), ""
    while part:
        *lines, text = (text + decoder.decode(part)).split("\n")
        yield from map(os.fsencode, lines)
        text, part = text[:_LONGEST_LINE], stream.readline(_LONGEST_LINE)
    if text:
        yield os.fsencode(text)


def _between_nuls(part: bytes, stream: BinaryIO) -> Iterator[bytes]:
    path = b""
    while part:
        *paths, path = (path + part).split(b"\0")
        yield from paths
        path, part = path[:_LONGEST_LINE], stream.readline(_LONGEST_LINE)
    if path:
        yield path


def _meant(line: str) -> str:
    """The path that a line of a list means."""
    if not (line[0] in _AROUND or line[-1] in _AROUND) or os.path.lexists(line):
        return line
    plain = line.strip(" \t\ufeff")
    if len(plain) > 1 and plain[0] == plain[-1] and plain[0] in "\"'":
        plain = plain[1:-1]
    for path in (plain, os.path.expanduser(plain)):
        if os.path.lexists(path):
            return path
    return line


def _below(folder: str) -> Iterator[str]:
    """Images in a folder and its subfolders."""
    for subfolder, names in _walk(folder):
        for name in names:
            hidden = name.startswith(".") and name != os.curdir
            if name == os.curdir or (not hidden and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES):
                yield os.path.join(subfolder, name)


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Every folder from `folder` down with the sorted names of its files; links are followed.

    A folder that is reached twice is walked once, so a loop of links ends. One that cannot be listed, or is
    gone by then, has "." for its last name: reading that path fails, and so it is not passed over in silence.
    However deep the folders are, this is no recursion.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        names: list[str] = []
        subfolders: list[str] = []
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as entries:
                for entry in entries:
                    (subfolders if _is_folder(entry) else names).append(entry.name)
        except OSError:
            names.append(os.curdir)
        yield path, sorted(names, key=lambda name: (name == os.curdir, name))
        shown = sorted((name for name in subfolders if not name.startswith(".")), reverse=True)
        waiting += [os.path.join(path, name) for name in shown]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


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
