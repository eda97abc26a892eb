"""Which fonts of this machine can draw text, and which of them are held out to test with.

A font is taken when its letters look like letters: symbol fonts claim ASCII too, and small capitals draw
other letters than they are asked for. Fonts that fontsource.toml lists are taken without that test; those
that have capitals alone draw texts without small letters. Fonts that descend from one design (a *lineage*)
are all trained on or all held out.
"""

from __future__ import annotations

import json
import struct
import sys
import tomllib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any, Literal

import cv2
import numpy as np
from fontTools.ttLib import TTCollection, TTFont, TTLibError
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import sha256, write
from crnn_deploy.synthesis.fontsource import listed_fonts

__all__ = [
    "FIRST_CJK",
    "FOLDERS",
    "Face",
    "FontsMissing",
    "Split",
    "Tier",
    "packages",
    "scan",
    "tier_of",
    "write_font_manifest",
]

Split = Literal["train", "held-out"]
Tier = Literal["latin", "cjk", "chinese"]

FOLDERS = (Path("/usr/share/fonts"), Path("/usr/share/texmf/fonts"))  # where Debian's packages put them
_SUFFIXES = {".ttf", ".otf", ".ttc", ".woff"}
_PROBES = "aegmqrst"
_PROBE_SIZE = 64  # pixels of em
_SIDE = 24  # pixels a probe's bounding box is scaled to
FIRST_CJK = 0x2E80  # of the radicals; kana, ideographs, hangul and full-width forms are beyond
_SLANTS = (0.0, 0.22)
_LIKE_LETTERS = 0.45  # median correlation with the references; symbol fonts are below
_LIKE_CAPITALS = 0.85  # median correlation of small letters with capitals; small capitals are above


class FontsMissing(CrnnDeployError, FileNotFoundError):
    """No font on this machine draws what is asked for."""


@dataclass(frozen=True)
class Face:
    """One typeface: a font file, or one of a collection."""

    path: Path
    index: int  # in a collection
    family: str
    style: str
    lineage: str  # the design that it descends from
    split: Split
    characters: frozenset[int] = field(compare=False, repr=False)  # code points that it draws
    licence: str  # as the font itself says
    sha256: str  # of the file

    def covers(self, text: str) -> bool:
        """Whether it draws every character; a space is drawn by any."""
        return all(c == " " or ord(c) in self.characters for c in text)


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(resources.files("crnn_deploy.synthesis").joinpath("fonts.toml").read_text())


def packages(tier: Tier) -> list[str]:
    """Debian packages of a tier: fonts, and word lists with the first."""
    names: list[str] = _table()["packages"][tier]
    return names


def tier_of(alphabet: Iterable[str]) -> Tier:
    """The fonts that an alphabet needs."""
    return "cjk" if any(ord(c) >= FIRST_CJK for token in alphabet for c in token) else "latin"


def scan(tier: Tier = "latin", folders: Sequence[Path] = FOLDERS) -> list[Face]:
    """Every usable face below the folders, sorted by path; matplotlib's own fonts where there is none,
    which it says on stderr.

    tier: `latin` leaves the fonts for Chinese, Japanese and Korean out, `cjk` takes all, `chinese` leaves
        those with the forms of other places than mainland China out

    Raises FontsMissing.
    """
    faces = [face for folder in folders for path in sorted(folder.rglob("*")) for face in _faces(path)]
    if not faces:
        try:
            from matplotlib import get_data_path
        except ImportError as error:
            raise FontsMissing(
                f"no fonts in {', '.join(map(str, folders))}; install some, such as: apt-get install "
                f"{' '.join(packages('latin')[:4])}"
            ) from error
        _say_fallback(tuple(folders))
        held_out = _table()["split"]["fallback-held-out"]
        faces = [
            replace(face, split="held-out" if face.lineage in held_out else "train")
            for path in sorted(Path(get_data_path()).rglob("*.ttf"))
            for face in _faces(path)
        ]
    return [face for face in faces if _belongs(face, tier)]


def _belongs(face: Face, tier: Tier) -> bool:
    if tier == "latin":
        return face.lineage not in _table()["split"]["cjk"]
    elsewhere = tuple(f" {word}" for word in _table()["split"]["elsewhere"])
    return tier == "cjk" or not face.family.endswith(elsewhere)


@cache
def _say_fallback(folders: tuple[Path, ...]) -> None:
    """Once, and not for each set of images."""
    print(
        f"no fonts in {', '.join(map(str, folders))}: drawing with the few inside matplotlib",
        file=sys.stderr,
    )


