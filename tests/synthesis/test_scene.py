"""Drawn scene words: the same for a seed, legible, of the asked polarity, and never cut off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.synthesis.backgrounds import PhotographUnreadable
from crnn_deploy.synthesis.baselines import Placement, View
from crnn_deploy.synthesis.designs import CharactersNotCovered
from crnn_deploy.synthesis.fonts import Face
from crnn_deploy.synthesis.legibility import visible
from crnn_deploy.synthesis.scene import SceneRenderer
from crnn_deploy.synthesis.scene_table import EFFECTS, alone

ALPHABET = "".join(chr(code) for code in range(33, 127))
WORDS = ["Coffee", "HOTEL", "Street", "24", "SALE", "Books", "Open", "www.shop.com", "EXIT", "it's"]
NONE = {name: replace(effect, chance=0.0) for name, effect in EFFECTS.items()}
HIDING = {"faint", "fading", "dark", "relief", "highlight", "cover", "photograph", "reflection"}


@pytest.fixture(scope="module")
def renderer(faces: list[Face]) -> SceneRenderer:
    return SceneRenderer(faces, ALPHABET)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A smooth one, and one that is much wider than high."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = []
    for at, shape in enumerate([(300, 400), (20, 900)]):
        coarse = np.random.default_rng(at).integers(0, 256, (6, 8, 3), np.uint8)
        paths.append(folder / f"{at}.png")
        cv2.imwrite(str(paths[-1]), cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC))
    return paths


def draw(
    renderer: SceneRenderer, seed: int, text: str = "Coffee", strength: float = 1.0, inverted: bool = False
) -> NDArray[np.uint8]:
    return renderer.render(text, np.random.default_rng(seed), strength=strength, inverted=inverted)


def grey(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(np.float32)


def levels(image: NDArray[np.uint8]) -> float:
    """Between the two classes that Otsu's threshold makes."""
    plane = grey(image)
    threshold, _ = cv2.threshold(plane.astype(np.uint8), 0, 255, cv2.THRESH_OTSU)
    return float(plane[plane > threshold].mean() - plane[plane <= threshold].mean())


def test_an_image_depends_on_its_seed_alone(faces: list[Face], photographs: list[Path]) -> None:
    first, second = (SceneRenderer(faces, ALPHABET, photographs) for _ in range(2))
    drawn = [draw(first, seed) for seed in range(30)]
    for seed in reversed(range(30)):  # in another order, and so with another state of all caches
        assert np.array_equal(draw(second, seed), drawn[seed])
    assert len({image.tobytes() for image in drawn}) == 30


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(ALPHABET, min_size=1, max_size=14),
    seed=st.integers(0, 2**32),
    strength=st.floats(0, 1),
    inverted=st.booleans(),
)
def test_any_text_gives_a_colour_image_of_the_promised_height(
    renderer: SceneRenderer, text: str, seed: int, strength: float, inverted: bool
) -> None:
    image = draw(renderer, seed, text, strength, inverted)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert 10 <= image.shape[0] <= 64
    assert image.shape[1] >= 0.2 * image.shape[0] * len(text)


def test_a_line_with_spaces_and_a_character_of_one_face_only(faces: list[Face]) -> None:
    few = [replace(face, characters=face.characters - {ord("~")}) for face in faces[1:]]
    renderer = SceneRenderer([faces[0], *few], ALPHABET)
    assert draw(renderer, 1, "A line ~ of several words, as on a board").shape[1] > 100


@pytest.mark.parametrize("name", EFFECTS)
def test_each_effect_can_be_drawn_alone(faces: list[Face], photographs: list[Path], name: str) -> None:
    text = "HOTEL 24"
    plain = SceneRenderer(faces, ALPHABET, photographs, table=NONE)
    own = SceneRenderer(faces, ALPHABET, photographs, table=alone(name))
    drawn = [draw(own, seed, text) for seed in range(12)]
    assert any(not np.array_equal(image, draw(plain, seed, text)) for seed, image in enumerate(drawn))
    if name not in HIDING:
        assert np.median([levels(image) for image in drawn]) > 40


