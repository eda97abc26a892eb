"""Real sets: readers have the same crops, what is missing is named, and figures are those of `evaluate`."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.accuracy import real_sets
from crnn_deploy import Recognizer
from crnn_deploy.datasets import open_dataset
from crnn_deploy.evaluation.evaluate import evaluate
from crnn_deploy.metrics import wilson
from crnn_deploy.models import shipped

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LINES = (EXAMPLES / "labels.txt").read_text(encoding="utf-8").splitlines()
LABELLED = [line.split("\t" if "\t" in line else " ", 1) for line in LINES]
# what stands in for the other projects' packages: texts that tell what was given
RAPIDOCR = """
class RapidOCR:
    def __init__(self, **threads):
        assert set(threads.values()) == {1}
    def text_rec(self, images):
        print("noise on standard output")
        return [("x".join(map(str, image.shape)), 1.0) for image in images], 0.0
"""
TESSEROCR = """
class PSM:
    SINGLE_LINE = 7
def tesseract_version():
    return "tesseract 5.0"
def get_languages(path):
    return path, ["eng", "chi_sim"]
class PyTessBaseAPI:
    def __init__(self, path, lang, psm):
        self.lang = lang
    def SetVariable(self, name, value):
        pass
    def SetImage(self, image):
        self.size = image.size
    def GetUTF8Text(self):
        return f"{self.lang}\\n"
"""


def write_set(folder: Path, labelled: list[tuple[str, str]]) -> None:
    (folder / "images").mkdir(parents=True)
    for name, _ in labelled:
        shutil.copy(EXAMPLES / "images" / Path(name).name, folder / "images")
    lines = [f"images/{Path(name).name}\t{text}\n" for name, text in labelled]
    (folder / "labels.tsv").write_text("".join(lines), encoding="utf-8")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    labelled = [(name, text) for name, text in LABELLED]
    write_set(folder / "scene_words_a", labelled[:5])
    write_set(folder / "scene_words_b", labelled[5:])
    write_set(folder / "mixed", [(labelled[0][0], labelled[0][1]), (labelled[1][0], "\u4e2d\u6587")])
    write_set(folder / "zh_paddle_doc", [(labelled[2][0], "\u4e2d\u6587")])
    (folder / "train_scene").mkdir()
    (folder / "train_scene" / "labels.tsv").write_text("images/gone.png\tgone\n")
    (folder / "lmdb").mkdir()
    return folder


@pytest.fixture
def peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two packages, made up."""
    (tmp_path / "rapidocr_onnxruntime.py").write_text(RAPIDOCR)
    (tmp_path / "tesserocr.py").write_text(TESSEROCR)
    about = tmp_path / "rapidocr_onnxruntime-1.4.4.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: rapidocr-onnxruntime\nVersion: 1.4.4\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    monkeypatch.setenv("TESSDATA_PREFIX", str(tmp_path))


def result_of(data: Path, path: Path, *options: str) -> dict[str, Any]:
    real_sets.main(["--data", str(data), "--json", str(path), *options])
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return found


def test_a_model_is_scored_as_evaluate_scores_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--readers", "ours", "--model", "latin", "--model", "mine=latin.int8")
    result = result_of(data, tmp_path / "r.json", *options)
    assert {name: about["kind"] for name, about in result["readers"].items()} == {
        "latin": "ours",
        "mine": "ours",
    }
    assert result["sets"].keys() == {
        *("mixed", "mixed, Latin", "scene_words_a", "scene_words_b", "scene_words, together")
    }
    for reader, name in (("latin", "latin"), ("mine", "latin.int8")):
        with closing(Recognizer(name)) as recognizer:
            sets = {
                name: open_dataset(str(data / name)) for name in ("scene_words_a", "scene_words_b", "mixed")
            }
            expected = evaluate(recognizer, sets)
        for part, scored in expected.by_group.items():
            row = result["sets"][part][reader]
            assert row | json.loads(json.dumps(scored.to_plain())) == row and row["cpu_seconds"] > 0
        both = expected.by_group["scene_words_a"] + expected.by_group["scene_words_b"]
        assert result["sets"]["scene_words, together"][reader]["edits"] == both.edits
    printed = capsys.readouterr()
    assert "zh_paddle_doc: latin is left out" in printed.err
    assert "| scene_words, together | 12 |" in printed.out


