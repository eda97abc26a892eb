"""The second reading of unsure images: the surer of two counts, and the batch changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from crnn_deploy.manifest import METADATA_KEY, Contrast, Manifest
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.runtime.decoding.ctc import Frames, decode_indices
from crnn_deploy.runtime.images.prepare import prepare, prepare_contrasted
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.runtime.second_reading import reread, sureness

RNG = np.random.default_rng(0)
IMAGES = [  # faint and strong ones, of three widths
    np.asarray(RNG.integers(90, 90 + span, (32, width)), np.uint8)
    for span in (4, 20, 60, 160)
    for width in (60, 130, 130, 200)
]


@pytest.fixture(scope="module")
def twice_onnx(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network, which is never sure and therefore reads twice what has little contrast."""
    model = onnx.load(tiny_onnx)
    [kept] = [item for item in model.metadata_props if item.key == METADATA_KEY]
    kept.value = replace(Manifest.from_json(kept.value), contrast=Contrast(below=1.0, target=0.5)).to_json()
    path = tmp_path_factory.mktemp("twice") / "twice.onnx"
    onnx.save(model, path)
    return path


def test_the_surer_reading_counts(twice_onnx: Path) -> None:
    reader, backend = Recognizer.load(twice_onnx), open_backend(twice_onnx)
    manifest = backend.manifest
    replaced = 0
    for image, text in zip(IMAGES, reader.read(IMAGES), strict=True):
        frames = backend.run(prepare(image, manifest)[None])
        contrasted = prepare_contrasted(image, manifest)
        if contrasted is not None:
            again = backend.run(contrasted[None])
            if sureness(again, manifest.blank) >= sureness(frames, manifest.blank):
                frames, replaced = again, replaced + 1
        [indices] = frames.indices.tolist()
        assert text.text == decode_indices(indices, manifest.alphabet, manifest.blank)
    assert 0 < replaced < len(IMAGES)


def test_a_batch_changes_neither_reading(twice_onnx: Path) -> None:
    alone = Recognizer.load(twice_onnx, batch=1).read(IMAGES)
    for batch, order in ((3, 1), (8, -1), (16, 1)):
        together = Recognizer.load(twice_onnx, batch=batch).read(IMAGES[::order])[::order]
        assert [(one.text, one.confidence) for one in together] == [
            (one.text, one.confidence) for one in alone
        ]


def frames_of(*classes: tuple[int, float]) -> Frames:
    indices, probabilities = zip(*classes, strict=True)
    return Frames(np.array([indices], np.int64), np.array([probabilities], np.float32))


def test_sureness_is_easyocrs() -> None:
    """recognition.py, custom_mean: x.prod() ** (2.0 / np.sqrt(len(x))) of the frames that are no blanks."""
    assert sureness(frames_of((0, 0.1), (0, 0.9)), 0) == 0
    assert sureness(frames_of((3, 0.5), (0, 0.9)), 0) == 0.25
    four = frames_of((1, 0.9), (1, 0.8), (2, 0.9), (2, 0.5), (0, 0.1))
    assert sureness(four, 0) == pytest.approx(0.9 * 0.8 * 0.9 * 0.5)
    assert sureness(frames_of((9, 0.2), (1, 0.7)), 9) == pytest.approx(0.49)


def test_only_what_is_unsure_and_faint_runs_again() -> None:
    asked: list[int] = []

    def network(images: NDArray[np.float32]) -> Frames:
        asked.append(len(images))
        return Frames(np.array([[2, 2]], np.int64), np.array([[0.9, 0.9]], np.float32))

    first = Frames(
        np.array([[1, 1], [1, 1], [1, 1]], np.int64),
        np.array([[0.9, 0.9], [0.2, 0.2], [0.1, 0.1]], np.float32),
    )
    image = np.zeros((1, 32, 40), np.float32)
    contrast = Contrast(below=0.1, target=0.5)
    frames = reread(first, [image, image, None], contrast, 0, network)
    assert asked == [1]
    assert frames.indices.tolist() == [[1, 1], [2, 2], [1, 1]] and frames.logits is None
    assert reread(first, [image, None, None], contrast, 0, network) is first
