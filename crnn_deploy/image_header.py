"""What an encoded image says of itself, read before anything is decoded.

A decoder allocates what the header asks for and may make up what a truncated file lacks. So the kind, the
size and the end of a file are looked at first, and only kinds on a short list reach the decoder.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from crnn_deploy.errors import CrnnDeployError

__all__ = [
    "MAX_PIXELS",
    "MAX_SIDE",
    "Header",
    "ImageTooLarge",
    "ImageUnreadable",
    "check_size",
    "plain_png",
    "probe",
]

MAX_PIXELS = 64_000_000
MAX_SIDE = 65_535

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"}
_PNM_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM = re.compile(  # bitmaps (1, 4) have a width and a height, the others also the value of white
    rb"P(?:[14]|([2356]))" + (_PNM_GAP + rb"(\d{1,9})") * 2 + rb"(?(1)" + _PNM_GAP + rb"(\d{1,9}))\s"
)
_TIFF_TAGS = {256: "width", 257: "height", 258: "bits", 277: "samples", 322: "tile width", 323: "tile height"}
_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}


class ImageUnreadable(CrnnDeployError, ValueError):
    """An image that cannot be read, or must not be."""

    def __init__(self, source: str, reason: str) -> None:
        shown = source if source.isprintable() else repr(source)
        super().__init__(f"{shown}: {reason}")


class ImageTooLarge(ImageUnreadable):
    """An image with more pixels than anybody's line of text; it is refused before it is decoded."""


class _Truncated(Exception):
    """The data end before the image does."""


@dataclass(frozen=True)
class Header:
    """What an image says of itself; where it says it twice, what the decoder goes by."""

    format: str  # PNG, JPEG, WebP, BMP, TIFF, GIF or PNM
    width: int  # pixels, as stored: before an EXIF orientation is applied
    height: int  # pixels
    alpha: bool = False  # whether pixels may be transparent
    transparent_gray: int | None = None  # of a grey PNG: the level, as decoded, that stands for transparent


def probe(data: bytes | memoryview, source: str = "<bytes>") -> Header:
    """Kind and size of an encoded image that is on the short list, small enough and, as far as told, whole.

    Whole means: a PNG has every chunk up to IEND and their checksums hold, a JPEG has an end-of-image marker
    after its first scan, a GIF its trailer, a WebP the bytes that its RIFF header counts. Of the other kinds
    the decoder finds out.

    source: name of the image in the messages
    Raises ImageUnreadable or ImageTooLarge.
    """
    data = bytes(data)
    if not data:
        raise ImageUnreadable(source, "empty file")
    kind = next((kind for kind, (signature, _) in _KINDS.items() if re.match(signature, data)), None)
    if kind is None:
        raise ImageUnreadable(source, f"not an image ({', '.join(_KINDS)})")
    try:
        header = _KINDS[kind][1](data)
    except (_Truncated, IndexError, struct.error):
        raise ImageUnreadable(source, f"truncated {kind}") from None
    except ValueError as error:
        raise ImageUnreadable(source, f"{kind} {error}") from None
    check_size(header.width, header.height, source)
    return header


def check_size(width: int, height: int, source: str) -> None:
    """Raise ImageUnreadable for an image without pixels, ImageTooLarge for one with too many."""
    size = f"{width} x {height} pixels"
    if width < 1 or height < 1:
        raise ImageUnreadable(source, size)
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(source, f"{size}, more than the limit of {MAX_PIXELS:,}")
    if max(width, height) > MAX_SIDE:
        raise ImageTooLarge(source, f"{size}, a side longer than the limit of {MAX_SIDE:,}")


