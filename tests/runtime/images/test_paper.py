"""Transparent images: letters stay legible whatever their colour, in every format; EXIF turns them too."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from paper_rule import on_paper, paper_of
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

from crnn_deploy.runtime.images.pixels import read_image

pytest.importorskip("onnxruntime")

from crnn_deploy import Recognizer

Array = NDArray[Any]
Colour = tuple[int, int, int]
WORD = "Hotel"


def letters(margin: int = 6) -> Image.Image:
    """Ink of a word, (H, W) from 0 to 255."""
    font = ImageFont.load_default(40)
    left, top, right, bottom = map(int, font.getbbox(WORD))
    ink = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin), 0)
    ImageDraw.Draw(ink).text((margin - left, margin - top), WORD, font=font, fill=255)
    return ink


def layers(*parts: tuple[Colour, Image.Image]) -> Image.Image:
    """Colours above one another, each with its alpha."""
    found = Image.new("RGBA", parts[0][1].size, (0, 0, 0, 0))
    for colour, alpha in parts:
        layer = Image.new("RGBA", alpha.size, (*colour, 0))
        layer.putalpha(alpha)
        found = Image.alpha_composite(found, layer)
    return found


def box(size: tuple[int, int], inset: int, alpha: int = 255) -> Image.Image:
    found = Image.new("L", size, 0)
    place = (inset, inset, size[0] - 1 - inset, size[1] - 1 - inset)
    ImageDraw.Draw(found).rounded_rectangle(place, radius=8, fill=alpha)
    return found


INK = letters()
WIDE = letters(18)
WHITE, BLACK, YELLOW, NAVY = (255, 255, 255), (0, 0, 0), (250, 220, 30), (20, 20, 60)
SHADOW_OF_INK = Image.fromarray(
    np.roll(np.asarray(INK.filter(ImageFilter.GaussianBlur(2))), (2, 2), (0, 1))
).point(lambda value: value * 0.8)
OUTLINE = INK.filter(ImageFilter.MaxFilter(5))
PICTURES: dict[str, tuple[Image.Image, int]] = {  # and the paper
    "white letters": (layers((WHITE, INK)), 0),
    "yellow letters": (layers((YELLOW, INK)), 0),
    "light grey letters": (layers(((200, 200, 200), INK)), 0),
    "faint white letters": (layers((WHITE, INK.point(lambda value: value * 0.4))), 0),
    "black letters": (layers((BLACK, INK)), 255),
    "red letters": (layers(((200, 30, 30), INK)), 255),
    "faint black letters": (layers((BLACK, INK.point(lambda value: value * 0.4))), 255),
    "white letters with a shadow": (layers((BLACK, SHADOW_OF_INK), (WHITE, INK)), 0),
    "white letters in black outlines": (
        layers((BLACK, OUTLINE), (WHITE, INK)),
        0,
    ),
    "black letters in white outlines": (
        layers((WHITE, OUTLINE), (BLACK, INK)),
        255,
    ),
    "a light label with round corners": (layers((WHITE, box(INK.size, 0)), (BLACK, INK)), 255),
    "a light label in empty margins": (layers((WHITE, box(WIDE.size, 9)), (BLACK, WIDE)), 255),
    "a dark label in empty margins": (layers((NAVY, box(WIDE.size, 9)), (WHITE, WIDE)), 0),
    "a sheet of tracing paper": (layers((WHITE, Image.new("L", INK.size, 150)), (BLACK, INK)), 255),
    "a strip as of subtitles": (layers((BLACK, Image.new("L", INK.size, 150)), (WHITE, INK)), 0),
}
ENCODINGS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {},
}


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def latin() -> Recognizer:
    return Recognizer()


@pytest.mark.parametrize("name", PICTURES)
def test_letters_stay_legible(latin: Recognizer, name: str) -> None:
    image, paper = PICTURES[name]
    expected = on_paper(np.asarray(image))
    sources: list[Any] = [image, *(encode(image, kind, **more) for kind, more in ENCODINGS.items())]
    for source in sources:
        assert latin.read(source).text == WORD
        pixels = read_image(source)[..., ::-1].astype(int)
        assert np.abs(pixels - expected).max() <= 1
        clear = np.asarray(image)[..., 3] == 0
        assert (pixels[clear] == paper).all()


def grey_and_alpha(image: Image.Image) -> bytes:
    return encode(image.convert("LA"), "PNG")


def palette(image: Image.Image) -> bytes:
    ink = np.asarray(image.getchannel("A")) > 127
    indexed = Image.fromarray(ink.astype(np.uint8), "P")
    colour = image.getpixel(np.argwhere(ink)[0][::-1].tolist())
    assert isinstance(colour, tuple)
    indexed.putpalette([7, 7, 7, *map(int, colour[:3])])
    return encode(indexed, "PNG", transparency=0)


def gif(image: Image.Image) -> bytes:
    return encode(Image.open(io.BytesIO(palette(image))), "GIF", transparency=0)


def sixteen_bits(image: Image.Image) -> bytes:
    deep = np.asarray(image)[..., [2, 1, 0, 3]].astype(np.uint16) * 257
    return cv2.imencode(".png", deep)[1].tobytes()


def grey_level(image: Image.Image) -> bytes:
    """A grey PNG of which one level is transparent."""
    rgba = np.asarray(image)
    grey = np.where(rgba[..., 3] > 127, rgba[..., 0], 77).astype(np.uint8)
    return encode(Image.fromarray(grey), "PNG", transparency=77)


def colour_level(image: Image.Image) -> bytes:
    """A colour PNG of which one colour is transparent."""
    rgba = np.asarray(image)
    rgb = np.where(rgba[..., 3:] > 127, rgba[..., :3], (77, 99, 1)).astype(np.uint8)
    return encode(Image.fromarray(rgb), "PNG", transparency=(77, 99, 1))


def lossy_webp(image: Image.Image) -> bytes:
    return encode(image, "WEBP", quality=80)


def bitmap(image: Image.Image) -> bytes:
    """A BMP with a mask for alpha."""
    return b"".join(_bitmap(np.asarray(image)))


def _bitmap(rgba: Array) -> tuple[bytes, ...]:
    rows = rgba[::-1, :, [2, 1, 0, 3]].tobytes()
    size = struct.pack("<IiiHHIIiiII", 108, rgba.shape[1], rgba.shape[0], 1, 32, 3, len(rows), 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    return b"BM" + struct.pack("<IHHI", 122 + len(rows), 0, 0, 122), size, masks, rows


FORMS: list[Callable[[Image.Image], Any]] = [
    *(grey_and_alpha, palette, gif, sixteen_bits, grey_level, colour_level, lossy_webp, bitmap),
    lambda image: image.convert("LA"),
    lambda image: image.convert("RGBa"),
    lambda image: np.asarray(image)[..., [2, 1, 0, 3]],
    lambda image: np.asarray(image)[..., [2, 1, 0, 3]].astype(np.uint16) * 257,
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
@pytest.mark.parametrize("name", ["white letters", "black letters"])
def test_in_whatever_form_transparency_comes(latin: Recognizer, form: Any, name: str) -> None:
    image, paper = PICTURES[name]
    given = form(image)
    assert latin.read(given).text == WORD
    pixels = read_image(given)
    assert (pixels[0, 0] == paper).all() and (pixels[-1, -1] == paper).all()
    if isinstance(given, bytes):
        assert latin.read(Image.open(io.BytesIO(given))).text == WORD


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.booleans())
def test_the_paper_is_that_of_the_rule(seed: int, height: int, width: int, kinds: int, grey: bool) -> None:
    """Of images with few colours, many colours, few and many alphas."""
    random = np.random.default_rng(seed)
    alphas = random.choice([0, 0, 90, 127, 128, 254, 255, *random.integers(0, 256, 3)], kinds)
    tones = random.integers(0, 256, kinds)
    alpha = random.choice(alphas, (height, width)).astype(np.uint8)
    tone = random.choice(tones, (height, width)).astype(np.uint8)
    image = np.dstack([tone] * 3 + [alpha])
    if not grey:
        image[..., :3] = random.integers(0, 256, 3)
    expected = on_paper(image[..., [2, 1, 0, 3]])[..., ::-1]
    found = read_image(image)
    assert np.abs(found - expected).max() <= 1
    assert np.array_equal(read_image(image.copy()), found)


def test_what_is_all_visible_or_not_at_all() -> None:
    for level in (0, 99, 200, 255):
        opaque = np.full((8, 9, 4), level, np.uint8)
        opaque[..., 3] = 255
        assert (read_image(opaque) == level).all()
        hidden = opaque.copy()
        hidden[..., 3] = 0
        assert (read_image(hidden) == 255).all()
        assert (read_image(encode(Image.fromarray(hidden), "PNG")) == 255).all()


def test_a_bitmap_whose_fourth_byte_is_unused_is_opaque() -> None:
    rgba = np.random.default_rng(1).integers(0, 256, (8, 9, 4), np.uint8)
    rgba[..., 3] = 0
    assert np.array_equal(read_image(b"".join(_bitmap(rgba))), rgba[..., 2::-1])


def test_a_tiff_whose_colours_are_multiplied_already() -> None:
    """Associated alpha, of 8 and of 16 bits, against the same picture with its colours as they are."""
    image = PICTURES["white letters"][0]
    expected = on_paper(np.asarray(image))[..., ::-1]
    straight = np.asarray(image)[..., [2, 1, 0, 3]].astype(np.float64)
    multiplied = straight.copy()
    multiplied[..., :3] *= straight[..., 3:] / 255
    for deep in (False, True):
        kind: Any = np.uint16 if deep else np.uint8
        for pixels, associated in ((straight, False), (multiplied, True)):
            data = tiff((pixels[..., [2, 1, 0, 3]] * (257 if deep else 1)).round().astype(kind), associated)
            assert np.abs(read_image(data).astype(int) - expected).max() <= 1, (deep, associated)


def tiff(rgba: Array, associated: bool) -> bytes:
    """An uncompressed TIFF of one strip."""
    height, width, _ = rgba.shape
    bits, rows = 8 * rgba.itemsize, rgba.tobytes()
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 4, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 16), (277, 3, 1, 4), (278, 4, 1, height), (279, 4, 1, len(rows))]
    tags += [(338, 3, 1, 1 if associated else 2)]
    start = 16 + len(rows) + len(rows) % 2
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    return struct.pack("<2sHI4H", b"II", 42, start, *[bits] * 4) + rows + bytes(len(rows) % 2) + directory


@pytest.mark.parametrize("kind", ENCODINGS)
@pytest.mark.parametrize("orientation", [*range(1, 9), 0, 9, 65535])
def test_exif_turns_transparent_images_too(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encode(PICTURES["white letters"][0], kind, exif=exif, **ENCODINGS[kind])
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    expected = on_paper(np.asarray(upright.convert("RGBA")))[..., ::-1]
    found = read_image(data)
    assert found.shape == expected.shape and np.abs(found - expected).max() <= 1
    assert np.array_equal(read_image(Image.open(io.BytesIO(data))), found)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 8])
def test_a_pillow_image_as_it_is_opened_is_read_as_its_file(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    plain = Image.new("RGB", INK.size, WHITE)
    plain.paste(BLACK, mask=INK)
    data = encode(plain, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    opened = Image.open(io.BytesIO(data))
    assert np.array_equal(read_image(opened), read_image(data))
    assert np.array_equal(read_image(opened), read_image(data))  # a second time, when it is loaded
    turned = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(read_image(turned), read_image(data))
    cut = Image.open(io.BytesIO(data)).rotate(90, expand=True)  # keeps its EXIF, and was turned since
    assert np.array_equal(read_image(cut), np.asarray(cut)[..., ::-1])


def test_a_damaged_exif_is_passed_over() -> None:
    image = PICTURES["white letters"][0]
    for exif in (
        b"",
        b"x",
        b"II*\0",
        b"MM\0*\0\0\0\x08\0\x09",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"II*\0" * 9,
    ):
        for kind in ("PNG", "WEBP"):
            data = encode(image, kind, exif=exif, **ENCODINGS[kind])
            assert np.abs(read_image(data) - on_paper(np.asarray(image))[..., ::-1]).max() <= 1


def test_the_rule_at_its_bounds() -> None:
    """Levels 127 and 128; half of the largest alpha."""
    for level, paper in ((127, 255), (128, 0)):
        image = np.zeros((9, 9, 4), np.uint8)
        image[3:6, 3:6] = level, level, level, 255
        assert (read_image(image)[0, 0] == paper).all() and paper_of(image[..., 0], image[..., 3]) == paper
    for alpha, paper in ((127, 0), (128, 255)):  # whether the black half counts
        image = np.zeros((9, 9, 4), np.uint8)
        image[2:4, 2:7] = 255
        image[4:9, 2:7, 3] = alpha
        assert (read_image(image)[0, 0] == paper).all(), alpha
