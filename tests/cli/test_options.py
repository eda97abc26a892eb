"""Every option of every command: one name, one meaning, said in a sentence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from click.testing import CliRunner, Result

import crnn_deploy
from crnn_deploy.cli.main import main
from crnn_deploy.datasets import Kind
from crnn_deploy.models import DEFAULT

VERBS = frozenset(  # that help texts begin with
    (
        *("add", "allow", "build", "change", "check", "choose", "compare", "compute", "continue"),
        *("count", "draw", "evaluate", "expect", "export", "fail", "find", "finetune", "fit"),
        *("give", "judge", "keep", "learn", "let", "list", "listen", "load", "look", "make"),
        *("measure", "multiply", "pack", "print", "put", "quantise", "read", "refuse", "report"),
        *("run", "save", "set", "show", "split", "take", "train", "use", "weigh"),
        *("work", "write"),
    )
)


def commands(command: click.Command = main, name: str = "crnn-deploy") -> Iterator[tuple[str, click.Command]]:
    """Each command with its whole name, groups and what is in them."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for nested in command.list_commands(context):
            found = command.get_command(context, nested)
            assert found is not None
            yield from commands(found, f"{name} {nested}")


COMMANDS = dict(commands())
OPTIONS = [
    (name, option)
    for name, command in COMMANDS.items()
    for option in command.params
    if isinstance(option, click.Option)
]


def kind_of(option: click.Option) -> tuple[Any, ...]:
    """What an option takes: a choice, a range, a path, or nothing."""
    return option.is_flag, option.nargs, repr(option.type.to_info_dict())


def test_a_name_of_an_option_has_one_type_and_one_help_text() -> None:
    assert len(COMMANDS) > 20 and len(OPTIONS) > 150
    meanings: dict[str, dict[tuple[Any, ...], list[str]]] = {}
    for command, option in OPTIONS:
        for name in (*option.opts, *option.secondary_opts):
            known = meanings.setdefault(name, {})
            known.setdefault((*kind_of(option), option.help), []).append(command)
    assert {name: found for name, found in meanings.items() if len(found) > 1} == {}


def test_a_short_option_stands_for_one_long_one_and_outputs_have_both() -> None:
    long_of: dict[str, set[str]] = {}
    for command, option in OPTIONS:
        longs = [name for name in option.opts if name.startswith("--")]
        assert longs, (command, option.opts)
        for short in set(option.opts) - set(longs):
            long_of.setdefault(short, set()).update(longs)
    assert long_of == {"-o": {"--output"}}


@pytest.mark.parametrize(("command", "option"), OPTIONS, ids=lambda value: getattr(value, "name", value))
def test_a_help_text_is_a_whole_sentence(command: str, option: click.Option) -> None:
    """An imperative with a capital letter and a full stop; the default stands in click's brackets alone."""
    assert is_sentence(option.help), (command, option.opts, option.help)
    assert "[default" not in str(option.help)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_in_a_sentence_what_it_does(name: str) -> None:
    first, _, rest = str(COMMANDS[name].help).partition("\n\n")
    assert is_sentence(" ".join(first.split())), first
    assert not rest or rest.rstrip()[-1] in ".:" or "\b" in rest


def is_sentence(text: str | None) -> bool:
    """Whether it begins with an imperative."""
    found = re.match(r"([A-Z][a-z]+)\b.*\.$", text or "", re.DOTALL)
    return found is not None and found[1].lower() in VERBS


@pytest.mark.parametrize(
    "riddle",
    [
        "And exit.",
        "It is sure where its weakest frame is above this.",
        "A line's from its characters'.",
        "Pixels.",
    ],
)
def test_a_riddle_is_no_sentence(riddle: str) -> None:
    assert not is_sentence(riddle)


def test_the_kinds_of_datasets_are_those_of_the_package() -> None:
    [kinds] = {
        tuple(option.type.choices)
        for _, option in OPTIONS
        if isinstance(option.type, click.Choice) and option.opts == ["--kind"]
    }
    assert sorted(kinds) == sorted(get_args(Kind))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


CHECKPOINT_OPTIONS = (
    "--recipe=x",
    "--factory=a:b",
    "--alphabet=x",
    "--alphabet-string=x",
    "--blank=last",
    "--activation=relu",
)


@pytest.mark.parametrize("option", CHECKPOINT_OPTIONS)
@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", DEFAULT, "labels.txt"),
        ("verify", DEFAULT, DEFAULT),
        ("inspect", DEFAULT),
        ("inspect", "x.engine"),
        ("build-engine", DEFAULT),
    ],
    ids=lambda arguments: arguments[0],
)
def test_options_of_a_checkpoint_are_refused_where_none_is_read(
    arguments: tuple[Any, ...], option: str
) -> None:
    result = run(*arguments, option)
    assert result.exit_code == 2
    assert f"Error: {option.partition('=')[0]} describes a checkpoint; " in result.stderr


