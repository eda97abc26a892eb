"""The fonts listed from npm: a list that holds together, and faces without small letters."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont
from matplotlib import get_data_path

from crnn_deploy.synthesis import fonts
from crnn_deploy.synthesis.font_pack import unpacked, write_font_pack
from crnn_deploy.synthesis.fonts import Face, scan
from crnn_deploy.synthesis.fontsource import listed_fonts
from crnn_deploy.synthesis.renderer import Renderer

DEJAVU = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"  # which every machine has
FETCHED = Path(__file__).parents[2] / "runs" / "fonts"
SMALL = "abcdefghijklmnopqrstuvwxyzàéöß"
CAPITALS = "bangers-latin-400-normal.woff"
UPRIGHT = "lora-latin-400-normal.woff"
BLANK = "italianno-latin-400-normal.woff"


def save(path: Path, *, capitals: bool = False) -> Path:
    """DejaVu Sans, on request with its capitals in the places of small letters; as WOFF by the path's end."""
    with TTFont(DEJAVU, recalcTimestamp=False) as font:
        for table in font["cmap"].tables:
            for code in [code for code in table.cmap if capitals and chr(code).islower()]:
                table.cmap[code] = table.cmap.get(ord(chr(code).upper()[0]), table.cmap[code])
        font.flavor = "woff" if path.suffix == ".woff" else None
        font.save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stand-ins for three listed fonts, and a capitals-only font that no list knows."""
    made = tmp_path_factory.mktemp("fonts")
    save(made / CAPITALS, capitals=True)
    save(made / UPRIGHT)
    save(made / BLANK)
    save(made / "unknown.ttf", capitals=True)
    return made


@pytest.fixture(scope="module")
def faces(folder: Path) -> dict[str, Face]:
    return {face.path.name: face for face in scan(folders=[folder])}


def test_capitals_are_taken_where_the_list_says_so(faces: dict[str, Face]) -> None:
    assert faces.keys() == {CAPITALS, UPRIGHT, BLANK}
    face = faces[CAPITALS]
    assert face.covers("SALE 50 %") and face.covers("ÉCOLE")
    assert not any(face.covers(letter) for letter in SMALL)
    assert faces[UPRIGHT].covers(SMALL)
    assert {face.licence for face in faces.values()} == {"OFL-1.1"}


def test_characters_of_an_empty_glyph_are_not_covered(faces: dict[str, Face]) -> None:
    assert not faces[BLANK].covers("_") and faces[UPRIGHT].covers("_")


def test_a_pack_of_listed_fonts_gives_the_same_faces_and_images(folder: Path, tmp_path: Path) -> None:
    before = scan(folders=[folder])
    write_font_pack(tmp_path / "fonts.tar.xz", folders=[folder], word_lists=[])
    with unpacked(tmp_path / "fonts.tar.xz") as material:
        after = scan(folders=material.folders)
        told = [(f.path.name, f.family, f.lineage, f.split, f.characters, f.licence) for f in after]
        assert told == [(f.path.name, f.family, f.lineage, f.split, f.characters, f.licence) for f in before]
        for pair in zip(before, after, strict=True):
            one, other = (
                Renderer([face], "SALE").render("SALE", np.random.default_rng(1), strength=1.0)
                for face in pair
            )
            assert np.array_equal(one, other)


def test_the_list_holds_together() -> None:
    listed = listed_fonts()
    table = tomllib.loads(Path(fonts.__file__).with_name("fontsource.toml").read_text(encoding="utf-8"))
    assert 300 <= len(table["families"]) <= 400
    assert set(table["capitals"]) <= table["families"].keys()
    assert table["blank"].keys() <= table["families"].keys()
    assert len({font.sha256 for font in listed.values()}) == len(listed)
    for name, font in listed.items():
        assert re.fullmatch(r"[0-9a-f]{64}", font.sha256) and re.fullmatch(r"\d+\.\d+\.\d+", font.version)
        assert font.licence in ("OFL-1.1", "Apache-2.0", "CC0-1.0")
        assert re.fullmatch(r"[a-z0-9-]+-(latin|chinese-simplified)-[47]00-normal\.woff", name)
        assert name.startswith(font.package.removeprefix("@fontsource/"))


def test_fetched_fonts_are_all_taken_and_each_design_is_in_one_split() -> None:
    if not FETCHED.is_dir():
        pytest.skip("no fonts in runs/fonts; training/fetch.py fonts fetches them")
    found = {face.path.name: face for face in scan(folders=[FETCHED])}
    latin = {name: font.sha256 for name, font in listed_fonts().items() if font.subset == "latin"}
    assert {name: face.sha256 for name, face in found.items()} == latin
    splits = defaultdict(set)
    for face in found.values():
        splits[face.lineage].add(face.split)
        assert face.covers("ABCXYZ 0123456789")
    held_out = {lineage for lineage, split in splits.items() if split == {"held-out"}}
    assert all(len(split) == 1 for split in splits.values())
    assert 25 <= len(held_out) <= 45 and len(splits) > 300
    table = tomllib.loads(Path(fonts.__file__).with_name("fonts.toml").read_text(encoding="utf-8"))
    of_debian = {"paratype", "garamond", "jetbrains", "noto-serif-cjk", "zen-hei", "arphic-kai"}
    assert set(table["split"]["held-out"]) - held_out == of_debian
