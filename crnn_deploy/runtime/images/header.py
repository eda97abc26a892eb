"""What an encoded image says of itself, read before anything is decoded.

A decoder allocates what the header asks for and may make up what a truncated file lacks. So the kind, the
size and the end of a file are looked at first, and only kinds on a short list reach the decoder.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from crnn_deploy.errors import CrnnDeployError, shortened

__all__ = [
    "EXIF_ORIENTATION",
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
EXIF_ORIENTATION = 274  # the tag

_MOST_PARTS = 2**20  # chunks, segments or blocks of a file
_PNM_HEADER = 2**16  # bytes in which a PNM's numbers stand, however long its comments are
# libtiff takes 100 too; 20 are enough for any encoder, and a scan of 64 million pixels costs 60 ms
_MOST_SCANS, _SCANS_ANYHOW, _MOST_SCANNED = 100, 20, 20 * MAX_PIXELS
# pixels that a byte can stand for: DEFLATE repeats at most 258 bytes in 2 bits, LZW at most 4,096 in 12;
# Huffman codes of a JPEG take a bit for each block of 64 pixels of the finest of its components
_INFLATED, _LZW, _HUFFMAN = 1032, 2731, 1024
_LONG_PNG = 2**21  # bytes of data, that can inflate to 2 GiB in 5 seconds
_LONG_GIF, _MOST_RESETS = 2**18, 2**14  # bytes of data, in which resets can cost 2 seconds
_LZW_CODES = 4096
_MOST_OVERLAP = 16  # times the file: the strips of a TIFF, each of which is copied before it is decoded
_LONGEST_NAME = 4096  # characters that a message shows of it: those of the longest path there is
_STEP = 2**16  # what is looked at at once
_TOO_MANY = f"has more than the limit of {_MOST_PARTS:,} parts"
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # not in a scan: \xff\0 and restarts are
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"}
_PNG_GAMMA = {b"gAMA", b"sRGB"}  # libpng weighs colours in linear light where one is there
_PNM_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_PNM = re.compile(  # bitmaps (1, 4) have a width and a height, the others also the value of white
    rb"P(?:[14]|([2356]))" + (_PNM_GAP + rb"(\d{1,9})") * 2 + rb"(?(1)" + _PNM_GAP + rb"(\d{1,9}))\s"
)
_TIFF_TAGS = {
    **{256: "width", 257: "height", 258: "bits", 277: "samples", 322: "tile width", 323: "tile height"},
    **{279: "bytes", 325: "bytes", 338: "extra"},
}
_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}


class ImageUnreadable(CrnnDeployError, ValueError):
    """An image that cannot be read, or must not be."""

    def __init__(self, source: str, reason: str) -> None:
        shown = shortened(source if source.isprintable() else repr(source), _LONGEST_NAME)
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
    transparent_grey: int | None = None  # of a grey PNG: the level, as decoded, that stands for transparent
    bits: int = 0  # of a pixel of a PNG
    held: float = field(default=math.inf, compare=False)  # pixels that there are data for, at most
    tile: int = 0  # pixels of a TIFF's tile, which is decoded whole
    premultiplied: bool = False  # whether colours are stored multiplied by alpha
    orientation: int = 1  # of PNG and WebP, by EXIF: the decoder turns the others

    @property
    def decoded(self) -> int:
        """Pixels that a decoder makes room for."""
        return max(self.width * self.height, self.tile)


def probe(data: bytes | memoryview, source: str = "<bytes>", max_pixels: int = MAX_PIXELS) -> Header:
    """Kind and size of an encoded image that is on the short list, small enough and, as far as told, whole.

    Whole means: a PNG has every chunk up to IEND and their checksums hold, a JPEG has an end-of-image marker
    after its first scan, a GIF its trailer, a WebP the bytes that its RIFF header counts, and a PNG, a JPEG
    and a GIF have as many bytes as their pixels need at the least. Of the other kinds the decoder finds out.

    source: name of the image in the messages
    max_pixels: more than these are refused
    Raises ImageUnreadable or ImageTooLarge.
    """
    data = bytes(data)
    if not data:
        raise ImageUnreadable(source, "empty file")
    kind = next((kind for kind, (signature, _) in _KINDS.items() if signature.match(data)), None)
    if kind is None:
        raise ImageUnreadable(source, f"not an image ({', '.join(_KINDS)})")
    try:
        header = _KINDS[kind][1](data)
    except (_Truncated, IndexError, struct.error):
        raise ImageUnreadable(source, f"truncated {kind}") from None
    except ValueError as error:
        raise ImageUnreadable(source, f"{kind} {error}") from None
    check_size(header.width, header.height, source, max_pixels)
    if header.tile > max_pixels:
        raise ImageTooLarge(source, f"{kind} has tiles of more than the limit of {max_pixels:,} pixels")
    if header.width * header.height > header.held:
        raise ImageUnreadable(source, f"truncated {kind}")
    return header


def check_size(width: int, height: int, source: str, max_pixels: int = MAX_PIXELS) -> None:
    """Raise ImageUnreadable for an image without pixels, ImageTooLarge for one with too many."""
    if 1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= max_pixels:
        return
    size = f"{width} x {height} pixels"
    if width < 1 or height < 1:
        raise ImageUnreadable(source, size)
    if width * height > max_pixels:
        raise ImageTooLarge(source, f"{size}, more than the limit of {max_pixels:,}")
    raise ImageTooLarge(source, f"{size}, a side longer than the limit of {MAX_SIDE:,}")


def plain_png(data: bytes, header: Header, source: str, *, gamma: bool = False) -> bytes:
    """The pixels alone of a PNG that `probe` accepted: libpng prints warnings about the rest.

    gamma: also what libpng goes by when it turns colours into grey
    Raises ImageUnreadable where it holds far more data than its pixels: libpng would inflate them all.
    """
    kept: list[slice] = []
    length = 0  # of the pixels' data
    for name, start, end in _png_chunks(data):
        if name not in _PNG_PIXELS and not (gamma and name in _PNG_GAMMA):
            continue
        length += end - start
        if kept and kept[-1].stop == start:
            start = kept.pop().start
        kept.append(slice(start, end))
    room = 2 * header.height * (header.width * header.bits // 8 + 2) + 2**16  # interlaced ones need more
    if length > min(room, _LONG_PNG) and not _ends(data, room):
        raise ImageUnreadable(source, "PNG is corrupt: it holds more data than pixels")
    return _PNG + b"".join(data[part] for part in kept)


def _ends(data: bytes, room: int) -> bool:
    """Whether the data of a PNG inflate to so many bytes at most."""
    inflate = zlib.decompressobj()
    for name, start, end in _png_chunks(data):
        for at in range(start + 8, end - 4 if name == b"IDAT" else 0, _STEP):
            part = data[at : min(at + _STEP, end - 4)]
            while part and not inflate.eof:
                try:
                    room -= len(inflate.decompress(part, _STEP * 16))
                except zlib.error:  # libpng will say so
                    return True
                if room < 0:
                    return False
                part = inflate.unconsumed_tail
    return True


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of every chunk up to IEND."""
    start = len(_PNG)
    for _ in range(_MOST_PARTS):
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + 12 + length
        if end > len(data):
            raise _Truncated
        yield name, start, end
        if name == b"IEND":
            return
        start = end
    raise ValueError(_TOO_MANY)