@pytest.mark.parametrize("option", ["--kind=csv", "--image-folder=x", "--characters=x"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", DEFAULT, DEFAULT),
        ("verify", DEFAULT, DEFAULT, "--images", "x"),
        ("quantize", DEFAULT, "--scales", "s.json", "-o", "x.onnx"),
        ("dataset", "preview", "own.yaml", "-o", "x.png"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_options_of_a_dataset_are_refused_where_none_is_read(arguments: tuple[Any, ...], option: str) -> None:
    result = run(*arguments, option)
    assert result.exit_code == 2 and f"Error: {option.partition('=')[0]} describes " in result.stderr


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (("infer", "--model", "x.engine", "--backend", "openvino", "."), "--backend is for .onnx files"),
        (("infer", "--model", "x.engine", "--device", "cpu", "."), "--device is for .onnx files"),
        (("infer", "--model", "x.engine", "--allow-tf32", "."), "--allow-tf32 is for .onnx files"),
        (("infer", "--allow-tf32", "."), "--allow-tf32 goes with --device cuda"),
        (("infer", "--rebuild", "auto", "IMAGES"), "--rebuild auto is for .engine files"),
        (
            ("infer", "--ignore-accents", "--decoder", "beam", "IMAGES"),
            "--ignore-accents is for the words of a lexicon",
        ),
        (("infer", "--boost", "2", "--decoder", "beam", "IMAGES"), "--boost weighs hotwords"),
        (("verify", DEFAULT, DEFAULT, "--rebuild", "auto"), "--rebuild auto is for .engine files"),
        (
            ("benchmark", DEFAULT, "--images", "x", "--synthetic", "lines"),
            "--synthetic draws images in place",
        ),
        (
            ("quantize", DEFAULT, "x", "--scales", "s", "-o", "y", "--synthetic-images", "9"),
            "--synthetic-images is",
        ),
        (("doctor", "--model", "x.engine"), "TensorRT alone runs an .engine"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(
    tmp_path: Path, arguments: tuple[Any, ...], refused: str
) -> None:
    images = Path(__file__).parents[2] / "examples"
    result = run(*(images if value == "IMAGES" else value for value in arguments))
    assert result.exit_code == 2 and refused in result.stderr, result.stderr


@pytest.mark.parametrize(
    ("arguments", "now"),
    [
        (("build-engine", "--batch"), "--batch-range"),
        (("build-engine", "--widths"), "--width-range"),
        (("benchmark", "--batch"), "--batches"),
        (("benchmark", "--count"), "--max-images"),
        (("dataset", "preview", "--count"), "--max-images"),
        (("calibrate", "--samples"), "--max-images"),
        (("quantize", "--samples"), "--synthetic-images"),
        (("quantize", "--confidence"), "--confident-above"),
        (("quantize", "--target"), "--target-device"),
        (("infer", "--tf32"), "--allow-tf32"),
    ],
)
def test_an_option_that_other_commands_have_says_what_it_is_called_here(
    arguments: tuple[str, ...], now: str
) -> None:
    result = run(*arguments, "x")
    assert result.exit_code == 2
    assert f"No such option '{arguments[-1]}'; here it is called {now}." in result.stderr


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (
            "evaluate --model m.onnx x",
            "give the model as the first argument: crnn-deploy evaluate m.onnx DATA",
        ),
        (
            "evaluate --model=m.onnx x",
            "give the model as the first argument: crnn-deploy evaluate m.onnx DATA",
        ),
        ("evaluate x --model", "give the model as the first argument: crnn-deploy evaluate MODEL DATA"),
        (
            "evaluate --checkpoint c.pth x",
            "give the checkpoint as the first argument: crnn-deploy evaluate c.pth DATA",
        ),
        (
            "verify --model m.onnx",
            "give the model as the first argument: crnn-deploy verify m.onnx CANDIDATE",
        ),
        ("benchmark --model m.onnx", "give the model as the first argument: crnn-deploy benchmark m.onnx"),
        ("inspect --model m.onnx", "give the model as the first argument: crnn-deploy inspect m.onnx"),
        (
            "build-engine --model m.onnx",
            "give the model as the first argument: crnn-deploy build-engine m.onnx",
        ),
        (
            "calibrate --model m.onnx",
            "give the model as the first argument: crnn-deploy calibrate m.onnx [IMAGES]",
        ),
        (
            "quantize --model m.onnx",
            "give the model as the first argument: crnn-deploy quantize m.onnx [DATA]",
        ),
        (
            "calibrate-confidence --model m.onnx x",
            "give the model as the first argument: crnn-deploy calibrate-confidence m.onnx DATA",
        ),
        (
            "set-decoding --model m.onnx",
            "give the model as the first argument: crnn-deploy set-decoding m.onnx",
        ),
        (
            "triton --model m.onnx",
            "give the model as the first argument: crnn-deploy triton m.onnx",
        ),
        ("describe --model m.onnx", "give the model as the first argument: crnn-deploy describe m.onnx"),
        (
            "benchmark --engine m.engine",
            "give the model as the first argument: crnn-deploy benchmark m.engine",
        ),
        (
            "calibrate m.onnx --images crops",
            "give the images as the second argument: crnn-deploy calibrate MODEL.onnx crops",
        ),
        (
            "quantize m.onnx --images crops",
            "give the data as the second argument: crnn-deploy quantize MODEL.onnx crops; "
            "--image-folder is for the images that labels name",
        ),
        (
            "evaluate m.onnx --data crops",
            "give the data as the second argument: crnn-deploy evaluate MODEL crops",
        ),
        ("infer --images crops", "give the images as the first argument: crnn-deploy infer crops"),
        (
            "infer-cluster --images crops",
            "give the images as the first argument: crnn-deploy infer-cluster crops",
        ),
        (
            "dataset check --images crops",
            "give the data as the first argument: crnn-deploy dataset check crops; "
            "--image-folder is for the images that labels name",
        ),
        (
            "infer --engine m.engine",
            "give an .engine file with --model, and the library for an .onnx file with --backend",
        ),
        (
            "export --model c.pth",
            "give a checkpoint with --checkpoint, and the code of your own network with --factory",
        ),
    ],
)
def test_an_option_that_is_an_argument_here_says_so(line: str, hint: str) -> None:
    result = run(*line.split())
    [name] = [word.partition("=")[0] for word in line.split() if word.startswith("--")]
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == f"Error: No such option '{name}'; {hint}."


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("serve m.onnx", "m.onnx is a model; give it with --model m.onnx"),
        ("doctor m.engine", "m.engine is a model; give it with --model m.engine"),
        ("export c.pth --checkpoint d.pth", "c.pth is a checkpoint; give it with --checkpoint c.pth"),
        ("inspect m.onnx c.pth", "Got unexpected extra argument (c.pth)"),
        (
            "describe x.onnx -o y.onnx",
            "Missing option '--recipe'. crnn-deploy recipes lists the built-in ones",
        ),
        ("serve x", "Got unexpected extra argument (x)"),
    ],
)
def test_what_is_too_much_or_missing_says_how_to_give_it(line: str, said: str) -> None:
    result = run(*line.split())
    assert result.exit_code == 2 and result.stderr.splitlines()[-1] == f"Error: {said}"


