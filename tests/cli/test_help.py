"""`--help` of groups: their commands by stage, each with an example; and examples that a command takes."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from crnn_deploy.cli.group import examples
from crnn_deploy.cli.main import main
from crnn_deploy.commands import COMMANDS, STAGES

GROUPS = {"": main, **{name.split()[0]: None for name in COMMANDS if " " in name}}


def command_of(words: list[str]) -> tuple[click.Command, str, list[str]]:
    """The command that words name, its whole name, and the words that are left for it."""
    command: click.Command | None = main
    at = 0
    while isinstance(command, click.Group):
        command, at = command.get_command(click.Context(command), words[at]), at + 1
    assert command is not None, words
    return command, " ".join(words[:at]), words[at:]


def calls(line: str) -> Iterator[list[str]]:
    """The words behind each `crnn-deploy` of a line of a shell, or of `-m crnn_deploy`."""
    for part in re.split(r"\||\$\(|\)", line):
        words = shlex.split(part.partition(" > ")[0])
        for at, word in enumerate(words):
            if word == "crnn-deploy" or (word == "crnn_deploy" and words[at - 1] == "-m"):
                yield words[at + 1 :]
                break


def listing(name: str) -> dict[str, list[tuple[str, str, str]]]:
    """By heading: each command's name, its sentence and its example, as `--help` shows them."""
    shown = CliRunner().invoke(main, [*name.split(), "--help"], terminal_width=80).stdout
    found: dict[str, list[tuple[str, str, str]]] = {}
    for heading, body in re.findall(r"^([A-Z][\w ]+):\n((?:  .+\n?)+)", shown, re.MULTILINE):
        if heading != "Options":
            lines = body.splitlines()
            pairs = zip(lines[::2], lines[1::2], strict=True)
            found[heading] = [(*two.split(maxsplit=1), example.strip()) for two, example in pairs]
    return found


def test_every_command_stands_in_one_stage() -> None:
    assert {one.stage for one in COMMANDS.values()} == set(STAGES)
    shown = listing("")
    assert list(shown) == list(STAGES)
    names = Counter(name for rows in shown.values() for name, _, _ in rows)
    assert names == Counter({name.split()[0] for name in COMMANDS})
    for stage, rows in shown.items():
        for name, _, _ in rows:
            assert {one.stage for whole, one in COMMANDS.items() if whole.split()[0] == name} == {stage}


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_lists_its_commands_in_whole_sentences_with_an_example(name: str) -> None:
    """Click cuts a first sentence that is too long for a line of 80 characters, and ends it with dots."""
    rows = [row for rows in listing(name).values() for row in rows]
    known = {whole.removeprefix(f"{name} ").split()[0] for whole in COMMANDS if whole.startswith(name)}
    assert {row[0] for row in rows} == known and len(rows) == len(known)
    for nested, sentence, example in rows:
        assert re.fullmatch(r"[A-Z][^.]+\.", sentence), sentence
        assert f"{example} ".startswith(f"crnn-deploy {f'{name} {nested}'.strip()} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example(name: str) -> None:
    lines = examples(command_of(name.split())[0])
    assert any(command_of(words)[1] == name for line in lines for words in calls(line))
    shown = " ".join(CliRunner().invoke(main, [*name.split(), "--help"]).stdout.split())
    assert all(" ".join(line.split()) in shown for line in lines)


EXAMPLES = sorted(
    {
        tuple(words)
        for name in COMMANDS
        for line in examples(command_of(name.split())[0])
        for words in calls(line)
    }
)


@pytest.mark.parametrize("words", EXAMPLES, ids=" ".join)
def test_the_command_of_an_example_takes_its_options(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").touch()
    command, name, rest = command_of(list(words))
    command.make_context(name, rest)  # raises where an option or a value is not known


def test_an_example_with_an_option_that_is_not_there_is_found() -> None:
    [words] = calls("find crops | crnn-deploy infer --nonsense 3 -")
    command, name, rest = command_of(words)
    with pytest.raises(click.NoSuchOption):
        command.make_context(name, rest)
