"""Batch invariance, and the recogniser on a real ONNX file: what is read with an image does not matter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from crnn_deploy.decoding_rule import DecodingRule  # noqa: E402
from crnn_deploy.errors import CrnnDeployError, ReadFailed  # noqa: E402
from crnn_deploy.manifest import METADATA_KEY, Manifest, StepRule, WidthRule  # noqa: E402
from crnn_deploy.runtime.decoding.build import decoder_of  # noqa: E402
from crnn_deploy.runtime.decoding.ctc import Text  # noqa: E402
from crnn_deploy.runtime.images.pixels import ImageNotFound, ImageTooLarge, ImageUnreadable  # noqa: E402
from crnn_deploy.runtime.recognizer import Recognizer  # noqa: E402

HEIGHT, HIDDEN, CHANNELS, ALPHABET = 16, 24, 12, tuple("abcdefghij")
CLASSES = len(ALPHABET) + 1
MANIFEST = Manifest(
    alphabet=ALPHABET,
    blank=0,
    color="gray",
    height=HEIGHT,
    width=WidthRule(16, 96, multiple=4),
    mean=(0.5,),
    std=(0.5,),
    interpolation="linear",
    steps=StepRule(4, 0),
)


def crnn(path: Path, manifest: Manifest = MANIFEST) -> Path:
    """A convolution, a bidirectional LSTM and a linear layer with random weights; batch and width dynamic."""
    random = np.random.default_rng(7)

    def weights(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(random.normal(0, 0.7, shape).astype(np.float32), name)

    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["images", "kernel"], ["map"], strides=[HEIGHT, 4]),
            helper.make_node("Squeeze", ["map", "two"], ["columns"]),  # (N, channels, T)
            helper.make_node("Transpose", ["columns"], ["sequence"], perm=[2, 0, 1]),
            helper.make_node(
                "LSTM",
                ["sequence", "lstm_w", "lstm_r"],
                ["both"],
                hidden_size=HIDDEN,
                direction="bidirectional",
            ),
            helper.make_node("Transpose", ["both"], ["rows"], perm=[2, 0, 1, 3]),  # (N, T, 2, hidden)
            helper.make_node("Reshape", ["rows", "joined"], ["features"]),
            helper.make_node("MatMul", ["features", "linear"], ["logits"]),
        ],
        "crnn",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, HEIGHT, "width"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "steps", CLASSES])],
        [
            weights("kernel", CHANNELS, 1, HEIGHT, 4),
            numpy_helper.from_array(np.array([2]), "two"),
            weights("lstm_w", 2, 4 * HIDDEN, CHANNELS),
            weights("lstm_r", 2, 4 * HIDDEN, HIDDEN),
            numpy_helper.from_array(np.array([0, 0, 2 * HIDDEN]), "joined"),
            weights("linear", 2 * HIDDEN, CLASSES),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crnn(tmp_path_factory.mktemp("model") / "crnn.onnx")


@pytest.fixture(scope="module")
def recognizers(model: Path) -> dict[tuple[int, int], Recognizer]:
    return {(n, t): Recognizer.load(model, batch=n, threads=t) for n in range(1, 10) for t in (1, 2)}


def noise(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


images_of_any_size = st.lists(
    st.builds(noise, st.integers(1, 40), st.integers(1, 120), st.integers(0, 2**32)), max_size=24
)


@given(images_of_any_size, st.integers(1, 9), st.randoms(use_true_random=False))
@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
def test_batch_invariance_in_every_bit(recognizers: Any, images: Any, batch: Any, random: Any) -> None:
    alone = [recognizers[1, 1].read([image])[0] for image in images]
    order = list(range(len(images)))
    random.shuffle(order)
    for threads in (1, 2):
        together = recognizers[batch, threads].read([images[i] for i in order])
        assert together == [alone[i] for i in order]  # floats compare exactly


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", range(2, 10))
def test_batch_invariance_of_full_batches(recognizers: Any, batch: int, threads: int) -> None:
    images = [noise(16, 64, seed) for seed in range(2 * batch + 1)]
    alone = [recognizers[1, 1].read([image])[0] for image in images]
    assert len({text.text for text in alone}) > batch  # the network does look at its input
    assert recognizers[batch, threads].read(images) == alone


@given(images_of_any_size.filter(bool))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_characters_lie_in_order_inside_the_image(recognizers: Any, images: Any) -> None:
    for image, text in zip(images, recognizers[4, 1].read(images), strict=True):
        assert text.text == "".join(c.char for c in text.chars)
        assert 0 < text.confidence <= 1
        edge, frame = 0.0, 0
        for char in text.chars:
            assert frame <= char.start < char.end
            assert edge <= char.left <= char.right <= image.shape[1]
            edge, frame = char.right, char.end


def test_pixels_of_a_character_are_the_frames_of_the_original_image(recognizers: Any) -> None:
    """An image of twice the height: one frame of 4 columns spans 8 of its pixels."""
    [text] = recognizers[1, 1].read([noise(2 * HEIGHT, 128, 3)])
    assert text.chars
    assert [(c.left, c.right) for c in text.chars] == [(8.0 * c.start, 8.0 * c.end) for c in text.chars]


def test_an_image_that_cannot_be_read_disturbs_no_other(recognizers: Any, tmp_path: Path) -> None:
    good = [noise(16, 64, 1), noise(20, 50, 2), noise(16, 64, 3)]
    mixed = [good[0], tmp_path / "none.png", good[1], b"not an image", good[2]]
    first, missing, second, garbage, third = recognizers[8, 1].try_read(mixed)
    assert [first, second, third] == recognizers[8, 1].read(good)
    assert isinstance(missing, ImageNotFound)
    assert isinstance(garbage, ImageUnreadable)
    with pytest.raises(ImageNotFound, match=r"none\.png"):
        recognizers[8, 1].read(mixed)
    with pytest.raises(ImageUnreadable):
        recognizers[8, 1].read(mixed[2:])
    assert all(isinstance(e, CrnnDeployError) for e in recognizers[2, 1].try_read([b"", b"x"]))


def test_an_image_of_too_many_pixels_is_refused(recognizers: Any) -> None:
    reader = Recognizer(recognizers[1, 1]._backend, max_pixels=640).with_decoder(decoder_of(DecodingRule()))
    assert reader.max_pixels == 640
    small, large = reader.try_read([noise(10, 64, 1), noise(10, 65, 1)])
    assert isinstance(small, Text) and isinstance(large, ImageTooLarge)
    assert "65 x 10 pixels, more than the limit of 640" in str(large)


def test_arrays_bytes_and_paths_agree(recognizers: Any, tmp_path: Path) -> None:
    pixels = noise(20, 60, 5)
    path = tmp_path / "word.png"
    cv2.imwrite(str(path), pixels)
    sources = [pixels, path.read_bytes(), path, str(path), np.dstack([pixels] * 3)]
    texts = recognizers[8, 1].read(sources)
    assert isinstance(texts[0], Text)
    assert texts == [texts[0]] * len(sources)


def test_no_images_no_texts_and_any_iterable(recognizers: Any) -> None:
    assert recognizers[8, 1].read([]) == []
    assert len(recognizers[8, 1].read(noise(9, 9, seed) for seed in range(3))) == 3


def test_a_batch_holds_an_image_at_least(model: Path) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Recognizer.load(model, batch=0)


def test_a_path_is_a_model_and_a_wrong_setting_says_what_is_right(model: Path, tmp_path: Path) -> None:
    image = np.full((12, 30), 90, np.uint8)
    assert Recognizer(model).read(image) == Recognizer.load(model).read(image)
    with pytest.raises(ValueError, match="wide is 'scaled'; it must be one of cut, shrink"):
        Recognizer(model, wide="scaled")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="decoder is the text 'beam'; make one, such as decoder_of"):
        Recognizer(model, decoder="beam")  # type: ignore[arg-type]


def test_an_image_for_which_the_network_puts_out_nan_costs_no_other(tmp_path: Path) -> None:
    """The logarithm of a mean below zero is NaN: dark images are not read, their neighbours are."""
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["images", "one"], ["rows"]),
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("Log", ["mean"], ["log"]),
            helper.make_node("Unsqueeze", ["log", "one"], ["column"]),
            helper.make_node("Add", ["rows", "column"], ["sum"]),
            helper.make_node("Transpose", ["sum"], ["logits"], perm=[0, 2, 1]),
        ],
        "nan",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 2, "width"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "width", 2])],
        [numpy_helper.from_array(np.array([1]), "one")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    manifest = replace(MANIFEST, alphabet=("a",), height=2, width=WidthRule(8, 8), steps=StepRule(1, 0))
    helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    onnx.save(model, tmp_path / "m.onnx")
    recognizer = Recognizer.load(tmp_path / "m.onnx")
    bright, dark = np.full((2, 8), 255, np.uint8), np.zeros((2, 8), np.uint8)
    first, second, third = recognizer.try_read([bright, dark, bright])
    assert first == third == recognizer.read([bright])[0]
    assert isinstance(second, ReadFailed) and "<ndarray>: the network puts out NaN" in str(second)
    with pytest.raises(ReadFailed):
        recognizer.read([bright, dark])
