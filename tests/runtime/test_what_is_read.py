"""What people hand to `Recognizer.read`: one image gives one text, several a list, all else one error."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from crnn_deploy import Recognizer, Text
from crnn_deploy.runtime.images.pixels import ImageNotFound, ImageUnreadable

PICTURE = Path(__file__).parents[2] / "examples" / "images" / "01.png"
WORD = "Printed"
BGR: Any = cv2.imread(str(PICTURE))


@pytest.fixture(scope="module")
def latin() -> Recognizer:
    return Recognizer()


ONE: dict[str, Callable[[], Any]] = {
    "a text": lambda: str(PICTURE),
    "a path": lambda: PICTURE,
    "an entry of a folder": lambda: next(iter(_scan(PICTURE))),
    "bytes": PICTURE.read_bytes,
    "a bytearray": lambda: bytearray(PICTURE.read_bytes()),
    "a memoryview": lambda: memoryview(PICTURE.read_bytes()),
    "what io.BytesIO holds": lambda: io.BytesIO(PICTURE.read_bytes()).getbuffer(),
    "NumPy's text": lambda: np.str_(PICTURE),
    "BGR": lambda: BGR,
    "BGRA": lambda: cv2.cvtColor(BGR, cv2.COLOR_BGR2BGRA),
    "grey": lambda: cv2.cvtColor(BGR, cv2.COLOR_BGR2GRAY),
    "grey with a third axis": lambda: cv2.cvtColor(BGR, cv2.COLOR_BGR2GRAY)[..., None],
    "black and white": lambda: cv2.cvtColor(BGR, cv2.COLOR_BGR2GRAY) > 127,
    "16 bits": lambda: BGR * np.uint16(257),
    "an array that may not be written": lambda: np.broadcast_to(BGR, BGR.shape),
    "a column of a larger array": lambda: np.stack([BGR, BGR], axis=3)[..., 1],
    "a Pillow image": lambda: Image.open(PICTURE),
    "a Pillow image that was cut": lambda: Image.open(PICTURE).crop((0, 0, *Image.open(PICTURE).size)),
}


def _scan(path: Path) -> Any:

    return [entry for entry in os.scandir(path.parent) if entry.name == path.name]


@pytest.mark.parametrize("name", ONE)
def test_one_image_gives_one_text(latin: Recognizer, name: str) -> None:
    image = ONE[name]()
    text = latin.read(image)
    assert isinstance(text, Text) and text.text == WORD
    assert latin.try_read(image) == text
    assert latin.read([image]) == latin.try_read((image,)) == [text]


SEVERAL: dict[str, Callable[[], Any]] = {
    "a list": lambda: [PICTURE, BGR],
    "a tuple": lambda: (PICTURE, BGR),
    "a generator": lambda: (one for one in (PICTURE, BGR)),
    "map": lambda: map(str, (PICTURE, PICTURE)),
    "glob": lambda: (path for path in [*PICTURE.parent.glob("01.png")] * 2),
    "a deque": lambda: deque([PICTURE, BGR]),
    "keys of a mapping": lambda: {str(PICTURE): 1, PICTURE: 2}.keys(),
    "values of a mapping": lambda: {1: PICTURE, 2: BGR}.values(),
    "an array of texts": lambda: np.array([str(PICTURE)] * 2),
    "an array of objects": lambda: np.array([str(PICTURE), PICTURE], object),
    "a sequence of one's own": lambda: _Own(),
}


class _Own:
    """A sequence as datasets of PyTorch are: without `__iter__`."""

    def __getitem__(self, at: int) -> Path:
        return [PICTURE, PICTURE][at]


@pytest.mark.parametrize("name", SEVERAL)
def test_several_images_give_a_list(latin: Recognizer, name: str) -> None:
    texts = latin.read(SEVERAL[name]())
    assert [text.text for text in texts] == [WORD, WORD]
    assert latin.try_read(SEVERAL[name]()) == texts


class _Tensor:
    """What is told of a tensor by its shape; it gives its rows, as PyTorch's does."""

    shape = (3, 32, 100)

    def __iter__(self) -> Any:
        raise AssertionError("its rows are asked for")


