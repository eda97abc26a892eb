"""What is told of an image before it is decoded; Pillow writes the files and is the reference."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.image_header import ImageTooLarge, ImageUnreadable, probe

RGBA = Image.fromarray(np.random.default_rng(0).integers(0, 256, (7, 19, 4), np.uint8))
RGB = RGBA.convert("RGB")
MORE = {"save_all": True, "append_images": [RGB.rotate(180)]}


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, *extra: tuple[bytes, bytes], color: int = 0) -> bytes:
    """A PNG of that size with as few bytes as could hold it."""
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0))
    chunks = [header, *extra, (b"IDAT", bytes(width * height // 1032 + 1)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def tiff(order: str, tags: Iterable[tuple[int, int]]) -> bytes:
    """A TIFF directory with these tags and no pixels."""
    entries = [struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags]
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(entries))
    return start + b"".join(entries) + bytes(4)


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


WHOLE = {
    "PNG": encode(RGB, "PNG"),
    "PNG, animated": encode(RGB, "PNG", **MORE),
    "JPEG": encode(RGB, "JPEG"),
    "JPEG, progressive": encode(RGB, "JPEG", progressive=True),
    "GIF": encode(RGB, "GIF"),
    "GIF, animated": encode(RGB, "GIF", **MORE),
    "WebP": encode(RGB, "WEBP"),
    "WebP, lossless": encode(RGB, "WEBP", lossless=True),
    "WebP, animated": encode(RGB, "WEBP", **MORE),
    "BMP": encode(RGB, "BMP"),
    "TIFF": encode(RGB, "TIFF"),
    "TIFF, big-endian": tiff(">", [(256, 19), (257, 7)]),
    "PNM": encode(RGB, "PPM"),
    "PNM, bitmap": encode(RGB.convert("1"), "PPM"),
    "PNM, plain": b"P2 # width\n19 # height\n7\n255\n" + b"0 " * 133,
    "PNM, plain bitmap": b"P1\n19 7\n" + b"1 " * 133,
}


@pytest.mark.parametrize("name", WHOLE)
def test_kind_and_size(name: str) -> None:
    header = probe(WHOLE[name])
    assert (header.format, header.width, header.height) == (name.split(",")[0], 19, 7)
    assert probe(memoryview(WHOLE[name])) == header


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith(("PNG", "JPEG", "GIF", "WebP"))])
def test_a_file_cut_anywhere_is_refused(name: str) -> None:
    for length in range(len(WHOLE[name])):
        with pytest.raises(ImageUnreadable, match=f"empty file|not an image|truncated {name.split(',')[0]}"):
            probe(WHOLE[name][:length])


def test_the_end_of_a_thumbnail_is_not_the_end_of_a_jpeg() -> None:
    exif = Image.Exif()
    exif[0x9286] = encode(RGB.resize((4, 4)), "JPEG")  # a whole JPEG inside the header
    data = encode(RGB, "JPEG", exif=exif)
    assert data.count(b"\xff\xd9") == 2
    assert probe(data).width == 19
    with pytest.raises(ImageUnreadable, match="truncated JPEG"):
        probe(data[:-2])


@pytest.mark.parametrize("name", [name for name in WHOLE if name.startswith(("PNG", "JPEG", "GIF", "WebP"))])
def test_what_follows_the_end_does_not_matter(name: str) -> None:
    assert probe(WHOLE[name] + b"\0 more") == probe(WHOLE[name])


def test_marks_that_hold_no_size() -> None:
    scan = WHOLE["JPEG"].index(b"\xff\xda")
    for marker in (b"\xc4", b"\xc8", b"\xcc"):  # tables, reserved, arithmetic coding: no frames
        segment = b"\xff" + marker + b"\0\x08" + bytes([8, 0, 1, 0, 1, 0])
        assert probe(WHOLE["JPEG"][:scan] + b"\xff" + segment + WHOLE["JPEG"][scan:]).width == 19
    assert probe(changed(WHOLE["WebP"], 27, b"\x40")).width == 19  # two bits of it are a scale


@given(bit=st.integers(0, len(WHOLE["PNG"]) * 8 - 1))
def test_one_flipped_bit_in_a_png_is_found(bit: int) -> None:
    data = bytearray(WHOLE["PNG"])
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(
        ImageUnreadable, match=r"truncated PNG|PNG is corrupt|not an image|PNG without a header"
    ):
        probe(bytes(data))


@pytest.mark.parametrize(
    "data",
    [
        png(20_000, 20_000),
        changed(WHOLE["JPEG"], WHOLE["JPEG"].index(b"\xff\xc0") + 5, struct.pack(">HH", 20_000, 20_000)),
        changed(WHOLE["GIF"], 6, struct.pack("<HH", 20_000, 20_000)),
        changed(WHOLE["BMP"], 18, struct.pack("<ii", 20_000, -20_000)),
        tiff("<", [(256, 20_000), (257, 20_000)]),
        b"P5 20000 20000 255\n",
    ],
    ids=["PNG", "JPEG", "GIF", "BMP", "TIFF", "PNM"],
)
def test_a_bomb_is_refused_without_being_decoded(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ImageTooLarge) as caught:
            probe(data, "bomb")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert str(caught.value) == "bomb: 20000 x 20000 pixels, more than the limit of 64,000,000"


def test_a_second_smaller_size_does_not_hide_the_first() -> None:
    small = (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    twice = tiff("<", [(256, 20_000), (257, 20_000), (256, 1), (257, 1)])
    for data in (png(20_000, 20_000, small), twice, b"P5 #\r20000 20000 255\n1 1 255\n"):
        with pytest.raises(ImageTooLarge, match="20000 x 20000"):
            probe(data)


def test_the_limits_themselves() -> None:
    assert probe(png(8_000, 8_000)).height == 8_000
    assert probe(png(65_535, 900)).width == 65_535
    with pytest.raises(ImageTooLarge, match="8000 x 8001 pixels, more than"):
        probe(png(8_000, 8_001))
    with pytest.raises(ImageTooLarge, match="65536 x 1 pixels, a side longer than the limit of 65,535"):
        probe(png(65_536, 1))
    with pytest.raises(ImageTooLarge, match="16384 x 16384"):
        probe(b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xff\x3f\0\xff\x3f\0")
    with pytest.raises(ImageUnreadable, match="tiles of more than the limit"):
        probe(tiff("<", [(256, 8), (257, 8), (322, 60_000), (323, 60_000)]))
    for nothing in (png(0, 5), tiff("<", [(256, 5)]), changed(WHOLE["BMP"], 18, struct.pack("<i", -5))):
        with pytest.raises(ImageUnreadable, match=r"(0 x 5|5 x 0|-5 x 7) pixels"):
            probe(nothing)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"%PDF-1.7 and so on", "not an image"),
        (b"P7\nWIDTH 1\n", "not an image"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "not an image"),
        (b"RIFF\x04\0\0\0WAVE", "not an image"),
        (b"P5 19\n", "no size"),
        (b"P5 19 7 100\n" + bytes(133), "white is 100"),
        (b"\xff\xd8\xff\xda\0\2\xff\xd9", "JPEG without a size"),
        (b"\xff\xd8\xff\xe0\0\2junk\xff\xd9", "JPEG is corrupt"),
        (b"GIF89a\1\0\1\0\0\0\0junk", "GIF is corrupt"),
        (png(1, 1)[:8] + png(1, 1)[33:], "PNG without a header"),
        (tiff("<", [(256, 5), (257, 5), (258, 12)]), "12 bits per sample"),
        (encode(RGBA.convert("LA"), "TIFF"), "grey and alpha"),
        (tiff("<", [(256, 5), (257, 5)])[:20], "truncated TIFF"),
        (WHOLE["BMP"][:20], "truncated BMP"),
    ],
)
def test_reasons(data: bytes, reason: str) -> None:
    with pytest.raises(ImageUnreadable, match=reason) as caught:
        probe(data, "word.png")
    assert str(caught.value).startswith("word.png: ")
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "alpha"),
    [
        (encode(RGB, "PNG"), False),
        (encode(RGBA, "PNG"), True),
        (encode(RGBA.convert("LA"), "PNG"), True),
        (encode(RGB.quantize(8), "PNG"), False),
        (encode(RGB.quantize(8), "PNG", transparency=3), True),
        (encode(RGB, "WEBP"), False),
        (encode(RGBA, "WEBP"), True),
        (encode(RGB, "WEBP", lossless=True), False),
        (encode(RGBA, "WEBP", lossless=True), True),
        (encode(RGBA, "WEBP", lossless=True, **MORE), True),
        (encode(RGB, "JPEG"), False),
    ],
)
def test_alpha(data: bytes, alpha: bool) -> None:
    assert probe(data).alpha is alpha


def test_the_transparent_level_of_a_grey_png() -> None:
    assert probe(png(1, 1)).transparent_gray is None
    assert probe(png(1, 1, (b"tRNS", b"\0\x07"))).transparent_gray == 7
    assert probe(encode(RGB.convert("1"), "PNG", transparency=1)).transparent_gray == 255


SIGNATURES = [data[:16] for data in WHOLE.values()] + [b"\xff\xd8\xff", b"GIF89a", b"II*\0\x08\0\0\0", b"P6 "]


@settings(max_examples=300)
@given(start=st.sampled_from(SIGNATURES), rest=st.binary(max_size=80))
def test_garbage_raises_nothing_but_our_error(start: bytes, rest: bytes) -> None:
    try:
        header = probe(start + rest)
    except CrnnDeployError:
        return
    assert header.width * header.height <= 64_000_000
