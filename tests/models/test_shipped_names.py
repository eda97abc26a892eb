"""A shipped model is opened by its name, in Python and by every command that takes a model's file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from crnn_deploy import Recognizer
from crnn_deploy.cli.main import main
from crnn_deploy.errors import ModelNotFound
from crnn_deploy.models import DEFAULT, DEFAULT_INT8, ModelElsewhere, ModelNameUnknown, model_file, shipped

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "examples" / "images" / "01.png"
LABELS = ROOT / "examples" / "labels.txt"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_names_are_those_of_the_files() -> None:
    assert shipped()["latin"] == DEFAULT and shipped()["latin.int8"] == DEFAULT_INT8
    assert all(f"{name}.onnx" == path.name and path.is_file() for name, path in shipped().items())


def test_a_recognizer_is_made_of_a_name_or_a_path() -> None:
    digest = Recognizer().manifest.source
    made = (Recognizer("latin"), Recognizer(str(DEFAULT)), Recognizer.load("latin"), Recognizer.load(DEFAULT))
    for recognizer in made:
        assert recognizer.manifest.source == digest
        assert [text.text for text in recognizer.read([IMAGE])] == ["Printed"]


def test_a_name_goes_before_a_file_and_a_path_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin").write_text("not a model")
    Path("weights").write_text("a checkpoint, say")
    assert model_file("latin") == DEFAULT
    for given in ("./latin", str(tmp_path / "latin"), Path("latin"), "weights", "m.onnx", "gone/latin", ".."):
        assert model_file(given) == Path(given)


@pytest.mark.parametrize("name", ["chinesisch", "", " latin", "LATIN", "\0"])
def test_an_unknown_name_lists_the_shipped_ones(name: str) -> None:
    if not name:
        assert model_file(name) == Path()  # the working folder, as Python has it
        return
    with pytest.raises(ModelNameUnknown) as raised:
        Recognizer.load(name)
    assert "latin, latin.int8" in str(raised.value) and len(str(raised.value).splitlines()) == 1


def test_a_file_that_is_missing_is_still_called_missing() -> None:
    with pytest.raises(ModelNotFound, match=r"no model file at gone\.onnx"):
        Recognizer("gone.onnx")


@pytest.mark.parametrize("options", [(), ("--precision", "int8")])
def test_infer_takes_a_name(options: tuple[str, ...]) -> None:
    named, unnamed = run("infer", "--model", "latin", *options, IMAGE), run("infer", *options, IMAGE)
    assert named.exit_code == 0 and named.stdout == unnamed.stdout


def test_the_name_of_an_int8_file_is_its_model_in_that_precision() -> None:
    asked = run("infer", "--precision", "int8", "--format", "jsonl", IMAGE)
    assert asked.exit_code == 0
    for options in ((), ("--precision", "int8")):
        named = run("infer", "--model", "latin.int8", *options, "--format", "jsonl", IMAGE)
        assert named.stdout == asked.stdout


ARGUMENTS: tuple[tuple[str | Path, ...], ...] = (
    ("infer", "--model", "NAME", IMAGE),
    ("doctor", "--model", "NAME"),
    ("dataset", "check", LABELS, "--model", "NAME"),
    ("evaluate", "NAME", LABELS),
    ("verify", "NAME", "model.onnx", "--images", IMAGE),
    ("verify", "model.onnx", "NAME", "--images", IMAGE),
    ("inspect", "NAME"),
    ("benchmark", "model.onnx", "NAME"),
    ("calibrate", "NAME", IMAGE, "-o", "out.json"),
    ("calibrate-confidence", "NAME", LABELS, "-o", "out.onnx"),
    ("set-decoding", "NAME", "--decoder", "beam", "-o", "out.onnx"),
    ("quantize", "NAME", LABELS, "--scales", "scales.json", "-o", "out.onnx"),
    ("build-engine", "NAME"),
)


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=lambda arguments: arguments[0])
def test_every_command_that_reads_a_model_takes_a_name(
    arguments: tuple[str | Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*("nobody" if word == "NAME" else word for word in arguments))
    assert result.exit_code == 2
    assert "neither a shipped model nor a file is called 'nobody'; shipped are chinese" in result.stderr


@pytest.mark.parametrize("arguments", (*ARGUMENTS, ("triton", "NAME", "-o", "out")), ids=lambda one: one[0])
@pytest.mark.parametrize("folder", ["crops", "crops.onnx"])
def test_a_folder_in_the_place_of_a_model_is_called_one(
    folder: str, arguments: tuple[str | Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(folder).mkdir()
    Path("scales.json").write_text("{}")
    given = (DEFAULT if word == "model.onnx" else word for word in arguments)
    result = run(*(f"./{folder}" if word == "NAME" else word for word in given))
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert f"Error: {folder} is a folder; give a" in result.stderr and ".onnx" in result.stderr


@pytest.mark.parametrize("options", [("--precision", "int8"), ("--precision", "fp32"), ("--backend", "auto")])
def test_a_folder_is_called_one_however_it_is_run(options: tuple[str, str], tmp_path: Path) -> None:
    result = run("infer", "--model", tmp_path, *options, IMAGE)
    assert result.exit_code == 2 and f"{tmp_path} is a folder; give an .onnx" in result.stderr


@pytest.mark.parametrize(
    ("address", "then"),
    [
        ("http://127.0.0.1:8000", "; give a file, or ask a server with crnn_deploy.Client (docs/serving.md)"),
        ("https://ocr.example/v1/read", "; give a file, or ask a server with crnn_deploy.Client"),
        ("s3://models/plates.onnx", "; download the model, and give its file"),
    ],
)
def test_an_address_is_no_model(address: str, then: str) -> None:
    said = f"{address} is an address, but the toolkit runs models itself, from files of this machine{then}"
    with pytest.raises(ModelElsewhere) as raised:
        Recognizer(address)
    assert said in str(raised.value)
    for arguments in (
        ("infer", "--model", address, IMAGE),
        ("serve", "--model", address),
        ("inspect", address),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1 and said in result.stderr


@pytest.mark.parametrize(
    ("command", "found"), [("inspect", "opset"), ("doctor", "onnxruntime"), ("dataset", "images")]
)
def test_commands_open_a_model_by_its_name(command: str, found: str) -> None:
    [arguments] = (one for one in ARGUMENTS if one[0] == command)
    result = run(*("latin" if word == "NAME" else word for word in arguments))
    assert result.exit_code == 0 and found in result.stdout


def test_an_engine_of_a_shipped_model_is_written_where_the_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("latin.engine").mkdir()  # so that it cannot be written
    result = run("build-engine", "latin")
    assert result.exit_code == 2 and "latin.engine: " in result.stderr
    assert str(DEFAULT.parent) not in result.stderr


def test_a_name_that_no_file_can_have_is_unknown() -> None:
    with pytest.raises(ModelNameUnknown):
        model_file("x" * 300)
