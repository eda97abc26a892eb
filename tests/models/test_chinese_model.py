"""The Chinese model that comes with the package: its alphabet, its figures, and what it reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from crnn_deploy import Recognizer, open_dataset
from crnn_deploy.export.exporter import export
from crnn_deploy.export.reference import open_reference
from crnn_deploy.models import shipped
from crnn_deploy.recipes.settings import CheckpointSettings

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def test_the_published_figures_are_of_this_file() -> None:
    [path] = RESULTS.glob("drawn_text--*.json")
    figures = json.loads(path.read_text(encoding="utf-8"))["chinese"]
    assert figures["sha256"] == hashlib.sha256(shipped()["chinese"].read_bytes()).hexdigest()


def test_the_checkpoint_in_the_repository_exports_to_it(tmp_path: Path) -> None:
    result = export(
        open_reference(ROOT / "training" / "chinese.pth", CheckpointSettings()), tmp_path / "again.onnx"
    )
    ours = Recognizer("chinese").manifest
    assert result.report.passed
    assert result.manifest.source["checkpoint_sha256"] == ours.source["checkpoint_sha256"]
    assert (result.manifest.alphabet, result.manifest.width) == (ours.alphabet, ours.width)


def test_its_alphabet_is_gb_2312_with_ascii_and_full_width_marks() -> None:
    alphabet = set(Recognizer("chinese").manifest.alphabet)
    codes = (bytes([row, cell]) for row in range(0xB0, 0xF8) for cell in range(0xA1, 0xFF))
    ideographs = set("".join(code.decode("gb2312", errors="ignore") for code in codes))
    assert len(ideographs) == 6763 and ideographs <= alphabet
    assert {chr(c) for c in range(32, 127)} | set("，。、；：？！（）《》“”‘’…￥") <= alphabet


@pytest.mark.parametrize("model", ["chinese", "chinese.int8"])
def test_it_reads_the_examples(model: str) -> None:
    dataset = open_dataset(str(ROOT / "examples" / "chinese" / "labels.txt"))
    samples = [dataset[at] for at in range(len(dataset))]
    read = [text.text for text in Recognizer(model).read([sample.image for sample in samples])]
    wrong = [(sample.text, text) for sample, text in zip(samples, read, strict=True) if sample.text != text]
    assert len(samples) == 8 and len(wrong) <= 2, wrong


def test_its_text_does_not_depend_on_the_batch() -> None:
    paths = sorted((ROOT / "examples" / "chinese" / "images").glob("*.png"))
    recognizer = Recognizer("chinese")
    assert recognizer.read(paths) == [recognizer.read([path])[0] for path in paths]