@pytest.mark.usefixtures("peers")
def test_peers_read_the_same_pixels_in_their_own_process(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--readers", "rapidocr,tesseract", "--peers", sys.executable)
    folder = tmp_path / "seen"
    shutil.copytree(data / "scene_words_a", folder / "scene_words_a")
    shutil.copytree(data / "zh_paddle_doc", folder / "zh_paddle_doc")
    # labels that the stand-ins read right where they are given the image and its language
    shown = cv2.imread(str(EXAMPLES / "images" / Path(LABELLED[0][0]).name))
    assert shown is not None and shown.dtype == np.uint8
    file = Path(LABELLED[0][0]).name
    right = "x".join(map(str, shown.shape))
    (folder / "scene_words_a" / "labels.tsv").write_text(f"images/{file}\t{right}\nimages/{file}\teng\n")
    result = result_of(folder, tmp_path / "r.json", *options)
    rows = result["sets"]["scene_words_a"]
    assert {name: row["exact"] for name, row in rows.items()} == {"rapidocr": 1, "tesseract": 1}
    assert result["readers"]["rapidocr"]["version"] == "1.4.4"
    assert result["sets"]["zh_paddle_doc"].keys() == {"rapidocr", "tesseract"}
    printed = capsys.readouterr().out
    assert "rapidocr must not be compared on zh_paddle_doc" in printed and "[0.0 % (0.0-79.3)]" in printed


def test_a_reader_that_is_not_there_is_named_and_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = result_of(data, tmp_path / "r.json", "--readers", "ours,rapidocr,tesseract", "--model", "latin")
    assert result["readers"].keys() == {"latin"}
    said = capsys.readouterr().err
    assert "rapidocr is left out: No module named 'rapidocr_onnxruntime'" in said
    assert "tesseract is left out: No module named 'tesserocr'" in said and "--help says how" in said


def test_another_file_is_not_taken_for_english_g2(tmp_path: Path) -> None:
    path = tmp_path / "english_g2.pth"
    path.write_bytes(b"other weights")
    with pytest.raises(SystemExit, match="is not EasyOCR's english_g2"):
        real_sets.english_g2(path, tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [(("--readers", "ours,all"), "not all"), (("--data", "nowhere"), "name a folder with --data")],
)
def test_wrong_options_are_refused(
    options: tuple[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        real_sets.main(options)
    assert said in capsys.readouterr().err


def row(right: int, images: int) -> dict[str, Any]:
    share = right / images
    interval = wilson(right, images)
    return {
        **{"images": images, "alphanumeric": right, "exact": right, "cer": 1 - share, "cpu_seconds": 2.0},
        **{"accuracy": share, "alphanumeric_accuracy": share},
        **{"accuracy_interval": interval, "alphanumeric_accuracy_interval": interval},
    }


def test_losses_are_printed_but_for_a_reader_that_made_the_labels() -> None:
    result = {
        "readers": {"latin": {"kind": "ours"}, "rapidocr": {"kind": "rapidocr"}},
        "sets": {
            "words": {"latin": row(3, 10), "rapidocr": row(7, 10)},
            "zh_paddle_doc": {"latin": row(1, 10), "rapidocr": row(9, 10)},
        },
    }
    assert [*real_sets.losses(result)] == ["latin loses on words, of 10 images: to rapidocr by 4"]
    shown = real_sets.report(result)
    assert "| words | 10 | 30.0 % (10.8-60.3) | 70.0 % (39.7-89.2) |" in shown
    assert "| words | 10 | 5 | 5 |" in shown  # images per CPU-second


def test_the_committed_result_is_of_the_shipped_models() -> None:
    digests = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in shipped().items()}

    def read_by_them(result: dict[str, Any]) -> bool:
        """Whether all of the toolkit's models in it are the shipped ones, and not older ones."""
        readers = result["readers"].items()
        return all(about["sha256"] == digests[name] for name, about in readers if about["kind"] == "ours")

    paths = (ROOT / "benchmarks" / "results").glob("real_sets--*.json")
    results = [json.loads(path.read_text(encoding="utf-8"))["rows"] for path in paths]
    [result] = filter(read_by_them, results)
    assert {about["kind"] for about in result["readers"].values()} == {*real_sets.READERS}
    for name, rows in result["sets"].items():
        for reader, found in rows.items():
            assert found["alphanumeric_accuracy"] == pytest.approx(found["alphanumeric"] / found["images"])
            assert found["accuracy_interval"] == pytest.approx(wilson(found["exact"], found["images"])), (
                *(name, reader),
            )
    assert not [name for name in result["sets"] if name.startswith("train_")]
    letters, *_ = real_sets.report(result).split("\n\n")
    assert letters in (ROOT / "docs" / "model-card.md").read_text(encoding="utf-8")
