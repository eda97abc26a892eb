"""Reading images; Pillow is the reference."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from paper_rule import on_paper
from PIL import Image, ImageOps

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.images.header import probe
from crnn_deploy.runtime.images.pixels import ImageNotFound, ImageTooLarge, ImageUnreadable, read_image

Array = NDArray[Any]

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (12, 20, 4), np.uint8)
SMOOTH = cv2.GaussianBlur(RNG.integers(0, 256, (24, 40, 3), np.uint8), (9, 9), 0)
RGBA = Image.fromarray(NOISE)
RGB = RGBA.convert("RGB")
GREY = RGB.convert("L")
DEEP = RNG.integers(0, 65536, (12, 20, 4), np.uint16)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def encode_deep(pixels: Array, suffix: str) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def in_bgr(image: Image.Image) -> Array:
    """A Pillow image as BGR on its paper, by the formula."""
    return on_paper(np.asarray(image.convert("RGBA")))[..., ::-1].round()


def by_pillow(data: bytes) -> Array:
    return in_bgr(Image.open(io.BytesIO(data)))


def difference(pixels: Array, expected: Array) -> float:
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, axis=2)
    assert pixels.dtype == np.uint8 and pixels.flags.c_contiguous and pixels.shape == expected.shape
    return float(np.abs(pixels.astype(np.float64) - expected).max())


def interlaced_png(grey: Array) -> bytes:
    """Adam7, which neither Pillow nor OpenCV writes."""
    rows = b""
    passes = [
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
        (1, 0, 2, 1),
    ]
    for top, left, down, right in passes:
        for row in grey[top::down, left::right]:
            rows += b"\0" + row.tobytes() if row.size else b""
    header = struct.pack(">IIBBBBB", grey.shape[1], grey.shape[0], 8, 0, 0, 0, 1)
    return png([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


PALETTE = RGB.quantize(16)
MORE = {"save_all": True, "append_images": [RGB.rotate(180), RGB.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]}
FILES: dict[str, tuple[bytes, float]] = {  # and the levels by which a decoder may differ from Pillow
    "png": (encode(RGB, "PNG"), 0),
    "png grey": (encode(GREY, "PNG"), 0),
    "png 1 bit": (encode(GREY.convert("1"), "PNG"), 0),
    "png palette": (encode(PALETTE, "PNG"), 0),
    "png palette, 2 bits": (encode(RGB.quantize(4), "PNG", bits=2), 0),
    "png palette, one transparent": (encode(PALETTE, "PNG", transparency=3), 0),
    "png palette with alpha": (encode(PALETTE, "PNG", transparency=bytes(range(0, 240, 15))), 1),
    "png alpha": (encode(RGBA, "PNG"), 1),
    "png grey and alpha": (encode(RGBA.convert("LA"), "PNG"), 1),
    "png grey, one level transparent": (encode(GREY, "PNG", transparency=GREY.getpixel((0, 0))), 0),
    "png 1 bit, black transparent": (encode(GREY.convert("1"), "PNG", transparency=0), 0),
    "png colour, one transparent": (encode(RGB, "PNG", transparency=RGB.getpixel((0, 0))), 0),
    "png interlaced": (interlaced_png(np.asarray(GREY)), 0),
    "png animated": (encode(RGB, "PNG", **MORE), 0),
    "jpeg": (encode(RGB, "JPEG"), 0),
    "jpeg grey": (encode(GREY, "JPEG"), 0),
    "jpeg progressive": (encode(RGB, "JPEG", progressive=True), 0),
    "jpeg cmyk": (encode(RGB.convert("CMYK"), "JPEG", quality=95), 1),
    "gif": (encode(RGB, "GIF"), 0),
    "gif transparent": (encode(PALETTE, "GIF", transparency=3), 0),
    "gif animated": (encode(RGB, "GIF", **MORE), 0),
    "webp": (encode(RGB, "WEBP"), 0),
    "webp lossless": (encode(RGB, "WEBP", lossless=True), 0),
    "webp alpha": (encode(RGBA, "WEBP", lossless=True, exact=True), 1),
    "webp animated": (encode(RGBA, "WEBP", lossless=True, exact=True, **MORE), 1),
    "bmp": (encode(RGB, "BMP"), 0),
    "bmp palette": (encode(PALETTE, "BMP"), 0),
    "bmp 1 bit": (encode(GREY.convert("1"), "BMP"), 0),
    "tiff": (encode(RGB, "TIFF", compression="tiff_lzw"), 0),
    "tiff alpha": (encode(RGBA, "TIFF"), 1),
    "tiff cmyk": (encode(RGB.convert("CMYK"), "TIFF"), 1),
    "tiff palette": (encode(PALETTE, "TIFF"), 0),
    "tiff fax": (encode(GREY.convert("1"), "TIFF", compression="group4"), 0),
    "tiff white is zero": (encode(GREY, "TIFF", tiffinfo={262: 0}), 0),
    "ppm": (encode(RGB, "PPM"), 0),
    "pgm": (encode(GREY, "PPM"), 0),
    "pbm": (encode(GREY.convert("1"), "PPM"), 0),
    "pgm plain": (b"P2\n2 2\n255\n0 80\n255 7", 0),
}


@pytest.mark.parametrize("name", FILES)
def test_read_gives_what_pillow_gives(name: str) -> None:
    data, tolerance = FILES[name]
    assert difference(read_image(data), by_pillow(data)) <= tolerance


@pytest.mark.parametrize(
    ("suffix", "channels"),
    [
        (".png", 1),
        (".png", 3),
        (".png", 4),
        (".tiff", 1),
        (".tiff", 3),
        (".tiff", 4),
        (".pgm", 1),
        (".ppm", 3),
    ],
)
def test_16_bits_are_rounded_to_8(suffix: str, channels: int) -> None:
    deep = DEEP[..., 0] if channels == 1 else DEEP[..., :channels]
    scaled = (deep / 257).round()
    if channels == 4:
        scaled = in_bgr(Image.fromarray(scaled[..., [2, 1, 0, 3]].astype(np.uint8)))
    expected = np.stack([scaled] * 3, axis=2) if channels == 1 else scaled
    assert difference(read_image(encode_deep(deep, suffix)), expected) <= (channels == 4)
    assert difference(read_image(deep), expected) <= (channels == 4)


def test_16_bit_grey_with_a_transparent_level() -> None:
    deep = DEEP[..., 0] // 3  # dark, so that its paper is white
    deep[0] = 77
    data = encode(Image.fromarray(deep), "PNG", transparency=77)
    assert (read_image(data)[0] == 255).all()
    assert np.array_equal(read_image(data)[1:], (deep[1:] / 257).round())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(Image.fromarray(SMOOTH), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert difference(read_image(data), in_bgr(upright)) == 0


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"]
)
def test_pillow_images_of_any_mode(mode: str) -> None:
    image = {"La": RGBA.convert("LA"), "PA": PALETTE}.get(mode, RGBA).convert(mode)
    if mode == "PA":
        image.putalpha(RGBA.getchannel("A"))
    straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode))
    assert difference(read_image(image), in_bgr(straight)) <= 1
    if mode in ("1", "L", "P", "RGB"):
        assert difference(read_image(image), in_bgr(straight)) == 0


def test_pillow_images_with_transparency_or_16_bits() -> None:
    palette = PALETTE.copy()
    palette.info["transparency"] = 3
    assert difference(read_image(palette), in_bgr(palette)) == 0
    assert np.array_equal(read_image(Image.fromarray(DEEP[..., 0])), (DEEP[..., 0] / 257).round())
    grey = GREY.copy()
    grey.info["transparency"] = GREY.getpixel((0, 0))
    assert difference(read_image(grey), in_bgr(grey)) == 0
    for mode in "IF":
        with pytest.raises(ImageUnreadable, match=f"mode {mode} .* convert it to L or I;16"):
            read_image(GREY.convert(mode))


def test_a_truncated_file_in_a_pillow_image(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(FILES["jpeg"][0][:-90])
    with pytest.raises(ImageUnreadable, match=r"cut\.jpg: Pillow cannot convert it"):
        read_image(Image.open(path))


def test_black_letters_on_nothing_stay_legible() -> None:
    letter = np.zeros((8, 8, 4), np.uint8)
    letter[2:6, 3:5, 3] = 255
    expected = np.where(letter[..., 3] > 0, 0, 255)
    for kind in ("PNG", "WEBP", "GIF", "TIFF"):
        data = encode(Image.fromarray(letter), kind, **({"lossless": True} if kind == "WEBP" else {}))
        assert np.array_equal(cv2.cvtColor(read_image(data), cv2.COLOR_BGR2GRAY), expected), kind
    assert np.array_equal(read_image(letter)[..., 0], expected)
    assert np.array_equal(read_image(Image.fromarray(letter))[..., 0], expected)


def test_every_way_to_hand_over_an_image(tmp_path: Path) -> None:
    data = FILES["png"][0]
    expected = NOISE[..., 2::-1]
    path = tmp_path / "字 ünïcode\u202f.png"
    path.write_bytes(data)
    latin = os.fsencode(tmp_path) + b"/\xff.png"
    Path(os.fsdecode(latin)).write_bytes(data)
    image = Image.open(path)
    sources: list[Any] = [
        path,
        str(path),
        os.fsdecode(latin),
        data,
        bytearray(data),
        memoryview(data),
        expected,
        image,
    ]
    for source in sources:
        assert np.array_equal(read_image(source), expected)


def test_arrays() -> None:
    grey = NOISE[..., 0]
    for same in (grey, grey[..., None], np.asfortranarray(grey), grey[::-1][::-1], (grey * np.uint16(257))):
        assert np.array_equal(read_image(same), grey)
        assert read_image(same).flags.c_contiguous
    assert np.array_equal(read_image(DEEP.astype(">u2")), read_image(DEEP))
    assert np.array_equal(read_image(grey > 99), np.where(grey > 99, 255, 0))
    assert np.array_equal(read_image(NOISE[..., :3]), NOISE[..., :3])
    kept = NOISE.copy()
    assert difference(read_image(NOISE), in_bgr(Image.fromarray(NOISE[..., [2, 1, 0, 3]]))) == 0
    assert np.array_equal(NOISE, kept)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros((4, 4)), "<array>: pixels are float64; pass uint8"),
        (np.zeros((4, 4), np.float32), "float32"),
        (np.zeros((4, 4), np.int32), "int32"),
        (np.zeros((4, 4), np.complex64), "complex64"),
        (np.array([["a"]]), "<U1"),
        (np.zeros((0, 4), np.uint8), "4 x 0 pixels"),
        (np.zeros((4, 0, 3), np.uint8), "0 x 4 pixels"),
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((1, 4, 4, 3), np.uint8), "shape"),
        (np.zeros((1, 1, 1, 4, 4), np.uint8), "shape"),
        (np.broadcast_to(np.uint8(0), (9000, 9000)), "9000 x 9000 pixels, more than the limit"),
        (Image.new("1", (70_000, 1)), "70000 x 1 pixels, a side longer"),
        (None, "<NoneType>: not a path"),
        (7, "<int>: not a path"),
        (encode(GREY.convert("F"), "TIFF"), "<bytes>: TIFF of 32 bits"),
        (b"", "<bytes>: empty file"),
        (b"hello", "<bytes>: not an image"),
    ],
)
def test_what_is_no_image(source: Any, reason: str) -> None:
    with pytest.raises(ImageUnreadable, match=reason) as caught:
        read_image(source)
    assert isinstance(caught.value, CrnnDeployError) and isinstance(caught.value, ValueError)


def test_paths_that_give_no_image(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.png", tmp_path / "none" / "a.png", Path(__file__) / "a.png", ""):
        with pytest.raises(ImageNotFound, match="no image file at"):
            read_image(missing)
    with pytest.raises(FileNotFoundError):
        read_image("none.png")
    with pytest.raises(ImageUnreadable, match="a folder, not an image file"):
        read_image(tmp_path)
    with pytest.raises(ImageUnreadable, match="not a path"):
        read_image("a\0b.png")
    with pytest.raises(ImageUnreadable, match="cannot be opened: File name too long"):
        read_image("a" * 5000)
    two_lines = tmp_path / "two\nlines.png"
    two_lines.write_bytes(b"text")
    with pytest.raises(ImageUnreadable, match=r"two\\nlines.png': not an image") as caught:
        read_image(two_lines)
    assert "\n" not in str(caught.value)
    sparse = tmp_path / "sparse.png"
    with sparse.open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(ImageUnreadable, match="more than the limit of 545,554,432 bytes"):
        read_image(sparse)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_or_a_device_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    for path in (tmp_path / "fifo.png", Path("/dev/zero")):
        with pytest.raises(ImageUnreadable, match="not a regular file"):
            read_image(path)


@pytest.mark.skipif(not os.path.exists("/proc/kmsg"), reason="this system has no /proc/kmsg")
def test_a_link_to_a_file_of_the_kernel_that_never_ends(tmp_path: Path) -> None:
    path = tmp_path / "word.png"
    path.symlink_to("/proc/kmsg")
    with pytest.raises(ImageUnreadable, match=r"word\.png: (empty file|cannot be opened)"):
        read_image(path)


def test_another_limit_of_pixels(tmp_path: Path) -> None:
    path = tmp_path / "word.png"
    path.write_bytes(FILES["png"][0])
    for source in (path, FILES["png"][0], NOISE, RGB):
        assert read_image(source, max_pixels=240).shape == (12, 20, 3)
        with pytest.raises(ImageTooLarge, match="20 x 12 pixels, more than the limit of 239"):
            read_image(source, max_pixels=239)
    path.write_bytes(bytes(2**25 + 9))
    with pytest.raises(ImageUnreadable, match="more than the limit of 33,554,440 bytes"):
        read_image(path, max_pixels=1)


DECODE = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from crnn_deploy.runtime.images.pixels import read_image
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
with ThreadPoolExecutor(8) as pool:
    assert [*pool.map(lambda path: read_image(path)[0, 0], sys.argv[1:])] == [0] * 10
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of the peak is that of Linux")
def test_large_images_are_decoded_one_at_a_time(tmp_path: Path) -> None:
    rows = zlib.compressobj()
    data = b"".join(rows.compress(bytes(8001 * 500)) for _ in range(16)) + rows.flush()
    header = struct.pack(">IIBBBBB", 8000, 8000, 8, 0, 0, 0, 0)
    (tmp_path / "large.png").write_bytes(png([(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]))
    paths = [str(tmp_path / "large.png")] * 10
    done = subprocess.run([sys.executable, "-c", DECODE, *paths], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 300  # MB; one takes 124 at its peak, eight together 800


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="this system has no permission bits")
def test_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(FILES["png"][0])
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(ImageUnreadable, match=r"secret\.png: cannot be opened: Permission denied"):
            read_image(path)
    finally:
        os.seteuid(user)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    for data, _ in FILES.values():
        read_image(data)
    plain = FILES["png"][0]
    for odd in [
        (b"iCCP", b"x\0\0" + zlib.compress(b"no profile")),
        (b"sBIT", b"\0\0\0"),
        (b"tIME", bytes(7)),
    ]:
        read_image(plain[:33] + png([odd])[8:] + plain[33:])  # libpng warns of each
    for broken in (plain[:-40], FILES["tiff"][0][:-60], FILES["bmp"][0][:-60], FILES["gif"][0][:-60]):
        with pytest.raises(ImageUnreadable):
            read_image(broken)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(("bmp", "tiff", "ppm", "pgm"))])
def test_a_file_cut_anywhere_never_crashes(name: str) -> None:
    data = FILES[name][0]
    refused = 0
    for length in range(0, len(data), 3):
        try:
            read_image(data[:length])
        except ImageUnreadable:
            refused += 1
    # the last bytes may be metadata, or digits of a plain PGM; strips of a TIFF are read one by one
    least = min(len(data[:-20:3]), 1 + len(data) // 3 * 0.8)
    assert refused >= (1 if name.startswith(("tiff", "pgm plain")) else least)


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(FILES)),
    places=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
    ),
)
def test_changed_bytes_raise_nothing_but_our_error(name: str, places: list[tuple[float, int]]) -> None:
    data = bytearray(FILES[name][0])
    for place, value in places:
        data[int(place * len(data))] = value
    try:
        pixels = read_image(data)
    except CrnnDeployError as error:
        assert str(error).startswith("<bytes>: ")
    else:
        assert pixels.dtype == np.uint8 and pixels.ndim in (2, 3)
        header = probe(bytes(data))  # what was allowed is what was decoded
        assert sorted(pixels.shape[:2]) == sorted((header.height, header.width))


def test_an_error_of_opencv_does_not_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise cv2.error("OpenCV: (-215:Assertion failed)")

    monkeypatch.setattr(cv2, "imdecode", fail)
    with pytest.raises(ImageUnreadable, match="<bytes>: corrupt PNG, it cannot be decoded"):
        read_image(FILES["png"][0])


def test_a_bomb_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    path.write_bytes(png([(b"IHDR", header), (b"IDAT", zlib.compress(bytes(2**20))), (b"IEND", b"")]))
    with pytest.raises(
        ImageTooLarge, match=r"bomb\.png: 20000 x 20000 pixels, more than the limit of 64,000,0"
    ):
        read_image(path)


def _png_with(data: bytes, name: bytes, content: bytes) -> bytes:
    """A PNG with another chunk after its header."""
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return data[:33] + struct.pack(">I", len(content)) + name + content + checksum + data[33:]


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        *(("grey", kind) for kind in (".png", ".jpg", ".bmp", ".tif", ".webp", ".pgm")),
        *(("colour", kind) for kind in (".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm", ".gif")),
        *(("opaque", kind) for kind in (".png", ".bmp", ".tif", ".webp")),
    ],
)
def test_grey_as_opencv_decodes_it(form: str, kind: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 4), np.uint8)
    pixels[..., 3] = 255
    shown = {"grey": pixels[..., 0], "colour": pixels[..., :3], "opaque": pixels}[form]
    path = tmp_path / f"image{kind}"
    assert cv2.imwrite(str(path), shown)
    expected = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert expected is not None
    for source in (str(path), path.read_bytes()):
        assert np.array_equal(read_image(source, decoded_grey=True), expected)


@pytest.mark.parametrize(("name", "content"), [(b"gAMA", struct.pack(">I", 45455)), (b"sRGB", b"\0")])
def test_the_gamma_of_a_png_counts_for_decoded_grey_alone(name: bytes, content: bytes) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    plain = cv2.imencode(".png", pixels)[1].tobytes()
    data = _png_with(plain, name, content)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert expected is not None
    assert np.array_equal(read_image(data, decoded_grey=True), expected)
    assert not np.array_equal(read_image(plain, decoded_grey=True), expected)
    assert np.array_equal(read_image(data), pixels)


def test_decoded_grey_leaves_arrays_and_transparency_as_they_are() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 4), np.uint8)
    assert np.array_equal(read_image(pixels[..., :3].copy(), decoded_grey=True), pixels[..., :3])
    data = cv2.imencode(".png", pixels)[1].tobytes()
    assert np.array_equal(read_image(data, decoded_grey=True), read_image(data))