def _png(data: bytes) -> Header:
    header, transparency, exif, length = b"", b"", b"", 0
    for name, start, end in _png_chunks(data):
        if not header and name != b"IHDR":
            raise ValueError("without a header")
        if zlib.crc32(data[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            raise ValueError(f"is corrupt: wrong checksum of chunk {name.decode('latin-1')!r}")
        if not header:
            header = data[start + 8 : end - 4]
        elif name == b"tRNS":
            transparency = data[start + 8 : end - 4]
        elif name == b"eXIf":
            exif = data[start + 8 : end - 4]
        elif name == b"IDAT":
            length += end - start - 12
    width, height, depth, color = struct.unpack_from(">IIBB", header)
    bits = depth * {2: 3, 4: 2, 6: 4}.get(color, 1)
    alpha, transparent = color in (4, 6), None
    if transparency and color == 0:  # OpenCV passes this over
        transparent = int.from_bytes(transparency[:2]) * {1: 255, 2: 85, 4: 17}.get(depth, 1)
    elif transparency:
        alpha = True
    held = length * _INFLATED * 8 / max(1, bits)
    return Header("PNG", width, height, alpha, transparent, bits, held, orientation=_orientation(exif))


def _orientation(exif: bytes) -> int:
    """The orientation that an EXIF block says, from 1 to 8; 1 where it says none."""
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4) if order else (0,)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory) if order else (0,)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", exif, at)
            if (tag, kind) == (EXIF_ORIENTATION, 3):
                return value if 1 <= value <= 8 else 1
    except struct.error:  # a damaged block is passed over, as the decoder does
        pass
    return 1


