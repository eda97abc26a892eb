"""Drawn documents: the same for a seed, of the size that is said, each effect alone, and no text cut away."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crnn_deploy.synthesis.coverage import as_drawn
from crnn_deploy.synthesis.designs import CharactersNotCovered
from crnn_deploy.synthesis.document_effects import EFFECTS, DocumentEffect
from crnn_deploy.synthesis.documents import DocumentRenderer
from crnn_deploy.synthesis.fonts import FOLDERS, Face, scan

ALPHABET = "".join(chr(code) for code in range(32, 127)) + "éÄß€«»"
NONE = {name: replace(effect, chance=0.0) for name, effect in EFFECTS.items()}


@pytest.fixture(scope="module")
def renderer(faces: list[Face]) -> DocumentRenderer:
    return DocumentRenderer(faces, ALPHABET)


def drawn(
    renderer: DocumentRenderer, text: str, seed: int, strength: float = 1.0, inverted: bool = False
) -> NDArray[np.uint8]:
    return renderer.render(text, np.random.default_rng(seed), strength=strength, inverted=inverted)


TEXTS = st.text(st.sampled_from(ALPHABET), min_size=1, max_size=40).filter(lambda text: text.strip() == text)


@given(TEXTS, st.integers(0, 2**32), st.sampled_from([0.0, 0.5, 1.0]), st.booleans())
@settings(max_examples=120, deadline=None)
def test_images_are_grey_of_the_size_that_is_said_and_come_again(
    renderer: DocumentRenderer, text: str, seed: int, strength: float, inverted: bool
) -> None:
    image = drawn(renderer, text, seed, strength, inverted)
    assert image.dtype == np.uint8 and image.ndim == 2
    assert 12 <= image.shape[0] < 64 and image.shape[1] >= max(8, int(0.28 * image.shape[0] * len(text)) - 1)
    assert np.array_equal(image, drawn(renderer, text, seed, strength, inverted))


def test_an_inverted_image_is_light_on_dark(renderer: DocumentRenderer) -> None:
    for seed in range(20):
        light = drawn(renderer, "TOTAL 12.50", seed, 0.0)
        assert np.median(light) > 200 and light.min() < 80
        assert np.array_equal(255 - light, drawn(renderer, "TOTAL 12.50", seed, 0.0, inverted=True))


@pytest.mark.parametrize("name", EFFECTS)
def test_each_effect_alone_changes_images_of_its_media(name: str, faces: list[Face]) -> None:
    effects = {**NONE, name: replace(EFFECTS[name], chance=1.0)}
    alone, plain = DocumentRenderer(faces, ALPHABET, effects), DocumentRenderer(faces, ALPHABET, NONE)
    changed = 0
    for seed in range(60):
        image = drawn(alone, "Sum: 93.80 only", seed)
        assert image.dtype == np.uint8
        without = drawn(plain, "Sum: 93.80 only", seed)
        changed += image.shape != without.shape or not np.array_equal(image, without)
    # each medium is one image in six at least; a line or an arc may miss the crop, and small images stay so
    assert changed >= 60 * (0.5 if len(EFFECTS[name].media) == 4 else 0.1)


def test_an_effect_is_as_frequent_and_as_strong_as_the_table_says() -> None:
    for effect in EFFECTS.values():
        assert isinstance(effect, DocumentEffect)
        assert 0 < effect.chance <= 1 and 0 <= effect.low < effect.high and effect.unit and effect.media


@pytest.mark.parametrize("seed", range(40))
def test_no_letter_is_cut_away(seed: int, faces: list[Face]) -> None:
    """Eight bars that stand apart are eight in the image, and as high as each other."""
    renderer = DocumentRenderer(faces, ALPHABET, NONE)
    image = drawn(renderer, "I  I  I  I  I  I  I  I", seed).astype(np.float32)
    ink = np.median(image) - image
    inked = ink > 0.35 * ink.max()
    columns = np.flatnonzero(inked.any(axis=0))
    gap = 0.2 * (columns[-1] - columns[0]) / 7.3  # of the distance of two bars; dots and serifs are closer
    assert np.count_nonzero(np.diff(columns) > gap) == 7
    box = cv2.boundingRect(inked.astype(np.uint8))
    assert box[3] > 0.4 * image.shape[0]


def test_letters_are_told_by_their_dots(faces: list[Face]) -> None:
    """Of a matrix of seven to eleven dots, letters keep the shapes that tell them apart."""
    from crnn_deploy.synthesis.document_effects import Medium
    from crnn_deploy.synthesis.strikes import EffectChance, RasterPrinter

    medium: Medium = "matrix"
    [mono] = [face for face in faces if face.path.name == "DejaVuSansMono.ttf"]
    rng = np.random.default_rng(0)
    for capital in (7, 9, 11):
        chance = EffectChance(NONE, medium, rng, 1.0)
        printer = RasterPrinter(mono, faces, 40, chance, rng, capital=capital, joined=True)
        shapes = {c: printer.line(c).letters[0][0] for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"}
        assert len({(mask.shape, mask.tobytes()) for mask in shapes.values()}) == len(shapes)
    assert printer.line("   ").letters == [] and printer.line("   ").box() == (0, 0, 0, 0)


def test_documents_take_the_families_that_fit_and_any_monospace_face_otherwise(faces: list[Face]) -> None:
    [mono] = [face for face in faces if face.path.name == "DejaVuSansMono.ttf"]
    [sans] = [face for face in faces if face.path.name == "DejaVuSans.ttf"]
    plain = replace(mono, family="Plain", lineage="plain")  # told by its advances alone
    both = DocumentRenderer([plain, replace(sans, family="Other")], ALPHABET, NONE)
    # in a monospace face i takes as much room as W
    widths = [
        (drawn(both, "iiiiiiii|", seed, 0.0).shape, drawn(both, "WWWWWWWW|", seed, 0.0).shape)
        for seed in range(40)
    ]
    equal = [abs(narrow[1] / narrow[0] - wide[1] / wide[0]) < 1 for narrow, wide in widths]
    assert np.mean(equal) > 0.6


def test_brackets_that_a_face_draws_as_slashes_are_left_to_others(faces: list[Face]) -> None:
    found = next((path for folder in FOLDERS for path in folder.rglob("GNUTypewriter.ttf")), None)
    if found is None:
        pytest.skip("GNU Typewriter is not installed")
    [typewriter, *_] = scan(folders=[found.parent])
    [mono] = [face for face in faces if face.path.name == "DejaVuSansMono.ttf"]
    assert typewriter.covers("(a)") and not as_drawn(typewriter, ALPHABET).covers("(")
    renderer = DocumentRenderer([as_drawn(face, ALPHABET) for face in (typewriter, mono)], ALPHABET, NONE)
    for seed in range(12):
        assert not np.array_equal(drawn(renderer, "(a)", seed, 0.0), drawn(renderer, "/a/", seed, 0.0))


def test_a_character_that_no_face_draws_is_named(faces: list[Face]) -> None:
    with pytest.raises(CharactersNotCovered, match="1 characters of the alphabet: 中"):
        DocumentRenderer(faces, ["a", "中"])
