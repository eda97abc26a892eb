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
from crnn_deploy.runtime.images.header import ImageTooLarge, ImageUnreadable, plain_png, probe

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
    assert probe(png(1, 1)).transparent_grey is None
    assert probe(png(1, 1, (b"tRNS", b"\0\x07"))).transparent_grey == 7
    assert probe(encode(RGB.convert("1"), "PNG", transparency=1)).transparent_grey == 255


def jpeg_of_scans(width: int, height: int, count: int) -> bytes:
    """A progressive JPEG: the first scan of all blocks, then one and the same that changes none."""
    blocks = -(-width // 8) * -(-height // 8)

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([255, marker]) + struct.pack(">H", len(body) + 2) + body

    def scan(start: int, end: int, approximation: int, codes: str) -> bytes:
        codes += "1" * (-len(codes) % 8)
        data = int(codes, 2).to_bytes(len(codes) // 8, "big").replace(b"\xff", b"\xff\0")
        return segment(0xDA, bytes([1, 1, 0, start, end, approximation])) + data

    runs = ("0" + f"{32_767 - 16_384:014b}") * (blocks // 32_767) + "10" * (blocks % 32_767)
    return b"".join(
        [
            *(b"\xff\xd8", segment(0xDB, b"\0" + bytes([1] * 64))),
            segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + bytes([1, 0x11, 0])),
            segment(0xC4, b"\0" + bytes([1] + 15 * [0]) + b"\0"),  # DC: a difference of 0 is the code 0
            segment(0xC4, b"\x10" + bytes([1, 1] + 14 * [0]) + b"\xe0\0"),  # AC: 0 begins many empty blocks
            scan(0, 0, 0, "0" * blocks),
            scan(1, 63, 0x10, runs) * (count - 1),
            b"\xff\xd9",
        ]
    )


def test_the_scans_of_a_jpeg_are_bounded() -> None:
    assert probe(jpeg_of_scans(1600, 1024, 100)).height == 1024
    with pytest.raises(ImageUnreadable, match="JPEG has more than the limit of 100 scans for its size"):
        probe(jpeg_of_scans(1600, 1024, 101))
    large = jpeg_of_scans(6400, 8000, 20)
    assert probe(large).width == 6400
    with pytest.raises(ImageUnreadable, match="limit of 25 scans for its size; save it as a plain JPEG"):
        probe(jpeg_of_scans(6400, 8000, 26))
    comment = b"\xff\xfe\0\x04\xff\xd9"  # the end is no end there
    end = large.rindex(b"\xff\xda")
    with pytest.raises(ImageUnreadable, match="limit of 25 scans"):
        probe(large[:end] + comment + large[end:-2] * 10 + b"\xff\xd9")


def test_scans_that_are_none_are_not_counted() -> None:
    whole = jpeg_of_scans(1600, 1024, 3)
    assert probe(whole + jpeg_of_scans(1600, 1024, 300)).width == 1600  # a second image behind the first
    comment = b"\xff\xfe\x02\x02" + b"\xff\xda" * 256
    at = whole.rindex(b"\xff\xda")
    assert probe(whole[:at] + comment + whole[at:]).width == 1600


def gif(width: int, height: int, codes: bytes) -> bytes:
    blocks = b"".join(
        bytes([len(codes[at : at + 255])]) + codes[at : at + 255] for at in range(0, len(codes), 255)
    )
    size = struct.pack("<HH", width, height)
    return b"GIF89a" + size + b"\x80\0\0" + bytes(6) + b"\x2c\0\0\0\0" + size + b"\0\2" + blocks + b"\0\x3b"


def thin(data: bytes, width: int, height: int) -> bytes:
    """A PNG with the data of a smaller one."""
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:8] + b"\0\0\0\x0d" + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def test_data_that_cannot_hold_so_many_pixels_are_truncated() -> None:
    jpeg = WHOLE["JPEG"]
    large = struct.pack(">HH", 8000, 8000)
    for data in (
        png(8000, 8000)[:33] + png(1, 1)[33:],
        thin(png(8000, 7900), 8000, 8000),
        thin(encode(RGBA.resize((100, 100)), "PNG"), 8000, 8000),
        changed(jpeg, jpeg.index(b"\xff\xc0") + 5, large),
        gif(8000, 8000, bytes(20_000)),
    ):
        with pytest.raises(ImageUnreadable, match=r"truncated (PNG|JPEG|GIF)"):
            probe(data)
    flat = Image.new("L", (8000, 1000))
    for kind in ("PNG", "JPEG", "GIF"):
        assert probe(encode(flat, kind)).width == 8000
    assert probe(encode(flat, "JPEG", progressive=True, quality=1)).width == 8000
    assert probe(gif(8000, 8000, bytes(24_000))).width == 8000


def test_a_png_that_holds_more_data_than_pixels() -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", 100, 30, 8, 0, 0, 0, 0)
    for size, long in ((2**25, False), (2**27, True)):
        body = b"IDAT" + zlib.compress(bytes(size))
        parts = (header, body, b"IEND")
        data = b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts
        )
        if long:
            with pytest.raises(ImageUnreadable, match="word: PNG is corrupt: it holds more data than pixels"):
                plain_png(data, probe(data), "word")
        else:  # it costs less than a tenth of a second
            plain_png(data, probe(data), "word")


