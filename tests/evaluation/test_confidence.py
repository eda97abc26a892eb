"""Calibration of confidences, from images to the model's file."""

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

pytest.importorskip("onnxruntime")

from crnn_deploy.cli.main import main
from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.recognizer import Recognizer

IMAGES = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))


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


@pytest.fixture(scope="module")
def too_sure(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model with logits twice as large: it reads the same texts, and is far too sure of them."""
    onnx = pytest.importorskip("onnx")
    model, path = onnx.load(DEFAULT), tmp_path_factory.mktemp("too_sure") / "too_sure.onnx"
    values = {value.name: value for value in model.graph.initializer}
    made = {name: node for node in model.graph.node for name in node.output}
    node = made["logits"]
    while node.op_type not in ("MatMul", "Gemm"):  # the bias, and what only moves logits
        for name in node.input:
            if name in values and node.op_type == "Add":
                _double(values[name])
        node = next(made[name] for name in node.input if name in made)
    for name in node.input:
        if name in values:
            _double(values[name])
    onnx.save(model, path)
    return path


def _double(tensor: Any) -> None:
    from onnx import numpy_helper

    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))


def calibrate(*args: object) -> Result:
    return CliRunner().invoke(main, ["calibrate-confidence", *map(str, args)])


def test_calibration_from_images_to_the_models_file(labelled: Path, too_sure: Path, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    path, page, figures = tmp_path / "m.onnx", tmp_path / "m.html", tmp_path / "m.json"
    result = calibrate(too_sure, labelled, "-o", path, "--html", page, "--json-file", figures)
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
    before, after = Recognizer.load(too_sure), Recognizer.load(path)
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
