"""The faults of a camera, in their order; and noise and shade, which other effects are made of."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["NOISE", "augmented", "noise_pool", "photographed", "shade"]

NOISE = 2**20  # numbers in the pool that noise is cut from
_SMALLEST = 20  # pixels of height from which the resolution may be lowered


def photographed(image: NDArray[np.float32], rng: np.random.Generator, strength: float) -> NDArray[np.uint8]:
    """Blur, low resolution, noise, gamma and JPEG, each at random.

    image: (H, W) or (H, W, 3), 0-255
    strength: of all of them, 0 to 1
    """
    height, width = image.shape[:2]
    if rng.random() < 0.45 * strength:
        sigma = rng.uniform(0.3, 0.045 * height * strength + 0.35)
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), sigma), np.float32)
    elif rng.random() < 0.15 * strength:
        length = max(2, round(rng.uniform(0.03, 0.11) * height))
        kernel = np.zeros((length, length), np.float32)
        kernel[length // 2] = 1 / length
        image = np.asarray(cv2.filter2D(image, -1, kernel if rng.random() < 0.6 else kernel.T), np.float32)
    if rng.random() < 0.25 * strength and height > _SMALLEST:
        share = rng.uniform(max(0.4, 14 / height), 0.9)
        small = max(4, round(width * share)), max(10, round(height * share))
        shrunk = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        image = np.asarray(cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
    if rng.random() < 0.5 * strength and image.size < NOISE:
        start = int(rng.integers(NOISE - image.size))
        noise = noise_pool()[start : start + image.size].reshape(image.shape)
        image = image + noise * np.float32(rng.uniform(0.5, 14.0) * strength)
    if rng.random() < 0.2 * strength:
        gamma = np.float32(rng.uniform(0.6, 1.6))
        image = np.float32(255) * (np.clip(image, 0, 255) / np.float32(255)) ** gamma
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.4 * strength:
        quality = int(rng.integers(20, 90))
        encoded = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))[1]
        decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE if pixels.ndim == 2 else cv2.IMREAD_COLOR)
        assert decoded is not None
        pixels = np.asarray(decoded, np.uint8)
    return pixels


def augmented(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """A labelled image as another camera might have seen it: cut, turned, lit and photographed otherwise.

    image: (H, W) grey or (H, W, 3) BGR
    """
    strength = rng.uniform(0.0, 1.0)
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    moved = corners + rng.normal(0, 0.04 * strength * height, (4, 2)).clip(-0.1 * height, 0.1 * height)
    moved[:, 0] += rng.normal(0, 0.12) * strength * (corners[:, 1] - height / 2)
    # one end higher than the other, and seen from farther away where it would leave the picture
    climb = float(np.clip(rng.normal(0, 0.08) * strength * width, -0.5 * height, 0.5 * height))
    moved[:, 1] += climb * (corners[:, 0] / width - 0.5)
    scale = height / max(height, height + abs(climb) - 0.12 * height)
    moved = (moved - [0, height / 2]) * scale + [0, height / 2]
    stretched = max(2, round(width * scale * rng.uniform(1 - 0.2 * strength, 1 + 0.2 * strength)))
    moved[:, 0] *= stretched / (width * scale)
    # parts of the first and the last letter are cut off, or there is more room beside them
    ends = (rng.normal(0, 0.08, 2) * strength * height).clip(-0.15 * height, 0.3 * height)
    moved[:, 0] += ends[0]
    wide = max(2, stretched + round(float(ends.sum())))
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    warped = cv2.warpPerspective(image, matrix, (wide, height), borderMode=cv2.BORDER_REPLICATE)
    lit = warped.astype(np.float32)
    if lit.ndim == 3 and rng.random() < 0.5:  # colours that are other greys
        mixed = (np.eye(3) + rng.normal(0, 0.3 * strength, (3, 3))).astype(np.float32)
        lit = (lit - 128) @ (mixed / mixed.sum(axis=0)) + 128
    if rng.random() < 0.2:
        lit = 255 - lit
    contrast = rng.uniform(1 - 0.5 * strength, 1 + 0.3 * strength)
    lit = (lit - 128) * contrast + 128 + rng.normal(0, 20) * strength
    return photographed(lit.astype(np.float32), rng, strength)


def shade(shape: tuple[int, ...], rng: np.random.Generator, amount: float) -> NDArray[np.float32]:
    """Light that falls off to one side: (H, W), -amount to amount."""
    corners = rng.uniform(-amount, amount, (2, 2)).astype(np.float32)
    size = shape[1], shape[0]
    return np.asarray(cv2.resize(corners, size, interpolation=cv2.INTER_LINEAR), np.float32)


@cache
def noise_pool() -> NDArray[np.float32]:
    """(NOISE,) of deviation 1, which costs less than to draw noise anew."""
    return np.random.default_rng(0).standard_normal(NOISE, np.float32)
