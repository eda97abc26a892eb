"""From pixels to the network's input; Pillow, and plain formulas over OpenCV, are the reference."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from fractions import Fraction
from typing import Any

import cv2
import numpy as np
import PIL
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps

from crnn_deploy.manifest import AdaptiveThreshold, Clahe, Contrast, Manifest, StepRule, Stretch, WidthRule
from crnn_deploy.runtime.images.prepare import content_width, prepare, prepare_contrasted

Array = NDArray[Any]

RNG = np.random.default_rng(0)


def manifest(**values: Any) -> Manifest:
    channels = 1 if values.get("color", "gray") == "gray" else 3
    plain = {
        "alphabet": ("a",),
        "blank": 0,
        "color": "gray",
        "height": 32,
        "width": WidthRule(100, 100),
        "mean": (0.5, 0.4, 0.3)[:channels],
        "std": (0.5, 0.25, 0.193)[:channels],
        "interpolation": "linear",
        "steps": StepRule(4, 4),
    }
    return Manifest(**{**plain, **values})


OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


def expected_size(height: int, width: int, m: Manifest) -> tuple[int, int]:
    """Rows and columns that the image covers, in exact fractions."""
    if m.width.fit == "stretch":
        return m.height, m.width.bucket(height, width, m.height)
    if m.width.fit == "pad":
        natural = m.width.natural(height, width, m.height)
        return m.height, min(natural, m.width.bucket(height, width, m.height))
    scale = min(Fraction(m.height, height), Fraction(m.width.maximum, width))
    rows, columns = int(height * scale + Fraction(1, 2)), int(width * scale + Fraction(1, 2))
    return max(1, rows), max(1, columns)


def expected_input(image: Array, m: Manifest) -> Array:
    if m.color == "gray" and image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    rows, columns = expected_size(image.shape[0], image.shape[1], m)
    total = m.width.bucket(image.shape[0], image.shape[1], m.height)
    pad = 0.0 if m.width.pad == "edge" else m.width.pad
    canvas = np.full((m.height, total, m.channels), pad, np.float64)
    resized: Array = cv2.resize(image, (columns, rows), interpolation=OPENCV[m.interpolation])
    resized = resized.reshape(rows, columns, -1)
    canvas[:rows, :columns] = resized[..., ::-1] if m.color == "rgb" else resized
    if m.width.pad == "edge":
        canvas[:, columns:] = canvas[:, columns - 1 : columns]
        canvas[rows:] = canvas[rows - 1]
    numbers: Array = (canvas / 255 - m.mean) / m.std
    return numbers.transpose(2, 0, 1)


WIDTHS = {
    "fixed": WidthRule(100, 100),
    "aspect": WidthRule(16, 200, multiple=8, aspect=160 / 280),
    "pad": WidthRule(16, 200, multiple=8, fit="pad", pad=127.5),
    "pad, edge": WidthRule(40, 200, multiple=4, fit="pad", pad="edge"),
    "letterbox": WidthRule(128, 128, fit="letterbox", pad=0),
    "letterbox, edge": WidthRule(94, 94, fit="letterbox", pad="edge"),
}


@settings(max_examples=300, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 120), st.integers(1, 300)),
    coloured=st.booleans(),
    color=st.sampled_from(["gray", "rgb", "bgr"]),
    interpolation=st.sampled_from(sorted(OPENCV)),
    width=st.sampled_from(sorted(WIDTHS)),
    seed=st.integers(0, 99),
)
def test_prepare_is_the_formula(
    shape: tuple[int, int], coloured: bool, color: str, interpolation: str, width: str, seed: int
) -> None:
    m = manifest(color=color, interpolation=interpolation, width=WIDTHS[width])
    image = np.random.default_rng(seed).integers(0, 256, (*shape, 3) if coloured else shape, np.uint8)
    prepared = prepare(image, m)
    assert prepared.dtype == np.float32 and prepared.flags.c_contiguous
    assert prepared.shape == (m.channels, m.height, m.width.bucket(*shape, m.height))
    np.testing.assert_allclose(prepared, expected_input(image, m), rtol=0, atol=2e-6)
    assert content_width(image.shape, m) == expected_size(*shape, m)[1]
    assert prepare(image.copy(), m).tobytes() == prepared.tobytes()


@pytest.mark.parametrize("shape", [(1, 4), (1, 5), (1, 6), (2, 9), (32, 128), (33, 128), (32, 129), (99, 5)])
def test_letterbox_keeps_the_aspect_ratio(shape: tuple[int, int]) -> None:
    m = manifest(width=WidthRule(128, 128, fit="letterbox", pad=77))
    image = RNG.integers(0, 256, shape, np.uint8)
    np.testing.assert_allclose(prepare(image, m), expected_input(image, m), rtol=0, atol=2e-6)


def test_numbers_are_those_of_torchvision() -> None:
    """ToTensor divides by 255, Normalize subtracts and divides, all in float32."""
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    m = manifest(height=16, width=WidthRule(16, 16), mean=(0.588,), std=(0.193,))
    expected = image.astype(np.float32) / np.float32(255)
    expected = (expected - np.float32(0.588)) / np.float32(0.193)
    assert np.array_equal(prepare(image, m)[0], expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (1, 1, 3), (1, 4000, 3), (4000, 1, 3)])
@pytest.mark.parametrize("width", WIDTHS)
def test_extreme_shapes(shape: tuple[int, ...], width: str) -> None:
    image = np.full(shape, 200, np.uint8)
    for interpolation in [*OPENCV, *PILLOW, "torch-bilinear"]:
        m = manifest(interpolation=interpolation, width=WIDTHS[width], mean=(0.0,), std=(1.0,))
        prepared = prepare(image, m)
        covered = content_width(shape, m)
        assert 1 <= covered <= prepared.shape[2] == m.width.bucket(shape[0], shape[1], 32)
        np.testing.assert_allclose(prepared[0, 0, :covered], 200 / 255, atol=1e-6)
    m = manifest(
        filters=(Stretch(0.01, 96), Clahe(2.0, 8), AdaptiveThreshold(15, 10, True)), width=WIDTHS[width]
    )
    assert np.isfinite(prepare(image, m)).all()


def test_filters_run_in_order_at_the_original_size() -> None:
    image: Array = cv2.GaussianBlur(RNG.integers(0, 256, (50, 90, 3), np.uint8), (11, 11), 0)
    grey: Array = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    grey = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(4, 4)).apply(grey)
    for invert, kind in ((True, cv2.THRESH_BINARY_INV), (False, cv2.THRESH_BINARY)):
        black: Array = cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, kind, 15, 10)
        m = manifest(filters=(Clahe(2.0, 4), AdaptiveThreshold(15, 10, invert)))
        np.testing.assert_allclose(prepare(image, m), expected_input(black, m), atol=2e-6)
        assert not np.allclose(prepare(image, m), prepare(image, replace(m, filters=m.filters[::-1])))


@given(
    levels=st.lists(st.integers(0, 255), min_size=1, max_size=8),
    percent=st.integers(0, 20),
    seed=st.integers(0, 2**32 - 1),
)
def test_levels_are_stretched_as_pillow_does_it(levels: list[int], percent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    noisy = rng.choice(levels, (20, 50)) + rng.normal(0, 9, (20, 50))
    grey: Array = noisy.clip(0, 255).astype(np.uint8)
    published = ImageOps.autocontrast(Image.fromarray(grey), cutoff=percent)
    assume(published.getextrema() == (0, 255))  # Pillow leaves an image whose ends are of one level
    rule = {"height": 20, "width": WidthRule(50, 50), "mean": (0.0,), "std": (1.0,)}
    found = prepare(grey, manifest(**rule, filters=(Stretch(percent / 100, 1),)))
    np.testing.assert_allclose(found[0] * 255, np.asarray(published, np.float64), atol=1.001)


def test_what_is_nearly_of_one_level_stays_so() -> None:
    paper: Array = RNG.normal(200, 3, (32, 100)).clip(0, 255).astype(np.uint8)
    m = manifest(mean=(0.0,), std=(1.0,), width=WidthRule(100, 100), filters=(Stretch(0.01, 96),))
    spread = prepare(paper, m) * 255
    assert abs(float(spread.mean()) - 127.5) < 2 and float(spread.std()) < 3.5 * 255 / 96
    np.testing.assert_allclose(prepare(np.full_like(paper, 3), m) * 255, 128, atol=1e-4)


@pytest.mark.parametrize("image", ["dark", "faint", "inverted"])
def test_a_stretched_image_does_not_depend_on_its_light(image: str) -> None:
    text: Array = cv2.GaussianBlur(RNG.choice(np.array([0, 200], np.uint8), (32, 100)), (5, 5), 0)
    m = manifest(mean=(0.5,), std=(0.5,), width=WidthRule(100, 100), filters=(Stretch(0.01, 16),))
    lit = {"dark": text // 2, "faint": text // 4 + 170, "inverted": 255 - text}[image]
    expected = prepare(text, m)
    np.testing.assert_allclose(prepare(lit, m), -expected if image == "inverted" else expected, atol=0.1)


PILLOW = {
    f"{version}-{kernel.name.lower()}": kernel
    for version in ("pillow", "pillow13")
    for kernel in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
}
INSTALLED = "pillow13" if int(PIL.__version__.split(".")[0]) >= 13 else "pillow"


def check_against_pillow(image: Array, width: int, height: int, interpolation: str) -> None:
    grey = image.ndim == 2
    channels = 1 if grey else 3
    m = manifest(
        color="gray" if grey else "bgr",
        height=height,
        width=WidthRule(width, width),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        steps=StepRule(1, 0),
        interpolation=interpolation,
    )
    resized = np.rint(prepare(image, m) * 255).astype(np.uint8)
    kernel, original = PILLOW[interpolation], Image.fromarray(image)
    # one pass a call: which comes first depends on Pillow's version and, in 13, on the sizes
    shrunk = np.subtract(image.shape[:2], (height, width))
    vertical_first = interpolation.startswith("pillow13") and shrunk[0] > max(0, 2 * shrunk[1])
    between = (image.shape[1], height) if vertical_first else (width, image.shape[0])
    expected = np.asarray(original.resize(between, kernel).resize((width, height), kernel))
    if interpolation.startswith(f"{INSTALLED}-") and image.shape[0] <= 100 * image.shape[1]:
        assert np.array_equal(expected, np.asarray(original.resize((width, height), kernel)))
    assert np.array_equal(resized, expected[None] if grey else expected.transpose(2, 0, 1))


SIDE = st.integers(1, 300)


@settings(max_examples=300, deadline=None)
@given(
    size_in=st.tuples(SIDE, SIDE),
    size_out=st.tuples(SIDE, SIDE),
    coloured=st.booleans(),
    black_and_white=st.booleans(),
    interpolation=st.sampled_from(sorted(PILLOW)),
    seed=st.integers(0, 9),
)
def test_pillow_kernels_to_the_bit(
    size_in: tuple[int, int],
    size_out: tuple[int, int],
    coloured: bool,
    black_and_white: bool,
    interpolation: str,
    seed: int,
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (*size_in, 3) if coloured else size_in, np.uint8)
    if black_and_white:  # overshoots the most
        image = np.where(image > 127, np.uint8(255), np.uint8(0))
    check_against_pillow(image, *size_out, interpolation)


@pytest.mark.parametrize("interpolation", PILLOW)
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1200, 1000), (100, 32)),
        ((700, 900, 3), (100, 32)),
        ((1, 4000), (100, 32)),
        ((4000, 1), (100, 32)),
        ((32, 100), (100, 32)),
        ((32, 217), (100, 32)),
        ((8, 9000), (1600, 32)),
        ((5000, 60, 3), (8, 32)),
    ],
)
def test_pillow_kernels_on_large_and_odd_sizes(
    shape: tuple[int, ...], size: tuple[int, int], interpolation: str
) -> None:
    check_against_pillow(RNG.integers(0, 256, shape, np.uint8), *size, interpolation)


def test_tables_of_wide_images_are_not_kept_for_ever() -> None:
    m = manifest(interpolation="pillow-bicubic", width=WidthRule(8, 65_536), height=32)
    tracemalloc.start()
    try:
        for width in range(65_500, 65_508):
            prepare(np.zeros((9, width), np.uint8), m)
        assert tracemalloc.get_traced_memory()[0] < 120e6  # four, of 19 MB
    finally:
        tracemalloc.stop()


def test_grey_is_pillows_grey_within_one_level() -> None:
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    image = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(86, -1, 3)
    m = manifest(height=86, width=WidthRule(7396, 7396), mean=(0.0,), std=(1.0,))
    grey = np.rint(prepare(image, m)[0] * 255)
    expected = np.asarray(Image.fromarray(image[..., ::-1].copy()).convert("L"), np.float64)
    assert np.abs(grey - expected).max() <= 1
    assert (grey != expected).mean() < 0.002


def test_pillows_grey_to_the_bit() -> None:
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    image = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(86, -1, 3)
    m = manifest(height=86, width=WidthRule(7396, 7396), mean=(0.0,), std=(1.0,), grey="pillow")
    expected = np.asarray(Image.fromarray(image[..., ::-1].copy()).convert("L"))
    assert np.array_equal(np.rint(prepare(image, m)[0] * 255), expected)


@pytest.mark.parametrize("interpolation", ["cubic", "pillow-bicubic"])
@pytest.mark.parametrize("shape", [(50, 130), (50, 130, 3), (1, 1), (7, 900), (400, 3)])
def test_a_line_resized_twice_keeps_its_planes(shape: tuple[int, ...], interpolation: str) -> None:
    """A grey picture in three equal colours is the grey one, plane by plane."""
    rule = WidthRule(4, 1600, aspect=160 / 280, rounding="floor", resize="height-first")
    grey = RNG.integers(0, 256, shape[:2], np.uint8)
    image = np.repeat(grey[..., None], 3, axis=2) if len(shape) == 3 else grey
    alike: dict[str, Any] = {"interpolation": interpolation, "width": rule}
    colour = prepare(image, manifest(color="bgr", mean=(0.5,) * 3, std=(0.5,) * 3, **alike))
    plain = prepare(grey, manifest(mean=(0.5,), std=(0.5,), **alike))
    assert np.array_equal(colour, np.repeat(plain, 3, axis=0))


@pytest.mark.parametrize(("shape", "columns"), [((1, 60_000), 1600), ((60_000, 1), 4), ((30_000, 7), 4)])
def test_extreme_lines_resized_twice(shape: tuple[int, int], columns: int) -> None:
    image = np.full(shape, 200, np.uint8)
    rule = WidthRule(4, 1600, aspect=160 / 280, rounding="floor", resize="height-first")
    prepared = prepare(image, manifest(width=rule, interpolation="cubic", mean=(0.0,), std=(1.0,)))
    assert prepared.shape == (1, 32, columns)
    np.testing.assert_allclose(prepared, 200 / 255, atol=1e-6)


@pytest.mark.parametrize("tall", ["invert", "invert-pillow13"])
@pytest.mark.parametrize("shape", [(2, 1), (60_000, 1), (65_535, 3), (90, 89)])
def test_tall_images_inverted(shape: tuple[int, int], tall: str) -> None:
    rule = WidthRule(64, 3200, 64, "pad", "edge", 1.0, "floor", "ratio", multiple_of="exact", tall=tall)  # type: ignore[arg-type]
    m = manifest(height=64, width=rule, mean=(0.0,), std=(1.0,), contrast=Contrast(0.1, 0.5))
    image = np.full(shape, 200, np.uint8)
    prepared = prepare(image, m)
    assert prepared.shape == (1, 64, min(3200, -(-shape[0] // shape[1]) * 64))
    np.testing.assert_allclose(prepared, 200 / 255, atol=1e-6)
    assert content_width(shape, m) == max(1, round(64 * shape[1] / shape[0] + 0.499))


def test_what_has_contrast_is_not_stretched() -> None:
    m = manifest(mean=(0.0,), std=(1.0,), contrast=Contrast(0.1, 0.5), width=WidthRule(100, 100))
    assert prepare_contrasted(np.tile(np.array([0, 255], np.uint8), (32, 50)), m) is None
    assert (
        prepare_contrasted(np.tile(np.array([0, 255], np.uint8), (32, 50)), replace(m, contrast=None)) is None
    )
    faint = np.tile(np.array([100, 110], np.uint8), (32, 50))
    stretched = prepare_contrasted(faint, m)
    assert stretched is not None
    # (x - low + 25) x 200 / max(10, high - low), held at 255
    assert np.unique(np.rint(stretched * 255)).tolist() == [255.0]
    assert prepare(faint, m).max() == np.float32(110 / 255)