def plain_png(data: bytes) -> bytes:
    """The pixels alone of a PNG that `probe` accepted: libpng prints warnings about the rest."""
    kept = [data[start:end] for name, start, end in _png_chunks(data) if name in _PNG_PIXELS]
    return _PNG + b"".join(kept)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of every chunk up to IEND."""
    start, name = len(_PNG), b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            raise _Truncated
        yield name, start, end
        start = end


def _png(data: bytes) -> Header:
    header, transparency = b"", b""
    for name, start, end in _png_chunks(data):
        if not header and name != b"IHDR":
            raise ValueError("without a header")
        if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise ValueError(f"is corrupt: wrong checksum of chunk {name.decode('latin-1')!r}")
        if not header:
            header = data[start + 8 : end - 4]
        elif name == b"tRNS":
            transparency = data[start + 8 : end - 4]
    width, height, depth, color = struct.unpack_from(">IIBB", header)
    alpha, transparent = color in (4, 6), None
    if transparency and color == 0:  # OpenCV passes this over
        transparent = int.from_bytes(transparency[:2]) * {1: 255, 2: 85, 4: 17}.get(depth, 1)
    elif transparency:
        alpha = True
    return Header("PNG", width, height, alpha, transparent)


def _jpeg(data: bytes) -> Header:
    at, size = 2, None
    while True:
        if data[at] != 0xFF:
            raise ValueError("is corrupt: no marker where one must be")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0xDA:  # start of the first scan
            break
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # they have no length
            at += 2
        else:
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # start of a frame
                size = struct.unpack_from(">HH", data, at + 5)
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    if size is None:
        raise ValueError("without a size")
    if data.find(b"\xff\xd9", at) < 0:
        raise _Truncated
    return Header("JPEG", size[1], size[0])


def _webp(data: bytes) -> Header:
    if 8 + struct.unpack_from("<I", data, 4)[0] > len(data):
        raise _Truncated
    chunk = data[12:16]
    if chunk == b"VP8X":
        return Header("WebP", _uint24(data, 24) + 1, _uint24(data, 27) + 1, bool(data[20] & 0x10))
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1))
    width, height = struct.unpack_from("<HH", data, 26)
    return Header("WebP", width & 0x3FFF, height & 0x3FFF)


def _uint24(data: bytes, at: int) -> int:
    return data[at] | data[at + 1] << 8 | data[at + 2] << 16


def _bmp(data: bytes) -> Header:
    old = struct.unpack_from("<I", data, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
    return Header("BMP", width, abs(height), alpha=True)


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + _palette(flags)
    while data[at] != 0x3B:  # trailer
        if data[at] == 0x2C:  # image: position and size, palette, code size
            at += 11 + _palette(data[at + 9])
        elif data[at] == 0x21:  # extension: label
            at += 2
        else:
            raise ValueError("is corrupt: no block where one must be")
        while data[at]:
            at += 1 + data[at]
        at += 1
    return Header("GIF", width, height, alpha=True)


def _palette(flags: int) -> int:
    """Bytes of a GIF palette."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _tiff(data: bytes) -> Header:
    order = "<" if data[:1] == b"I" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    (entries,) = struct.unpack_from(order + "H", data, directory)
    tags: dict[str, int] = {}
    for at in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, at)
        if tag in _TIFF_TAGS and kind in _TIFF_TYPES:
            value, at = order + _TIFF_TYPES[kind], at + 8
            if count * struct.calcsize(value) > 4:
                (at,) = struct.unpack_from(order + "I", data, at)
            tags.setdefault(_TIFF_TAGS[tag], struct.unpack_from(value, data, at)[0])
    if tags.get("samples") == 2:  # OpenCV drops the second
        raise ValueError("of grey and alpha is not supported; convert it to PNG")
    if tags.get("bits", 1) not in (1, 2, 4, 8, 16):  # OpenCV does not scale 10, 12 and 14
        raise ValueError(f"of {tags['bits']} bits per sample is not supported; convert it to 8 or 16")
    if tags.get("tile width", 0) * tags.get("tile height", 0) > MAX_PIXELS:  # the decoder allocates a tile
        raise ValueError(f"has tiles of more than the limit of {MAX_PIXELS:,} pixels")
    return Header("TIFF", tags.get("width", 0), tags.get("height", 0), alpha=True)


def _pnm(data: bytes) -> Header:
    match = _PNM.match(data)
    if match is None:
        raise ValueError("is corrupt or truncated: no size in its header")
    _, width, height, white = match.groups()
    if white not in (None, b"255", b"65535"):
        raise ValueError(f"whose white is {int(white)} is not supported; convert it to 255 or 65535")
    return Header("PNM", int(width), int(height))


_KINDS = {
    "PNG": (re.escape(_PNG), _png),
    "JPEG": (rb"\xff\xd8\xff", _jpeg),
    "WebP": (rb"(?s)RIFF....WEBPVP8[ LX]", _webp),
    "BMP": (rb"BM", _bmp),
    "TIFF": (rb"II\*\0|MM\0\*", _tiff),
    "GIF": (rb"GIF8[79]a", _gif),
    "PNM": (rb"P[1-6][\s#]", _pnm),
}
