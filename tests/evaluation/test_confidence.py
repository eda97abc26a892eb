"""Confidences against softmax and PyTorch's CTC, and their calibration from images to the model's file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnxruntime")

from crnn_deploy.cli.main import main
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.decoding.beam import Beam
from crnn_deploy.runtime.decoding.build import decoder_of
from crnn_deploy.runtime.decoding.confidence import Confidence, best_temperature, reliability
from crnn_deploy.runtime.decoding.ctc import encode
from crnn_deploy.runtime.recognizer import Recognizer

IMAGES = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("decoder", ["greedy", "beam"])
@pytest.mark.parametrize("aggregate", ["min", "mean", "product", "likelihood"])
def test_confidences_are_those_of_softmax_and_ctc(decoder: Any, aggregate: Any, temperature: float) -> None:
    torch = pytest.importorskip("torch")
    reader = Recognizer()
    alphabet, blank = reader.manifest.alphabet, reader.manifest.blank
    plain = reader.with_decoder(decoder_of(DecodingRule(decoder))).read(IMAGES)
    rule = DecodingRule(decoder, aggregate=aggregate, temperature=temperature)
    texts = reader.with_decoder(decoder_of(rule)).read(IMAGES)
    for path, before, text in zip(IMAGES, plain, texts, strict=True):
        assert text.text == before.text
        assert [(c.start, c.end) for c in text.chars] == [(c.start, c.end) for c in before.chars]
        logits = reader.run([reader.prepare(path)]).logits
        assert logits is not None
        log_probs = (torch.from_numpy(logits[0]).double() / temperature).log_softmax(1)
        labels = encode(text.text, alphabet, blank)
        peaks = [
            float(log_probs[char.start : char.end, label].max().exp())
            for char, label in zip(text.chars, labels, strict=True)
        ]
        assert np.allclose([char.confidence for char in text.chars], peaks, rtol=1e-4)
        loss = torch.nn.functional.ctc_loss(
            log_probs[:, None], torch.tensor([labels]), [len(log_probs)], [len(labels)], blank, "sum"
        )
        wanted = {
            "min": min(peaks),
            "mean": sum(peaks) / len(peaks),
            "product": math.prod(peaks),
            "likelihood": math.exp(-float(loss) / len(labels)),
        }[aggregate]
        assert math.isclose(text.confidence, wanted, rel_tol=1e-3)


def test_alternatives_survive_a_temperature() -> None:
    reader = Recognizer()
    [plain] = reader.with_decoder(Beam(nbest=3)).read(IMAGES[:1])
    [warm] = reader.with_decoder(Confidence(Beam(nbest=3), "min", 3.0)).read(IMAGES[:1])
    assert warm.alternatives == plain.alternatives and warm.confidence < plain.confidence


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1), st.integers(1, 12))
def test_expected_calibration_error_by_brute_force(texts: list[tuple[float, bool]], bins: int) -> None:
    found = reliability(np.array([c for c, _ in texts]), np.array([r for _, r in texts]), bins)
    total = 0.0
    for at in range(bins):
        inside = [(c, r) for c, r in texts if min(int(c * bins), bins - 1) == at]
        assert found.images[at] == len(inside)
        total += abs(sum(c for c, _ in inside) - sum(r for _, r in inside))
    assert math.isclose(found.ece, total / len(texts), abs_tol=1e-9)
    assert sum(row["images"] for row in found.to_plain()) == len(texts)


def test_the_temperature_is_that_of_how_the_truth_was_drawn() -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(1, 3, 40_000)
    right = rng.random(odds.size) < 1 / (1 + np.exp(-odds))  # as sure as the odds say
    factors = (0.25, 0.5, 1.0, 2.0, 4.0)
    columns = np.stack([1 / (1 + np.exp(-odds * factor)) for factor in factors], axis=1)
    assert factors[best_temperature(columns, right)] == 1.0


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy drawn words, many of which are read wrong, as labels.tsv with images beside it."""
    fonts = pytest.importorskip("crnn_deploy.synthesis.fonts")
    renderer = pytest.importorskip("crnn_deploy.synthesis.renderer")
    data = Path(pytest.importorskip("matplotlib").get_data_path()) / "fonts"
    faces = [face for face in fonts.scan(folders=[data]) if "DejaVuSans" in face.path.name]
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    drawing = renderer.Renderer(faces, letters)
    folder = tmp_path_factory.mktemp("labelled")
    lines = []
    rng = np.random.default_rng(11)
    for at in range(160):
        text = "".join(letters[i] for i in rng.integers(len(letters), size=int(rng.integers(3, 7))))
        pixels = drawing.render(text, rng, strength=0.8)
        cv2.imwrite(str(folder / f"{at}.png"), pixels)
        lines.append(f"{at}.png\t{text}\n")
    (folder / "labels.txt").write_text("".join(lines), encoding="utf-8")
    return folder / "labels.txt"


