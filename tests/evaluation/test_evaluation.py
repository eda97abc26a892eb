"""Evaluation against brute force, with a network whose every word and doubt is drawn into the image."""

from __future__ import annotations

import base64
import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from html.parser import HTMLParser
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crnn_deploy import datasets
from crnn_deploy.cli.main import main
from crnn_deploy.datasets import Dataset, Sample
from crnn_deploy.evaluation.bands import MOST_BANDS, Band, banded
from crnn_deploy.evaluation.evaluate import BINS, DataEmpty, Evaluation, Failure, Provenance, evaluate
from crnn_deploy.evaluation.report import render
from crnn_deploy.manifest import Manifest, StepRule, WidthRule
from crnn_deploy.metrics import Score, score
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.runtime.recognizer import Recognizer

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
ALPHABET = "abcAB1 é<>"
CELL = 8  # pixels: half a character, half blank


class Drawn:
    """Frame by frame, the first row says the class and the second the probability."""

    manifest = Manifest(
        *(tuple(ALPHABET), 0, "gray", CELL, WidthRule(CELL, 800, CELL, "pad"), (0.0,), (1.0,), "nearest"),
        StepRule(CELL // 2, 0),
    )

    def run(self, images: NDArray[np.float32]) -> Frames:
        frames = images[:, 0, :, :: CELL // 2]
        probabilities = frames[:, 1].astype(np.float32)
        probabilities[np.isclose(probabilities, 7 / 255)] = np.nan
        return Frames(np.rint(frames[:, 0] * 255).astype(np.int64), probabilities)

    def close(self) -> None: ...


def drawn(text: str, level: int = 204) -> NDArray[np.uint8]:
    """An image that is read as `text` with a confidence of level / 255; not a number for level 7."""
    image = np.full((CELL, CELL * max(1, len(text))), level, np.uint8)
    image[0] = 0
    for at, character in enumerate(text):
        image[0, at * CELL : at * CELL + CELL // 2] = 1 + ALPHABET.index(character)
    return image


@dataclass(frozen=True)
class Listed:
    """A dataset in memory; notes what was drawn."""

    samples: Sequence[Sample]
    drawn: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        self.drawn.append(index)
        return self.samples[index]


def listed(pairs: Sequence[tuple[str, str | None]], levels: Sequence[int] = ()) -> Listed:
    """(truth, what will be read) pairs; None is an image that cannot be read."""
    return Listed(
        [
            Sample(
                b"no image" if read is None else drawn(read, levels[i] if levels else 204), truth, f"{i}.png"
            )
            for i, (truth, read) in enumerate(pairs)
        ]
    )


def run(dataset: Dataset, **options: Any) -> Evaluation:
    return evaluate(Recognizer(Drawn()), {"words": dataset}, **options)


def total(bands: Sequence[Band]) -> Score:
    return sum((band.score for band in bands), Score())


def images_of(bands: Sequence[Band]) -> dict[str, int]:
    return {band.label: band.score.images for band in bands}


TEXTS = st.text(ALPHABET, max_size=6)


@settings(deadline=None)
@given(
    st.lists(st.tuples(TEXTS, st.none() | TEXTS), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_every_image_counts_once_whatever_the_chunk(
    pairs: list[tuple[str, str | None]], chunk: int, workers: int
) -> None:
    result = run(listed(pairs), chunk=chunk, workers=workers)
    read = [(truth, prediction) for truth, prediction in pairs if prediction is not None]
    assert result.overall == score(pairs) == total(result.by_length)
    assert dict(result.by_group) == {"words": result.overall}
    assert images_of(result.by_length) == Counter(str(len(t)) for t, _ in pairs)
    assert total(result.by_width) == score(read)
    assert images_of(result.by_width) == Counter(str(CELL * max(1, len(text))) for _, text in read)
    assert result.failed == len(result.failures) == len(pairs) - len(read)
    assert sum(result.confusions.values()) == score(read).edits
    assert sum(result.confidence_right) == result.overall.exact
    assert sum(result.confidence_wrong) == len(read) - result.overall.exact


def one_by_one(numbers: Iterable[int]) -> dict[int, Score]:
    """Scores of images by number: of each number the images that have it."""
    return {number: Score(images, characters=number) for number, images in Counter(numbers).items()}


@settings(deadline=None)
@given(st.lists(st.integers(0, 60) | st.integers(0, 10**6), min_size=1, max_size=80))
def test_bands_are_few_and_part_the_numbers(numbers: list[int]) -> None:
    bands = banded(one_by_one(numbers))
    assert 1 <= len(bands) <= MOST_BANDS == 8
    assert (bands[0].low, bands[-1].high) == (min(numbers), max(numbers))
    assert all(one.low <= one.high for one in bands)
    assert all(one.high < other.low for one, other in pairwise(bands))
    for band in bands:
        inside = [number for number in numbers if band.low <= number <= band.high]
        assert band.score == Score(len(inside), characters=sum(set(inside))) and inside
    assert total(bands) == total([Band(n, n, part) for n, part in one_by_one(numbers).items()])
    if len(set(numbers)) <= 8:
        assert [(band.low, band.high) for band in bands] == [(n, n) for n in sorted(set(numbers))]
    else:
        assert all(one.high + 1 == other.low for one, other in pairwise(bands))
    if len(set(numbers)) > 8:
        assert all(band.score.images >= len(numbers) / 32 for band in bands)
    assert evenness([band.score.images for band in bands]) >= 0.5 * best_evenness(numbers)


def evenness(sizes: Sequence[int]) -> float:
    """How many parts of one size are as even as parts of these sizes."""
    return math.exp(-sum(size / sum(sizes) * math.log(size / sum(sizes)) for size in sizes))


def best_evenness(numbers: Sequence[int]) -> float:
    """Of all ways to part the numbers into eight or fewer ranges, by dynamic programming."""
    sizes = [0, *accumulate(size for _, size in sorted(Counter(numbers).items()))]

    def entropy(first: int, last: int) -> float:
        share = (sizes[last] - sizes[first]) / sizes[-1]
        return -share * math.log(share)

    reached = [0.0] + [-math.inf] * (len(sizes) - 1)  # entropy of the numbers before a place
    most = -math.inf
    for _ in range(8):
        reached = [
            max((reached[first] + entropy(first, last) for first in range(last)), default=-math.inf)
            for last in range(len(sizes))
        ]
        most = max(most, reached[-1])
    return math.exp(most)


def test_bands_hold_alike_many_images_between_round_bounds() -> None:
    lines = banded(one_by_one(range(1, 71)))
    assert images_of(lines) == {f"{n}-{n + 9}": 10 for n in range(1, 71, 10)}
    assert list(images_of(banded(one_by_one([1] * 500 + [2] * 300 + [*range(3, 103)]))).items())[:2] == [
        ("1", 500),
        ("2", 300),
    ]
    assert images_of(banded(one_by_one([]))) == {}


@pytest.mark.parametrize("images", [1, 7, 8, 9, 31, 32, 33, 67])
def test_no_image_of_the_last_batch_is_dropped_or_counted_twice(images: int) -> None:
    dataset = listed([("ab", "ab" if i % 3 else "aa") for i in range(images)])
    added: list[int] = []
    result = run(dataset, progress=added.append)
    assert (result.overall.images, result.overall.exact) == (images, images - len(range(0, images, 3)))
    assert sum(added) == images and sorted(dataset.drawn) == list(range(images))


def test_datasets_are_groups() -> None:
    groups = {"one": listed([("a", "a")] * 5), "two": listed([("a", "b"), ("ab", "ab"), ("a", None)])}
    result = evaluate(Recognizer(Drawn()), groups, chunk=2)
    assert list(result.by_group) == ["one", "two"]
    assert [part.images for part in result.by_group.values()] == [5, 3]
    assert [part.exact for part in result.by_group.values()] == [5, 1]
    assert [mistake.group for mistake in result.most_edits] == ["two"]


def test_what_cannot_be_read_is_wrong_and_said(tmp_path: Path) -> None:
    absent = str(tmp_path / "absent.png")
    samples = [
        Sample(drawn("a"), "a", "good"),
        Sample(absent, "ab", "absent"),
        Sample(b"GIF89a", "", "torn"),
        Sample(drawn("ab", level=7), "ab", "not a number"),
    ]
    said: list[Failure] = []
    result = run(Listed(samples), failed=said.append)
    assert tuple(said) == result.failures
    assert result.failures[1].reason == "torn: truncated GIF"
    assert result.overall == Score(4, 1, 1, 4, 5, score([("ab", None)] * 3).normalized_edits)
    assert [failure.name for failure in result.failures] == ["absent", "torn", "not a number"]
    assert absent in result.failures[0].reason and "NaN" in result.failures[2].reason
    assert "3 of 4 images could not be read; these count as wrong" in result.table()


def test_labels_outside_the_alphabet_count_and_are_said() -> None:
    result = run(listed([("ab", "ab"), ("axx", "a"), ("Zx", "b"), ("x", None)]))
    assert result.overall.images == 4 and result.overall.exact == 1
    assert result.outside == score([("axx", "a"), ("Zx", "b"), ("x", None)])
    assert dict(result.outside_characters) == {"x": 4, "Z": 1}
    assert "3 labels hold characters outside the alphabet: 'x' 4, 'Z' 1" in result.table()


def test_confusions() -> None:
    result = run(listed([("ab", "aB"), ("cb", "cB"), ("a", "a "), ("1a", "a"), ("b", "b")]))
    assert dict(result.confusions) == {("b", "B"): 2, ("", " "): 1, ("1", ""): 1}
    assert next(iter(result.confusions)) == ("b", "B")


def test_confidence_is_counted_in_tenths() -> None:
    right, wrong = [255, 254, 128, 127, 0], [255, 26, 25]
    pairs = [("a", "a")] * len(right) + [("a", "b")] * len(wrong)
    result = run(listed(pairs, right + wrong))
    for levels, counts in ((right, result.confidence_right), (wrong, result.confidence_wrong)):
        assert [counts[i] for i in range(BINS)] == [
            sum(min(9, int(level / 25.5)) == i for level in levels) for i in range(BINS)
        ]


def test_the_worst_are_the_farthest_and_the_surest() -> None:
    rng = np.random.default_rng(2)
    pairs = [("abcabc", "abcabc"[: n % 7] + "11") for n in rng.integers(0, 70, 120).tolist()]
    levels = rng.integers(8, 255, len(pairs)).tolist()
    result = run(listed(pairs, levels), workers=2)
    edits = [score([pair]).edits for pair in pairs]
    by_edits = sorted(range(len(pairs)), key=lambda i: (-edits[i], -levels[i], i))
    by_confidence = sorted(range(len(pairs)), key=lambda i: (-levels[i], -edits[i], i))
    assert [mistake.name for mistake in result.most_edits] == [f"{i}.png" for i in by_edits[:30]]
    assert [mistake.name for mistake in result.most_confident] == [f"{i}.png" for i in by_confidence[:30]]
    worst = result.most_edits[0]
    assert (worst.truth, worst.prediction) == pairs[by_edits[0]]
    assert worst.edits == max(edits) and worst.confidence == pytest.approx(levels[by_edits[0]] / 255)


def test_few_images_are_drawn_ahead() -> None:
    dataset = listed([("a", "a")] * 200)
    done: list[int] = []

    def progress(images: int) -> None:
        done.append(images)
        assert len(dataset.drawn) - sum(done) <= 2 * 2 * 5

    run(dataset, chunk=5, workers=2, progress=progress)
    assert sum(done) == 200


def test_no_images() -> None:
    with pytest.raises(DataEmpty, match="empty holds no images"):
        evaluate(Recognizer(Drawn()), {"full": listed([("a", "a")]), "empty": Listed([])})


def provenance() -> Provenance:
    versions = {"crnn-deploy": "1"}
    return Provenance(
        "<m>.onnx", "0" * 64, {"recipe": "<r>"}, 11, versions, "here", "2026-01-01T00:00:00+00:00"
    )


def test_json_holds_everything_and_no_nan() -> None:
    pairs = [("", "a"), ("ab", "ab"), ("a", None), ("\ud800", "b")]
    plain = run(listed(pairs)).to_plain()
    again = json.loads(json.dumps(plain, allow_nan=False))
    assert again["overall"]["exact"] == 1 and again["overall"]["images"] == 4
    assert (
        again["by_length"][0] == {"from": 0, "to": 0, **again["by_length"][0]}
        and again["by_length"][0]["cer"] is None
    )
    assert [(part["from"], part["to"], part["images"]) for part in again["by_width"]] == [
        (8, 8, 2),
        (16, 16, 1),
    ]
    assert again["most_edits"][0]["truth"] == "" and again["failures"][0]["name"] == "2.png"


class Page(HTMLParser):
    """Elements of a page, the text of each class, its images, and what it refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.images: list[NDArray[np.uint8]] = []
        self.handlers: list[str] = []
        self.text = ""
        self.marked: list[str] = []
        self._inside: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self._inside = tag
        for name, value in attrs:
            if name.startswith("on") or (value or "").startswith(("http", "javascript", "//")):
                self.handlers.append(name)
            if name == "src":
                data = base64.b64decode((value or "").removeprefix("data:image/png;base64,"))
                decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
                self.images.append(np.asarray(decoded, np.uint8))

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._inside == "mark":
            self.marked.append(data)


def test_the_page_shows_the_worst_images_and_marks_what_differs() -> None:
    page = Page(render(run(listed([("abc1", "aBc"), ("a", "a")])), provenance()))
    assert page.marked == ["b", "1", "B"] * 2
    assert len(page.images) == 2  # once for each way to be worst
    assert all(np.array_equal(image, drawn("aBc")) for image in page.images)
    assert "1 of 2" in page.text and "50.00 %" in page.text


def test_terminal_json_and_page_have_the_same_rows() -> None:
    texts = ["ab1"[i % 3] * (i + 1) for i in range(70)]
    result = run(listed([(text, text) for text in texts]))
    plain, table, page = result.to_plain(), result.table().splitlines(), render(result, provenance())
    for name, bands in (("length", result.by_length), ("width", result.by_width)):
        assert len(bands) <= 8 and total(bands) == result.overall
        rows = [line.split()[1:3] for line in table if line.startswith(f"{name} ")]
        assert rows == [[label, str(images)] for label, images in images_of(bands).items()]
        told = [(f"{part['from']}-{part['to']}", part["images"]) for part in plain[f"by_{name}"]]
        assert told == list(images_of(bands).items())
        for label, images in told:
            assert f"<title>{label}: {images} of {images} exact (100.0%)</title>" in page


def test_hostile_labels_and_names_stay_text() -> None:
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"
    samples = [Sample(drawn("<a>"), hostile, hostile), Sample(b"", hostile, hostile)]
    result = evaluate(Recognizer(Drawn()), {hostile: Listed(samples), "b": listed([("a", "a")])})
    page = Page(render(result, provenance()))
    assert page.elements["script"] == 0 and page.handlers == [] and page.elements["img"] == 2
    assert hostile in page.text and "<m>.onnx" in page.text


def test_the_page_of_nothing_but_failures() -> None:
    page = Page(render(run(listed([("a", None)])), provenance()))
    assert page.elements["img"] == 0 and "1 of 1 images could not be read" in page.text


def test_a_large_image_is_kept_small() -> None:
    tall = cv2.resize(drawn("a"), (4000, 4000), interpolation=cv2.INTER_NEAREST)
    [mistake] = run(Listed([Sample(tall, "b", "tall")])).most_edits
    assert mistake.pixels.shape == (640, 640)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs `evaluate` where `open_dataset` knows good, bad and empty."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (32, 40 + i), np.uint8) for i in range(11)]
    encoded = [cv2.imencode(".png", image)[1].tobytes() for image in noise]
    known = {
        "good": Listed([Sample(image, "12", f"{i}") for i, image in enumerate(encoded)]),
        "bad": Listed([Sample(noise[0], "3", "0"), Sample(b"", "4", NOT_UTF8)]),
        "empty": Listed([]),
    }
    monkeypatch.setattr(datasets, "open_dataset", lambda spec, **options: known[spec])
    monkeypatch.chdir(tmp_path)

    def invoke(*args: str | Path) -> Result:
        return CliRunner().invoke(main, ["evaluate", *map(str, args)])

    return invoke


NOT_UTF8 = "caf\udce9.png"  # as os.fsdecode gives a name that is not UTF-8


def test_command(command: Any, tiny_onnx: Path) -> None:
    result = command(tiny_onnx, "good", "--json-file", "f.json", "--html", "f.html", "--batch", "3")
    assert (result.exit_code, result.stderr) == (0, "")
    figures = json.loads(Path("f.json").read_text(encoding="utf-8"))
    texts = Recognizer.load(tiny_onnx).read([np.random.default_rng(0).integers(0, 256, (32, 40), np.uint8)])
    assert figures["most_edits"] and figures["overall"]["images"] == 11
    [first] = [item for item in figures["most_edits"] if item["name"] == "0"]
    assert first["prediction"] == texts[0].text and first["confidence"] == texts[0].confidence
    assert figures["provenance"]["sha256"] == sha256(tiny_onnx.read_bytes()).hexdigest()
    assert figures["provenance"]["source"]["recipe"] == "paper"
    assert figures["provenance"]["versions"]["onnxruntime"]
    assert result.stdout.splitlines()[1].split()[:3] == ["all", "11", "0.00%"]
    assert Page(Path("f.html").read_text(encoding="utf-8")).elements["svg"] == 3


def test_command_with_failed_images(command: Any, tiny_onnx: Path) -> None:
    decoders = ("--decoder", "greedy", "--decoder", "beam")
    result = command(tiny_onnx, "good", "bad", *decoders, "--html", "f.html", "--json-file", "f.json")
    said = "'caf\\udce9.png': empty file\n1 of 13 images failed\n"
    assert (result.exit_code, result.stderr) == (1, said)
    assert [line.split()[:2] for line in result.stdout.splitlines()[2:4]] == [["good", "11"], ["bad", "2"]]
    assert "could not be read" in Page(Path("f.html").read_text(encoding="utf-8")).text
    assert json.loads(Path("f.json").read_text(encoding="utf-8"))["failures"][0]["name"] == NOT_UTF8


def test_command_with_a_limit_of_pixels(command: Any, tiny_onnx: Path) -> None:
    result = command(tiny_onnx, "good", "--max-pixels", str(32 * 45))
    [*reasons, last] = result.stderr.splitlines()
    assert (result.exit_code, last) == (1, "5 of 11 images failed")
    for name, reason in zip(range(6, 11), reasons, strict=True):
        assert reason.startswith(f"{name}: ") and "1,440" in reason


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("tiny", "good", "good"), "a DATA is named twice"),
        (("tiny", "empty"), "empty holds no images"),
        (("absent.onnx", "good"), "no model file at absent.onnx"),
        (("tiny", "good", "--html", "no/f.html"), "cannot write no/f.html: no is not a folder"),
        (("tiny", "good", "--json-file", "."), "cannot write .: it is a folder"),
        (("tiny",), "Missing argument"),
    ],
)
def test_bad_usage(command: Any, tiny_onnx: Path, args: tuple[str, ...], message: str) -> None:
    result = command(*(tiny_onnx if arg == "tiny" else arg for arg in args))
    assert result.exit_code == 2 and message in result.stderr and "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.skipif(not DATA.exists(), reason="needs the shared images and checkpoints")
def test_a_published_plate_reader_on_its_test_set(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = (DATA / "plates_cn" / "labels.tsv").read_text(encoding="utf-8").splitlines()
    plates = [(DATA / "plates_cn" / file, text) for file, text in (row.split("\t") for row in rows)]
    samples = [Sample(path, text, path.name) for path, text in plates if path.exists()]
    monkeypatch.setattr(datasets, "open_dataset", lambda spec, **options: Listed(samples))
    checkpoint = DATA / "checkpoints" / "lprnet_cn" / "Final_LPRNet_model.pth"
    recipe = ROOT / "export" / "lprnet_cn.toml"
    result = command(checkpoint, "plates", "--recipe", recipe, "--json-file", "f.json", "--html", "f.html")
    assert (result.exit_code, result.stderr) == (0, "")
    figures = json.loads(Path("f.json").read_text(encoding="utf-8"))
    assert (figures["overall"]["exact"], figures["overall"]["images"]) == (262, 292)
    assert figures["outside_alphabet"]["images"] == 0
    assert [(part["from"], part["to"], part["images"]) for part in figures["by_width"]] == [(94, 94, 292)]
