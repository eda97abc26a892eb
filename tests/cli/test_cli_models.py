"""`export`, `verify` and `describe` as a person runs them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from crnn_deploy.cli.main import main
from crnn_deploy.export.reference import open_reference
from crnn_deploy.models import DEFAULT, DEFAULT_INT8
from crnn_deploy.networks.clovaai import FourStage, vgg
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.recognizer import Recognizer

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parents[3] / "shared" / "data"
DIGITS = "0123456789"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "net CRNN-ü.pth"
    torch.save(CRNN(32, 1, 11, hidden=8, widths=(4, 4, 8, 8, 8, 8, 8)).state_dict(), path)
    return path


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Path:
    result = run(
        "export", "--checkpoint", checkpoint, "--recipe", "crnn.pytorch", "--alphabet-string", DIGITS
    )
    assert result.exit_code == 0, result.output
    assert "PASSED" in result.stdout and "11 classes" in result.stdout
    return checkpoint.with_suffix(".onnx")


@pytest.mark.parametrize(
    ("saved", "recipe", "expected"),
    [
        (
            {},
            None,
            "ReLU (assumed: nothing in the checkpoint tells it; if it was trained with LeakyReLU, "
            "give --activation leaky-relu)",
        ),
        ({"opt": {"leakyRelu": True}}, None, "LeakyReLU (saved beside the weights)"),
        ({"opt": {"leakyRelu": False}}, "leaky_relu = true", "LeakyReLU (recipe own)"),
    ],
)
def test_export_says_which_activation_it_took_and_why(
    saved: dict[str, Any], recipe: str | None, expected: str, checkpoint: Path, tmp_path: Path
) -> None:
    state = torch.load(checkpoint, weights_only=True)
    torch.save({"state_dict": state, **saved}, tmp_path / "x.pth")
    arguments = ["--checkpoint", tmp_path / "x.pth", "--alphabet-string", DIGITS]
    if recipe is None:
        arguments += ["--recipe", "crnn.pytorch"]
    else:
        (tmp_path / "own.toml").write_text(f'base = "paper"\n{recipe}\n')
        arguments += ["--recipe", tmp_path / "own.toml"]
    result = run("export", *arguments)
    assert result.exit_code == 0, result.output
    assert f"\nactivation: {expected}\n" in result.stdout
    assert ("LeakyRelu" in run("inspect", tmp_path / "x.onnx").stdout) == expected.startswith("Leaky")


def test_export_says_what_it_assumed(tmp_path: Path) -> None:
    """Another recipe, activation or alphabet would give wrong texts without an error."""
    torch.manual_seed(0)
    network = CRNN(32, 1, 37, hidden=8, widths=(4, 4, 8, 8, 8, 8, 8))
    torch.save(network.state_dict(), tmp_path / "x.pth")
    characters = "0123456789abcdefghijklmnopqrstuvwxyz"
    found = run("export", "--checkpoint", tmp_path / "x.pth")
    assert f"\nalphabet: {characters} (36: the recipe crnn.pytorch's, assumed)\n" in found.stdout
    said = found.stdout.splitlines()[-1]
    assert said.startswith(f"{tmp_path / 'x.onnx'}: crnn, recipe crnn.pytorch (assumed")
    assert "gray, height 32, width 100 whatever the aspect, pillow-bilinear" in said
    assert said.endswith(f"assumed: the recipe crnn.pytorch, ReLU, the alphabet {characters}")
    [warning] = found.stderr.splitlines()
    assert all(f"--{option}" in warning for option in ("recipe", "activation", "alphabet"))
    source = Recognizer.load(tmp_path / "x.onnx").manifest.source
    assert source["assumed"] == "recipe, activation, alphabet" and "assumed" in source["activation"]
    given = ("--recipe", "paper", "--activation", "leaky-relu", "--alphabet-string", characters)
    told = run("export", "--checkpoint", tmp_path / "x.pth", *given)
    assert told.exit_code == 0 and told.stderr == "" and told.stdout.endswith("; assumed: nothing\n")
    assert "recipe paper (--recipe), gray, height 32, width in proportion (100 to 1600 in mult" in told.stdout
    assert "\nactivation: LeakyReLU (--activation leaky-relu)\n" in told.stdout
    assert "LeakyRelu" in run("inspect", tmp_path / "x.onnx").stdout
    # a checkpoint beside its model takes over what the model says of it
    verified = run("verify", tmp_path / "x.pth", tmp_path / "x.onnx")
    assert verified.exit_code == 0, verified.output
    wrong = run("verify", tmp_path / "x.pth", tmp_path / "x.onnx", "--activation", "relu")
    assert wrong.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--recipe", "paper", "--alphabet-string", "012"), ("3 characters", "11")),
        (("--alphabet-string", DIGITS), ("--recipe NAME", "crnn.pytorch")),
        (
            ("--alphabet", "missing.txt"),
            ("no alphabet file at missing.txt; --alphabet-string takes the characters themselves",),
        ),
        (
            ("--recipe", "paper"),
            ("the recipe paper has 36 characters, so 37 classes", "pass the 10 characters", "--alphabet"),
        ),
        (
            ("--recipe", "sierkinhane-360cc"),
            (" holds an alphabet; pass the 10 characters it was trained on with --alphabet FILE (",),
        ),
        (("--recipe", "nothing"), ("no recipe 'nothing'", "crnn.pytorch")),
        (("--recipe", "missing.toml"), ("no recipe file",)),
        (("--alphabet-string", DIGITS, "-o", "x.pb"), (".onnx",)),
    ],
)
def test_export_says_in_one_line_what_is_wrong(
    arguments: tuple[str, ...], expected: tuple[str, ...], checkpoint: Path
) -> None:
    result = run("export", "--checkpoint", checkpoint, *arguments)
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert all(part in result.stderr for part in expected), result.stderr
    assert result.stdout == ""


def four_stage(path: Path, channels: int, classes: int) -> Path:
    """Weights of EasyOCR's second generation (256 channels), or of clovaai."""
    torch.manual_seed(0)
    torch.save(FourStage(vgg(1, channels), channels, 8, classes).state_dict(), path)
    return path


