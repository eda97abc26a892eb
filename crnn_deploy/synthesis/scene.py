"""Words as people photograph them: on signs, packages and covers, in colour, at any angle and in any light.

The line is set by `glyphs`, placed by `baselines`, painted by `scene_ink` on a ground of `backgrounds`,
covered and lit by `scene_light` and photographed by `camera`.
How often and how strong each effect is: `scene_table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.backgrounds import (
    GROUNDS,
    Image,
    Photographs,
    Plane,
    blend,
    ground,
    lightness,
    shade,
    with_lightness,
)
from crnn_deploy.synthesis.baselines import Placement, View, drawn_placement
from crnn_deploy.synthesis.camera import taken
from crnn_deploy.synthesis.designs import CharactersNotCovered, Designs, check_covered
from crnn_deploy.synthesis.fonts import Face
from crnn_deploy.synthesis.glyphs import Run, laid_together, set_line
from crnn_deploy.synthesis.legibility import visible
from crnn_deploy.synthesis.scene_ink import AROUND, Paint, letters
from crnn_deploy.synthesis.scene_light import in_front
from crnn_deploy.synthesis.scene_table import EFFECTS, Dice, Effect

__all__ = ["SceneRenderer"]

_SIZES = (20, 36, 64)  # pixels of em that glyphs are drawn at, and scaled from
_SMALLEST, _LARGEST = 11, 64  # pixels of an image's height
_FINE = 32  # pixels of height below which a scene is drawn at twice the size
_NARROWEST = 0.24  # of its height, the width that a character needs to be told from its neighbours
_BOLD = ("bold", "black", "heavy", "medium", "demi")
_EARLY = 0.6  # exponent: half the strength brings two thirds of the effects
_TRIES = 3
_NEARLY_CLEAN = 0.1  # share of the images
_LOOSE = np.array([0.16, 0.42, 0.16, 0.42])  # letter heights at strength 1: left, top, right, bottom
_LOW, _HANGING = frozenset("012"), frozenset("34579")  # old-style figures of x-height, and below the line
_FIGURE = 0.7  # em, the height of a figure
_ONE_AS_LETTER = 0.3  # share of old-style figures whose 1 is an I
_MARGIN = 2  # pixels that `glyphs` leaves around the ink


@dataclass(frozen=True)
class _Page:
    """A line and what is written around it."""

    mask: NDArray[np.uint8]
    centre: tuple[float, float]  # of the line's ink
    seen: dict[str, float]  # letter heights of its surroundings that the crop holds, by side


class SceneRenderer:
    """Draws texts as photographs of scenes.

    faces: as `fonts.scan` gives them; each design is drawn with as often as the other
    alphabet: characters that must be covered by one face at least
    photographs: image files that grounds, colours and reflections are taken from; textures are made without
    table: how often and how strong each effect is
    Raises CharactersNotCovered.
    """

    def __init__(
        self,
        faces: Sequence[Face],
        alphabet: Sequence[str],
        photographs: Sequence[Path] = (),
        *,
        table: Mapping[str, Effect] = EFFECTS,
    ) -> None:
        check_covered(alphabet, faces)
        self._designs = Designs(faces)
        self._photographs = Photographs(photographs)
        self._table = table

    def render(
        self,
        text: str,
        rng: np.random.Generator,
        *,
        strength: float,
        inverted: bool = False,
        empty: bool = False,
    ) -> NDArray[np.uint8]:
        """A BGR image (H, W, 3) of a text, 10 to 64 pixels high.

        strength: how many effects come, and how strong they are, 0 (none) to 1
        inverted: light on dark
        empty: without the letters
        Raises CharactersNotCovered for a text without ink.
        """
        if rng.random() < _NEARLY_CLEAN:
            strength *= 0.3
        for _ in range(_TRIES):
            image, alpha = self._taken(text, Dice(rng, strength**_EARLY, self._table), inverted, empty)
            if empty or visible(image, alpha):
                break
            strength *= 0.5  # what came together hid the letters
        return image

    def _taken(self, text: str, dice: Dice, inverted: bool, empty: bool) -> tuple[NDArray[np.uint8], Plane]:
        """One photograph, and the coverage of its letters."""
        height = self._height(dice)
        drawn = height if height >= _FINE else 2 * height
        face = self._face(text, dice.rng)
        mask, em = self._line(text, face, drawn, dice)
        placement = drawn_placement(
            mask.shape[1] - 2 * _MARGIN, max(mask.shape[0] - 2 * _MARGIN, 0.45 * em), len(text), dice
        )
        page = self._page(mask, face, placement.height, dice)
        view = self._view(mask, placement, page, drawn, len(text), dice)
        alpha = view.warped(page.mask, page.centre).astype(np.float32) / np.float32(255)
        if empty:
            alpha[:] = 0
        outline = view.points(_outline(placement.width, placement.height))
        box = np.concatenate([outline.min(axis=0), outline.max(axis=0)])
        unit = placement.height * view.down
        paint = self._paint(unit, inverted, dice)
        image = self._scene(alpha, view, paint, dice)
        in_front(image, box, unit, dice, self._photographs)
        shape = height, round(view.width * height / drawn)
        return taken(image, unit, abs(paint.room), dice, shape), alpha

    @staticmethod
    def _height(dice: Dice) -> int:
        """As high as words are in photographs of streets: half of them below 32 pixels."""
        if not dice.strength:
            return int(dice.rng.integers(32, 49))
        height = 31.0 * np.exp(0.47 * dice.rng.standard_normal())
        return int(np.clip(height, _SMALLEST, _LARGEST))

    def _face(self, text: str, rng: np.random.Generator) -> Face:
        """A face that covers the text: upright ones and bold ones are what signs are written in."""
        upright, bold = rng.random() < 0.75, rng.random() < 0.4
        for _ in range(4):
            face = self._designs.pick(text, rng)
            style = face.style.lower()
            slanted = "italic" in style or "oblique" in style
            if not (upright and slanted) and (not bold or any(w in style for w in _BOLD)):
                break
        return face

    def _line(self, text: str, face: Face, height: int, dice: Dice) -> tuple[NDArray[np.uint8], int]:
        """The line's mask, and its em."""
        rng = dice.rng
        size = next((size for size in _SIZES if size >= 0.8 * height), _SIZES[-1])
        spacing = dice.throw("wide_tracking") or -(dice.throw("tight_tracking") or 0.0)
        smaller, jumping = dice.throw("small_capitals"), dice.throw("jumping")
        low = dice.throw("old_style_figures") if any(map(str.isdecimal, text)) else None
        as_letter = rng.random() < _ONE_AS_LETTER
        runs = []
        for at, part in enumerate(
            self._parts(text, face, bool(jumping or low), bool(smaller) and text.isupper())
        ):
            own = face if face.covers(part) else self._designs.pick(part, rng)
            small = smaller if smaller and text.isupper() and at > 0 else 1.0
            raised = rng.uniform(0, jumping) if jumping else 0.0
            drawn = part
            if low and part in _LOW:
                small = low
                drawn = "I" if as_letter and part == "1" and own.covers("I") else part
            elif low and part in _HANGING:
                raised -= (1 - low) * _FIGURE
            runs.append(Run(drawn, own, round(size * small), spacing, raised))
        line = set_line(runs)
        if line is None:  # no face draws any of it
            raise CharactersNotCovered(sorted(set(text)))
        mask = line.mask
        if (amount := dice.throw("bolder")) is not None and (radius := round(0.5 * amount * size)):
            mask = np.asarray(cv2.dilate(mask, np.ones((2 * radius + 1,) * 2, np.uint8)), np.uint8)
        return mask, line.em

    @staticmethod
    def _parts(text: str, face: Face, each: bool, first: bool) -> list[str]:
        """Stretches that one face and size draws."""
        parts = [""]
        covered = True
        for at, character in enumerate(text):
            known = face.covers(character)
            if parts[-1] and (each or known != covered or not known or (first and at == 1)):
                parts.append("")
            parts[-1] += character
            covered = known
        return parts

    def _page(self, mask: NDArray[np.uint8], face: Face, height: float, dice: Dice) -> _Page:
        """The line among its neighbours, which the crop shows in part."""
        rng = dice.rng
        middle = mask.shape[1] / 2, mask.shape[0] / 2
        seen: dict[str, float] = {}
        placed = [(mask, 0, 0)]
        sides = ("left", "right") if rng.random() < 0.5 else ("right", "left")
        plan = (
            ("word_beside", sides[0]),
            ("word_beside", sides[1]),
            ("line_above", "top"),
            ("line_below", "bottom"),
        )
        rows, columns = mask.shape
        for name, side in plan:
            if (reach := dice.throw(name)) is None:
                continue
            length = int(rng.integers(2, 5)) if name == "word_beside" else max(3, round(columns / height * 2))
            other = self._neighbour(length, face, mask, rng)
            gap = float(rng.uniform(0.2, 0.5) if name == "word_beside" else rng.uniform(0.1, 0.4)) * height
            seen[side] = gap / height + reach
            high, wide = other.shape
            along = int(rng.uniform(-0.5, 0.5) * columns)
            x, y = {
                "left": (-round(gap) - wide + 2 * _MARGIN, rows - high),
                "right": (columns + round(gap) - 2 * _MARGIN, rows - high),
                "top": (along - (wide - columns) // 2, -round(gap) - high + 2 * _MARGIN),
                "bottom": (along - (wide - columns) // 2, rows + round(gap) - 2 * _MARGIN),
            }[side]
            placed.append((other, x, y))
        if len(placed) == 1:
            return _Page(mask, middle, seen)
        canvas, left, top = laid_together(placed)
        return _Page(canvas, (middle[0] - left, middle[1] - top), seen)

    def _neighbour(
        self, length: int, face: Face, mask: NDArray[np.uint8], rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Other letters, about as large; of another face at times."""
        if rng.random() < 0.3:
            face = self._designs.pick("o", rng)
        letters = "aeinorstlcdumpg" if rng.random() < 0.5 else "AEINORSTLCDUMPG"
        word = "".join(letters[i] for i in rng.integers(len(letters), size=min(length, 24)))
        size = next((size for size in _SIZES if size >= 0.75 * mask.shape[0]), _SIZES[-1])
        line = set_line([Run(word if face.covers(word) else word.swapcase(), face, size)])
        return np.zeros((8, 8), np.uint8) if line is None else line.mask

    @staticmethod
    def _view(
        mask: NDArray[np.uint8],
        placement: Placement,
        page: _Page,
        height: int,
        characters: int,
        dice: Dice,
    ) -> View:
        """The crop: about the ink's box as it is seen, as a detector or a person would mark it."""
        rng = dice.rng
        seen = placement.forward(_outline(placement.width, placement.height))
        left, top = (float(v) for v in seen.min(axis=0))
        right, bottom = (float(v) for v in seen.max(axis=0))
        margins = rng.uniform(0.0, np.array([0.04, 0.06, 0.04, 0.06]) + _LOOSE * dice.strength)
        if (cut := dice.throw("tight_crop")) is not None:
            margins = -cut * rng.random(4)
        elif (more := dice.throw("loose_crop")) is not None:
            margins = margins + more * rng.random(4)
        for at, side in enumerate(("left", "top", "right", "bottom")):
            margins[at] = page.seen.get(side, margins[at])
        margins *= placement.height
        left, top = left - margins[0], top - margins[1]
        right, bottom = right + margins[2], bottom + margins[3]
        down = height / (bottom - top)
        width = max(8, round(max((right - left) * down, _NARROWEST * height * characters)))
        return View(placement, left, top, width / (right - left), down, width, height)

    def _paint(self, unit: float, inverted: bool, dice: Dice) -> Paint:
        """Colours that go together, and enough contrast between their greys."""
        rng = dice.rng
        darker, lighter = sorted(self._photographs.colours(rng), key=lightness)
        if (faint := dice.throw("faint")) is not None:
            contrast = faint
        else:
            contrast = float(rng.uniform(max(60.0, 150 - 100 * dice.strength), 200.0))
        own = (lightness(darker) + lightness(lighter)) / 2
        middle = float(np.clip(rng.normal(own, 25), contrast / 2, 255 - contrast / 2))
        dark = with_lightness(darker, middle - contrast / 2)
        light = with_lightness(lighter, middle + contrast / 2)
        return Paint(dark, light, unit) if inverted else Paint(light, dark, unit)

    def _scene(self, alpha: Plane, view: View, paint: Paint, dice: Dice) -> Image:
        """Letters on their ground."""
        shape = view.height, view.width
        around = dice.one_of(AROUND)
        room = abs(paint.room)
        image = np.empty((*shape, 3), np.float32)
        image[:] = paint.ground
        if (kind := dice.one_of(GROUNDS)) is not None:
            name, amount = kind
            # what stands round the letters keeps them apart from a livelier ground
            lively = 1.6 if around is not None and around[0] in ("outline", "extruded", "glow") else 1.0
            image = ground(name, shape, dice.rng, paint.ground, amount * room * lively, self._photographs)
        if (amount_of_light := dice.throw("shade")) is not None:
            image += shade(shape, dice.rng)[..., None] * np.float32(0.4 * amount_of_light * room)
        if (lost := dice.throw("fading")) is not None:
            _fade(image, paint, lost, dice.rng)
        if (edge := dice.throw("board")) is not None:
            self._board(image, view, paint, edge, dice.rng)
        letters(image, alpha, paint, dice, self._photographs, around)
        return image

    def _board(self, image: Image, view: View, paint: Paint, edge: float, rng: np.random.Generator) -> None:
        """The edge of a sign, and what lies beyond; often it has a frame."""
        placement = view.placement
        wide, high = placement.width / 2, placement.height / 2
        # one or two sides are near, the others beyond the crop
        near = rng.permutation([True, rng.random() < 0.4, rng.random() < 0.2, rng.random() < 0.2])
        off = np.where(near, edge * rng.uniform(0.7, 1.3, 4), 3.0) * placement.height
        left, top, right, bottom = (-wide - off[0], -high - off[1], wide + off[2], high + off[3])
        steps = np.linspace(0, 1, 7)
        across = left + (right - left) * steps
        corners = np.concatenate(
            [np.stack([across, np.full(7, top)], -1), np.stack([across[::-1], np.full(7, bottom)], -1)]
        )
        points = np.round(view.points(corners.astype(np.float32)) * 16).clip(-(2**20), 2**20).astype(np.int32)
        inside = np.zeros(image.shape[:2], np.uint8)
        cv2.fillPoly(inside, [points], 255, cv2.LINE_AA, 4)
        beyond: NDArray[np.float32]
        if rng.random() < 0.5:
            beyond = self._photographs.crop((image.shape[0], image.shape[1]), rng)
        else:
            beyond = self._photographs.colours(rng)[0]
        blend(image, beyond, 1 - inside.astype(np.float32) / np.float32(255))
        if rng.random() < 0.5:
            line = np.zeros(image.shape[:2], np.uint8)
            width = max(1, round(rng.uniform(0.02, 0.10) * paint.unit))
            cv2.polylines(line, [points], True, 255, width, cv2.LINE_AA, 4)
            colour = paint.ink if rng.random() < 0.6 else self._photographs.colours(rng)[0]
            blend(image, colour, line.astype(np.float32) / np.float32(255))


def _fade(image: Image, paint: Paint, lost: float, rng: np.random.Generator) -> None:
    """The ground comes near the ink's grey at one end, in a colour of its own."""
    colour = with_lightness(
        rng.uniform(20, 235, 3).astype(np.float32), lightness(paint.ground) + lost * paint.room
    )
    columns = image.shape[1]
    at, softness = rng.uniform(0.3, 0.8), rng.uniform(0.02, 0.6)
    way = np.clip((np.linspace(0, 1, columns, dtype=np.float32) - at) / softness + 0.5, 0, 1)
    if rng.random() < 0.5:
        way = way[::-1]
    blend(image, colour, np.broadcast_to(way, image.shape[:2]).astype(np.float32))


def _outline(width: float, height: float) -> NDArray[np.float32]:
    """Points around the ink's box, counted from its centre."""
    across = np.linspace(-width / 2, width / 2, 13)
    rows = np.full(13, height / 2)
    return np.concatenate([np.stack([across, -rows], -1), np.stack([across, rows], -1)]).astype(np.float32)