def _jpeg(data: bytes) -> Header:
    at, size, huffman = 2, None, True
    for _ in range(_MOST_PARTS):
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
                huffman = marker < 0xC8  # the others are coded arithmetically
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    else:
        raise ValueError(_TOO_MANY)
    if size is None:
        raise ValueError("without a size")
    if not data.endswith(b"\xff\xd9", at) and data.find(b"\xff\xd9", at) < 0:
        raise _Truncated
    height, width = size
    if data.count(b"\xff\xda", at) > _SCANS_ANYHOW:  # those of another image behind it are counted too
        most = min(_MOST_SCANS, max(_SCANS_ANYHOW, _MOST_SCANNED // max(1, width * height)))
        if _scans(data, at) > most:
            raise ValueError(f"has more than the limit of {most} scans for its size; save it as a plain JPEG")
    return Header("JPEG", width, height, held=len(data) * _HUFFMAN if huffman else math.inf)


def _scans(data: bytes, at: int) -> int:
    """Scans of a JPEG whose first begins at `at`, as a decoder finds them."""
    count = 0
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        at, marker = found.end(), found[0][1]
        if marker == 0xD9:  # end of the image
            break
        count += marker == 0xDA
        if marker != 0x01:
            at += int.from_bytes(data[at : at + 2])
    return count


def _webp(data: bytes) -> Header:
    if 8 + struct.unpack_from("<I", data, 4)[0] > len(data):
        raise _Truncated
    chunk = data[12:16]
    if chunk == b"VP8X":
        orientation = _orientation(_webp_exif(data)) if data[20] & 0x08 else 1
        alpha = bool(data[20] & 0x10)
        return Header("WebP", _uint24(data, 24) + 1, _uint24(data, 27) + 1, alpha, orientation=orientation)
    if chunk == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1))
    width, height = struct.unpack_from("<HH", data, 26)
    return Header("WebP", width & 0x3FFF, height & 0x3FFF)


def _webp_exif(data: bytes) -> bytes:
    at = 12
    for _ in range(_MOST_PARTS):
        if at + 8 > len(data):
            break
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"EXIF":
            return data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return b""


def _uint24(data: bytes, at: int) -> int:
    return data[at] | data[at + 1] << 8 | data[at + 2] << 16