def test_a_recipe_of_another_network_gets_a_warning(checkpoint: Path, tmp_path: Path) -> None:
    """Its texts would be wrong without an error."""
    given = ("--checkpoint", checkpoint, "--recipe", "mmocr", "--alphabet-string", DIGITS)
    result = run("export", *given, "-o", tmp_path / "x.onnx")
    assert result.exit_code == 0, result.output
    warning = result.stderr.splitlines()[0]
    assert warning == (
        "warning: the recipe mmocr is of another network; weights of crnn go with crnn.pytorch, paper, "
        "sierkinhane-360cc; name the right one with --recipe, unless mmocr is what they were trained with"
    )


def test_a_recipe_that_fits_is_not_doubted(tmp_path: Path) -> None:
    path = four_stage(tmp_path / "x.pth", 256, 97)
    (tmp_path / "paper.toml").write_text('base = "paper"\n')
    characters = RECIPES["easyocr-english-g2"].alphabet

    def doubt(recipe: str) -> str | None:
        return open_reference(path, CheckpointSettings(recipe, alphabet=characters)).manifest.source.get(
            "doubt"
        )

    for fits in ("easyocr-english-g2", "easyocr-g2", "easyocr-cyrillic-g2", "clovaai-vgg-sensitive"):
        assert doubt(fits) is None
    assert doubt(str(tmp_path / "paper.toml")) is None  # the user's own
    found = doubt("paper")
    assert found is not None and "go with easyocr-english-g2, easyocr-g2, clovaai-vgg; name" in found


@pytest.mark.parametrize(
    ("classes", "recipe", "expected"),
    [
        (
            97,
            "paper",
            "the recipe paper has 36 characters, so 37 classes with the blank, but the network puts out 97; "
            "pass the 96 characters it was trained on with --alphabet, or name the recipe that has them with "
            "--recipe easyocr-english-g2\n",
        ),
        (
            352,
            "easyocr-english-g2",
            "so 97 classes with the blank, but the network puts out 352; pass the 351 ",
        ),
        (
            352,
            "easyocr-g2",
            "holds an alphabet; pass the 351 characters it was trained on with --alphabet FILE, or name the "
            "recipe that has them with --recipe easyocr-latin-g2 (crnn-deploy recipes shows where ",
        ),
        (
            51,
            "easyocr-g2",
            "pass the 50 characters it was trained on with --alphabet FILE (crnn-deploy recipes",
        ),
    ],
)
def test_a_recipe_without_the_characters_names_one_that_has_them(
    classes: int, recipe: str, expected: str, tmp_path: Path
) -> None:
    path = four_stage(tmp_path / "x.pth", 256, classes)
    result = run("export", "--checkpoint", path, "--recipe", recipe)
    assert result.exit_code == 2 and expected in result.stderr, result.stderr
    assert "github.com" not in result.stderr and len(result.stderr) - len(str(path)) < 250
    whole = run("export", "--checkpoint", path, "--recipe", recipe, "--alphabet-string", "abc")
    assert "Error: the alphabet has 3 characters" in whole.stderr


