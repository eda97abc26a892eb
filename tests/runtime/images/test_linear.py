"""Linear resizing to the bit as OpenCV has it on x86, which is the reference there."""

from __future__ import annotations

import hashlib
import platform

import cv2
import numpy as np
import pytest

from crnn_deploy.manifest import Manifest, StepRule, WidthRule
from crnn_deploy.runtime.images import linear
from crnn_deploy.runtime.images.prepare import prepare

on_x86 = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="OpenCV is the reference on x86 alone"
)


def noise(seed: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(1, 90)), int(rng.integers(1, 300)))
    return rng.integers(0, 256, size if seed % 2 else (*size, 3), np.uint8)


@on_x86
def test_every_pixel_is_opencvs_at_any_size() -> None:
    sizes = np.random.default_rng(0)
    for seed in range(500):
        image, rows, columns = noise(seed), int(sizes.integers(1, 65)), int(sizes.integers(1, 401))
        expected = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(linear.resized(image, rows, columns), expected), (image.shape, rows, columns)


@on_x86
def test_every_pixel_is_opencvs_by_factors_and_at_half_the_size() -> None:
    factors = np.random.default_rng(1)
    for seed in range(500):
        image = noise(seed)
        across, down = (0.5, 0.5) if seed % 10 == 0 else factors.uniform(0.2, 3, 2).tolist()
        rows, columns = round(image.shape[0] * down), round(image.shape[1] * across)
        if rows == 0 or columns == 0:
            continue
        expected = cv2.resize(image, (0, 0), fx=across, fy=down, interpolation=cv2.INTER_LINEAR)
        found = linear.resized(image, rows, columns, (across, down))
        assert np.array_equal(found, expected), (image.shape, across, down)


def test_the_pixels_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256()
    for seed in range(50):
        digest.update(linear.resized(noise(seed), 32, 8 * (seed + 4)).tobytes())
    assert digest.hexdigest() == "6a726a604a52fc4dadfb2b9de6edb4bae12a7e8ccc9cd9c8fe05a466d55e5238"


@on_x86
@pytest.mark.parametrize("resize", ["once", "height-first"])
def test_an_image_is_prepared_alike_by_either_resize(resize: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OpenCV's own resize is the reference, taking the other one changes no bit."""
    rule = WidthRule(32, 400, multiple=8, resize=resize)  # type: ignore[arg-type]
    given = ("a",), 0, "gray", 32, rule, (0.5,), (0.5,), "linear", StepRule(4, 4)
    manifest = Manifest(*given)  # type: ignore[arg-type]
    images = [noise(seed) for seed in range(40)]
    monkeypatch.setattr(linear, "NEEDED", False)
    expected = [prepare(image, manifest) for image in images]
    monkeypatch.setattr(linear, "NEEDED", True)
    same = [
        np.array_equal(prepare(image, manifest), one) for image, one in zip(images, expected, strict=True)
    ]
    assert all(same)
