"""A line of text as a coverage mask, set glyph by glyph from an atlas that fills as it is used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from crnn_deploy.synthesis.fonts import FIRST_CJK, Face

__all__ = ["Atlas", "Run", "TypesetLine", "draw_glyph", "laid_together", "set_line"]

_FONTS = 4096  # open at a time
_GLYPHS = 2**29  # bytes of drawn glyphs that are kept: all that Latin needs, a third of Chinese
_GLYPH = 500  # bytes that one takes besides its pixels
_KERNING_SIZE = 64  # pixels of em it is measured at
_MARGIN = 2  # pixels around the ink of a mask


@dataclass(frozen=True)
class Run:
    """Characters of one face, size and spacing."""

    text: str
    face: Face
    size: int  # pixels of em
    spacing: float = 0.0  # added after each character, in em
    raised: float = 0.0  # above the baseline, in em


@dataclass(frozen=True)
class TypesetLine:
    """Text as it was set."""

    mask: NDArray[np.uint8]  # (H, W) coverage, 0-255, a margin of 2 pixels around the ink
    em: int  # pixels of the largest run


_Glyph = tuple[NDArray[np.uint8], int, int, float]


class _Font:
    """An open face of one size."""

    def __init__(self, face: Face, size: int) -> None:
        self._font = ImageFont.truetype(face.path, size, face.index, layout_engine=ImageFont.Layout.BASIC)

    def draw(self, character: str) -> _Glyph:
        """Coverage, its left edge from the pen, its top from the baseline, and the advance."""
        left, top, right, bottom = (round(v) for v in self._font.getbbox(character, anchor="ls"))
        image = Image.new("L", (max(0, right - left), max(0, bottom - top)))
        if image.width and image.height:
            ImageDraw.Draw(image).text((-left, -top), character, 255, self._font, anchor="ls")
        return np.asarray(image), left, top, self._font.getlength(character)


class Atlas:
    """Glyphs drawn so far; those that were not used for longest are forgotten beyond a number of bytes."""

    def __init__(self, most: int) -> None:
        self.held = 0  # bytes
        self._most = most
        self._glyphs: OrderedDict[tuple[_Font, str], _Glyph] = OrderedDict()

    def glyph(self, font: _Font, character: str) -> _Glyph:
        key = font, character
        if (found := self._glyphs.get(key)) is not None:
            self._glyphs.move_to_end(key)
            return found
        found = self._glyphs[key] = font.draw(character)
        self.held += found[0].nbytes + _GLYPH
        while self.held > self._most:
            _, oldest = self._glyphs.popitem(last=False)
            self.held -= oldest[0].nbytes + _GLYPH
        return found


class _Kerning(dict[str, float]):
    """What the pen moves between two characters of a face beyond the first one's advance, in em."""

    def __init__(self, face: Face) -> None:
        super().__init__()
        self._font = ImageFont.truetype(
            face.path, _KERNING_SIZE, face.index, layout_engine=ImageFont.Layout.BASIC
        )
        self._advances: dict[str, float] = {}

    def __missing__(self, pair: str) -> float:
        both = self._font.getlength(pair) - self._advance(pair[0]) - self._advance(pair[1])
        self[pair] = both / _KERNING_SIZE
        return self[pair]

    def _advance(self, character: str) -> float:
        if (found := self._advances.get(character)) is None:
            found = self._advances[character] = self._font.getlength(character)
        return found


@lru_cache(maxsize=_FONTS)
def _font(face: Face, size: int) -> _Font:
    return _Font(face, size)


@lru_cache(maxsize=_FONTS)
def _kerning(face: Face) -> _Kerning:
    return _Kerning(face)


_atlas = Atlas(_GLYPHS)


def draw_glyph(face: Face, size: int, character: str) -> tuple[NDArray[np.uint8], int, int, float]:
    """One letter of a face: coverage (H, W), which is not to be changed, its left edge from the pen, its top
    from the baseline, and the advance, in pixels."""
    return _atlas.glyph(_font(face, size), character)


def set_line(runs: Sequence[Run]) -> TypesetLine | None:
    """Set runs one after the other on a baseline; None where they leave no ink."""
    placed: list[tuple[NDArray[np.uint8], int, int]] = []
    pen = 0.0
    for run in runs:
        font, kerning = _font(run.face, run.size), _kerning(run.face)
        raised = round(run.raised * run.size)
        for at, character in enumerate(run.text):
            pair = run.text[at - 1 : at + 1] if at else ""
            if pair and ord(max(pair)) < FIRST_CJK:  # beyond, nothing is kerned, and there are too many pairs
                pen += kerning[pair] * run.size
            mask, left, top, advance = _atlas.glyph(font, character)
            if mask.size:
                placed.append((mask, round(pen) + left, top - raised))
            pen += advance + run.spacing * run.size
    if not placed:
        return None
    canvas, _, _ = laid_together(placed, _MARGIN)
    return TypesetLine(canvas, max(run.size for run in runs))


def laid_together(
    placed: Sequence[tuple[NDArray[Any], int, int]], margin: int = 0
) -> tuple[NDArray[Any], int, int]:
    """Masks (H, W), each with its left edge and top, on one canvas; and where the canvas begins.

    Where masks overlap, the larger number counts.
    """
    left = min(x for _, x, _ in placed) - margin
    top = min(y for _, _, y in placed) - margin
    right = max(x + mask.shape[1] for mask, x, _ in placed) + margin
    bottom = max(y + mask.shape[0] for mask, _, y in placed) + margin
    canvas = np.zeros((bottom - top, right - left), placed[0][0].dtype)
    for mask, x, y in placed:
        window = canvas[y - top : y - top + mask.shape[0], x - left : x - left + mask.shape[1]]
        np.maximum(window, mask, out=window)
    return canvas, left, top
