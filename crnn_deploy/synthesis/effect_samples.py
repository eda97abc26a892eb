"""Every effect of a style by itself, to look at."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from crnn_deploy.datasets import Sample
from crnn_deploy.synthesis import document_effects, scene_table
from crnn_deploy.synthesis.dataset import Drawer
from crnn_deploy.synthesis.documents import DocumentRenderer
from crnn_deploy.synthesis.fonts import Face
from crnn_deploy.synthesis.scene import SceneRenderer

__all__ = ["EffectStyle", "effect_samples"]

EffectStyle = Literal["scene", "document"]
EACH = 6  # images of an effect
EFFECTS: dict[EffectStyle, Collection[str]] = {
    "scene": scene_table.EFFECTS,
    "document": document_effects.EFFECTS,
}
_TEXTS: dict[EffectStyle, tuple[str, ...]] = {
    "scene": ("OPEN", "Harbour", "Gate 17", "CAFE", "Museum", "24h"),
    "document": ("Total 93.80", "the letter of May", "2 x 3.50", "10/04/1962", "Monsieur,", "No. 4711"),
}


def effect_samples(
    style: EffectStyle, faces: Sequence[Face], photographs: Sequence[Path] = (), *, each: int = EACH
) -> Iterator[Sample]:
    """Images with one effect of the style's table and no other; the text is the effect's name.

    each: images of an effect
    """
    characters = sorted(set("".join(_TEXTS[style])) - {" "})
    for name, drawer in _drawers(style, faces, characters, photographs):
        for at in range(each):
            text = _TEXTS[style][at % len(_TEXTS[style])]
            image = drawer.render(text, np.random.default_rng(at), strength=1.0)
            yield Sample(image, name, f"{name} {at}")


def _drawers(
    style: EffectStyle, faces: Sequence[Face], characters: Sequence[str], photographs: Sequence[Path]
) -> Iterator[tuple[str, Drawer]]:
    if style == "scene":
        for name in scene_table.EFFECTS:
            yield name, SceneRenderer(faces, characters, photographs, table=scene_table.alone(name))
        return
    none = {name: replace(effect, chance=0.0) for name, effect in document_effects.EFFECTS.items()}
    for name, effect in document_effects.EFFECTS.items():
        yield name, DocumentRenderer(faces, characters, {**none, name: replace(effect, chance=1.0)})
