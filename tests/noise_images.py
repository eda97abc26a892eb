"""Images of noise, as files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

__all__ = ["write_images"]


def write_images(folder: Path, count: int = 48, width: int | None = None) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for at in range(count):
        pixels = rng.integers(0, 256, (32, width or 60 + 16 * (at % 8)), np.uint8)
        cv2.imwrite(str(folder / f"{at:03}.png"), pixels)
    return folder