def test_a_quantised_model_and_one_in_float_do_not_replace_each_other(
    checkpoint: Path, model: Path, tmp_path: Path
) -> None:
    quantised, in_float = tmp_path / "m.int8.onnx", tmp_path / "m.onnx"
    shutil.copy(DEFAULT_INT8, quantised)
    shutil.copy(DEFAULT, in_float)
    (tmp_path / "scales.json").touch()
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    before = quantised.read_bytes(), in_float.read_bytes()
    export = ("export", "--checkpoint", checkpoint, "--recipe", "crnn.pytorch", "--alphabet-string", DIGITS)
    for over, command in (
        (quantised, export),
        (in_float, ("quantize", model, "--scales", tmp_path / "scales.json")),
        (quantised, ("describe", model, "--recipe", "crnn.pytorch")),
        (quantised, ("set-decoding", in_float)),
        (in_float, ("set-decoding", quantised)),
        (quantised, ("calibrate-confidence", in_float, ROOT / "examples" / "labels.txt")),
    ):
        result = run(*command, "-o", over)
        kind = "a quantised model" if over == quantised else "a model in float"
        assert result.exit_code == 2
        assert result.stderr == f"Error: {over} is {kind}; name another output, or remove it first\n"
    assert before == (quantised.read_bytes(), in_float.read_bytes())
    # what the same command wrote, and what is no model, is replaced
    assert run("set-decoding", quantised, "-o", quantised).exit_code == 0
    for over in (in_float, tmp_path / "broken.onnx"):
        assert run(*export, "-o", over).exit_code == 0
        assert Recognizer.load(over).manifest.alphabet == tuple(DIGITS)


@pytest.mark.parametrize(
    "command",
    [
        "verify MODEL IMAGES",
        "verify IMAGES MODEL",
        "verify MODEL IMAGES/03.png",
        "benchmark MODEL IMAGES",
        "build-engine IMAGES",
    ],
)
def test_images_in_the_place_of_a_model_are_told(command: str) -> None:
    images = ROOT / "examples" / "images"
    result = run(*command.replace("MODEL", str(DEFAULT)).replace("IMAGES", str(images)).split())
    told = (
        "it is an image, not a model"
        if command.endswith("png")
        else "give a model's file, such as model.onnx"
    )
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert f"{told}; images are given with --images\n" in result.stderr


def test_verify(checkpoint: Path, model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    result = run("verify", checkpoint, model, "--json-file", report)
    assert result.exit_code == 0, result.output
    facts = json.loads(report.read_text())
    assert facts["passed"] and facts["text_changes"] == 0 and facts["cer"] == 0 and facts["images"] > 12
    assert run("verify", model, model).exit_code == 0


def test_verify_fails_on_other_weights(checkpoint: Path, model: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    state["rnn.1.embedding.bias"][3] += 0.5
    torch.save(state, tmp_path / "other.pth")
    result = run("verify", tmp_path / "other.pth", model)
    assert result.exit_code == 1
    assert "FAILED" in result.stdout and "flip" in result.stdout
    # small enough for the tolerance, and no argmax in reach
    assert run("verify", model, model, "--tolerance", "0").exit_code == 0


def test_verify_fails_on_nan_and_says_so(checkpoint: Path, model: Path, tmp_path: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)
    state["rnn.1.embedding.bias"][3] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    broken = onnx.load(model)
    bias = next(tensor for tensor in broken.graph.initializer if tensor.name == "rnn.1.embedding.bias")
    bias.CopyFrom(numpy_helper.from_array(state["rnn.1.embedding.bias"].numpy(), bias.name))
    onnx.save(broken, tmp_path / "nan.onnx")
    result = run("verify", model, tmp_path / "nan.onnx", "--json-file", tmp_path / "report.json")
    assert result.exit_code == 1
    assert "FAILED" in result.stdout and "the candidate put out NaN" in result.stdout

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    facts = json.loads((tmp_path / "report.json").read_text(), parse_constant=refuse)
    assert not facts["passed"] and facts["max_delta"] is None
    result = run(
        *("export", "--checkpoint", tmp_path / "nan.pth", "--recipe", "paper", "--alphabet-string", DIGITS),
        *("-o", tmp_path / "x.onnx"),
    )
    assert (
        result.exit_code == 2 and "hold NaN (1 of 11 values), first in rnn.1.embedding.bias" in result.stderr
    )
    assert not (tmp_path / "x.onnx").exists()


def test_verify_refuses_models_that_do_not_compare(model: Path, tmp_path: Path) -> None:
    changed = onnx.load(model)
    entry = changed.metadata_props[0]
    plain = json.loads(entry.value)
    plain["alphabet"][0] = "x"
    entry.value = json.dumps(plain)
    onnx.save(changed, tmp_path / "other.onnx")
    result = run("verify", model, tmp_path / "other.onnx")
    assert result.exit_code == 2 and "differ in alphabet" in result.stderr


def test_verify_on_images(checkpoint: Path, model: Path, tmp_path: Path) -> None:
    import cv2

    rng = np.random.default_rng(0)
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 256, (20 + i, 90, 3), np.uint8))
    result = run("verify", checkpoint, model, "--images", tmp_path)
    assert result.exit_code == 0 and "5 images" in result.stdout
    (tmp_path / "empty").mkdir()
    assert run("verify", checkpoint, model, "--images", tmp_path / "empty").exit_code == 2


