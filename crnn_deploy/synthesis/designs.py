"""Which face draws a text: each design as often as the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crnn_deploy.synthesis.fonts import Face

__all__ = ["Designs"]


class Designs:
    """Faces by the design that they descend from."""

    def __init__(self, faces: Sequence[Face]) -> None:
        designs: dict[str, list[Face]] = {}
        for face in faces:
            designs.setdefault(face.lineage, []).append(face)
        self._designs = list(designs.values())

    def pick(self, text: str, rng: np.random.Generator) -> Face:
        """A face that covers the text, or its first character where none does."""
        for _ in range(50):
            design = self._designs[rng.integers(len(self._designs))]
            face = design[rng.integers(len(design))]
            if face.covers(text):
                return face
        every = [face for design in self._designs for face in design]
        fitting = [face for face in every if face.covers(text)] or [f for f in every if f.covers(text[0])]
        return fitting[rng.integers(len(fitting))]