def calibrate(*args: object) -> Result:
    return CliRunner().invoke(main, ["calibrate-confidence", *map(str, args)])


def test_calibration_from_images_to_the_models_file(labelled: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    path, page, figures = tmp_path / "m.onnx", tmp_path / "m.html", tmp_path / "m.json"
    result = calibrate(DEFAULT, labelled, "-o", path, "--html", page, "--json-file", figures)
    assert (result.exit_code, result.stderr) == (0, "")
    plain = json.loads(figures.read_text())
    assert plain["fitted_images"] + plain["held_out_images"] == 160 and plain["failed"] == 0
    assert plain["log_loss_after"] <= plain["log_loss_before"]
    for when in ("before", "after"):
        rows = plain[when]
        assert sum(row["images"] for row in rows) == plain["held_out_images"]
        ece = sum(row["images"] * abs(row["accuracy"] - row["confidence"]) for row in rows)
        assert math.isclose(ece / plain["held_out_images"], plain[f"ece_{when}"], rel_tol=1e-9)
    assert f"{plain['ece_before']:.4f}" in result.stdout and f"{plain['ece_after']:.4f}" in page.read_text()
    assert "data:image/png;base64," in page.read_text()
    # the file reads the same texts, as sure as the temperature says
    before, after = Recognizer(), Recognizer.load(path)
    assert after.manifest == replace(before.manifest, decoding=DecodingRule(temperature=plain["temperature"]))
    assert plain["temperature"] > 1
    images = sorted(labelled.parent.glob("*.png"))[:20]
    for one, other in zip(before.read(images), after.read(images), strict=True):
        assert one.text == other.text and other.confidence < one.confidence
    # again, in place, another way to make a line's confidence; texts are found as the file says
    again = calibrate(path, labelled, "-o", path, "--confidence", "product")
    assert again.exit_code in (0, 1), again.stderr  # 1: no better on the images held out
    if again.exit_code == 0:
        assert Recognizer.load(path).manifest.decoding.aggregate == "product"
    else:
        assert "nothing is written" in again.stderr
        assert Recognizer.load(path).manifest == after.manifest


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ([DEFAULT, "few.txt", "-o", "o.onnx"], "give 60 or more"),
        ([DEFAULT, "same.txt", "-o", "o.onnx"], "there must be 3 or more"),
        (["m.engine", "few.txt", "-o", "o.engine"], "no model file"),
        (["few.txt", "few.txt", "-o", "o.onnx"], "only an .onnx file can be changed"),
        ([DEFAULT, "none.txt", "-o", "o.onnx"], "no dataset at none.txt"),
        ([DEFAULT, "few.txt", "few.txt", "-o", "o.onnx"], "named twice"),
    ],
)
def test_what_cannot_be_calibrated_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[object], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("few.txt").write_text(f"{IMAGES[0]}\tPrinted\n", encoding="utf-8")
    Path("same.txt").write_text(f"{IMAGES[0]}\tPrinted\n" * 70, encoding="utf-8")
    result = calibrate(*args)
    assert result.exit_code == 2 and says in result.stderr, result.stderr
    assert not Path("o.onnx").exists()