def _bmp(data: bytes) -> Header:
    old = struct.unpack_from("<I", data, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
    return Header("BMP", width, abs(height), alpha=True)


def _gif(data: bytes) -> Header:
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at, area = 13 + _palette(flags), 0  # pixels of the first image, which alone is decoded
    parts = iter(range(_MOST_PARTS))  # one for each block and each length in it
    for _ in parts:
        if data[at] == 0x3B:  # trailer
            return Header("GIF", width, height, alpha=True)
        first = data[at] == 0x2C and not area
        if data[at] == 0x2C:  # image: position and size, palette, code size
            if first:
                area = math.prod(struct.unpack_from("<HH", data, at + 5))
            at += 11 + _palette(data[at + 9])
        elif data[at] == 0x21:  # extension: label
            at += 2
        else:
            raise ValueError("is corrupt: no block where one must be")
        begin = at
        for _ in parts:
            length = data[at]
            at += 1 + length
            if not length:
                break
        if first and area > (at - begin) * _LZW:
            raise _Truncated
        if first and at - begin > _LONG_GIF and _resets(data, begin) > _MOST_RESETS:
            raise ValueError(f"begins its codes anew more than the limit of {_MOST_RESETS:,} times")
    raise ValueError(_TOO_MANY)


def _resets(data: bytes, at: int) -> int:
    """How often the codes of an image of a GIF begin anew, up to the limit; `at`: where its data begin.

    The decoder takes 30 us for each, and they need no pixels. The widths of the codes depend on how many came
    since alone, so all up to the next reset are looked at together.
    """
    least, parts = data[at - 1], []
    while data[at]:
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    if not 2 <= least <= 11:  # the decoder refuses it
        return 0
    stream = np.frombuffer(b"".join(parts) + bytes(3), np.uint8)
    size, clear = 8 * (len(stream) - 3), 1 << least
    late = np.full(_LZW_CODES, 12)
    early = np.minimum(np.frexp(clear + 1 + np.arange(_LZW_CODES))[1], 12)  # bits of a number
    widths, start, count = early, 0, 0
    while start < size and count <= _MOST_RESETS:
        ends = start + np.cumsum(widths)
        ends = ends[ends <= size]
        if not len(ends):
            break
        begins = ends - widths[: len(ends)]
        byte = begins >> 3
        codes = (
            stream[byte].astype(int) | stream[byte + 1].astype(int) << 8 | stream[byte + 2].astype(int) << 16
        )
        codes = codes >> (begins & 7) & (1 << widths[: len(ends)]) - 1
        resets = np.flatnonzero(codes >> 1 == clear >> 1)  # the code after it is the end, and resets too
        widths, start = (early, ends[resets[0]]) if len(resets) else (late, ends[-1])
        count += len(resets) > 0
    return count


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
            # of the lengths of strips or tiles their sum, of the others the first
            lengths = _TIFF_TAGS[tag] == "bytes"
            numbers = _numbers(order, _TIFF_TYPES[kind], count if lengths else 1, data, at)
            tags.setdefault(_TIFF_TAGS[tag], sum(numbers))
    if tags.get("samples") == 2:  # OpenCV drops the second
        raise ValueError("of grey and alpha is not supported; convert it to PNG")
    if tags.get("bits", 1) not in (1, 2, 4, 8, 16):  # OpenCV does not scale 10, 12 and 14
        raise ValueError(f"of {tags['bits']} bits per sample is not supported; convert it to 8 or 16")
    if tags.get("bytes", 0) > _MOST_OVERLAP * len(data):
        raise ValueError("is truncated or corrupt: its strips or tiles are longer than the file")
    tile = tags.get("tile width", 0) * tags.get("tile height", 0)
    size = tags.get("width", 0), tags.get("height", 0)
    return Header("TIFF", *size, alpha=True, tile=tile, premultiplied=tags.get("extra") == 1)


def _numbers(order: str, kind: str, count: int, data: bytes, at: int) -> Iterator[int]:
    """Numbers of a TIFF that begin at `at`."""
    for begin in range(0, count, _STEP):
        form = f"{order}{min(_STEP, count - begin)}{kind}"
        yield from struct.unpack_from(form, data, at + begin * struct.calcsize(kind))


def _pnm(data: bytes) -> Header:
    match = _PNM.match(data, 0, _PNM_HEADER)
    if match is None:
        raise ValueError("is corrupt or truncated: no size in its header")
    _, width, height, white = match.groups()
    if white not in (None, b"255", b"65535"):
        raise ValueError(f"whose white is {int(white)} is not supported; convert it to 255 or 65535")
    return Header("PNM", int(width), int(height))


_KINDS = {
    "PNG": (re.compile(re.escape(_PNG)), _png),
    "JPEG": (re.compile(rb"\xff\xd8\xff"), _jpeg),
    "WebP": (re.compile(rb"(?s)RIFF....WEBPVP8[ LX]"), _webp),
    "BMP": (re.compile(rb"BM"), _bmp),
    "TIFF": (re.compile(rb"II\*\0|MM\0\*"), _tiff),
    "GIF": (re.compile(rb"GIF8[79]a"), _gif),
    "PNM": (re.compile(rb"P[1-6][\s#]"), _pnm),
}