def foreign(
    path: Path,
    characters: str | None,
    *,
    softmax: bool,
    layout: str = "NTC",
    classes: int = 5,
    batch: int | str = "n",
    last: str = "Identity",
) -> Path:
    """A CTC model as other exporters write it: 3 x 48 x width, no manifest.

    last: what becomes of the output (N, T, C): nothing; a Reshape to the declared batch, and for Frozen to
        the time steps of width 48; or Sub, its mean over the batch taken off
    """
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "kernel": rng.normal(0, 0.3, (classes, 3, 48, 8)).astype(np.float32),
        "axes": np.array([2], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["features"], strides=[48, 8]),
        helper.make_node("Squeeze", ["features", "axes"], ["nct"]),
        helper.make_node("Transpose", ["nct"], ["ntc"], perm=[0, 2, 1]),
        helper.make_node("Softmax" if softmax else "Identity", ["ntc"], ["scores"]),
        helper.make_node(
            "Transpose",
            ["scores"],
            ["out"],
            perm={"NTC": [0, 1, 2], "TNC": [1, 0, 2], "NCT": [0, 2, 1]}[layout],
        ),
    ]
    if last in ("Reshape", "Frozen"):
        weights["shape"] = np.array([batch, -1 if last == "Reshape" else 6, classes], np.int64)
        nodes[-1].output[0] = "free"
        nodes.append(helper.make_node("Reshape", ["free", "shape"], ["out"]))
    elif last == "Sub":
        nodes[-1].output[0] = "free"
        nodes.append(helper.make_node("ReduceMean", ["free"], ["mean"], axes=[0]))
        nodes.append(helper.make_node("Sub", ["free", "mean"], ["out"]))
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 48, "w"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, None, None])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if characters is not None:
        helper.set_model_props(made, {"character": characters})
    onnx.save(made, path)
    return path


