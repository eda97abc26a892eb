"""Images of text as cameras, scanners and screens give them: any polarity, contrast, background and fault.

Geometry is one perspective warp of the mask that `glyphs` sets; then ink and paper are laid, and the
faults of a camera follow (`effects`).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.designs import CharactersNotCovered, Designs, check_covered
from crnn_deploy.synthesis.effects import photographed, shade
from crnn_deploy.synthesis.fonts import Face
from crnn_deploy.synthesis.glyphs import Run, TypesetLine, set_line

__all__ = ["Renderer"]

Grey = NDArray[np.float32]  # (H, W), 0-255

_SIZES = (16, 24, 36, 54)  # pixels of em that glyphs are drawn at, and scaled from
_SMALLEST, _LARGEST = 18, 64  # pixels of an image's height
_NARROWEST = 0.28  # of its height, the width that a character needs to be told from its neighbours


class Renderer:
    """Draws texts with some faces.

    faces: as `fonts.scan` gives them; each design is drawn with as often as the other
    alphabet: characters that must be covered by one face at least
    Raises CharactersNotCovered.
    """

    def __init__(self, faces: Sequence[Face], alphabet: Sequence[str]) -> None:
        check_covered(alphabet, faces)
        self._designs = Designs(faces)

    def render(
        self,
        text: str,
        rng: np.random.Generator,
        *,
        strength: float,
        inverted: bool = False,
        empty: bool = False,
    ) -> NDArray[np.uint8]:
        """A grey image (H, W) of a text, 18 to 63 pixels high.

        strength: of everything that can be wrong with an image, 0 (clean) to 1
        inverted: light on dark
        empty: without the letters
        Raises CharactersNotCovered for a text without ink.
        """
        height = int(rng.integers(_SMALLEST, _LARGEST)) if strength else int(rng.integers(32, 49))
        line = self._set(text, rng, height, strength)
        alpha = self._warp(line, len(text), height, rng, strength)
        if empty:
            alpha[:] = 0
        image = self._composed(alpha, rng, strength, inverted)
        return photographed(image, rng, strength) if strength else image.astype(np.uint8)

    def _set(self, text: str, rng: np.random.Generator, height: int, strength: float) -> TypesetLine:
        at = next((at for at, size in enumerate(_SIZES) if size >= 0.75 * height), len(_SIZES) - 1)
        spacing = rng.uniform(-0.03, 0.25) if strength and rng.random() < 0.3 else 0.0
        changing = rng.random() < 0.15 * strength  # size, spacing or face change inside the line
        face = self._designs.pick(text, rng)
        runs = []
        for part in self._parts(text, face, rng, changing):
            other = not face.covers(part) or (changing and rng.random() < 0.4)
            own = self._designs.pick(part, rng) if other else face
            smaller = changing and at > 0 and rng.random() < 0.4
            more = rng.uniform(0, 0.1) if changing else 0.0
            raised = rng.uniform(0, 0.15) if changing else 0.0
            pieces = [(part, own)] if own.covers(part) else [(c, self._designs.pick(c, rng)) for c in part]
            runs += [
                Run(piece, drawn, _SIZES[at - smaller], spacing + more, raised) for piece, drawn in pieces
            ]
        line = set_line(runs)
        if line is None:  # no face draws any of it
            raise CharactersNotCovered(sorted(set(text)))
        return line

    @staticmethod
    def _parts(text: str, face: Face, rng: np.random.Generator, changing: bool) -> list[str]:
        """Stretches of text that one face draws; where the line changes, cut at random too."""
        parts = [""]
        covered = True
        for character in text:
            known = face.covers(character)
            if parts[-1] and (known != covered or (changing and rng.random() < 0.15)):
                parts.append("")
            parts[-1] += character
            covered = known
        return parts

    def _warp(
        self, line: TypesetLine, characters: int, height: int, rng: np.random.Generator, strength: float
    ) -> Grey:
        """The mask cut out as a detector would, at the image's size: coverage 0-1."""
        rows, columns = line.mask.shape
        # between the ink's own box and the font's line
        above, below, beside = rng.uniform(0.0, 0.12, 3) if not strength else rng.uniform(-0.02, 0.22, 3)
        tall = max(rows, 0.45 * line.em)  # a full stop alone is not blown up to the height of a letter
        top = -above * tall - (tall - rows) * rng.random()
        bottom = top + tall * (1 + above + below)
        left, right = -beside * tall, columns + rng.uniform(0.0, 0.22 if strength else 0.12) * tall
        stretch = rng.uniform(0.85, 1.25) if strength and rng.random() < 0.5 else 1.0
        width = (right - left) * height / (bottom - top) * stretch
        width = max(8, round(max(width, _NARROWEST * height * characters)))
        source = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
        target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        if strength:
            source += self._slanted(source, rng, strength)
            target += rng.normal(0, 0.035 * strength * height, (4, 2)).clip(-0.09 * height, 0.09 * height)
        matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
        alpha = cv2.warpPerspective(line.mask, matrix, (width, height), flags=cv2.INTER_LINEAR)
        if rng.random() < 0.06 * strength:  # the line above or below reaches in
            matrix[1] += matrix[2] * height * rng.choice((-1.0, 1.0)) * rng.uniform(0.92, 1.1)
            other = cv2.warpPerspective(line.mask, matrix, (width, height), flags=cv2.INTER_LINEAR)
            alpha = np.maximum(alpha, other[:, ::-1])
        return alpha.astype(np.float32) / np.float32(255)

    @staticmethod
    def _slanted(
        corners: NDArray[np.float32], rng: np.random.Generator, strength: float
    ) -> NDArray[np.float32]:
        """How the corners move for italics and for a line that climbs or falls."""
        centre = corners.mean(axis=0)
        high = float(corners[2, 1] - corners[0, 1])
        wide = float(corners[1, 0] - corners[0, 0])
        slant = rng.normal(0, 0.1) * strength if rng.random() < 0.5 else 0.0
        # a long line that climbs leaves its crop, so the angle falls with its length
        climb = float(np.clip(rng.normal(0, 0.03) * strength, -0.12 * high / wide, 0.12 * high / wide))
        moved = np.zeros_like(corners)
        moved[:, 0] = slant * (corners[:, 1] - centre[1])
        moved[:, 1] = climb * (corners[:, 0] - centre[0])
        return moved

    def _composed(self, alpha: Grey, rng: np.random.Generator, strength: float, inverted: bool) -> Grey:
        """Ink on paper."""
        if not strength:
            paper, ink = float(rng.integers(215, 256)), float(rng.integers(0, 50))
        else:
            contrast = rng.uniform(max(25.0, 120.0 - 95.0 * strength), 255.0)
            ink = rng.uniform(0.0, 255.0 - contrast)
            paper = ink + contrast
        if inverted:
            paper, ink = 255 - paper, 255 - ink
        ground = np.full(alpha.shape, paper, np.float32)
        color = np.full(alpha.shape, ink, np.float32)
        room = abs(paper - ink)
        if strength:
            if rng.random() < 0.5 * strength:
                ground += shade(alpha.shape, rng, 0.3 * room)
            if rng.random() < 0.3 * strength:
                ground += self._texture(alpha.shape, rng, 0.15 * room)
            if rng.random() < 0.2 * strength:
                color += shade(alpha.shape, rng, 0.25 * room)
            if rng.random() < 0.1 * strength:
                self._rule(ground, rng, paper + (ink - paper) * rng.uniform(0.3, 1.0))
            if rng.random() < 0.08 * strength:
                self._shadow(ground, alpha, rng, paper, ink)
            if rng.random() < 0.3 * strength:
                alpha = alpha * rng.uniform(0.75, 1.0)
            if rng.random() < 0.1 * strength:  # worn print
                alpha = alpha * np.clip(1 + self._texture(alpha.shape, rng, 0.4), 0.2, 1)
        return np.clip(ground + alpha * (color - ground), 0, 255)

    @staticmethod
    def _texture(shape: tuple[int, ...], rng: np.random.Generator, amount: float) -> Grey:
        """Blotches of a few pixels to a few letters."""
        cell = int(rng.integers(3, 24))
        coarse = rng.standard_normal((shape[0] // cell + 2, shape[1] // cell + 2), np.float32)
        return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC) * (amount * rng.random())

    @staticmethod
    def _rule(ground: Grey, rng: np.random.Generator, level: float) -> None:
        """A line of a form: under or over the text, or at one side."""
        height, width = ground.shape
        thickness = int(rng.integers(1, 1 + max(1, height // 16) + 1))
        if rng.random() < 0.75:
            y = height * (rng.uniform(0.88, 1.0) if rng.random() < 0.7 else rng.uniform(0.0, 0.1))
            tilt = rng.uniform(-0.02, 0.02) * height
            ends = (0, round(y - tilt)), (width, round(y + tilt))
        else:
            x = round(rng.choice((0.0, 1.0)) * (width - 1))
            ends = (x, 0), (x, height)
        cv2.line(ground, *ends, level, thickness, cv2.LINE_AA)

    @staticmethod
    def _shadow(ground: Grey, alpha: Grey, rng: np.random.Generator, paper: float, ink: float) -> None:
        """A drop shadow or an outline behind the letters."""
        high = alpha.shape[0]
        x, y = (rng.uniform(-0.06, 0.06, 2) * high).tolist()
        matrix = np.array([[1, 0, x], [0, 1, y]], np.float32)
        behind = cv2.warpAffine(alpha, matrix, (alpha.shape[1], high))
        if rng.random() < 0.5:
            behind = cv2.dilate(alpha, np.ones((3, 3), np.uint8))
        # away from the ink's own level, so that the letters stay legible
        level = paper + (paper - ink) * rng.uniform(0.1, 0.5) if rng.random() < 0.5 else (paper + ink) / 2
        ground += behind * (level - ground) * rng.uniform(0.4, 1.0)