def write_font_manifest(faces: Sequence[Face], path: Path) -> None:
    """Which fonts these are: file name, family, lineage, split, licence and sha256, as JSON."""
    rows = [
        {**asdict(face), "path": face.path.name, "characters": len(face.characters)}
        for face in sorted(faces, key=lambda face: (face.family, face.style, face.path.name))
    ]
    write(path, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


def _faces(path: Path) -> Iterator[Face]:
    if path.suffix.lower() not in _SUFFIXES:
        return
    listed = listed_fonts().get(path.name)
    try:
        fonts = TTCollection(path, lazy=True).fonts if path.suffix.lower() == ".ttc" else [TTFont(path)]
        tables = [(font["name"], _characters(font)) for font in fonts]
        letters = {ord(c) for c in _PROBES}
        usable = [
            listed is not None or (letters <= known and _draws_letters(path, at))
            for at, (_, known) in enumerate(tables)
        ]
    except (TTLibError, OSError, LookupError, ValueError, AssertionError, struct.error, zlib.error):
        return  # not a font, whatever its name says, or a broken one
    digest = sha256(path)
    for index, (names, characters) in enumerate(tables):
        if usable[index]:
            face = _face(path, index, names, characters, digest)
            if listed is not None:
                drawn = frozenset(filter(listed.draws, characters))
                face = replace(face, characters=drawn, licence=listed.licence)
            yield face


def _characters(font: TTFont) -> frozenset[int]:
    """Code points that a font has glyphs for."""
    count = font["maxp"].numGlyphs
    font.setGlyphOrder([str(glyph) for glyph in range(count)])  # spares reading the names of all glyphs
    return frozenset(font.getBestCmap() or ())


def _face(path: Path, index: int, names: Any, characters: frozenset[int], digest: str) -> Face:
    family = names.getBestFamilyName() or path.stem
    lineage = next(
        (name for name, starts in _table()["lineages"].items() if family.startswith(tuple(starts))),
        family,
    )
    licence = " ".join((names.getDebugName(13) or names.getDebugName(14) or "").split())[:200]
    split: Split = "held-out" if lineage in _table()["split"]["held-out"] else "train"
    style = names.getBestSubFamilyName() or ""
    return Face(path, index, family, style, lineage, split, characters, licence, digest)


def _draws_letters(path: Path, index: int) -> bool:
    """Whether a font's small letters look like letters, and not like its own capitals."""
    font = ImageFont.truetype(path, _PROBE_SIZE, index, layout_engine=ImageFont.Layout.BASIC)
    own = {character: _shape(font, character) for character in _PROBES + _PROBES.upper()}
    likeness = median(max(_likeness(own[c], seen) for seen in _references(c)) for c in _PROBES)
    capitals = median(_likeness(own[c], own[c.upper()]) for c in _PROBES)
    return likeness > _LIKE_LETTERS and capitals < _LIKE_CAPITALS


@cache
def _references(character: str) -> list[NDArray[np.float32]]:
    """The character in the sans serif that Pillow carries, upright and at the slant of italics."""
    font = ImageFont.load_default(_PROBE_SIZE)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return [_shape(font, character, slant) for slant in _SLANTS]


def _shape(font: ImageFont.FreeTypeFont, character: str, slant: float = 0.0) -> NDArray[np.float32]:
    """A character's bounding box scaled to a square and blurred, its mean taken off."""
    image = Image.new("L", (3 * _PROBE_SIZE, 2 * _PROBE_SIZE))
    ImageDraw.Draw(image).text((_PROBE_SIZE, _PROBE_SIZE // 4), character, 255, font)
    drawn = np.asarray(image)
    if slant:
        matrix = np.array([[1, -slant, slant * _PROBE_SIZE], [0, 1, 0]], np.float32)
        drawn = cv2.warpAffine(drawn, matrix, (drawn.shape[1], drawn.shape[0]))
    left, top, width, height = cv2.boundingRect(drawn)
    if not width:
        return np.zeros((_SIDE, _SIDE), np.float32)
    square = cv2.resize(
        drawn[top : top + height, left : left + width], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA
    )
    blurred = cv2.GaussianBlur(square.astype(np.float32), (0, 0), 1.5)
    centred: NDArray[np.float32] = blurred - blurred.mean()
    return centred


def _likeness(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float((a * b).sum()) / norm if norm else 0.0
