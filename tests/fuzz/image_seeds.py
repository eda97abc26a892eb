"""Tiny valid images of every format."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
from PIL import Image

__all__ = ["SEEDS"]

RGBA = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 19, 4), np.uint8))
RGB, GREY = RGBA.convert("RGB"), RGBA.convert("L")
MORE = {"save_all": True, "append_images": [RGB.rotate(180)]}
DEEP = np.random.default_rng(0).integers(0, 65536, (7, 19, 4), np.uint16)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def tiled() -> bytes:
    """A TIFF of one tile."""
    tags = [(256, 16), (257, 16), (258, 8), (259, 1), (262, 1), (277, 1), (322, 16), (323, 16), (324, 134)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in [*tags, (325, 256)])
    return b"II*\0" + struct.pack("<IH", 8, 10) + entries + bytes(4) + bytes(range(256))


EXIF = Image.Exif()
EXIF[274] = 6

SEEDS = [
    encoded(RGB, "PNG", exif=EXIF),
    encoded(RGBA, "PNG"),
    encoded(RGB.quantize(4), "PNG", transparency=1, bits=2),
    encoded(RGB, "PNG", **MORE),
    cv2.imencode(".png", DEEP)[1].tobytes(),
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1))
    + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"text"))
    + chunk(b"IDAT", zlib.compress(b"\0\7"))
    + chunk(b"IEND", b""),
    encoded(RGB, "JPEG", exif=EXIF, comment=b"words"),
    encoded(GREY, "JPEG", restart_marker_blocks=1),
    encoded(RGB, "JPEG", progressive=True),
    encoded(RGB.convert("CMYK"), "JPEG"),
    encoded(RGB, "GIF", **MORE),
    encoded(RGB.quantize(4), "GIF", transparency=1, interlace=1),
    encoded(RGB, "WEBP"),
    encoded(RGBA, "WEBP", lossless=True, exif=EXIF),
    encoded(RGBA, "WEBP", **MORE),
    encoded(RGB, "BMP"),
    encoded(RGB.quantize(16), "BMP"),
    b"BM"
    + struct.pack("<IHHIIiiHHIIiiII", 66, 0, 0, 58, 40, 4, 1, 1, 8, 1, 8, 0, 0, 1, 0)
    + b"\0\0\0\0\4\0\0\1",
    *(encoded(RGB, "TIFF", compression=name) for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg")),
    *(encoded(GREY.convert("1"), "TIFF", compression=name) for name in ("group3", "group4", "packbits")),
    encoded(RGB.quantize(4), "TIFF", **MORE),
    cv2.imencode(".tiff", DEEP)[1].tobytes(),
    tiled(),
    encoded(RGB, "PPM"),
    encoded(GREY.convert("1"), "PPM"),
    b"P2 # width\n3 2\n255\n0 1 2 3 4 255",
    b"P1\n3 2\n1 0 1 0 1 1",
    cv2.imencode(".pgm", DEEP[..., 0])[1].tobytes(),
]
