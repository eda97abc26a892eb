"""Lines of documents as scanners and cameras give them: typewriters, receipt printers, photocopied print.

Letters are struck one by one, or printed as a raster of dots; what can happen to them, to the ink, the paper
and the scan stands in the table of `document_effects`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.designs import check_covered
from crnn_deploy.synthesis.document_effects import (
    EFFECTS,
    INK,
    NEEDS_INK,
    PAPER,
    SCAN,
    DocumentEffect,
    Medium,
    bowed,
)
from crnn_deploy.synthesis.fonts import Face
from crnn_deploy.synthesis.glyphs import draw_glyph
from crnn_deploy.synthesis.strikes import EffectChance, PrintedLine, RasterPrinter, Typist

__all__ = ["DocumentRenderer"]

Grey = NDArray[np.float32]
Mask = NDArray[np.uint8]

_MEDIA: tuple[Medium, ...] = ("typewriter", "matrix", "thermal", "print")
_BOUNDS = (0.36, 0.53, 0.75)  # a medium is drawn where a random number is below the next of these
_STRETCH: dict[Medium, tuple[float, float]] = {  # of the width: double height, double width
    "typewriter": (0.85, 1.2), "matrix": (0.75, 1.5), "thermal": (0.6, 1.6), "print": (0.75, 1.3),
}  # fmt: skip
_FAMILIES: dict[Medium, tuple[str, ...]] = {  # what the names of fitting families hold
    "typewriter": (
        *("typewriter", "courier", "special elite", "cutive", "nimbus mono", "cursor", "lm mono", "lmmono"),
        *("cousine", "liberation mono", "ocr", "prestige", "elite", "xanh", "nova mono"),
    ),
    "matrix": (
        *("vt323", "share tech", "dotgothic", "press start", "3270", "glass tty", " mono ", "mononoki"),
        *("fira code", "hack"),
    ),
    "thermal": (
        *("share tech", "3270", " mono ", "mononoki", "inconsolata", "fira code", "hack", "ocr", "vt323"),
        *("arimo", "roboto", "liberation sans", "nimbus sans", "dejavu sans"),
    ),
    "print": ("",),
}
_SLANTED = re.compile("italic|oblique|slanted", re.IGNORECASE)  # which machines have not
_MATRIX, _THERMAL = (7, 11), (14, 25)  # dots from the baseline to a capital's top
_SMALLEST, _LARGEST = 12, 64  # pixels of an image's height
_FAINTEST = 0.3  # of the ink that effects leave everywhere, so that no text is lost
_NARROWEST = 0.28  # of its height, the width that a character needs to be told from its neighbours
_MONOSPACE = "iMW.0"  # letters that are as wide as each other in a monospace face alone


class DocumentRenderer:
    """Draws texts as documents have them.

    faces: as `fonts.scan` gives them. Typewriters and receipts take the families that fit them, told by
        name; where there are none, any monospace face; where there is none, any face
    alphabet: characters that must be covered by one face at least
    effects: what may happen and how often
    Raises CharactersNotCovered.
    """

    def __init__(
        self,
        faces: Sequence[Face],
        alphabet: Sequence[str],
        effects: Mapping[str, DocumentEffect] = EFFECTS,
    ) -> None:
        check_covered(alphabet, faces)
        self._effects = effects
        self._faces = list(faces)
        self._designs = {medium: _fitting(faces, names) for medium, names in _FAMILIES.items()}

    def render(
        self,
        text: str,
        rng: np.random.Generator,
        *,
        strength: float,
        inverted: bool = False,
        empty: bool = False,
    ) -> NDArray[np.uint8]:
        """A grey image (H, W) of a text, 12 to 63 pixels high.

        strength: of everything that can be wrong with an image, 0 (clean) to 1
        inverted: light on dark
        empty: without the letters
        """
        medium = _MEDIA[int(np.searchsorted(_BOUNDS, rng.random()))]
        chance = EffectChance(self._effects, medium, rng, strength)
        if strength:
            height = int(np.exp(rng.uniform(np.log(_SMALLEST), np.log(_LARGEST))))
        else:
            height = int(rng.integers(32, 49))
        printer = self._printer(text, medium, height, chance, rng)
        ink = self._cropped(text, printer, height, medium, chance, rng, strength)
        if empty:
            ink[:] = 0
        if amount := chance.amount("bowed"):
            ink = bowed(ink, rng, amount)
        for name, inked in INK.items():
            if amount := chance.amount(name):
                ink = np.maximum(inked(ink, rng, amount), _FAINTEST * ink)
        image = _composed(ink, chance, rng, strength)
        for name, scanned in SCAN.items():
            if (amount := chance.amount(name)) and not (empty and name in NEEDS_INK):
                image = scanned(image, rng, amount)
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        return 255 - pixels if inverted else pixels

    def _printer(
        self, text: str, medium: Medium, height: int, chance: EffectChance, rng: np.random.Generator
    ) -> Typist | RasterPrinter:
        face = self._face(text, medium, rng)
        if medium == "matrix" or (medium == "thermal" and rng.random() < 0.6):
            low, high = _MATRIX if medium == "matrix" else _THERMAL
            dots, joined = int(rng.integers(low, high + 1)), medium == "thermal"
            return RasterPrinter(face, self._faces, height, chance, rng, capital=dots, joined=joined)
        return Typist(face, self._faces, height, chance, rng)

    def _face(self, text: str, medium: Medium, rng: np.random.Generator) -> Face:
        """A fitting face that covers the text, or any that covers it, or a fitting one."""
        designs = self._designs[medium]
        for _ in range(30):
            design = designs[rng.integers(len(designs))]
            face: Face = design[int(rng.integers(len(design)))]
            if face.covers(text):
                return face
        covering = [face for face in self._faces if face.covers(text)]
        return covering[int(rng.integers(len(covering)))] if covering else face

    def _cropped(
        self,
        text: str,
        printer: Typist | RasterPrinter,
        height: int,
        medium: Medium,
        chance: EffectChance,
        rng: np.random.Generator,
        strength: float,
    ) -> Grey:
        """The line cut out of its page as a detector would, at the image's size: coverage 0-1."""
        line = printer.line(text)
        x0, y0, x1, y1 = line.box()
        em = line.em
        tall = max(y1 - y0, 0.45 * em)  # a full stop alone is not blown up to the height of a letter
        loose = strength and rng.random() < (0.6 if medium == "typewriter" else 0.12)
        low, high = (0.1, 0.5) if loose else (-0.02, 0.2) if strength else (0.0, 0.12)
        above, below, left, right = rng.uniform(low, high, 4)
        letters = list(line.letters)
        reach = chance.amount("other_lines")
        upper = reach and rng.random() < 0.7
        lower = reach and (not upper or rng.random() < 0.6)
        above += upper and max(0.0, reach + rng.uniform(-0.15, 0.1))
        below += lower and max(0.0, reach + rng.uniform(-0.15, 0.1))
        slack = tall - (y1 - y0)
        top = y0 - above * tall - slack * rng.random()
        bottom = top + tall * (1 + above + below)
        start, end = x0 - left * tall, x1 + right * tall
        if upper:
            letters += _moved(self._other(text, printer, rng), start, bottom=top + reach * tall)
        if lower:
            letters += _moved(self._other(text, printer, rng), start, top=bottom - reach * tall)
        if thickness := chance.amount("underline"):
            bar = np.full((max(1, round(thickness * em)), max(1, x1 - x0)), 255, np.uint8)
            letters.append((bar, x0, round(0.12 * em)))
        if beside := chance.amount("crossed_out"):
            cross = printer.line("x" * int(rng.integers(1, 4)))
            before = rng.random() < 0.5
            place = x0 - cross.pen - beside * em if before else line.pen + beside * em
            letters += [(mask, round(x + place), y) for mask, x, y in cross.letters]
        canvas, left_edge, top_edge = _laid(letters, (start, top, end, bottom), round(0.25 * tall) + 2)
        box = np.array([start - left_edge, top - top_edge, end - left_edge, bottom - top_edge])
        return _warped(canvas, box, len(text), height, medium, rng, strength)

    @staticmethod
    def _other(text: str, printer: Typist | RasterPrinter, rng: np.random.Generator) -> PrintedLine:
        """Another line of the page: the same letters in another order."""
        order = rng.permutation(len(text))
        return printer.line("".join(text[at] for at in order))


