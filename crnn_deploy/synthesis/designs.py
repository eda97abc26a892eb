"""Which face draws a text: each design as often as the other; and whether any face draws an alphabet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.synthesis.fonts import Face

__all__ = ["CharactersNotCovered", "Designs", "check_covered"]


class CharactersNotCovered(CrnnDeployError, ValueError):
    """An alphabet that the fonts at hand cannot draw."""

    def __init__(self, characters: Sequence[str]) -> None:
        shown = " ".join(characters[:20]) + (" ..." if len(characters) > 20 else "")
        super().__init__(
            f"no font here draws {len(characters)} characters of the alphabet: {shown}; install more fonts "
            f"(crnn-deploy dataset fonts --tier cjk --packages)"
        )


def check_covered(alphabet: Sequence[str], faces: Sequence[Face]) -> None:
    """Each character must be drawn by one face at least. Raises CharactersNotCovered."""
    covered = frozenset[int]().union(*(face.characters for face in faces))
    missing = [c for c in alphabet if not c.isspace() and not covered.issuperset(map(ord, c))]
    if missing:
        raise CharactersNotCovered(missing)


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
