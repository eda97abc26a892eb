"""What each extra brings: one table for the command line, `doctor` and setup.cfg, and it is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib.util import find_spec
from pathlib import Path

import click
import pytest
from command_lines import LINES, NOT_RUN, make_inputs

from crnn_deploy.cli.main import main
from crnn_deploy.commands import COMMANDS, DRIVER, EXTRAS, LIBRARIES, extra_for, extras_for

ROOT = Path(__file__).parents[1]
# each with the inference library that it is made for, and what the documents install together
COMBINATIONS = (
    (),
    ("cpu",),
    ("openvino",),
    *(("cpu", extra) for extra in EXTRAS if extra not in ("cpu", "gpu")),
    ("export", "cpu", "tensorrt-rtx"),
)


def required() -> dict[str, set[str]]:
    """Requirements in setup.cfg by extra, in lower case and without versions; of the toolkit itself as ''."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = {"": setup["options"]["install_requires"], **setup["options.extras_require"]}
    return {
        extra: {re.split(r"[<>=;\s\[]", line.strip())[0].lower() for line in lines.strip().splitlines()}
        for extra, lines in listed.items()
        if extra not in ("dev", "docs", "test")  # for the toolkit's developers
    }


def test_the_table_has_the_extras_of_setup_cfg() -> None:
    by_extra = required()
    assert list(EXTRAS) == [extra for extra in by_extra if extra]
    for extra, requirements in by_extra.items():
        brought = [one for one in LIBRARIES.values() if extra in (one.extras or ("",))]
        named = {name.lower() for one in brought for name in one.requirements}
        assert requirements <= named, f"[{extra}]: the table lacks {requirements - named}"
        for one in brought:
            assert {name.lower() for name in one.requirements} & requirements, f"[{extra}]: no {one.module}"


def leaves(command: click.Command, name: str) -> list[str]:
    if not isinstance(command, click.Group):
        return [name]
    context = click.Context(command)
    nested = ((each, command.get_command(context, each)) for each in command.list_commands(context))
    return [leaf for each, one in nested if one is not None for leaf in leaves(one, f"{name} {each}".strip())]


def test_the_table_has_the_commands_and_only_libraries_that_it_knows() -> None:
    assert sorted(leaves(main, "")) == sorted(COMMANDS)
    for name, command in COMMANDS.items():
        needs = [*command.needs, *(need for use in (*command.ways, *command.uses) for need in use.needs)]
        assert {library for need in needs for library in need} <= {*LIBRARIES, DRIVER}, name


def test_every_use_has_a_line_that_is_run_or_a_reason_why_not() -> None:
    uses = {f"{name}|{use.what}" for name, one in COMMANDS.items() for use in (*one.ways, *one.uses)} | {
        name for name, one in COMMANDS.items() if not one.ways
    }
    assert uses == LINES.keys() | NOT_RUN.keys() and not LINES.keys() & NOT_RUN.keys()


@pytest.mark.parametrize(
    ("libraries", "extras"),
    [
        (["RapidFuzz"], ["evaluate"]),
        (["RapidFuzz", "ONNX"], ["export"]),
        (["Jinja2", "matplotlib"], ["evaluate", "train"]),
        (["ONNX Runtime", "PyTorch", "ONNX", "safetensors"], ["cpu", "export"]),
        (["PyTorch", "Pillow"], ["train"]),
        (["Pydantic"], ["serve"]),
        (["NumPy"], []),
    ],
)
def test_few_extras_bring_what_is_missing(libraries: list[str], extras: list[str]) -> None:
    assert extras_for(libraries) == extras


def test_an_extra_is_the_commands_own() -> None:
    assert extra_for("PyTorch", "train") == extra_for("PyTorch", "dataset") == "train"
    assert extra_for("PyTorch", "export") == extra_for("ONNX", "inspect") == "export"
    assert extra_for("RapidFuzz", "evaluate") == "evaluate"


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Path) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    make_inputs(folder, tiny_onnx)
    return folder


def modules(*extras: str) -> set[str]:
    """Top-level modules that extras bring."""
    return {one.module.partition(".")[0] for one in LIBRARIES.values() if set(one.extras) & set(extras)}


def check(inputs: Path, absent: set[str], *options: str) -> None:
    """Run all that `doctor` says of an environment without these modules, and hold it to that."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "command_lines.py"), str(inputs), *sorted(absent), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=600,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("extras", COMBINATIONS, ids=",".join)
def test_what_doctor_says_is_true(extras: tuple[str, ...], inputs: Path) -> None:
    """Where the libraries of all other extras are absent."""
    if any(find_spec(name) is None for name in modules(*extras)):
        pytest.skip("not installed here")
    # once is enough of what takes longest
    slow = "torch" in modules(*extras) and extras != ("cpu", "export")
    check(inputs, modules(*EXTRAS) - modules(*extras), *(("--quick",) if slow else ()))


@pytest.mark.parametrize("module", ["numpy", "cv2"])
def test_what_doctor_says_without_a_library_of_the_toolkit_is_true(module: str, inputs: Path) -> None:
    check(inputs, {module, *(modules(*EXTRAS) - modules("cpu"))})
