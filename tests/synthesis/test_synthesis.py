"""Drawn text: the same for a seed, legible, of the alphabet, and apart from what is held out."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from fontTools.ttLib import TTFont
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from crnn_deploy.synthesis import texts as texts_module
from crnn_deploy.synthesis.chinese_texts import CHINESE_KINDS
from crnn_deploy.synthesis.coverage import as_drawn
from crnn_deploy.synthesis.dataset import Polarity, SyntheticDataset
from crnn_deploy.synthesis.designs import CharactersNotCovered
from crnn_deploy.synthesis.effects import augmented
from crnn_deploy.synthesis.fonts import FOLDERS, Face, scan, write_font_manifest
from crnn_deploy.synthesis.glyphs import Run, TypesetLine, set_line
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.texts import KINDS as ALL_KINDS
from crnn_deploy.synthesis.texts import TextsImpossible, TextSource, read_words

MATPLOTLIB = Path(get_data_path()) / "fonts"  # which every machine has
ALPHABET = "".join(chr(code) for code in range(32, 127)) + "éÄß€"
KINDS = [kind for kind in ALL_KINDS if kind not in CHINESE_KINDS]  # test_chinese_texts.py has those
WEIGHTS = dict.fromkeys(KINDS, 1.0)


def dataset(faces: list[Face], *, polarity: Polarity = "both", is_augmented: bool = True) -> SyntheticDataset:
    texts = TextSource(ALPHABET, ["word", "Apple", "naïve"], WEIGHTS)
    return SyntheticDataset(texts, Renderer(faces, ALPHABET), 5, is_augmented, polarity)


DIGEST = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from test_synthesis import MATPLOTLIB, dataset, digest, scan
print(digest(dataset(scan(folders=[MATPLOTLIB]))))
"""


def digest(images: SyntheticDataset) -> str:
    found = hashlib.sha256()
    for index in (7, 0, 3, 10**9):
        sample = images[index]
        assert isinstance(sample.image, np.ndarray)
        found.update(f"{sample.text} {sample.image.shape}".encode() + sample.image.tobytes())
    return found.hexdigest()