def test_what_single_effects_do(sans: Face) -> None:
    def mean(name: str | None, measure: str, text: str = "HOTEL") -> float:
        renderer = SceneRenderer([sans], ALPHABET, table=NONE if name is None else alone(name))
        images = [draw(renderer, seed, text) for seed in range(40)]
        if measure == "width":
            return float(np.mean([image.shape[1] / image.shape[0] for image in images]))
        if measure == "contrast":
            return float(np.mean([levels(image) for image in images]))
        if measure == "light":
            return float(np.mean([image.mean() for image in images]))
        edges = [np.abs(cv2.Laplacian(grey(image), cv2.CV_32F)).mean() / levels(image) for image in images]
        return float(np.mean(edges))

    assert mean("condensed", "width") < 0.9 * mean(None, "width") < 0.8 * mean("stretched", "width")
    assert mean("wide_tracking", "width") > 1.1 * mean(None, "width") > 1.1 * mean("tight_tracking", "width")
    assert mean("faint", "contrast") < 0.8 * mean(None, "contrast")
    assert mean("dark", "light") < 0.8 * mean(None, "light") < mean("bloom", "light")
    for name in ("defocus", "motion", "low_resolution"):
        assert mean(name, "edges") < 0.9 * mean(None, "edges")
    assert mean("sharpened", "edges") > 1.1 * mean(None, "edges")
    assert mean("noise", "edges") > 1.1 * mean(None, "edges")


def test_old_style_figures_stand_lower_than_capitals(sans: Face) -> None:
    """Of a wide gap between two halves: 0 as high as a small letter, 7 below the line, 8 as it was."""
    always = {**NONE, "old_style_figures": replace(EFFECTS["old_style_figures"], chance=9.0)}
    old, seen = SceneRenderer([sans], ALPHABET, table=always), 0
    for seed in range(30):
        (top, bottom), zero = halves(draw(old, seed, "H   0"))
        if (high := bottom - top) < 16:
            continue
        seen += 1
        assert zero[0] - top > 0.1 * high and abs(zero[1] - bottom) < 0.15 * high
        (top, bottom), seven = halves(draw(old, seed, "H   7"))
        assert seven[0] - top > 0.1 * high and seven[1] - bottom > 0.1 * high
        (top, bottom), eight = halves(draw(old, seed, "H   8"))
        assert abs(eight[0] - top) < 0.15 * high and abs(eight[1] - bottom) < 0.15 * high
    assert seen > 5


