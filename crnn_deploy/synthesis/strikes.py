"""Lines of letters as machines put them on paper: struck key by key, or printed as a raster of dots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.document_effects import DocumentEffect, Medium, filled_loops, heavy, key_tilt
from crnn_deploy.synthesis.fonts import Face
from crnn_deploy.synthesis.glyphs import draw_glyph, laid_together

__all__ = ["EffectChance", "PrintedLine", "RasterPrinter", "Typist"]

Mask = NDArray[np.uint8]

_SIZES = (16, 24, 36, 54)  # pixels of em that glyphs are drawn at
_RASTER_SIZE = 72  # pixels of em of the glyph that dots are taken from
_CAPITAL = 0.68  # of the em, about, a capital's height
_DOTS = 4096  # letters whose dots are kept


class EffectChance:
    """Which effects one image has, and how much of each."""

    def __init__(
        self, effects: Mapping[str, DocumentEffect], medium: Medium, rng: np.random.Generator, strength: float
    ) -> None:
        self._effects, self._medium, self._rng, self._strength = effects, medium, rng, strength

    def amount(self, name: str) -> float:
        """Of one effect; 0 where it is not to be seen."""
        effect = self._effects[name]
        if self._medium not in effect.media or self._rng.random() >= effect.chance * self._strength:
            return 0.0
        return float(self._rng.uniform(effect.low, effect.low + (effect.high - effect.low) * self._strength))


@dataclass(frozen=True)
class PrintedLine:
    """Letters where they stand: coverage (H, W), left edge, and top from the baseline, in pixels."""

    letters: Sequence[tuple[Mask, int, int]]
    em: float  # pixels
    pen: float  # where the next letter would stand

    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of all letters; all 0 where there are none."""
        if not self.letters:
            return 0, 0, 0, 0
        return (
            min(x for _, x, _ in self.letters),
            min(y for _, _, y in self.letters),
            max(x + mask.shape[1] for mask, x, _ in self.letters),
            max(y + mask.shape[0] for mask, _, y in self.letters),
        )


class Typist:
    """Strikes letters one by one, each key with faults of its own; without effects, plain type.

    face: of the letters; `others` draw what it lacks
    height: pixels that the image will have
    """

    def __init__(
        self, face: Face, others: Sequence[Face], height: int, chance: EffectChance, rng: np.random.Generator
    ) -> None:
        self._face, self._others, self._rng = face, others, rng
        self._size = next((size for size in _SIZES if size >= 0.75 * height), _SIZES[-1])
        size = self._size
        self._offset = chance.amount("key_offset") * size
        self._weight = chance.amount("key_weight")
        self._tilt = chance.amount("key_tilt")
        self._loops = chance.amount("filled_loops") * size
        self._heavy = chance.amount("heavy") * size
        self._double = chance.amount("double_strike") * size
        self._capitals = rng.normal(0, 0.7) * self._offset  # the shift key lifts them all alike
        self._keys: dict[str, tuple[float, float, float]] = {}

    def line(self, text: str) -> PrintedLine:
        rng, pen = self._rng, 0.0
        letters = []
        for character in text:
            face = self._face
            if not face.covers(character):
                face = next((other for other in self._others if other.covers(character)), face)
            mask, left, top, advance = draw_glyph(face, self._size, character)
            if mask.size:
                x, y = pen + left, float(top)
                if self._offset or self._weight:
                    x, y, mask = self._struck(character, x, y, mask)
                letters.append((self._inked(mask), round(x), round(y)))
                if self._double:
                    again = (x + rng.normal(0, self._double), y + rng.normal(0, 0.5 * self._double))
                    letters.append((letters[-1][0], round(again[0]), round(again[1])))
            pen += advance
        return PrintedLine(letters, self._size, pen)

    def _struck(self, character: str, x: float, y: float, mask: Mask) -> tuple[float, float, Mask]:
        """Where a key strikes and how hard: the same fault each time, and a little by chance."""
        rng = self._rng
        if (key := self._keys.get(character)) is None:
            weak = self._weight * rng.random() ** 2
            key = self._keys[character] = (*(self._offset * rng.normal(0, 1, 2)).tolist(), weak)
        x += key[0] + self._offset * rng.normal(0, 0.3)
        y += key[1] + self._offset * rng.normal(0, 0.3) + (self._capitals if character.isupper() else 0)
        weight = 1 - key[2] - self._weight * 0.4 * rng.random()
        return x, y, np.asarray(mask * np.float32(max(0.15, weight)), np.uint8) if self._weight else mask

    def _inked(self, mask: Mask) -> Mask:
        if self._loops:
            mask = filled_loops(mask, self._loops)
        if self._heavy and min(mask.shape) > 2:
            mask = heavy(mask, self._heavy)
        if self._tilt and self._rng.random() < 0.35:
            mask = key_tilt(mask, self._rng, self._tilt)
        return mask