def test_a_png_as_large_as_its_pixels_stays_as_it_is() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), np.uint8))
    data = encode(noise, "PNG")
    assert len(data) > 2**21
    assert plain_png(data, probe(data), "word") == data


def test_a_gif_whose_codes_begin_anew_all_the_time() -> None:
    with pytest.raises(
        ImageUnreadable, match="GIF begins its codes anew more than the limit of 16,384 times"
    ):
        probe(gif(8000, 8000, b"\x44" * 300_000))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (800, 800), np.uint8))
    assert probe(encode(noise, "GIF")).width == 800


def test_strips_of_a_tiff_that_all_say_they_are_the_whole_file() -> None:
    lengths = struct.pack("<1000I", *[100_000] * 1000)

    def data(strips: int) -> bytes:
        tags = [(256, 8), (257, strips), (273, 8)]
        entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags]
        entries.append(struct.pack("<HHII", 279, 4, strips, 8 + 2 + 12 * 4 + 4))
        return b"II*\0" + struct.pack("<IH", 8, 4) + b"".join(entries) + bytes(4) + lengths + bytes(100_000)

    assert probe(data(10)).height == 10
    with pytest.raises(ImageUnreadable, match="its strips or tiles are longer than the file"):
        probe(data(1000))


@pytest.mark.parametrize(
    "data",
    [
        b"P5 " + b" " * 40_000_000 + b"x",
        b"P5 " + b"#\n" * 20_000_000 + b"1 1 255 x",
        b"P5 #" + b"a" * 40_000_000,
        b"P5 " + b"1" * 40_000_000,
    ],
    ids=["blanks", "comments", "a comment", "digits"],
)
def test_a_long_header_of_a_pnm_costs_nothing(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ImageUnreadable, match="no size in its header"):
            probe(data)
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        png(1, 1)[:33] + (struct.pack(">I4sI", 0, b"tEXt", zlib.crc32(b"tEXt"))) * 2**20 + png(1, 1)[33:],
        WHOLE["JPEG"][:2] + b"\xff\xfe\0\2" * 2**20 + WHOLE["JPEG"][2:],
        WHOLE["JPEG"][:2] + b"\xff" * 2**21 + WHOLE["JPEG"][2:],
        WHOLE["GIF"][:-1] + b"\x21\xfe" + b"\1a" * 2**20 + b"\0\x3b",
        WHOLE["GIF"][:-1] + b"\x21\xfe\0" * 2**20 + b"\x3b",
    ],
    ids=["PNG", "JPEG", "JPEG, filled", "GIF, lengths", "GIF, blocks"],
)
def test_a_file_in_millions_of_pieces(data: bytes) -> None:
    with pytest.raises(ImageUnreadable, match="has more than the limit of 1,048,576 parts"):
        probe(data)


def test_another_limit_of_pixels() -> None:
    assert probe(png(10, 10), max_pixels=100).width == 10
    with pytest.raises(ImageTooLarge, match="10 x 11 pixels, more than the limit of 100"):
        probe(png(10, 11), max_pixels=100)
    assert probe(png(20_000, 20_000), max_pixels=400_000_000).width == 20_000
    tiles = tiff("<", [(256, 8), (257, 8), (322, 16), (323, 16)])
    assert probe(tiles, max_pixels=256).decoded == 256
    with pytest.raises(ImageTooLarge, match="tiles of more than the limit of 255 pixels"):
        probe(tiles, max_pixels=255)


SIGNATURES = [data[:16] for data in WHOLE.values()] + [b"\xff\xd8\xff", b"GIF89a", b"II*\0\x08\0\0\0", b"P6 "]


@settings(max_examples=300)
@given(start=st.sampled_from(SIGNATURES), rest=st.binary(max_size=80))
def test_garbage_raises_nothing_but_our_error(start: bytes, rest: bytes) -> None:
    try:
        header = probe(start + rest)
    except CrnnDeployError:
        return
    assert header.width * header.height <= 64_000_000
