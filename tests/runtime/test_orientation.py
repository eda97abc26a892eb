"""Turned images and columns, against the same images turned by numpy and read without turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

pytest.importorskip("onnxruntime")

from crnn_deploy.cli.main import main
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.errors import ReadFailed
from crnn_deploy.manifest import Manifest, StepRule, WidthRule
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.backends.backend import Backend, open_backend
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.decoding.ctc import Frames, PlacedChar, Text, Turn
from crnn_deploy.runtime.images.column import lay_out
from crnn_deploy.runtime.orientation import Rotate, turns
from crnn_deploy.runtime.recognizer import Recognizer

IMAGES = Path(__file__).parents[2] / "examples" / "images"
ROTATES: tuple[Rotate, ...] = ("none", "90", "auto", "180")
QUARTERS = {0: 0, 90: 3, 180: 2, 270: 1}  # turns clockwise, as np.rot90 counts them
NOTO = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")


@pytest.fixture(scope="module")
def backend() -> Backend:
    return open_backend(DEFAULT)


def example(number: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(IMAGES / f"{number:02}.png"), cv2.IMREAD_GRAYSCALE), np.uint8)


def turned(image: NDArray[Any], degrees: int) -> NDArray[Any]:
    """Clockwise."""
    return np.ascontiguousarray(np.rot90(image, QUARTERS[degrees]))


def mean(text: Text) -> float:
    return float(np.mean([char.confidence for char in text.chars])) if text.chars else -1


def noise(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (max(1, height // 6), max(1, width // 6)), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((32, 100), {"none": (0,), "90": (0,), "auto": (0,), "180": (0, 180)}),
        ((149, 100), {"none": (0,), "90": (0,), "auto": (0,), "180": (0, 180)}),
        (
            (150, 100),
            {
                **{"none": (0,), "90": (90, 270), "auto": (0, 90, 270, "column")},
                "180": (0, 180, 90, 270, "column"),
            },
        ),
    ],
)
def test_the_shape_says_which_turns_are_read(size: tuple[int, int], expected: dict[Rotate, Any]) -> None:
    assert {rotate: turns(*size, rotate) for rotate in ROTATES} == expected


@given(st.integers(8, 64), st.floats(0.2, 4.0), st.integers(0, 2**32), st.sampled_from(ROTATES[1:]))
@settings(deadline=None, max_examples=60)
def test_the_surest_of_the_turns_is_read(
    backend: Backend, width: int, aspect: float, seed: int, rotate: Rotate
) -> None:
    image = noise(max(1, round(width * aspect)), width, seed)
    plain = Recognizer(backend)
    readings: list[tuple[Turn, Text]] = [
        (degrees, plain.read([turned(image, degrees)])[0])
        for degrees in turns(image.shape[0], image.shape[1], rotate)
        if degrees != "column"
    ]
    if image.shape[0] >= 1.5 * width and rotate != "90" and (laid := lay_out(image)) is not None:
        readings.append(("column", plain.read(laid.pixels)))
    most = max(mean(text) for _, text in readings)
    degrees, best = next((degrees, text) for degrees, text in readings if mean(text) == most)
    [found] = Recognizer(backend, rotate=rotate).read([image])
    assert (found.text, found.confidence, found.rotated) == (best.text, best.confidence, degrees)


@given(
    st.lists(st.builds(noise, st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**32)), max_size=12),
    st.integers(1, 5),
    st.sampled_from(ROTATES),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=25)
def test_what_is_read_with_an_image_does_not_matter(
    backend: Backend, images: list[NDArray[np.uint8]], batch: int, rotate: Rotate, random: Any
) -> None:
    alone = [Recognizer(backend, batch=1, rotate=rotate).read([image])[0] for image in images]
    order = list(range(len(images)))
    random.shuffle(order)
    together = Recognizer(backend, batch=batch, rotate=rotate).read([images[at] for at in order])
    assert together == [alone[at] for at in order]  # floats compare exactly


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_words_are_read_in_every_turn_and_boxes_lie_in_the_image(backend: Backend, degrees: int) -> None:
    for number in range(1, 8):
        image = example(number)
        height, width = image.shape
        [upright] = Recognizer(backend).read([image])
        [found] = Recognizer(backend, rotate="180").read([turned(image, degrees)])
        assert (found.text, found.confidence) == (upright.text, upright.confidence)
        assert found.rotated == (360 - degrees) % 360
        # which column of the upright image each pixel shows
        columns = turned(np.tile(np.arange(width), (height, 1)), degrees)
        for before, char in zip(upright.chars, found.chars, strict=True):
            assert isinstance(char, PlacedChar)
            box = columns[round(char.top) : round(char.bottom), round(char.left) : round(char.right)]
            assert box.size and abs(box.min() - before.left) <= 1
            assert abs(box.max() + 1 - before.right) <= 1
            assert box.size == height * len(np.unique(box))


def test_without_turns_nothing_is_said_of_them(backend: Backend) -> None:
    [text] = Recognizer(backend).read([example(1)])
    assert text.rotated is None
    assert not any(isinstance(char, PlacedChar) for char in text.chars)


def test_a_tall_letter_stays_as_it_is(backend: Backend) -> None:
    """`auto` reads a tall crop upright too; `90` takes it for a line."""
    letter = np.full((48, 30), 255, np.uint8)
    cv2.putText(letter, "A", (4, 40), cv2.FONT_HERSHEY_DUPLEX, 1.2, 0, 2, cv2.LINE_AA)
    [text] = Recognizer(backend, rotate="auto").read([letter])
    assert (text.text, text.rotated) == ("A", 0)
    [text] = Recognizer(backend, rotate="90").read([letter])
    assert text.rotated in (90, 270)


def test_other_decoders_read_turned_images(backend: Backend) -> None:
    image = example(5)
    rule = DecodingRule(decoder="beam", nbest=2)
    plain = Recognizer(backend).with_decoder(decoder_of(rule))
    rotated = Recognizer(backend, rotate="auto").with_decoder(decoder_of(rule))
    [expected], [found] = plain.read([image]), rotated.read([turned(image, 90)])
    assert (found.text, found.alternatives, found.rotated) == (expected.text, expected.alternatives, 270)
    assert len(found.alternatives) == 2


def test_a_long_line_that_stands_on_its_end_is_read(backend: Backend) -> None:
    line = np.concatenate([example(number) for number in (1, 1)] * 12, axis=1)
    plain, rotated = Recognizer(backend), Recognizer(backend, rotate="90")
    assert plain.prepare(line).columns > plain.manifest.width.maximum
    [expected], [found] = plain.read([line]), rotated.read([turned(line, 270)])
    assert (found.text, found.rotated) == (expected.text, 90)


def test_an_unknown_value_is_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match="rotate is 'left'; it must be one of none, 90, auto, 180"):
        Recognizer(backend, rotate="left")  # type: ignore[arg-type]


def stacked(word: str, gap: int) -> tuple[NDArray[np.uint8], list[tuple[int, int]]]:
    """Letters one below the other, and the rows of each one's ink."""
    image, rows = np.full((len(word) * (24 + gap) + 12, 40), 240, np.uint8), []
    for at, letter in enumerate(word):
        base = 30 + at * (24 + gap)
        (width, _), _ = cv2.getTextSize(letter, cv2.FONT_HERSHEY_DUPLEX, 1, 2)
        alone = np.full_like(image, 240)
        cv2.putText(alone, letter, (20 - width // 2, base), cv2.FONT_HERSHEY_DUPLEX, 1, 20, 2, cv2.LINE_AA)
        image = np.minimum(image, alone)
        ink = np.flatnonzero((alone < 130).any(axis=1))
        rows.append((int(ink[0]), int(ink[-1]) + 1))
    return image, rows


@pytest.mark.parametrize("gap", [4, 8, 16])
@pytest.mark.parametrize("word", ["HOTEL", "CINEMA", "1984"])
@pytest.mark.parametrize("colour", [False, True])
def test_upright_letters_below_each_other_are_read(
    backend: Backend, word: str, gap: int, colour: bool
) -> None:
    image, rows = stacked(word, gap)
    read = np.dstack([image, image, 255 - image // 9]) if colour else image
    [text] = Recognizer(backend, rotate="auto").read([read])
    assert (text.text, text.rotated) == (word, "column")
    for char, (top, bottom) in zip(text.chars, rows, strict=True):
        assert isinstance(char, PlacedChar)
        assert abs(char.top - top) <= 2 and abs(char.bottom - bottom) <= 2
        assert 0 <= char.left < char.right <= image.shape[1]


@pytest.mark.parametrize(
    "text", ["天地玄黄宇宙洪荒", "二三得六三三得九", "吕昌品晶明朋林森", "北京市昌平区小汤山"]
)
@pytest.mark.parametrize("pitch", [1.1, 1.2, 1.4])
def test_a_chinese_column_is_cut_between_its_characters(text: str, pitch: float) -> None:
    """Among them characters of two or three parts, which have gaps inside."""
    pillow = pytest.importorskip("PIL.Image")
    from PIL import ImageDraw, ImageFont

    if not NOTO.is_file():
        pytest.skip("needs Debian's fonts-noto-cjk")
    font = ImageFont.truetype(NOTO, 32, index=2)
    image = pillow.new("L", (40, round(32 * pitch * len(text)) + 8), 235)
    rows = []
    for at, character in enumerate(text):
        middle = 20 + at * 32 * pitch
        ImageDraw.Draw(image).text((20, middle), character, font=font, fill=20, anchor="mm")
        _, top, _, bottom = font.getbbox(character, anchor="mm")
        rows.append((middle + top, middle + bottom))
    laid = lay_out(np.asarray(image))
    assert laid is not None and len(laid.slots) == len(text)
    for slot, (top, bottom) in zip(laid.slots, rows, strict=True):
        assert top - 2 <= slot.top < slot.bottom <= bottom + 2


def test_what_is_no_column_is_not_laid_out() -> None:
    assert lay_out(np.full((100, 20), 200, np.uint8)) is None  # empty
    line = np.full((9000, 3), 255, np.uint8)
    line[5:-5, 1] = 0
    assert lay_out(line) is None  # longer than any column
    assert lay_out(np.zeros((1, 1), np.uint8)) is None


class Chinese:
    """Reads squares with a black top: how dark the rest is says which character. Sideways it is unsure."""

    levels = (40, 80, 120)
    manifest = Manifest(
        *(("天", "地", "人"), 0, "gray", 16, WidthRule(16, 800, 4, "pad", 255.0), (0.0,), (1.0,), "area"),
        StepRule(4, 0),
    )

    def run(self, images: NDArray[np.float32]) -> Frames:
        above, below = (images[:, 0, row, ::4] * 255 for row in (4, 10))
        apart = np.abs(below[..., None] - np.array(self.levels))
        indices = np.where(below > 200, 0, 1 + apart.argmin(axis=2))
        sure = np.where((below > 200) | (above < 30), 0.9, 0.3)
        sure[np.isclose(images[:, 0, 0, 0], 7 / 255)] = np.nan
        return Frames(indices.astype(np.int64), sure.astype(np.float32))

    def close(self) -> None: ...


def squares(text: str) -> NDArray[np.uint8]:
    image = np.full((30 * len(text), 30), 255, np.uint8)
    for at, character in enumerate(text):
        image[30 * at + 3 : 30 * at + 12, 3:27] = 0
        image[30 * at + 12 : 30 * at + 27, 3:27] = Chinese.levels["天地人".index(character)]
    return image


@pytest.mark.parametrize("text", ["天地", "人天", "人地天", "天地人天", "人人地天人地", "天地人" * 4])
def test_a_chinese_model_reads_a_column_from_top_to_bottom(text: str) -> None:
    [found] = Recognizer(Chinese(), rotate="auto").read([squares(text)])
    assert (found.text, found.rotated) == (text, "column")
    boxes = [(c.left, c.right, c.top, c.bottom) for c in found.chars if isinstance(c, PlacedChar)]
    assert boxes == [(3, 27, 30 * at + 3, 30 * at + 27) for at in range(len(text))]
    [plain] = Recognizer(Chinese()).read([squares(text)])
    assert plain.text != text


def test_a_text_is_surer_than_none_and_an_image_without_any_gives_its_error() -> None:
    class Silent(Chinese):
        """Says nothing, and is sure of it, of images whose left top is white."""

        def run(self, images: NDArray[np.float32]) -> Frames:
            frames = super().run(images)
            silent = images[:, 0, 0, 0] > 0.9
            return Frames(
                np.where(silent[:, None], 0, 1), np.where(silent[:, None], 0.99, frames.probabilities)
            )

    image = np.full((16, 40), 130, np.uint8)
    image[:4, :8] = 255
    [text] = Recognizer(Silent(), rotate="180").read([image])
    assert (text.text, text.rotated) == ("天", 180)
    blank = np.full((16, 40), 255, np.uint8)
    [text] = Recognizer(Silent(), rotate="180").read([blank])
    assert (text.text, text.rotated) == ("", 0)
    both = Recognizer(Chinese(), rotate="180").try_read([np.full((16, 40), 7, np.uint8), blank])
    assert isinstance(both[0], ReadFailed) and isinstance(both[1], Text)


def test_records_say_which_turn_was_taken_and_boxes_are_drawn_there(tmp_path: Path) -> None:
    column, rows = stacked("HOTEL", 8)
    pictures = {
        "0": example(2),
        "90": turned(example(2), 270),
        "180": turned(example(2), 180),
        "column": column,
    }
    for name, pixels in pictures.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = [str(tmp_path / f"{name}.png") for name in (*pictures, "broken")]
    more = ["--rotate", "180", "--show-chars", "--draw", str(tmp_path / "drawn")]
    done = CliRunner().invoke(main, ["infer", *paths, "--format", "jsonl", *more])
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["rotated"] for row in found] == [0, 90, 180, "column", None]
    assert found[0]["text"] == found[1]["text"] == found[2]["text"] and found[3]["text"] == "HOTEL"
    assert found[0]["chars"][0].keys() == {
        *("char", "confidence", "start", "end", "left", "right", "top", "bottom")
    }
    done = CliRunner().invoke(main, ["infer", *paths, "--format", "tsv", "--rotate", "180"])
    cells = [line.split("\t")[-1] for line in done.stdout.splitlines()]
    assert cells == ["rotated", "0", "90", "180", "column", ""]
    [path] = (tmp_path / "drawn").rglob("column.png.png")
    drawn = np.asarray(cv2.imread(str(path)), np.uint8)
    factor = drawn.shape[0] // column.shape[0]
    body = drawn[:, -factor * column.shape[1] :]
    plain = np.repeat(np.repeat(column, factor, 0), factor, 1)[:, :, None]
    changed = np.flatnonzero((body != plain).any(axis=2).any(axis=1)) // factor
    assert set(changed) == {
        row for char in found[3]["chars"] for row in range(int(char["top"]), int(char["bottom"]))
    }
    assert len(rows) == 5


def test_evaluate_takes_the_option_too(tmp_path: Path) -> None:
    pytest.importorskip("rapidfuzz")
    image = example(2)
    [text] = Recognizer().read([image])
    cv2.imwrite(str(tmp_path / "turned.png"), turned(image, 90))
    (tmp_path / "labels.tsv").write_text(f"turned.png\t{text.text}\n", encoding="utf-8")
    for rotate, exact in (("none", 0), ("auto", 1)):
        args = [str(DEFAULT), str(tmp_path / "labels.tsv"), "--json", "--rotate", rotate]
        report = json.loads(CliRunner().invoke(main, ["evaluate", *args]).stdout)
        assert report["overall"]["exact"] == exact
    manifest = Recognizer().manifest
    width = manifest.width.bucket(image.shape[0], image.shape[1], manifest.height)
    assert report["by_width"][0]["from"] == width
