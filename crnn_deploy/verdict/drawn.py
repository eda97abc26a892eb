"""Drawn images that two models are compared on where nobody gives any."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.manifest import Manifest
from crnn_deploy.plain_text import plain_text

__all__ = ["drawn_images"]


def drawn_images(manifest: Manifest, batch: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Network inputs (N, C, H, W) to compare with: half lines of drawn characters, half noise.

    A trained network sees nothing in noise, and an untrained one sees everything alike: both are asked.
    """
    images = np.empty((batch, manifest.height, width, manifest.channels), np.uint8)
    for image in images:
        low, high = sorted(rng.integers(0, 256, 2).tolist())
        if rng.random() < 0.5:
            image[:] = rng.integers(low, high + 1, image.shape)
            continue
        paper, ink = (low, high) if rng.random() < 0.5 else (high, low)
        word = "".join(chr(c) for c in rng.integers(33, 127, max(1, width // 12)))
        at, scale = (2, int(0.75 * manifest.height)), 0.7 * (manifest.height / 32)
        line = plain_text(word, image.shape[:2], at, scale, paper=paper, ink=ink)
        noisy = line[:, :, None] + rng.normal(0, 8, image.shape)
        image[:] = np.clip(noisy, 0, 255)
    mean, std = (np.array(values, np.float32) for values in (manifest.mean, manifest.std))
    scaled = (images.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)
