"""Lines that are cut and merged against the same lines in one piece."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crnn_deploy.manifest import Manifest, StepRule, WidthRule
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime import long_lines
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.runtime.decoding.ctc import BestPath, Frames
from crnn_deploy.runtime.images.prepare import prepare
from crnn_deploy.runtime.recognizer import Recognizer

pytest.importorskip("onnxruntime")

ALPHABET = tuple("abcdef")
CELL = 4  # pixels of a frame


def manifest_of(maximum: int, multiple: int, height: int) -> Manifest:
    width = WidthRule(multiple, maximum * multiple, multiple)
    return Manifest(
        *(ALPHABET, 0, "gray", height, width, (0.0,), (1.0,), "nearest"), StepRule(CELL, CELL - 1)
    )


def spelled(images: NDArray[np.float32]) -> Frames:
    """A network whose frames depend on their own pixels alone: the first of each cell is the class."""
    logits = np.eye(len(ALPHABET) + 1, dtype=np.float32)[images[:, 0, 0, ::CELL].astype(int)]
    return Frames.from_logits(9 * logits + images[:, 0, 0, ::CELL, None] / 16)


@given(
    maximum=st.integers(3, 40),
    multiple=st.sampled_from([1, 2, 4, 6, 8]),
    height=st.integers(1, 8),
    more=st.integers(1, 400),
    count=st.integers(1, 3),
    batch=st.integers(1, 4),
    argmax=st.booleans(),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None)
def test_what_a_network_without_memory_says_is_merged_exactly(
    maximum: int, multiple: int, height: int, more: int, count: int, batch: int, argmax: bool, seed: int
) -> None:
    manifest = manifest_of(maximum, multiple, height)
    width = manifest.width.maximum + more * multiple
    if long_lines.uncut(manifest) == manifest:  # too narrow to be cut
        assert maximum <= 4 * CELL
        return
    cells = np.random.default_rng(seed).integers(0, len(ALPHABET) + 1, (count, 1, 1, -(-width // CELL)))
    images = np.repeat(cells, CELL, axis=3)[:, :, :, :width].astype(np.float32)
    sizes = []

    def network(parts: NDArray[np.float32]) -> Frames:
        sizes.append(parts.shape)
        frames = spelled(parts)
        return replace(frames, logits=None) if argmax else frames

    merged, whole = long_lines.run(network, images, manifest, batch), spelled(images)
    assert max(shape[3] for shape in sizes) <= manifest.width.maximum
    assert max(shape[0] for shape in sizes) <= batch
    assert (merged.indices == whole.indices).all() and (merged.probabilities == whole.probabilities).all()
    if argmax:
        assert merged.logits is None
    else:
        assert merged.logits is not None and whole.logits is not None
        assert (merged.logits == whole.logits).all()


@given(st.integers(1, 40), st.sampled_from([1, 3, 8]), st.integers(1, 8), st.integers(0, 500))
def test_parts_cover_the_line_and_overlap(maximum: int, multiple: int, height: int, more: int) -> None:
    manifest = manifest_of(maximum, multiple, height)
    if long_lines.uncut(manifest) == manifest:
        return
    width, largest = (maximum + more) * multiple, manifest.width.maximum
    begins = long_lines.starts(width, manifest)
    assert begins[0] == 0 and begins[-1] + largest >= width > begins[-1]
    assert all(begin % CELL == 0 and begin % multiple == 0 for begin in begins)
    assert all(one < other <= one + largest - CELL for one, other in pairwise(begins))


def test_fixed_widths_mean_to_shrink() -> None:
    fixed = replace(manifest_of(10, 8, 8), width=WidthRule(80, 80))
    assert long_lines.uncut(fixed) == fixed


@pytest.fixture(scope="module")
def lines() -> list[tuple[str, NDArray[np.uint8]]]:
    """Printed lines of 1,700 to 4,096 pixels of the network's input, with their texts."""
    font = pytest.importorskip("crnn_deploy.synthesis.fonts")
    renderer = pytest.importorskip("crnn_deploy.synthesis.renderer")
    folder = Path(pytest.importorskip("matplotlib").get_data_path()) / "fonts"
    faces = [face for face in font.scan(folders=[folder]) if "Sans" in face.path.name]
    words = ["Straße", "committee", "bookkeeper", "balloon", "Mississippi", "aardvark", "wool"]
    rng, aspect = np.random.default_rng(3), Recognizer().manifest.width.aspect
    drawn: list[tuple[str, NDArray[np.uint8]]] = []
    while len(drawn) < 6:
        text = " ".join(words[i] for i in rng.integers(len(words), size=12 + 2 * len(drawn)))
        pixels = renderer.Renderer(faces, words).render(text, rng, strength=0.0, inverted=len(drawn) % 2 == 1)
        if 1700 <= 32 * aspect * pixels.shape[1] / pixels.shape[0] <= 4096:
            drawn.append((text, pixels))
    return drawn


def test_real_lines_read_as_in_one_piece(lines: list[tuple[str, NDArray[np.uint8]]]) -> None:
    """The frames' classes are those of the uncut line, all but a few; the text is equal, and right."""
    recognizer = Recognizer()
    manifest = recognizer.manifest
    backend, best_path = open_backend(DEFAULT), BestPath(manifest.alphabet, manifest.blank)
    differing = frames = 0
    for text, pixels in lines:
        prepared = recognizer.prepare(pixels)
        assert 1600 < prepared.columns <= 4096
        whole, merged = backend.run(prepared.pixels[None]), recognizer.run([prepared])
        assert merged.indices.shape == whole.indices.shape
        differs = merged.indices != whole.indices
        assert whole.logits is not None
        first, second = np.sort(whole.logits[differs], axis=1)[:, :-3:-1].T
        assert (first - second < 2).all()  # what a recurrent layer remembers decides between near equals
        differing += int(differs.sum())
        frames += whole.indices.size
        [uncut] = best_path(whole, [(prepared.span / whole.indices.shape[1], prepared.width)])
        [read] = recognizer.read([pixels])
        assert read.text == uncut.text == text
        assert recognizer.read([255 - pixels, pixels])[1] == read  # whatever is read with it
    assert differing <= frames / 1000


def test_shrinking_can_be_asked_for(lines: list[tuple[str, NDArray[np.uint8]]]) -> None:
    recognizer = Recognizer(wide="shrink")
    [prepared] = [recognizer.prepare(pixels) for _, pixels in lines[:1]]
    assert prepared.columns == 1600
    assert (prepared.pixels == prepare(lines[0][1], recognizer.manifest)).all()
