"""The model that comes with the package is the one whose figures are published, and reads the examples."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from crnn_deploy import Recognizer
from crnn_deploy.datasets import open_dataset
from crnn_deploy.export.exporter import export
from crnn_deploy.export.reference import open_reference
from crnn_deploy.models import DEFAULT
from crnn_deploy.recipes.settings import CheckpointSettings

ROOT = Path(__file__).parents[2]
CHECKPOINT = ROOT / "training" / "latin.pth"


@pytest.fixture(scope="module")
def figures() -> dict[str, dict[str, object]]:
    [path] = (ROOT / "benchmarks" / "results").glob("drawn_text--*.json")
    found: dict[str, dict[str, object]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def test_the_published_figures_are_of_this_file(figures: dict[str, dict[str, object]]) -> None:
    assert figures["latin"]["sha256"] == hashlib.sha256(DEFAULT.read_bytes()).hexdigest()
    assert DEFAULT.stat().st_size < 10 * 2**20


def test_the_checkpoint_in_the_repository_exports_to_it(tmp_path: Path) -> None:
    result = export(open_reference(CHECKPOINT, CheckpointSettings()), tmp_path / "again.onnx")
    shipped = Recognizer().manifest
    assert result.report.passed
    assert result.manifest.source["checkpoint_sha256"] == shipped.source["checkpoint_sha256"]
    assert (result.manifest.alphabet, result.manifest.width) == (shipped.alphabet, shipped.width)
    assert result.manifest.filters == shipped.filters


def test_its_alphabet_is_printed_latin_text() -> None:
    alphabet = set(Recognizer().manifest.alphabet)
    assert {chr(c) for c in range(32, 127)} | set("äöüßÄÖÜéèêàçñåøæÉÇÑ€£¥¢") <= alphabet


def test_it_reads_the_examples() -> None:
    dataset = open_dataset(str(ROOT / "examples" / "labels.txt"))
    samples = [dataset[i] for i in range(len(dataset))]
    read = [text.text for text in Recognizer().read([sample.image for sample in samples])]
    assert len(samples) == 12
    wrong = {sample.text for sample, text in zip(samples, read, strict=True) if sample.text != text}
    # those in red in docs/pictures/examples.png, and no other
    assert wrong <= {"Keep dry!", "naïve façade", "Señor Muñoz, 3rd floor"}


def test_infer_takes_it_by_default(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "crnn_deploy", "infer", str(ROOT / "examples" / "images" / "01.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("01.png\tPrinted\n")