RECIPE = """
color = "bgr"
height = 48
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[width]
minimum = 48
maximum = 3200
multiple = 8
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "paddle.toml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize("layout", ["NTC", "TNC", "NCT"])
@pytest.mark.parametrize("softmax", [False, True])
def test_describe(layout: str, softmax: bool, recipe: Path, tmp_path: Path) -> None:
    path = foreign(tmp_path / "rec.onnx", None, softmax=softmax, layout=layout)
    out = tmp_path / "out.onnx"
    assert run("infer", "--model", path, tmp_path / "rec.onnx").exit_code == 2  # no manifest yet
    result = run("describe", path, "--recipe", recipe, "--alphabet-string", "abcd", "-o", out)
    assert result.exit_code == 0, result.output
    backend = OrtBackend(out)
    assert backend.manifest.output == ("log-probs" if softmax else "logits")
    assert backend.manifest.steps(160) == 20
    images = np.random.default_rng(1).normal(0, 1, (2, 3, 48, 160)).astype(np.float32)
    session = OrtBackend(out).run(images)
    kernel = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    expected = torch.conv2d(torch.from_numpy(images), torch.tensor(kernel), stride=(48, 8))[:, :, 0].permute(
        0, 2, 1
    )
    np.testing.assert_array_equal(session.indices, expected.argmax(2).numpy())
    np.testing.assert_allclose(session.probabilities, expected.softmax(2).amax(2).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("characters", "classes", "alphabet"),
    [("a\nb\nc\nd", 5, "abcd"), ("a\nb\nc", 5, "abc "), ("a\nb\nc\n", 4, "abc")],
)
def test_describe_uses_the_characters_of_paddle(
    characters: str, classes: int, alphabet: str, recipe: Path, tmp_path: Path
) -> None:
    path = foreign(tmp_path / "rec.onnx", characters, softmax=True, classes=classes)
    assert run("describe", path, "--recipe", recipe, "-o", tmp_path / "out.onnx").exit_code == 0
    assert "".join(OrtBackend(tmp_path / "out.onnx").manifest.alphabet) == alphabet


def test_describe_says_which_alphabet_it_took(recipe: Path, tmp_path: Path) -> None:
    path = foreign(tmp_path / "rec.onnx", None, softmax=True, classes=37)
    given = "abcdefghijklmnopqrstuvwxyz0123456789"
    result = run(
        "describe", path, "--recipe", recipe, "--alphabet-string", given, "-o", tmp_path / "out.onnx"
    )
    assert f"alphabet: {given} (36: --alphabet)" in result.stdout and not result.stderr
    recipe.write_text('base = "paper"\n' + RECIPE)
    result = run("describe", path, "--recipe", recipe, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0, result.output
    assert (
        "alphabet: 0123456789abcdefghijklmnopqrstuvwxyz (36: the recipe paddle's, assumed)" in result.stdout
    )
    assert (
        "warning: assumed, since the checkpoint does not say it: the alphabet 0123456789" in result.stderr
        and "--alphabet" in result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [(("--alphabet-string", "abc"), ("3 characters", "5")), ((), ("--alphabet",))],
)
def test_describe_refuses(
    arguments: tuple[Any, ...], expected: tuple[str, ...], recipe: Path, tmp_path: Path
) -> None:
    path = foreign(tmp_path / "rec.onnx", None, softmax=False)
    result = run("describe", path, "--recipe", recipe, *arguments, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 2 and all(part in result.stderr for part in expected), result.stderr
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_describe_frees_a_batch_that_is_only_declared(batch: int, recipe: Path, tmp_path: Path) -> None:
    fixed = foreign(tmp_path / "fixed.onnx", None, softmax=True, batch=batch)
    free = foreign(tmp_path / "free.onnx", None, softmax=True)
    frames = []
    for path in (fixed, free):
        out = path.with_suffix(".out.onnx")
        result = run("describe", path, "--recipe", recipe, "--alphabet-string", "abcd", "-o", out)
        assert result.exit_code == 0, result.output
        images = np.random.default_rng(1).normal(0, 1, (4, 3, 48, 160)).astype(np.float32)
        frames.append(OrtBackend(out).run(images))
    np.testing.assert_array_equal(frames[0].probabilities, frames[1].probabilities)


@pytest.mark.parametrize(
    ("batch", "last"),
    [("n", "Sub"), (2, "Sub")],
)
def test_describe_refuses_a_graph_that_joins_images(
    batch: int | str, last: str, recipe: Path, tmp_path: Path
) -> None:
    path = foreign(tmp_path / "rec.onnx", None, softmax=False, batch=batch, last=last)
    out = tmp_path / "out.onnx"
    result = run("describe", path, "--recipe", recipe, "--alphabet-string", "abcd", "-o", out)
    assert result.exit_code == 2 and "otherwise in a batch than alone" in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1 and not out.exists()


@pytest.mark.parametrize("batch", [1, 2])
def test_describe_keeps_to_a_batch_that_stands_in_the_graph(batch: int, recipe: Path, tmp_path: Path) -> None:
    path = foreign(tmp_path / "rec.onnx", None, softmax=False, batch=batch, last="Reshape")
    out = tmp_path / "out.onnx"
    result = run("describe", path, "--recipe", recipe, "--alphabet-string", "abcd", "-o", out)
    assert result.exit_code == 0 and f"note: its graph is made for batches of {batch}" in result.stdout
    assert OrtBackend(out).manifest.max_batch == batch
    frozen = foreign(tmp_path / "rec.onnx", None, softmax=False, batch=batch, last="Frozen")
    result = run(
        "describe", frozen, "--recipe", recipe, "--alphabet-string", "abcd", "-o", tmp_path / "x.onnx"
    )
    assert result.exit_code == 2 and "runs on images 48 pixels wide" in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / "x.onnx").exists()


def test_the_recogniser_of_rapidocr(tmp_path: Path) -> None:
    """PP-OCRv4 as its wheel carries it, told by its own characters, on words that were read by eye."""
    rapidocr = importlib.util.find_spec("rapidocr_onnxruntime")
    if rapidocr is None or rapidocr.origin is None or not DATA.exists():
        pytest.skip("needs pip install rapidocr_onnxruntime, and the shared images")
    model = Path(rapidocr.origin).parent / "models" / "ch_PP-OCRv4_rec_infer.onnx"
    result = run("describe", model, "--recipe", "paddleocr", "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0, result.output
    labels = (DATA / "scene_words_demo" / "labels.tsv").read_text(encoding="utf-8").splitlines()
    truth = dict(line.split("\t") for line in labels)
    texts = Recognizer.load(tmp_path / "out.onnx").read([DATA / "scene_words_demo" / name for name in truth])
    assert sum(text.text == label for text, label in zip(texts, truth.values(), strict=True)) >= 13
    facts = json.loads(run("inspect", tmp_path / "out.onnx", "--json").stdout)
    assert facts["parameters"] > 2_000_000 and facts["alphabet"].startswith("6624 characters")


def test_a_graph_without_convolutions(recipe: Path, tmp_path: Path) -> None:
    """Its columns of pixels are its scores."""
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    numbers = [numpy_helper.from_array(np.array([n], np.int64), name) for name, n in (("from", 0), ("to", 5))]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["grey"], axes=[1], keepdims=0),
        helper.make_node("Slice", ["grey", "from", "to", "axes"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["out"], perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 48, "w"])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, None, None])],
        [axes, *numbers],
    )
    path, out = tmp_path / "x.onnx", tmp_path / "out.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        path,
    )
    result = run("describe", path, "--recipe", recipe, "--alphabet-string", "ab\x1bd", "-o", out)
    assert result.exit_code == 0, result.output
    shown = run("inspect", out)
    assert shown.exit_code == 0 and "48 px 0.000 G" in shown.stdout
    assert "4 characters: ab\\x1bd" in shown.stdout and "\x1b" not in shown.stdout
    run("describe", path, "--recipe", recipe, "--alphabet-string", "abcd", "-o", out)
    calibrated = run("calibrate", out, "-o", tmp_path / "x.json")
    assert calibrated.exit_code == 2 and "no convolution or matrix product" in calibrated.stderr


@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--json"], ["export", "--checkpoint"]])
def test_a_closed_stdout_ends_without_a_traceback(
    command: list[str], checkpoint: Path, tmp_path: Path
) -> None:
    read, write = os.pipe()
    os.close(read)
    arguments = [*command, str(checkpoint), "--recipe", "paper", "--alphabet-string", DIGITS]
    arguments += ["-o", str(tmp_path / "x.onnx")] if command[0] == "export" else []
    done = subprocess.run(
        [sys.executable, "-m", "crnn_deploy", *arguments],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    os.close(write)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "unexpected" not in done.stderr


def test_no_manifest_names_describe(tmp_path: Path) -> None:
    path, image = foreign(tmp_path / "rec.onnx", None, softmax=False), tmp_path / "a.png"
    image.touch()
    for arguments in (("inspect", path), ("verify", path, path), ("infer", "--model", path, image)):
        result = run(*arguments)
        assert result.exit_code == 2 and "crnn-deploy describe" in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("module", "library", "arguments", "extra"),
    [
        ("pydantic", "Pydantic", ["train", "--config", "any.yaml"], "train"),
        ("PIL", "Pillow", ["dataset", "fonts"], "train"),
        ("onnx", "ONNX", ["inspect", str(DEFAULT)], "export"),
        ("rapidfuzz", "RapidFuzz", ["evaluate", "any.onnx", "labels.txt"], "evaluate"),
    ],
)
def test_a_missing_extra_is_named(module: str, library: str, arguments: list[str], extra: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        f"from crnn_deploy.cli.main import main; main({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"Error: this command needs {library}; run pip install 'crnn-deploy[{extra}]'"
    ]
