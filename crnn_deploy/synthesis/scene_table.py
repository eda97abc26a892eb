"""What can happen to a word in a scene: how often, and how much. The one table to tune.

Each effect is a function or a step of `scene`, `baselines`, `backgrounds`, `scene_ink`, `scene_light` or
`camera`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

__all__ = ["EFFECTS", "Dice", "Effect", "alone"]


@dataclass(frozen=True)
class Effect:
    """How often an effect comes, and how strong it is."""

    chance: float  # among the images of strength 1
    least: float
    most: float


EFFECTS: Mapping[str, Effect] = MappingProxyType(
    {
        # letters; lengths in em
        "tight_tracking": Effect(0.10, 0.02, 0.10),  # letters touch or overlap
        "wide_tracking": Effect(0.12, 0.05, 0.45),
        "stretched": Effect(0.12, 1.1, 1.9),  # width, times
        "condensed": Effect(0.85, 0.95, 0.45),  # width, times
        "small_capitals": Effect(0.15, 0.7, 0.85),  # of capitals: the others' height beside the first
        "old_style_figures": Effect(0.12, 0.64, 0.78),  # their x-height beside the height of the others
        "jumping": Effect(0.05, 0.02, 0.12),  # each letter above the baseline at most
        "bolder": Effect(0.15, 0.02, 0.08),  # wider strokes
        # geometry
        "arc": Effect(0.20, 0.2, 2.0),  # radians that the baseline turns by
        "wave": Effect(0.04, 0.05, 0.25),  # amplitude, letter heights
        "tilt": Effect(0.65, 0.0, 0.32),  # radians
        "steep": Effect(0.10, 0.25, 0.75),  # radians, in place of the tilt
        "slant": Effect(0.10, 0.0, 0.35),  # shear
        "perspective": Effect(0.50, 0.0, 0.55),  # how much larger one end is
        # crop; letter heights at each side
        "tight_crop": Effect(0.25, 0.0, 0.10),  # cut off
        "loose_crop": Effect(0.30, 0.1, 0.60),  # around
        # neighbours; letter heights that are seen of them
        "word_beside": Effect(0.16, 0.05, 0.35),
        "line_above": Effect(0.10, 0.05, 0.45),
        "line_below": Effect(0.12, 0.05, 0.45),
        # ground: one of these at most; contrast as a share of that between ink and ground
        "photograph": Effect(0.22, 0.2, 1.0),
        "clouds": Effect(0.10, 0.1, 0.7),
        "wood": Effect(0.03, 0.2, 0.7),
        "brick": Effect(0.02, 0.2, 0.8),
        "metal": Effect(0.04, 0.2, 0.8),
        "halftone": Effect(0.02, 0.2, 0.6),
        "stripes": Effect(0.02, 0.2, 0.6),
        "two_tone": Effect(0.06, 0.2, 0.8),
        # and on the ground
        "board": Effect(0.25, 0.05, 0.4),  # the sign's edge: letter heights from the letters
        "shade": Effect(0.60, 0.1, 0.8),  # light that falls off, share of the contrast
        "fading": Effect(0.06, 0.3, 0.7),  # share of the contrast that is lost at one end
        # inside letters; share of the contrast
        "gradient": Effect(0.12, 0.1, 0.6),
        "textured": Effect(0.08, 0.2, 0.8),
        "worn": Effect(0.08, 0.2, 0.7),  # share of the ink
        "hollow": Effect(0.03, 0.05, 0.10),  # line width, letter heights
        "dotted": Effect(0.015, 0.09, 0.13),  # lamps: pitch, letter heights
        # around letters: one of these at most; widths in letter heights
        "outline": Effect(0.10, 0.03, 0.16),
        "shadow": Effect(0.08, 0.03, 0.14),
        "soft_shadow": Effect(0.08, 0.04, 0.18),
        "extruded": Effect(0.05, 0.05, 0.20),
        "relief": Effect(0.04, 0.02, 0.07),
        "glow": Effect(0.05, 0.08, 0.35),
        # contrast between ink and ground, levels of grey of 255
        "faint": Effect(0.80, 120.0, 26.0),
        # in front
        "bar": Effect(0.03, 0.04, 0.14),  # width, letter heights
        "wire": Effect(0.03, 0.02, 0.05),  # width, letter heights
        "highlight": Effect(0.06, 0.3, 0.9),  # share of white
        "cast_shadow": Effect(0.08, 0.2, 0.6),  # share of the light that is lost
        "reflection": Effect(0.05, 0.1, 0.4),  # share of the reflected
        "cover": Effect(0.05, 0.08, 0.22),  # letter heights that an object reaches in by
        # camera
        "bloom": Effect(0.05, 0.3, 1.0),  # share of white that flows over
        "dark": Effect(0.40, 0.75, 0.25),  # share of the light that is left
        "tinted": Effect(0.30, 0.05, 0.35),  # gain of one colour over the others
        "defocus": Effect(0.70, 0.03, 0.10),  # sigma, letter heights
        "motion": Effect(0.18, 0.06, 0.24),  # path, letter heights
        "low_resolution": Effect(0.15, 20.0, 8.0),  # pixels of letter height before it is enlarged
        "noise": Effect(0.70, 1.0, 8.0),  # levels
        "sharpened": Effect(0.45, 0.3, 1.5),
        "jpeg": Effect(0.55, 90.0, 18.0),  # quality
    }
)


@dataclass(frozen=True)
class Dice:
    """What is drawn at random for one image."""

    rng: np.random.Generator
    strength: float  # 0 to 1
    table: Mapping[str, Effect]

    def throw(self, name: str) -> float | None:
        """How strong an effect is here, or None for not at all."""
        return self._amount(name) if self.rng.random() < self.table[name].chance * self.strength else None

    def one_of(self, names: Sequence[str]) -> tuple[str, float] | None:
        """One of several effects that exclude each other, or none."""
        left = self.rng.random()
        for name in names:
            left -= self.table[name].chance * self.strength
            if left < 0:
                return name, self._amount(name)
        return None

    def sign(self) -> float:
        return 1.0 if self.rng.random() < 0.5 else -1.0

    def _amount(self, name: str) -> float:
        effect = self.table[name]
        return effect.least + (effect.most - effect.least) * float(self.rng.random())


def alone(name: str) -> dict[str, Effect]:
    """The table with one effect in every image, and no other."""
    none = {key: replace(effect, chance=0.0) for key, effect in EFFECTS.items()}
    return {**none, name: replace(EFFECTS[name], chance=1.0)}