NEITHER: dict[str, tuple[Callable[[], Any], str]] = {
    "nothing": (lambda: None, r"<NoneType>: not a path.*cv2\.imread gives None.*pass the path"),
    "a number": (lambda: 7, "<int>: not a path"),
    "a mapping": (lambda: {"image": BGR}, r"<dict>: .*list\(images\.values\(\)\)"),
    "a set": (lambda: {str(PICTURE)}, "<set>: .*no order.*pass a list"),
    "a frozen set": (lambda: frozenset([PICTURE]), "<frozenset>: .*pass a list"),
    "an open file": (lambda: io.BytesIO(PICTURE.read_bytes()), "<BytesIO>: .*open file.*read"),
    "a list in a file": (lambda: io.StringIO("a.png\nb.png\n"), "<StringIO>: .*open file"),
    "a tensor": (_Tensor, r"<_Tensor>: .*pass a NumPy array of uint8, \(H, W\)"),
    "a function": (lambda: print, "<builtin_function_or_method>: not a path"),
    "a class": (lambda: Path, "<type>: not a path"),
    "a stack": (lambda: np.stack([BGR, BGR]), r"<array>: shape .*pass a stack of images as list\(array\)"),
    "channels first": (lambda: BGR.transpose(2, 0, 1), r"<array>: shape .*array\.transpose\(1, 2, 0\)"),
    "two channels": (lambda: BGR[..., :2], r"<array>: shape .* is not \(H, W\)"),
    "a row of numbers": (lambda: BGR[0, :, 0], "<array>: shape"),
    "a number of NumPy": (lambda: np.uint8(3), "<uint8>: not a path"),
    "an array without axes": (lambda: np.array(3, np.uint8), r"<array>: shape \(\)"),
    "floats": (lambda: BGR / 255, "<array>: pixels are float64; pass uint8"),
    "halves": (lambda: (BGR / 255).astype(np.float16), "<array>: pixels are float16; pass uint8"),
    "whole numbers": (lambda: BGR.astype(int), "<array>: pixels are int64; pass uint8"),
    "objects": (lambda: BGR.astype(object), "<array>: pixels are object; pass uint8"),
    "an empty image": (lambda: BGR[:0], "<array>: .* x 0 pixels"),
    "a folder": (lambda: str(PICTURE.parent), "a folder, not an image file; pass the images in it"),
    "an address": (
        lambda: "https://example.org/a.png",
        "no image file at https://.*; download",
    ),
    "an empty text": (lambda: "", "no image file at ''"),
    "a glob": (lambda: str(PICTURE.parent / "*.png"), r"no image file at .*\*\.png"),
    "base64": (lambda: "iVBORw0KGgo" * 10_000, "cannot be opened: File name too long"),
}


@pytest.mark.parametrize("name", NEITHER)
def test_what_is_neither_gives_one_clear_error(latin: Recognizer, name: str) -> None:
    make, reason = NEITHER[name]
    with pytest.raises((ImageUnreadable, ImageNotFound), match=reason) as caught:
        latin.read(make())
    assert str(latin.try_read(make())) == str(caught.value)
    assert len(str(caught.value)) < 5000 and "\n" not in str(caught.value)
    failed, good = latin.try_read([make(), PICTURE])
    assert str(failed) == str(caught.value)
    assert isinstance(good, Text) and good.text == WORD


def test_pixels_as_lists_are_refused(latin: Recognizer) -> None:
    with pytest.raises(ImageUnreadable, match=r"<list>: .*pixels as a NumPy array of uint8"):
        latin.read(BGR.tolist())


def test_a_tensor_is_refused_without_reading_its_rows(latin: Recognizer) -> None:
    torch = pytest.importorskip("torch")
    for tensor in (torch.zeros(3, 32, 100), torch.zeros(2, 3, 32, 100), torch.zeros(32, 100)):
        with pytest.raises(ImageUnreadable, match=r"<Tensor>: .*pass a NumPy array"):
            latin.read(tensor)


def test_an_iterable_is_taken_image_by_image(latin: Recognizer) -> None:
    """Of a long stream no more images are held than wait for their batch."""
    alive: list[int] = []

    def stream() -> Any:
        for at in range(40):
            alive.append(at)
            yield PICTURE

    assert len(latin.read(stream())) == len(alive) == 40


@given(
    arrays.arrays(
        st.sampled_from([np.uint8, np.uint16, np.bool_, np.float32, np.int8]),
        arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5),
    )
)
def test_any_array_gives_one_text_or_one_error(latin: Recognizer, array: Any) -> None:
    grey_or_colour = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    readable = grey_or_colour and array.size > 0 and array.dtype in (np.uint8, np.uint16, np.bool_)
    assert isinstance(latin.try_read(array), Text if readable else ImageUnreadable)
