"""The regular files in a tar, listed without unpacking: ustar, GNU's long names, pax names and sizes.

Python's `tarfile` ends without a word at a header that is torn or altered, and reads a name of any length.
Here the end must be marked, every header must have its checksum, and what readers understand differently (a
link with bytes, a sparse file) is refused.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from crnn_deploy.errors import CrnnDeployError, shortened

__all__ = ["Member", "TarInvalid", "members"]

_BLOCK = 512  # bytes
_LONGEST_NAME = 4096  # bytes
_MOST_RECORDS = 2**20  # bytes of a pax header
_MOST_BEHIND = 2**20  # bytes behind the end that must be zeros; tar fills up to 10 KiB
_FILES = b"0\0007"
_WITHOUT_BYTES = {
    **{b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"5": "a folder"},
    b"6": "a FIFO",
}
_REFUSED = {b"S": "a sparse file", b"M": "the rest of a file that began in another volume"}
_NO_BYTES = bytes(_BLOCK)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
_RECORD = re.compile(rb"(\d{1,7}) ([^=\0]+)=")


class TarInvalid(CrnnDeployError, ValueError):
    """A tar that is torn, or no tar, or one that other readers may understand otherwise."""


class Member(NamedTuple):
    """A regular file in a tar."""

    name: str  # as it stands there; bytes that are no UTF-8 are surrogate escapes
    offset: int  # of its first byte in the tar
    size: int  # bytes


def members(
    file: BinaryIO | io.BufferedReader,
    passed_over: Callable[[str, str], object] = lambda name, kind: None,
) -> Iterator[Member]:
    """The regular files of a tar, in their order; each is yielded as soon as its header was read.

    file: read and sought; between two members the caller may read and seek in it as well. Where a seek is
        dear, wrap it: io.BufferedReader(file, 2**20) reads a tar from beginning to end
    passed_over: called with the name of each link, device, FIFO and file of an unknown kind, and what it is
    Memory is that of one header. Raises TarInvalid, and what reading and seeking raise.
    """
    end = file.seek(0, os.SEEK_END)
    at, long_name = 0, b""
    records: dict[bytes, bytes] = {}
    while True:
        file.seek(at)
        header = file.read(_BLOCK)
        if len(header) < _BLOCK:
            raise TarInvalid(f"is torn: it ends at byte {end:,} without the two empty blocks that end a tar")
        if header == _NO_BYTES:
            if any(file.read(_MOST_BEHIND)):
                raise TarInvalid(
                    f"has more bytes after its end at byte {at:,}; if tars were joined, give each "
                    "one by itself"
                )
            if long_name or records:
                raise TarInvalid(f"is torn: at byte {at:,} a file is announced and does not follow")
            return
        _check(header, at)
        kind, size = header[156:157], _number(header[124:136], at)
        name = records.get(b"path") or long_name or _name(header)
        if b"size" in records and kind not in b"LKxXg":
            size = _pax_size(records[b"size"], at)
        at += _BLOCK
        if at + size > end:
            raise TarInvalid(
                f"is torn: {_shown(name)} should end at byte {at + size:,}, the tar ends at {end:,}"
            )
        if kind in (b"L", b"K"):
            if size > _LONGEST_NAME + 1:
                raise TarInvalid(
                    f"has a name of {size:,} bytes at byte {at:,}, which is too long; pack it anew"
                )
            text = file.read(size).split(b"\0")[0]
            long_name = text if kind == b"L" else long_name
        elif kind in (b"x", b"X", b"g"):
            if size > _MOST_RECORDS:
                raise TarInvalid(
                    f"has a pax header of {size:,} bytes at byte {at:,}, which is too long; pack it anew"
                )
            found = _records(file.read(size), at)
            if kind == b"g" and {b"path", b"size"} & found.keys():
                raise TarInvalid(f"gives one name or size to all of its files at byte {at:,}; pack it anew")
            if kind != b"g":
                records |= found
        else:
            if kind in _REFUSED or any(key.startswith(b"GNU.sparse.") for key in records):
                raise TarInvalid(
                    f"has {_REFUSED.get(kind, 'a sparse file')}, {_shown(name)}; pack it anew, without "
                    "--sparse and in one volume"
                )
            if not name or len(name) > _LONGEST_NAME or b"\0" in name:
                raise TarInvalid(
                    f"has a file whose name is empty, too long or has a NUL byte, at byte {at:,}; "
                    "pack it anew"
                )
            if size and kind in _WITHOUT_BYTES:
                raise TarInvalid(
                    f"has {_WITHOUT_BYTES[kind]} with {size:,} bytes, {_shown(name)}; pack it anew"
                )
            if kind not in _FILES:
                if kind != b"5":
                    passed_over(name.decode(errors="surrogateescape"), _WITHOUT_BYTES.get(kind, "unknown"))
            elif not (kind == b"\0" and name.endswith(b"/")):  # a folder, in the oldest tars
                yield Member(name.decode(errors="surrogateescape"), at, size)
            long_name, records = b"", {}
        at += -(-size // _BLOCK) * _BLOCK


def _check(header: bytes, at: int) -> None:
    """Raises TarInvalid where the checksum of a header is another; old tars have it of signed bytes."""
    told = _number(header[148:156], at)
    plain = sum(header) - sum(header[148:156]) + 8 * 32  # the checksum itself counts as spaces
    if told == plain:
        return
    if told == plain - 256 * sum(byte > 127 for byte in header[:148] + header[156:]):
        return
    if at == 0 and header.startswith(_COMPRESSED):
        raise TarInvalid("is compressed; unpack it to a plain .tar, whose files can be read one by one")
    raise TarInvalid(f"is not a tar, or is torn: at byte {at:,} no file begins")


def _number(field: bytes, at: int) -> int:
    """Octal digits, or GNU's binary numbers. Raises TarInvalid."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    text = field.strip(b" \0")
    if not text:
        return 0
    try:
        if text.isdigit():
            return int(text, 8)
    except ValueError:  # an 8 or a 9
        pass
    raise TarInvalid(f"is not a tar, or is torn: at byte {at:,} {text!r} stands in the place of a number")


def _pax_size(value: bytes, at: int) -> int:
    if not re.fullmatch(rb"\d{1,18}", value):
        raise TarInvalid(f"is torn: at byte {at:,} {value[:20]!r} stands in the place of a size")
    return int(value)


def _shown(name: bytes) -> str:
    return shortened(name.decode(errors="surrogateescape"))


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0")[0] + b"/" + name
    return name


def _records(data: bytes, at: int) -> dict[bytes, bytes]:
    """The records of a pax header: a length in digits, a key and a value each. Raises TarInvalid."""
    found, place = {}, 0
    while place < len(data) and data[place]:
        record = _RECORD.match(data, place)
        end = place + int(record[1]) if record else 0
        if record is None or end > len(data) or record.end() >= end or data[end - 1 : end] != b"\n":
            raise TarInvalid(f"is torn: the pax header at byte {at:,} cannot be read")
        found[record[2]] = data[record.end() : end - 1]
        place = end
    return found