def halves(image: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """The first and the last row of dark ink in the left half and in the right one."""
    plane = grey(image)
    dark = plane < (plane.min() + plane.max()) / 2
    middle = plane.shape[1] // 2
    rows = [np.flatnonzero(half.any(axis=1)) for half in (dark[:, :middle], dark[:, middle:])]
    return [(int(some[0]), int(some[-1])) for some in rows]


def test_polarity(faces: list[Face]) -> None:
    """Ink covers less than half of a word's image, so the mean lies on the side of the ground."""
    renderer = SceneRenderer(faces, ALPHABET, table=alone("loose_crop"))
    for seed in range(20):
        for inverted in (False, True):
            plane = grey(draw(renderer, seed, "fill", inverted=inverted))
            middle = (plane.min() + plane.max()) / 2
            assert (plane.mean() < middle) == inverted


def test_clean_words_are_read_and_hard_ones_are_still_there(renderer: SceneRenderer) -> None:
    texts = [WORDS[seed % len(WORDS)] for seed in range(80)]
    clean = [draw(renderer, seed, text, 0.0, seed % 2 == 0) for seed, text in enumerate(texts)]
    read = [text.text.lower() for text in Recognizer().read(clean)]
    assert np.mean([a == b.lower() for a, b in zip(read, texts, strict=True)]) > 0.85
    hard = [levels(draw(renderer, seed, text)) for seed, text in enumerate(texts)]
    assert np.mean(np.array(hard) > 8) > 0.97
    assert np.median(hard) > 30


def test_a_tight_crop_leaves_nine_tenths_of_the_letters_at_each_side(sans: Face) -> None:
    plain = SceneRenderer([sans], ALPHABET, table=NONE)
    always = {**NONE, "tight_crop": replace(EFFECTS["tight_crop"], chance=9.0)}  # in nearly clean images too
    tight = SceneRenderer([sans], ALPHABET, table=always)
    # five upright H have a known shape, whatever margin is around them
    plane = grey(draw(plain, 0, "HHHHH", 0.0))
    ink = plane < (plane.min() + plane.max()) / 2
    high, wide = np.ptp(np.flatnonzero(ink.any(axis=1))) + 1, np.ptp(np.flatnonzero(ink.any(axis=0))) + 1
    whole = wide / high
    for seed in range(60):
        height, width = draw(tight, seed, "HHHHH").shape[:2]
        assert 0.95 * (whole - 0.2) <= width / height <= 1.05 * whole / 0.8


def test_letters_that_vanished_are_told() -> None:
    letters = np.zeros((32, 80), np.uint8)
    cv2.putText(letters, "Ab3", (4, 26), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 3)
    alpha = letters.astype(np.float32) / np.float32(255)
    rng = np.random.default_rng(0)

    def seen(contrast: float, noise: float) -> bool:
        plane = 120 + contrast * alpha[..., None] + rng.normal(0, noise, (32, 80, 3))
        return visible(plane.clip(0, 255).astype(np.uint8), alpha)

    assert seen(60, 5) and seen(-60, 5) and seen(20, 2)
    assert not seen(0, 5) and not seen(0, 0) and not seen(3, 1) and not seen(5, 60)


placements = st.builds(
    Placement,
    width=st.floats(20, 300),
    height=st.floats(15, 60),
    stretch=st.floats(0.5, 1.9),
    slant=st.floats(-0.35, 0.35),
    tilt=st.floats(-0.35, 0.35),
    aside=st.floats(-0.5, 0.5),
    above=st.floats(-0.1, 0.1),
)


@given(
    placements,
    st.floats(0.1, 0.8),
    st.sampled_from((-1, 1)),
    st.floats(0, 6),
    st.floats(-0.5, 0.5),
    st.floats(-0.5, 0.5),
)
def test_a_placement_leads_there_and_back(
    placed: Placement, arc: float, sign: int, wave: float, across: float, down: float
) -> None:
    curve = sign * arc * min(1.0, placed.width * placed.stretch / placed.height)
    for way in (placed, replace(placed, arc=curve), replace(placed, wave=wave)):
        point = np.array([across * way.width, down * way.height], np.float32)
        assert way.backward(way.forward(point)) == pytest.approx(point, abs=0.05)


def test_a_curved_view_of_a_straight_line_is_the_straight_view() -> None:
    """The coarse grid of curves gives what the homography gives."""
    mask = np.zeros((40, 120), np.uint8)
    cv2.putText(mask, "curve", (8, 30), cv2.FONT_HERSHEY_SIMPLEX, 1.0, 255, 2, cv2.LINE_AA)
    smooth = np.asarray(cv2.GaussianBlur(mask, (0, 0), 1.0), np.uint8)
    straight = Placement(120, 40, tilt=0.1, aside=0.2)
    expected, seen = (
        View(placed, -70, -30, 1.0, 1.0, 140, 60).warped(smooth, (60, 20)).astype(np.float32)
        for placed in (straight, replace(straight, wave=1e-6))
    )
    assert expected.max() > 100
    assert np.abs(seen - expected).max() < 12


def test_what_cannot_be_drawn_is_an_error(faces: list[Face], tmp_path: Path) -> None:
    with pytest.raises(CharactersNotCovered, match="漢"):
        SceneRenderer(faces, "a漢")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    renderer = SceneRenderer(faces, ALPHABET, [broken], table=alone("photograph"))
    with pytest.raises(PhotographUnreadable, match=r"broken\.jpg"):
        draw(renderer, 0)
