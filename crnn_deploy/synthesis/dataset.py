"""Drawn text images as a dataset: image `i` of a seed is the same in every process and on every day."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.datasets import Sample
from crnn_deploy.synthesis.texts import TextSource

__all__ = ["Drawer", "Polarity", "Style", "SyntheticDataset"]

Polarity = Literal["dark-on-light", "light-on-dark", "both"]
Style = Literal["print", "scene", "document"]
_CLEAN = 0.15  # of augmented images, as clean as the clean ones
_WEAKEST = 0.3  # strength of the others' faults, to 1


class Drawer(Protocol):
    """Draws a text in one style."""

    def render(
        self,
        text: str,
        rng: np.random.Generator,
        *,
        strength: float,
        inverted: bool = False,
        empty: bool = False,
    ) -> NDArray[np.uint8]:
        """An image (H, W) grey or (H, W, 3) BGR of a text.

        strength: of everything that can be wrong with an image, 0 (clean) to 1
        inverted: light on dark
        empty: all but the letters: what they would stand on
        """


@dataclass(frozen=True)
class SyntheticDataset:
    """Images drawn when they are asked for.

    The same fonts, word lists and versions of NumPy, OpenCV and Pillow are needed for the same images.
    """

    texts: TextSource
    renderer: Drawer
    seed: int
    augmented: bool = True  # with the faults of cameras, scanners and screens
    polarity: Polarity = "both"
    size: int = sys.maxsize
    empty: float = 0.0  # share of the images that have no letters, and the text ""

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.size:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, index))
        text = self.texts.sample(rng)
        strength = rng.uniform(_WEAKEST, 1.0) if self.augmented and rng.random() > _CLEAN else 0.0
        inverted = rng.random() < {"dark-on-light": 0.0, "light-on-dark": 1.0, "both": 0.5}[self.polarity]
        empty = self.empty > 0 and rng.random() < self.empty
        image = self.renderer.render(text, rng, strength=strength, inverted=inverted, empty=empty)
        return Sample(image, "" if empty else text, f"drawn {self.seed}/{index}")