def test_an_image_of_a_seed_is_the_same_in_every_process(faces: list[Face]) -> None:
    images = dataset(faces)
    assert digest(images) == digest(images)  # whatever was drawn in between
    run = subprocess.run(
        [sys.executable, "-c", DIGEST, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == digest(dataset(faces))
    other = SyntheticDataset(images.texts, images.renderer, 6)
    assert digest(other) != digest(images)


def test_images_have_the_size_and_type_that_is_said(faces: list[Face]) -> None:
    for is_augmented, low, high in ((True, 18, 63), (False, 32, 48)):
        images = dataset(faces, is_augmented=is_augmented)
        heights = []
        for index in range(60):
            pixels = np.asarray(images[index].image)
            assert pixels.dtype == np.uint8 and pixels.ndim == 2 and pixels.shape[1] >= 8
            heights.append(pixels.shape[0])
        assert min(heights) >= low and max(heights) <= high
        assert len(set(heights)) > 5
    with pytest.raises(IndexError):
        _ = SyntheticDataset(images.texts, images.renderer, 5, size=3)[3]


@pytest.mark.parametrize(("polarity", "sign"), [("dark-on-light", 1), ("light-on-dark", -1)])
def test_clean_images_have_the_polarity_asked_for(polarity: Polarity, sign: int, faces: list[Face]) -> None:
    images = dataset(faces, polarity=polarity, is_augmented=False)
    for index in range(40):
        pixels = np.asarray(images[index].image).astype(float)
        # paper is what most of an image is; the ink lies far to its one side
        paper = np.median(pixels)
        ink = pixels.min() if sign > 0 else pixels.max()
        assert sign * (paper - ink) > 100, images[index].text


def test_both_polarities_are_drawn(faces: list[Face]) -> None:
    images = dataset(faces, is_augmented=False)
    light = [float(np.median(np.asarray(images[index].image))) > 128 for index in range(40)]
    assert 8 < sum(light) < 32


# --- texts ---

CHARACTERS = st.characters(
    codec="utf-8", categories=("Lu", "Ll", "Lo", "Nd", "Po", "Sc", "Sm"), max_codepoint=0x9FFF
)


@given(
    st.lists(CHARACTERS, min_size=1, max_size=60, unique=True),
    st.booleans(),
    st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_random_texts_are_of_the_alphabet_and_have_single_spaces(
    characters: list[str], space: bool, seed: int
) -> None:
    alphabet = [*characters, *([" "] if space else [])]
    source = TextSource(alphabet, ["word"], {"random": 1.0})
    rng = np.random.default_rng(seed)
    for _ in range(20):
        text = source.sample(rng)
        assert text and set(text) <= set(alphabet)
        assert text == " ".join(text.split(" ")) and text == text.strip() and "  " not in text


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_text_is_of_the_alphabet_and_has_single_spaces(kind: str) -> None:
    source = TextSource(ALPHABET, ["word", "Apple", "naïve", "don't"], {kind: 1.0})  # type: ignore[dict-item]
    rng = np.random.default_rng(0)
    texts = [source.sample(rng) for _ in range(400)]
    assert all(text and set(text) <= set(ALPHABET) for text in texts)
    assert all(text == " ".join(text.split()) for text in texts)
    assert len(set(texts)) > 40
    if kind == "line":
        assert sum(" " in text for text in texts) > 300


@pytest.mark.parametrize(
    ("alphabet", "kind"), [("0123456789", "word"), ("abc", "number"), (" ", "random"), ("ab", "receipt")]
)
def test_an_alphabet_that_cannot_write_a_kind(alphabet: str, kind: str) -> None:
    source = TextSource(alphabet, ["word"], {kind: 1.0})  # type: ignore[dict-item]
    with pytest.raises(TextsImpossible, match=f"kind '{kind}'"):
        source.sample(np.random.default_rng(0))


def test_an_alphabet_that_can_write_few_texts_of_a_kind_never_ends_a_training() -> None:
    """Small letters and digits write three receipts in a hundred, so a hundred tries are not enough."""
    source = TextSource("0123456789abcdefghijklmnopqrstuvwxyz", ["word", "apple"], {"receipt": 1.0})
    texts = [source.sample(np.random.default_rng((1, at))) for at in range(150)]
    assert all(text.isalnum() and text == text.lower() for text in texts)


def test_words_of_syllables_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    texts_module._say_syllables.cache_clear()
    assert read_words("train", ()) and read_words("held-out", ())
    assert capsys.readouterr().err.count("no word list is installed: drawn words are random syllables") == 1


def test_a_broken_font_is_left_out(tmp_path: Path) -> None:
    font = TTFont(MATPLOTLIB / "ttf" / "DejaVuSans.ttf")
    font.flavor = "woff"
    font.save(tmp_path / "sound.woff")
    sound = (tmp_path / "sound.woff").read_bytes()
    for at in range(2000, len(sound) - 64, len(sound) // 12):
        broken = bytearray(sound)
        broken[at : at + 64] = bytes(64)
        (tmp_path / f"{at}.woff").write_bytes(broken)
    found = scan(folders=(tmp_path,))
    assert tmp_path / "sound.woff" in {face.path for face in found}
    assert len(found) < 13  # of those with a broken table some are left out


def test_a_character_that_no_face_shows_is_an_error_before_anything_is_drawn() -> None:
    alphabet = ["a", "b", "\u200b", "\u2800"]  # DejaVu claims both, and draws nothing for them
    faces = [as_drawn(face, alphabet) for face in scan(folders=(MATPLOTLIB,))]
    with pytest.raises(CharactersNotCovered, match="draws 2 characters"):
        Renderer(faces, alphabet)


def bare(word: str) -> str:
    """Letters without case and accents, told another way than the module does."""
    decomposed = unicodedata.normalize("NFKD", word.upper().lower())
    return "".join(c for c in decomposed if unicodedata.category(c) != "Mn").casefold()


WORDS = st.text(st.characters(codec="latin-1", categories=("Lu", "Ll")), min_size=1, max_size=8)


@given(st.lists(WORDS, min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_no_form_of_a_held_out_word_is_trained_on(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    path = tmp_path_factory.mktemp("words") / "list"
    forms = [form for word in words for form in (word, word.lower(), word.upper(), word.title(), bare(word))]
    path.write_text("\n".join([*forms, "word's"]), encoding="utf-8")
    train, held_out = read_words("train", [path]), read_words("held-out", [path])
    assert {bare(word) for word in train}.isdisjoint(bare(word) for word in held_out)
    assert set(train) | set(held_out) == set(forms)


def test_one_word_in_ten_is_held_out_and_syllables_stand_in_for_a_list(tmp_path: Path) -> None:
    train, held_out = (read_words(split, [tmp_path / "absent"]) for split in ("train", "held-out"))
    assert train == sorted(train) and len(train) > 10_000
    assert 0.08 < len(held_out) / (len(train) + len(held_out)) < 0.12
    assert not set(map(bare, train)) & set(map(bare, held_out))


# --- fonts ---


@pytest.mark.parametrize("name", ["D050000L.otf", "StandardSymbolsPS.otf", "lmromancaps10-regular.otf"])
def test_symbols_and_small_capitals_are_refused(name: str, tmp_path: Path) -> None:
    found = next((path for folder in FOLDERS for path in folder.rglob(name)), None)
    if found is None:
        pytest.skip(f"{name} is not installed")
    (tmp_path / name).symlink_to(found)
    (tmp_path / "DejaVuSans.ttf").symlink_to(MATPLOTLIB / "ttf" / "DejaVuSans.ttf")
    assert [face.path.name for face in scan(folders=[tmp_path])] == ["DejaVuSans.ttf"]


def test_files_that_are_no_fonts_are_passed_over(tmp_path: Path, sans: Face) -> None:
    whole = sans.path.read_bytes()
    for at, size in enumerate((0, 3, 11, 200, 2000, 100_000, 400_000, len(whole) - 5000)):
        (tmp_path / f"{at}.ttf").write_bytes(whole[:size])
    (tmp_path / "text.otf").write_text("no font")
    (tmp_path / "text.ttc").write_text("no font")
    (tmp_path / "whole.ttf").write_bytes(whole)
    assert "whole.ttf" in [face.path.name for face in scan(folders=[tmp_path])]


def test_without_fonts_those_of_matplotlib_are_taken_which_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], faces: list[Face]
) -> None:
    found = [scan(folders=[tmp_path / "none"]) for _ in range(2)]
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert "matplotlib" in told.err and str(tmp_path / "none") in told.err
    assert found[0] == found[1]
    assert [face.path for face in found[0]] == [face.path for face in faces]
    assert {face.lineage for face in found[0] if face.split == "held-out"} == {"times"}  # STIX
    assert {face.family for face in faces} >= {"DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono"}


def test_a_lineage_is_wholly_trained_on_or_held_out(faces: list[Face]) -> None:
    splits = defaultdict(set)
    for face in faces:
        splits[face.lineage].add(face.split)
    assert all(len(split) == 1 for split in splits.values())
    assert {face.lineage for face in faces if face.family.startswith("DejaVu")} == {"dejavu"}


def test_the_manifest_names_licence_and_sha256(faces: list[Face], tmp_path: Path) -> None:
    write_font_manifest(faces, tmp_path / "fonts.json")
    rows = json.loads((tmp_path / "fonts.json").read_text())
    assert len(rows) == len(faces)
    [row] = [row for row in rows if row["path"] == "DejaVuSans.ttf"]
    content = (MATPLOTLIB / "ttf" / "DejaVuSans.ttf").read_bytes()
    assert row["sha256"] == hashlib.sha256(content).hexdigest()
    assert (row["family"], row["lineage"], row["split"]) == ("DejaVu Sans", "dejavu", "train")
    assert "Bitstream" in row["licence"] or "copyright" in row["licence"].lower()
    assert row["characters"] > 1000


def test_a_character_that_no_face_draws_is_named(faces: list[Face], sans: Face) -> None:
    with pytest.raises(CharactersNotCovered, match="1 characters of the alphabet: 中"):
        Renderer([sans], ["a", " ", "中"])
    Renderer([sans], ["a", " ", "é"])


def test_faces_draw_no_character_that_they_lack(faces: list[Face], sans: Face) -> None:
    """A box stands for a missing glyph; a text of two scripts must have none."""
    rng = np.random.default_rng(0)
    lacking = [face for face in faces if ord("א") not in face.characters][:3]
    assert lacking and sans.covers("א ж")
    renderer = Renderer([sans, *lacking], "aאж ")
    for _ in range(5):
        # whichever design comes first, the only face that has the letter draws it
        image = renderer.render("א", rng, strength=0)
        assert likeness(ink_shape(image), pillow("א", sans)) > 0.9


# --- glyphs ---


def pillow(text: str, face: Face, size: int = 54) -> NDArray[np.float32]:
    """The text as Pillow sets it itself, in one piece."""
    font = ImageFont.truetype(face.path, size, face.index, layout_engine=ImageFont.Layout.BASIC)
    image = Image.new("L", (size * (len(text) + 2), 3 * size))
    ImageDraw.Draw(image).text((size, size), text, 255, font)
    return ink_shape(255 - np.asarray(image))


def ink_shape(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The box around dark ink on light paper, 24 pixels high, in proportion up to 8 for 1."""
    ink = float(np.median(image)) - image.astype(np.float32)
    left, top, width, height = cv2.boundingRect((ink > 0.4 * ink.max()).astype(np.uint8))
    box = ink[top : top + height, left : left + width]
    scaled = cv2.resize(box, (192, 24), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(scaled, (0, 0), 1.0), np.float32)


def likeness(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("text", ["Typography", "Ab 12,5%", "minimum", "AVATAR To."])
def test_a_clean_image_is_what_pillow_draws(text: str, sans: Face) -> None:
    renderer = Renderer([sans], text)
    images = [renderer.render(text, np.random.default_rng(seed), strength=0) for seed in range(5)]
    found = [likeness(ink_shape(image), pillow(text, sans)) for image in images]
    reversed_text = likeness(ink_shape(images[0]), pillow(text[::-1], sans))
    assert min(found) > max(0.85, reversed_text + 0.05), (found, reversed_text)


def test_a_line_is_set_as_pillow_sets_it(sans: Face) -> None:
    for text in ("Typography", "AVATAR To. fi", "0123456789"):
        line = set_line([Run(text, sans, 48)])
        assert line is not None and line.em == 48
        assert line.mask[0].max() == 0 and line.mask[:, 0].max() == 0  # the margin
        assert likeness(ink_shape(255 - line.mask), pillow(text, sans, 48)) > 0.97
    assert set_line([Run("  ", sans, 48)]) is None


def test_spacing_parts_the_glyphs(sans: Face) -> None:
    line = set_line([Run("iiiii", sans, 48, spacing=0.3)])
    assert line is not None
    inked = np.concatenate(([False], line.mask.max(axis=0) > 0, [False]))
    assert np.count_nonzero(inked[1:] & ~inked[:-1]) == 5


@given(st.integers(1, 60), st.integers(1, 200), st.booleans(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_augmentation_keeps_height_and_kind(height: int, width: int, color: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3) if color else (height, width), np.uint8)
    found = augmented(image, np.random.default_rng(seed))
    assert found.dtype == np.uint8 and found.ndim == image.ndim and found.shape[0] == height
    assert 0.8 * width / 1.38 - 0.3 * height - 2 <= found.shape[1] <= 1.2 * width + 0.6 * height + 2
    assert np.array_equal(found, augmented(image, np.random.default_rng(seed)))


@given(st.integers(32, 600), st.integers(0, 2**32))
@settings(max_examples=200, deadline=None)
def test_augmentation_keeps_a_climbing_line_in_the_picture(width: int, seed: int) -> None:
    """A bar of half the height stands for the line: above it and below it there is ground at every column."""
    image = np.full((32, width), 220, np.uint8)
    image[8:24] = 20
    found = augmented(image, np.random.default_rng(seed)).astype(np.float64)
    middle = found.shape[1] // 2
    differing = np.abs(found - np.median(found[14:18, middle - 4 : middle + 4]))  # from the bar
    edges = np.stack([np.convolve(row, np.full(5, 0.2), "valid") for row in differing[[0, -1]]])
    assert edges.min() > 0.3 * np.quantile(differing, 0.9)


def test_each_character_is_drawn_with_a_face_that_has_it(sans: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three scripts, no face that has two of them: a face is never asked for what it cannot draw."""

    def only(characters: str) -> Face:
        return replace(sans, lineage=characters, characters=frozenset(map(ord, characters)))

    asked: list[Run] = []

    def spy(runs: Sequence[Run]) -> TypesetLine | None:
        asked.extend(runs)
        return set_line(runs)

    monkeypatch.setattr("crnn_deploy.synthesis.renderer.set_line", spy)
    text = "abЖβЖ βa"
    renderer = Renderer([only("ab"), only("Ж"), only("β")], text)
    for seed in range(40):
        asked.clear()
        renderer.render(text, np.random.default_rng(seed), strength=seed % 2)
        assert "".join(run.text for run in asked) == text
        assert all(run.face.covers(run.text) for run in asked)
