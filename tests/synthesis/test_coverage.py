"""Faces that claim characters which they do not draw, and glyphs that are forgotten and drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from crnn_deploy.synthesis import glyphs
from crnn_deploy.synthesis.coverage import as_drawn
from crnn_deploy.synthesis.fonts import Face, packages, scan
from crnn_deploy.synthesis.glyphs import Run, set_line

DRAWN, EMPTY, BOX, SAME = "中国a，", "空", "框", "甲乙丙丁"


def outline(*corners: tuple[int, int]) -> TTGlyphPen:
    pen = TTGlyphPen(None)
    pen.moveTo(corners[0])
    for corner in corners[1:]:
        pen.lineTo(corner)
    pen.closePath()
    return pen


def square(side: int) -> TTGlyphPen:
    return outline((0, 0), (0, side), (side, side), (side, 0))


@pytest.fixture
def face(tmp_path: Path) -> Face:
    """A font of squares: each character has its own, but for an empty one, boxes, and four that are alike."""
    names = {character: f"u{ord(character):04X}" for character in DRAWN + EMPTY + BOX + SAME}
    pens = {names[c]: square(300 + 100 * at) for at, c in enumerate(DRAWN)}
    pens |= {names[EMPTY]: TTGlyphPen(None), names[BOX]: square(900), ".notdef": square(900)}
    pens |= {names[c]: square(200) for c in SAME}
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap({ord(c): name for c, name in names.items()})
    builder.setupGlyf({name: pen.glyph() for name, pen in pens.items()})
    builder.setupHorizontalMetrics({name: (1000, 0) for name in pens})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupPost()
    builder.save(tmp_path / "squares.ttf")
    return Face(
        tmp_path / "squares.ttf",
        0,
        "Squares",
        "Regular",
        "squares",
        "train",
        frozenset(map(ord, names)),
        "",
        "",
    )


def test_empty_glyphs_boxes_and_placeholders_are_no_characters(face: Face) -> None:
    alphabet = (*DRAWN, *EMPTY, *BOX, *SAME, "外", " ", "ab")
    assert {chr(code) for code in as_drawn(face, alphabet).characters} == set(DRAWN)


def test_characters_outside_the_alphabet_are_left_as_they_are(face: Face) -> None:
    assert as_drawn(face, "中国").characters == face.characters


def test_a_face_without_ideographs_and_brackets_is_not_looked_at(face: Face) -> None:
    latin = Face(**{**vars(face), "path": Path("no such file"), "characters": frozenset(b"abc")})
    assert as_drawn(latin, "abc") is latin


def test_a_line_is_the_same_however_few_glyphs_are_kept(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [Run(DRAWN * 3, face, 24), Run(DRAWN[::-1], face, 16)]
    kept = set_line(runs)
    monkeypatch.setattr(glyphs, "_atlas", glyphs.Atlas(1200))
    again = [set_line(runs) for _ in range(2)]
    assert kept is not None and all(line is not None for line in again)
    assert all(np.array_equal(kept.mask, line.mask) for line in again if line is not None)
    assert glyphs._atlas.held <= 1200


def test_the_tier_for_chinese_leaves_the_forms_of_other_places_out() -> None:
    faces = scan("cjk")
    if not any(face.family == "Noto Sans CJK SC" for face in faces):
        pytest.skip("fonts-noto-cjk is not installed")
    families = {face.family for face in scan("chinese")}
    assert "Noto Sans CJK SC" in families
    assert not any(family.endswith((" JP", " KR", " TC", " HK", " TW", " MBE")) for family in families)
    assert {face.family for face in scan("latin")} <= families
    held_out = {face.lineage for face in faces if face.split == "held-out"}
    assert "noto-serif-cjk" in held_out and "noto-sans-cjk" not in held_out


def test_the_packages_for_chinese_hold_those_of_the_larger_tier() -> None:
    assert set(packages("cjk")) < set(packages("chinese"))