def _fitting(faces: Sequence[Face], names: Sequence[str]) -> list[list[Face]]:
    """Faces of families that fit, by design; monospace faces where none does, and all where none is."""
    found = [
        face
        for face in faces
        if any(name in f" {face.family.lower()} " for name in names)
        and (names == ("",) or not _SLANTED.search(f"{face.family} {face.style}"))
    ]
    found = found or [face for face in faces if _is_monospace(face)] or list(faces)
    designs: dict[str, list[Face]] = {}
    for face in found:
        designs.setdefault(face.lineage, []).append(face)
    return list(designs.values())


def _is_monospace(face: Face) -> bool:
    letters = [letter for letter in _MONOSPACE if face.covers(letter)]
    return len({draw_glyph(face, 36, letter)[3] for letter in letters}) == 1 < len(letters)


def _moved(
    line: PrintedLine, start: float, *, top: float | None = None, bottom: float | None = None
) -> list[tuple[Mask, int, int]]:
    """A line moved so that its ink begins at a place, and its top or its bottom is where it is said."""
    x0, y0, _, y1 = line.box()
    down = top - y0 if top is not None else (bottom or 0) - y1
    return [(mask, round(x + start - x0), round(y + down)) for mask, x, y in line.letters]


def _laid(
    letters: Sequence[tuple[Mask, int, int]], box: tuple[float, float, float, float], room: int
) -> tuple[Mask, int, int]:
    """Letters on a canvas that has some pixels more than a box at each side; and where the canvas begins."""
    left, top = int(np.floor(box[0])) - room, int(np.floor(box[1])) - room
    right, bottom = int(np.ceil(box[2])) + room, int(np.ceil(box[3])) + room
    canvas = np.zeros((bottom - top, right - left), np.uint8)
    for mask, x, y in letters:
        x, y = x - left, y - top
        cut = mask[max(0, -y) : canvas.shape[0] - y, max(0, -x) : canvas.shape[1] - x]
        if cut.size and y < canvas.shape[0] and x < canvas.shape[1]:
            y, x = max(0, y), max(0, x)
            window = canvas[y : y + cut.shape[0], x : x + cut.shape[1]]
            np.maximum(window, cut, out=window)
    return canvas, left, top


