"""Completion in shells: what it offers, through its protocol and through the shells that are here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from crnn_deploy.commands import COMMANDS
from crnn_deploy.models import shipped
from crnn_deploy.recipes.recipe import RECIPES

ROOT = Path(__file__).parents[2]
HEAVY = ("numpy", "cv2", "onnxruntime", "torch", "onnx", "openvino", "pydantic", "PIL")
PROGRAM = f"""
import atexit, sys
atexit.register(lambda: print(sorted({{*{HEAVY}}} & sys.modules.keys()), file=sys.stderr))
from crnn_deploy.__main__ import run
run()
"""


def completed(line: str, shell: str = "bash") -> list[list[str]]:
    """What is offered for the last word of a line: type and value, and a help text in zsh."""
    words = line.split(" ")
    given = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    if shell == "fish":
        given = {"COMP_WORDS": " ".join(words[:-1]), "COMP_CWORD": words[-1]}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"PYTHONPATH": str(ROOT), "_CRNN_DEPLOY_COMPLETE": f"{shell}_complete", **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "[]\n", done.stderr
    lines = done.stdout.splitlines()
    if shell == "zsh":
        return [lines[at : at + 3] for at in range(0, len(lines), 3)]
    return [found.split(",", 1) for found in lines]


def plain(names: Iterable[str]) -> list[list[str]]:
    return [["plain", name] for name in names]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("crnn-deploy exp", plain(["export"])),
        ("crnn-deploy dataset pa", plain(["pack", "pack-fonts"])),
        ("crnn-deploy lm ", plain(["train"])),
        ("crnn-deploy infer --max-p", plain(["--max-pixels"])),
        ("crnn-deploy infer --wide ", plain(["cut", "shrink"])),
        ("crnn-deploy dataset effects ", plain(["scene", "document"])),
        ("crnn-deploy infer --model ", [["file", ""], *plain(shipped())]),
        ("crnn-deploy infer --model latin.i", [["file", "latin.i"], *plain(["latin.int8"])]),
        ("crnn-deploy verify own.pth lat", [["file", "lat"], *plain(["latin", "latin.int8"])]),
        ("crnn-deploy benchmark a.onnx b.onnx plates", [["file", "plates"]]),
        ("crnn-deploy export --recipe mm", [["file", "mm"], *plain(["mmocr", "mmocr-0.x"])]),
        ("crnn-deploy recipes ", plain(RECIPES)),
        ("crnn-deploy recipes doctr-mob", plain(["doctr-mobilenet-small", "doctr-mobilenet-large"])),
        *(
            (f"crnn-deploy {command} cro", [["file", "cro"]])
            for command in (
                *(
                    "infer",
                    "infer a.png",
                    "infer-cluster",
                    "evaluate latin",
                    "calibrate latin",
                    "quantize latin",
                ),
                *("dataset check", "dataset pack", "dataset preview", "lm train", "describe", "infer -o"),
                *("infer --lexicon", "verify latin latin --images", "evaluate latin x --image-folder"),
                *(
                    "calibrate-confidence latin",
                    "verify latin latin --labels",
                    "dataset check x --characters",
                ),
            )
        ),
    ],
)
def test_what_is_offered(line: str, offered: list[list[str]]) -> None:
    assert completed(line) == offered


def test_all_commands_are_offered_and_zsh_shows_what_they_do() -> None:
    names = dict.fromkeys(name.split()[0] for name in COMMANDS)
    assert completed("crnn-deploy ") == plain(names)
    found = completed("crnn-deploy ", "zsh")
    assert [(kind, name) for kind, name, _ in found] == [("plain", name) for name in names]
    assert ["plain", "infer", "Read the text of images."] in found
    [[kind, first], *_] = completed("crnn-deploy inf", "fish")
    assert kind == "plain" and first.startswith("infer")


@pytest.fixture
def program(tmp_path: Path) -> dict[str, str]:
    """An environment in which `crnn-deploy` is a command; the folder has files to complete."""
    script = tmp_path / "bin" / "crnn-deploy"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m crnn_deploy "$@"\n')
    script.chmod(0o755)
    (tmp_path / "plates.onnx").touch()
    return {"PATH": f"{script.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}


def shell(words: list[str], env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, check=True)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs Bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["inf"], ["infer", "infer-cluster"]),
        (["infer", "--model", "lat"], ["latin", "latin.int8"]),
        (["export", "--recipe", "pap"], ["paper"]),
        (["infer", "--model", "pla"], []),  # files come from Bash itself then
    ],
)
def test_bash_completes(
    words: list[str], offered: list[str], program: dict[str, str], tmp_path: Path
) -> None:
    listed = " ".join(["crnn-deploy", *words])
    code = (
        'eval "$(_CRNN_DEPLOY_COMPLETE=bash_source crnn-deploy)"\n'
        'compopt() { echo "$@" >&2; }\n'
        f"COMP_WORDS=({listed}); COMP_CWORD={len(words)}\n"
        "_crnn_deploy_completion crnn-deploy; printf '%s\\n' \"${COMPREPLY[@]}\"; complete -p crnn-deploy"
    )
    done = shell(["bash", "--norc", "-c", code], program, tmp_path)
    *shown, registered = done.stdout.splitlines()
    assert [one for one in shown if one] == offered
    assert registered.endswith("crnn-deploy") and "_crnn_deploy_completion" in registered
    assert done.stderr == ("" if words == ["inf"] else "-o default\n")


def test_the_lines_of_the_page_are_those_that_are_tested() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    for name in ("bash", "zsh"):
        assert f'\neval "$(_CRNN_DEPLOY_COMPLETE={name}_source crnn-deploy)"\n' in page
    assert "\n_CRNN_DEPLOY_COMPLETE=fish_source crnn-deploy | source\n" in page


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes(program: dict[str, str], tmp_path: Path) -> None:
    code = (
        "_CRNN_DEPLOY_COMPLETE=fish_source crnn-deploy | source\n"
        "complete -C 'crnn-deploy infer --model lat'; complete -C 'crnn-deploy infer --model pla'"
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", code],
        env=program,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [
        "latin",
        "latin.int8",
        "plates.onnx",
    ]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_completes(program: dict[str, str], tmp_path: Path) -> None:
    """The function of the script, with what zsh's own completion brings replaced by what prints."""
    code = (
        "compdef() { print registered $1 $2 }; compadd() { print -l -- ${(P)@[-1]} }\n"
        "_path_files() { print files }; _describe() { print -l -- ${(P)@[-2]} }\n"
        'eval "$(_CRNN_DEPLOY_COMPLETE=zsh_source crnn-deploy)"\n'
        "words=(crnn-deploy infer --model lat); CURRENT=4; _crnn_deploy_completion"
    )
    done = shell(["zsh", "-f", "-c", code], program, tmp_path)
    assert done.stdout.splitlines() == [
        *("registered _crnn_deploy_completion crnn-deploy", "files", "latin", "latin.int8")
    ]
