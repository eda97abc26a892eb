"""What a camera does to a scene: exposure, focus, motion, resolution, noise, sharpening and JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.backgrounds import Image
from crnn_deploy.synthesis.effects import NOISE, noise_pool
from crnn_deploy.synthesis.scene_table import Dice

__all__ = ["taken"]

_FAINTEST = 14.0  # levels of contrast that the dark leaves
_NOISIEST = 0.3  # of the contrast


def taken(
    image: Image, unit: float, contrast: float, dice: Dice, shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """The scene as a picture of some size; its own is that size or more.

    unit: letter height, pixels of the scene
    contrast: between letters and ground, levels of grey; what is left of it stays above the noise
    """
    rng = dice.rng
    height, width = shape
    if (amount := dice.throw("bloom")) is not None:
        image = _bloom(image, amount)
    if (light := dice.throw("dark")) is not None:
        light = min(1.0, max(light, _FAINTEST / contrast))
        contrast *= light
        # a room's light, with a floor that lenses and air scatter
        image = image * np.float32(light) + np.float32(rng.uniform(0, 40) * (1 - light))
    if (amount := dice.throw("tinted")) is not None:
        gain = 1 + rng.uniform(-amount, amount, 3)
        image = image * (gain / gain.mean()).astype(np.float32)
    small = _native(dice, height, unit / image.shape[0])
    if (amount := dice.throw("defocus")) is not None:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), max(0.3, amount * unit)), np.float32)
    if (amount := dice.throw("motion")) is not None:
        image = _motion(image, amount * unit, rng)
    if small < image.shape[0]:
        size = max(4, round(width * small / height)), small
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)
    if (amount := dice.throw("noise")) is not None:
        image = _noise(image, min(amount, _NOISIEST * contrast), rng)
    if (amount := dice.throw("sharpened")) is not None:
        soft = cv2.GaussianBlur(image, (0, 0), 1.0)
        image = image + np.float32(amount) * (image - soft)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    if (quality := dice.throw("jpeg")) is not None:
        pixels = _jpeg(pixels, round(quality))
    if small < height:
        way = cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR
        pixels = np.asarray(cv2.resize(pixels, (width, height), interpolation=way), np.uint8)
        if (quality := dice.throw("jpeg")) is not None:
            pixels = _jpeg(pixels, max(40, round(quality)))
    return pixels


def _native(dice: Dice, height: int, share: float) -> int:
    """Pixels of height that the camera gives to the image, in which letters have a share."""
    letters = dice.throw("low_resolution")
    return height if letters is None else min(height, round(letters / share))


def _bloom(image: Image, amount: float) -> Image:
    """Light that flows over the edges of what is bright: lamps, and white in the sun."""
    lit = image * np.float32(1 + 0.6 * amount)
    halo = np.asarray(cv2.GaussianBlur(np.clip(lit - 190, 0, 90), (0, 0), 0.06 * image.shape[0]), np.float32)
    return np.asarray(np.clip(lit, 0, 255) + halo * np.float32(amount * 1.5), np.float32)


def _motion(image: Image, length: float, rng: np.random.Generator) -> Image:
    """A shake along a straight path."""
    size = max(3, 2 * int(np.ceil(length / 2)) + 1)
    kernel = np.zeros((size, size), np.float32)
    angle = rng.normal(0, 0.4) if rng.random() < 0.6 else rng.uniform(0, np.pi)
    step = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    middle = size // 2
    start, end = (np.round((middle - step) * 16).astype(int), np.round((middle + step) * 16).astype(int))
    cv2.line(kernel, tuple(map(int, start)), tuple(map(int, end)), 1.0, 1, cv2.LINE_8, 4)
    kernel[middle, middle] = 1
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), np.float32)


def _noise(image: Image, amount: float, rng: np.random.Generator) -> Image:
    """A sensor's: in part the same in all colours, and smoothed by the camera at times."""
    if image.size >= NOISE:
        return image
    start = int(rng.integers(NOISE - image.size))
    noise = noise_pool()[start : start + image.size].reshape(image.shape)
    noise = noise[..., :1] + noise * np.float32(rng.uniform(0.0, 0.7))
    if rng.random() < 0.6:
        noise = np.asarray(cv2.blur(noise, (2, 2)), np.float32) * np.float32(1.6)
    return image + noise * np.float32(amount)


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Colours at half the resolution, as cameras write them."""
    coded = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(decoded, np.uint8)