@pytest.mark.parametrize("checkpoint", ["c.pth", "c.pt", "C.PTH", "c.ckpt", "c.safetensors"])
def test_a_model_among_the_images_is_refused_before_anything_is_read(checkpoint: str) -> None:
    images = str(Path(__file__).parents[2] / "examples" / "images")
    for line, said in (
        (f"infer m.onnx {images}", "m.onnx is a model; give it with --model m.onnx"),
        (f"infer {images} ../M.engine", "../M.engine is a model; give it with --model ../M.engine"),
        (f"infer {images} --model latin m.onnx", "m.onnx is a model; name images in its place"),
        (
            f"infer-cluster {checkpoint} {images} -o x",
            f"{checkpoint} is a checkpoint; export it first: crnn-deploy export --checkpoint {checkpoint}",
        ),
        (
            f"infer {checkpoint} {images}",
            f"{checkpoint} is a checkpoint; export it first: crnn-deploy export --checkpoint {checkpoint}",
        ),
        ("calibrate m.onnx n.onnx -o x.json", "n.onnx is a model; name images in its place"),
        (
            f"evaluate latin {checkpoint}",
            f"{checkpoint} is a checkpoint; name images in its place",
        ),
        ("verify latin latin --images m.onnx", "m.onnx is a model; name images in its place"),
    ):
        result = run(*line.split())
        assert result.exit_code == 2 and not result.stdout
        assert result.stderr.splitlines()[-1] == f"Error: {said}"


def test_a_folder_is_read_whatever_its_name_and_what_is_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "crops.onnx"
    folder.mkdir()
    image = Path(__file__).parents[2] / "examples" / "images" / "01.png"
    (folder / "a.png").write_bytes(image.read_bytes())
    (folder / "m.onnx").touch()
    result = run("infer", folder)
    assert result.exit_code == 0 and result.stdout == f"{folder / 'a.png'}\tPrinted\n", result.stderr


def messages() -> Iterator[str]:
    """Texts of the package's source, each with X for every value in it."""
    for path in sorted(Path(crnn_deploy.__file__).parent.rglob("*.py")):
        found = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        pieces = {piece for node in found if isinstance(node, ast.JoinedStr) for piece in node.values}
        for node in found:
            if isinstance(node, ast.JoinedStr):
                yield "".join(str(one.value) if isinstance(one, ast.Constant) else "X" for one in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in pieces:
                yield node.value


HINTS = sorted({hint for text in messages() for hint in re.findall(r": (crnn-deploy [a-z][^;:\n]*)", text)})


@pytest.mark.parametrize("hint", HINTS)
def test_a_command_that_a_message_ends_with_is_whole(hint: str) -> None:
    [name] = [name for name in COMMANDS if name != "crnn-deploy" and f"{hint} ".startswith(f"{name} ")]
    words = hint.removeprefix(name).split()
    for part in COMMANDS[name].params:
        if part.required:
            assert isinstance(part, click.Argument) or set(part.opts) & set(words), (hint, part.opts)
    assert words
