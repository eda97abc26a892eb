"""Pixels of the built-in families against their projects' own steps, written anew in benchmarks/accuracy."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from benchmarks.accuracy.english_g2 import compare, crops, find_weights, recognizer
from benchmarks.accuracy.family_pixels import EXACT, difference, images, manifest_of
from benchmarks.accuracy.published_pixels import (
    PUBLISHED,
    NoInput,
    as_installed,
    easyocr_grey,
    easyocr_input,
)
from crnn_deploy.manifest import Manifest
from crnn_deploy.recipes.recipe import RECIPES, Recipe, find_recipe
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.images.prepare import prepare, prepare_contrasted

DATA = Path(__file__).parents[3] / "shared" / "data"
GRID = [
    *((1, 1), (1, 2), (2, 1), (3, 5), (7, 7), (1, 90), (90, 1), (31, 33), (32, 100), (32, 128), (64, 64)),
    *((48, 320), (48, 321), (47, 314), (13, 700), (700, 13), (200, 100), (300, 299), (20, 61), (61, 20)),
    *((33, 257), (24, 94), (41, 150), (150, 41), (40, 37), (10, 403)),
]
SIDES = st.integers(1, 3000)


def allowed(name: str) -> float:
    """Grey levels: PyTorch's last bit, which depends on the processor, decides where docTR's pixels round."""
    return 1 + EXACT if name.startswith("doctr") else EXACT


def found(path: Path, manifest: Manifest) -> NDArray[Any]:
    return prepare(read_image(str(path), decoded_grey=manifest.decoded_grey), manifest)


def check(name: str, path: Path, image: NDArray[Any]) -> None:
    assert cv2.imwrite(str(path), image)
    manifest = manifest_of(as_installed(RECIPES[name]))
    try:
        published = PUBLISHED[name](path)
    except NoInput:
        return
    levels = difference(found(path, manifest), published, manifest)
    assert levels is not None and levels < allowed(name), (image.shape, levels)


@pytest.mark.parametrize("name", PUBLISHED)
def test_pixels_on_a_grid_of_sizes(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for shape in GRID:
        check(name, tmp_path / "image.png", rng.integers(0, 256, (*shape, 3), np.uint8))


@pytest.mark.parametrize("name", PUBLISHED)
def test_pixels_at_random_sizes(name: str, tmp_path: Path) -> None:
    """`python -m benchmarks.accuracy.family_pixels` has 1,000 of each."""
    for _, image in zip(range(40), images(np.random.default_rng(2)), strict=False):
        check(name, tmp_path / "image.png", image)


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_pixels_of_other_formats(name: str, suffix: str, tmp_path: Path) -> None:
    image = cv2.GaussianBlur(np.random.default_rng(3).integers(0, 256, (45, 140, 3), np.uint8), (0, 0), 2)
    check(name, tmp_path / f"image{suffix}", np.asarray(image))


def test_every_family_with_a_published_input_is_compared() -> None:
    """The paper has no code; models of one family share their input."""
    left_out = {name for name in RECIPES if name not in PUBLISHED}
    assert {name for name in left_out if not name.startswith(("easyocr", "clovaai"))} == {"paper"}
    for name in left_out - {"paper"}:
        like = "easyocr-g1" if name.startswith("easyocr") else "clovaai-vgg"
        assert manifest_of(RECIPES[name]) == manifest_of(RECIPES[like])


@given(height=SIDES, width=SIDES)
def test_mmocr_rounds_to_the_nearest_multiple_of_16(height: int, width: int) -> None:
    new_width = max(32, math.ceil(float(32) / height * width))
    if new_width % 16 != 0:
        new_width = round(new_width / 16) * 16
    rule = manifest_of(RECIPES["mmocr"]).width
    assert rule.bucket(height, width, 32) == min(rule.maximum, new_width)


@given(height=SIDES, width=SIDES)
def test_paddleocr_cuts_the_width_of_long_lines(height: int, width: int) -> None:
    limit = int(48 * max(320 / 48, width / height))
    manifest = manifest_of(RECIPES["paddleocr"])
    assert manifest.width.bucket(height, width, 48) == min(manifest.width.maximum, limit)


@given(height=SIDES, width=SIDES)
def test_easyocr_pads_to_whole_squares_of_the_inverted_ratio(height: int, width: int) -> None:
    ratio = width / height
    ratio = ratio if ratio >= 1 else 1.0 / ratio
    rule = manifest_of(RECIPES["easyocr-english-g2"]).width
    assert rule.bucket(height, width, 64) == min(rule.maximum, math.ceil(ratio) * 64)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 90), width=st.integers(1, 90), low=st.integers(0, 255), span=st.integers(0, 255))
def test_easyocr_of_arrays_and_its_second_reading(height: int, width: int, low: int, span: int) -> None:
    rng = np.random.default_rng(height * 91 + width)
    image = rng.integers(low, min(255, low + span) + 1, (height, width, 3), np.uint8)
    manifest = manifest_of(as_installed(RECIPES["easyocr-english-g2"]))
    grey = easyocr_grey(image)
    assert np.array_equal(prepare(image, manifest), easyocr_input(grey))
    again = prepare_contrasted(image, manifest)
    published = easyocr_input(grey, adjust_contrast=0.5)
    assert np.array_equal(prepare(image, manifest) if again is None else again, published)


def recipe_of(folder: Path, text: str) -> Recipe:
    file = folder / "own.toml"
    file.write_text(text, encoding="utf-8")
    return as_installed(find_recipe(str(file)))


def test_clovaai_with_pad_is_a_recipe_file(tmp_path: Path) -> None:
    """dataset.py, AlignCollate with --PAD: the aspect kept up to imgW, the last column repeated."""
    recipe = recipe_of(
        tmp_path,
        """
        base = "clovaai-vgg"
        [width]
        minimum = 100
        maximum = 100
        fit = "pad"
        pad = "edge"
        rounding = "ceil"
        order = "ratio"
        """,
    )
    for image in (image for _, image in zip(range(60), images(np.random.default_rng(4)), strict=False)):
        grey = Image.fromarray(np.ascontiguousarray(image if image.ndim == 2 else image[..., ::-1])).convert(
            "L"
        )
        across = min(100, math.ceil(32 * (grey.width / float(grey.height))))
        if grey.height > 100 * grey.width:
            continue
        resized = np.asarray(grey.resize((across, 32), Image.Resampling.BICUBIC))
        expected = np.concatenate([resized, np.repeat(resized[:, -1:], 100 - across, axis=1)], axis=1)
        levels = prepare(image, manifest_of(recipe))[0] * 127.5 + 127.5
        assert np.array_equal(np.rint(levels), expected)


def test_keep_ratio_of_crnn_pytorch_is_a_recipe_file(tmp_path: Path) -> None:
    """dataset.py, alignCollate with keep_ratio, of an image alone: at least as wide as high."""
    recipe = recipe_of(
        tmp_path,
        """
        base = "crnn.pytorch"
        [width]
        minimum = 32
        maximum = 3200
        rounding = "floor"
        order = "ratio"
        """,
    )
    rule = recipe.width
    for height, width in GRID:
        expected = max(32, int(np.floor(width / float(height) * 32)))
        assert rule.bucket(height, width, 32) == min(rule.maximum, expected)


def test_rapidocr_and_a_multiple_rounded_down(tmp_path: Path) -> None:
    recipe = recipe_of(
        tmp_path,
        """
        color = "gray"
        [width]
        minimum = 16
        maximum = 1600
        multiple = 16
        multiple_rounding = "floor"
        multiple_of = "exact"
        order = "scale"
        """,
    )
    for height, width in GRID:
        expected = max(16, int(32 / height * width) // 16 * 16)
        assert recipe.width.bucket(height, width, 32) == min(1600, expected)


def test_a_recipe_names_the_version_of_pillow(tmp_path: Path) -> None:
    """A picture that shrinks much more in height differs between the versions."""
    image = np.random.default_rng(5).integers(0, 2, (300, 120), np.uint8) * np.uint8(255)
    earlier = prepare(image, manifest_of(RECIPES["clovaai-vgg"]))
    later = prepare(image, manifest_of(replace(RECIPES["clovaai-vgg"], interpolation="pillow13-bicubic")))
    assert not np.array_equal(earlier, later)
    text = 'base = "clovaai-vgg"\ninterpolation = "pillow13-bicubic"'
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    named = find_recipe(str(tmp_path / "own.toml"))
    assert np.array_equal(prepare(image, manifest_of(named)), later)


def test_english_g2_reads_as_in_easyocr(tmp_path: Path) -> None:
    """`python -m benchmarks.accuracy.english_g2` reads 473 crops, 40 of them higher than wide."""
    weights = find_weights(DATA)
    if weights is None or not weights.exists():
        pytest.skip(
            "english_g2.pth is not here: set EASYOCR_ENGLISH_G2, or put it in ../shared/data/checkpoints"
        )
    paths = crops(DATA)
    if not paths:
        pytest.skip("the images are not here (../shared/data)")
    tall = [path for path in paths if (size := Image.open(path).size)[1] > size[0]]
    wide = [path for path in paths if path not in tall]
    chosen = [*tall, *wide[: 158 - len(tall)]]
    readings = list(compare(weights, chosen, recognizer(weights, tmp_path)))
    assert len(readings) == 2 * 158 and len(tall) == 40
    assert [one for one in readings if one.here != one.published] == []