def _warped(
    canvas: Mask,
    box: NDArray[np.float64],
    characters: int,
    height: int,
    medium: Medium,
    rng: np.random.Generator,
    strength: float,
) -> Grey:
    """A box of the canvas at the image's size, a little turned and in perspective."""
    left, top, right, bottom = box.tolist()
    low, high = _STRETCH[medium] if strength else (1.0, 1.0)
    stretch = np.exp(rng.uniform(np.log(low), np.log(high)))
    wide = (right - left) * height / (bottom - top) * stretch
    width = max(8, round(max(wide, _NARROWEST * height * characters)))
    source = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    if strength:
        deep, long = bottom - top, right - left
        climb = float(np.clip(rng.normal(0, 0.01) * strength * long, -0.08 * deep, 0.08 * deep))
        slant = rng.normal(0, 0.03) * strength
        source[:, 1] += climb * ((source[:, 0] - left) / long - 0.5)
        source[:, 0] += slant * (source[:, 1] - top)
        target += rng.normal(0, 0.02 * strength * height, (4, 2)).clip(-0.05 * height, 0.05 * height)
    matrix = cv2.getPerspectiveTransform(source, target.astype(np.float32))
    warped = cv2.warpPerspective(canvas, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return warped.astype(np.float32) / np.float32(255)


def _composed(ink: Grey, chance: EffectChance, rng: np.random.Generator, strength: float) -> Grey:
    """Ink on paper."""
    shape = ink.shape[0], ink.shape[1]
    if strength:
        paper = 255 - 115 * strength * rng.random() ** 1.5
        dark = rng.uniform(0.0, max(0.0, paper - max(45.0, 130.0 - 90.0 * strength)))
    else:
        paper, dark = float(rng.integers(215, 256)), float(rng.integers(0, 50))
    room = np.float32(paper - dark)
    ground = np.zeros(shape, np.float32)
    for name, laid in PAPER.items():
        if amount := chance.amount(name):
            ground += laid(shape, rng, amount)
    if amount := chance.amount("show_through"):
        ground += amount * _back(ink, rng)
    laid_ink = np.maximum(ground, 0)
    laid_ink = ink + (1 - ink) * np.minimum(laid_ink, 1)  # ink over dark places gets no lighter
    laid_ink += np.minimum(ground, 0) * (1 - ink)
    return np.float32(paper) - room * laid_ink


def _back(ink: Grey, rng: np.random.Generator) -> Grey:
    """The text of the back side: mirrored, soft, on lines of its own."""
    mirrored = np.roll(ink[:, ::-1], int(rng.integers(ink.shape[0])), axis=0)
    return np.asarray(cv2.GaussianBlur(mirrored, (0, 0), max(0.5, 0.03 * ink.shape[0])), np.float32)