class RasterPrinter:
    """Prints a line as dots: needles on a ribbon, or a thermal head.

    capital: dots from the baseline to a capital's top
    joined: whether the dots of a thermal head touch, or stand apart
    height: pixels that the image will have
    """

    def __init__(
        self,
        face: Face,
        others: Sequence[Face],
        height: int,
        chance: EffectChance,
        rng: np.random.Generator,
        *,
        capital: int,
        joined: bool,
    ) -> None:
        self._face, self._others, self._rng = face, others, rng
        self._capital = capital
        self._pitch = max(2, min(8, round(0.6 * height / capital)))  # pixels between dots
        share = rng.uniform(1.0, 1.5) if joined else rng.uniform(0.7, 1.15)
        self._dot = max(1, round(share * self._pitch))  # pixels across a dot
        self._missing = chance.amount("missing_dots")
        self._faded = chance.amount("faded_rows")
        self._double = chance.amount("double_strike")
        self._uneven = 0.0 if joined else rng.uniform(0, 0.4)

    def line(self, text: str) -> PrintedLine:
        cells, pen = [], 0
        for character in text:
            face = self._face
            if not face.covers(character):
                face = next((other for other in self._others if other.covers(character)), face)
            dots, left, top, advance = _dots(face, character, self._capital)
            if dots.size:
                cells.append((dots, pen + left, top))
            pen += advance
        if not cells:
            return PrintedLine([], self._capital / _CAPITAL * self._pitch, pen * self._pitch)
        grid, left, top = laid_together(cells)
        mask = self._printed(grid)
        edge = self._dot  # beside the outermost dots
        place = left * self._pitch - edge, top * self._pitch - edge
        return PrintedLine([(mask, *place)], self._capital / _CAPITAL * self._pitch, pen * self._pitch)

    def _printed(self, grid: NDArray[np.float32]) -> Mask:
        rng, pitch, edge = self._rng, self._pitch, self._dot
        if self._missing:
            grid = grid * (rng.random(grid.shape, np.float32) > self._missing)
        if self._faded:
            weak = rng.random((grid.shape[0], 1)) < 0.25
            grid = grid * np.where(weak, np.float32(1 - self._faded), np.float32(1))
        if self._uneven:
            grid = grid * (1 - np.float32(self._uneven) * rng.random(grid.shape, np.float32))
        rows, columns = grid.shape
        spread = np.zeros((rows * pitch + 2 * edge, columns * pitch + 2 * edge), np.uint8)
        at = edge + pitch // 2
        spread[at : at + rows * pitch : pitch, at : at + columns * pitch : pitch] = grid * 255
        shape = cv2.MORPH_RECT if self._dot < 3 else cv2.MORPH_ELLIPSE
        printed = cv2.dilate(spread, cv2.getStructuringElement(shape, (self._dot, self._dot)))
        if self._double:
            shift = 1 + round(self._double * self._capital * pitch)
            printed[:, shift:] = np.maximum(printed[:, shift:], printed[:, :-shift])
        return np.asarray(printed, np.uint8)


@lru_cache(maxsize=_DOTS)
def _dots(face: Face, character: str, capital: int) -> tuple[NDArray[np.float32], int, int, int]:
    """A letter as dots, 1 or 0, its left edge, its top from the baseline, and its advance, in dots."""
    mask, left, top, advance = draw_glyph(face, _RASTER_SIZE, character)
    _, _, highest, _ = draw_glyph(face, _RASTER_SIZE, "H" if face.covers("H") else character)
    scale = capital / max(8, -highest)
    wide = max(1, round(advance * scale))
    if not mask.size:
        return np.zeros((0, 0), np.float32), 0, 0, wide
    # the box of dots around the ink, so that each dot covers a square of the glyph
    x, y = int(np.floor(left * scale + 0.3)), int(np.floor(top * scale + 0.3))
    right = int(np.ceil((left + mask.shape[1]) * scale - 0.3))
    bottom = int(np.ceil((top + mask.shape[0]) * scale - 0.3))
    size = max(1, right - x), max(1, bottom - y)
    cover = cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    found = (cover > 0.42 * cover.max()).astype(np.float32)
    return found, x, y, wide
