"""What can be held of the Containerfiles without an engine; container/run_steps.py runs their steps."""

from __future__ import annotations

import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import click
import pytest

from container.containerfile import Copy, Run, Stage, files_of, ignored, parse
from crnn_deploy import __version__
from crnn_deploy.cli.main import main

ROOT = Path(__file__).parents[1]
FILES = ["Containerfile", "Containerfile.cuda"]
RULES = (ROOT / ".containerignore").read_text(encoding="utf-8")
each = pytest.mark.parametrize("name", FILES)


def stages_of(name: str) -> list[Stage]:
    return parse((ROOT / name).read_text(encoding="utf-8"))


@each
def test_bases_are_named_with_a_version(name: str) -> None:
    stages = stages_of(name)
    earlier: set[str] = set()
    for stage in stages:
        tag = stage.base.partition(":")[2]
        assert stage.base in earlier or (re.search(r"\d", tag) and "latest" not in tag), stage.base
        earlier.add(stage.name)


@each
def test_the_process_is_no_root_by_number(name: str) -> None:
    image = stages_of(name)[-1].image
    assert all(part.isdigit() and int(part) > 999 for part in image.user.split(":")), image.user


@each
def test_what_is_copied_is_there_and_reaches_the_build(name: str) -> None:
    stages = stages_of(name)
    names = {stage.name for stage in stages}
    copies = [step for stage in stages for step in stage.steps if isinstance(step, Copy)]
    assert copies
    for copy in copies:
        if copy.stage is not None:
            assert copy.stage in names
            continue
        for source in copy.sources:
            assert (ROOT / source).exists(), source
            assert files_of(ROOT, source, RULES), f".containerignore leaves out {source}"


@each
def test_the_package_is_copied_whole_and_without_bytecode(name: str) -> None:
    copied = {
        path
        for stage in stages_of(name)
        for step in stage.steps
        if isinstance(step, Copy) and step.stage is None
        for source in step.sources
        for path in files_of(ROOT, source, RULES)
    }
    package = {
        path.relative_to(ROOT)
        for path in (ROOT / "crnn_deploy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert package <= copied
    assert not [path for path in copied if path.suffix == ".pyc" or path.parts[0] in ("tests", ".git")]
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert Path(setup["metadata"]["long_description"].removeprefix("file: ")) in copied
    assert {*map(Path, setup["metadata"]["license_files"].split())} <= {*copied}


@each
def test_extras_are_those_of_setup_cfg_and_versions_are_pinned(name: str) -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = (ROOT / name).read_text(encoding="utf-8")
    for found in re.findall(r"EXTRAS=([\w,-]+)", text):
        assert set(found.split(",")) <= set(setup["options.extras_require"]), found
    runs = [step for stage in stages_of(name) for step in stage.steps if isinstance(step, Run)]
    installs = [line for run in runs for line in run.line.split("&&") if " install " in line]
    assert installs and all("-c constraints.txt" in line for line in installs)


@each
def test_nothing_is_installed_in_what_is_shipped(name: str) -> None:
    runs = [step.line for step in stages_of(name)[-1].steps if isinstance(step, Run)]
    assert not [line for line in runs if re.search(r"\b(pip|apt|apt-get|gcc)\b", line)]


@each
def test_the_command_and_its_options_are_there(name: str) -> None:
    image = stages_of(name)[-1].image
    assert image.entry_point == ["crnn-deploy"]
    command = main.get_command(click.Context(main), image.command[0])
    assert command is not None
    with command.make_context(image.command[0], ["--help"], resilient_parsing=True) as context:
        known = {option for each in command.get_params(context) for option in each.opts}
    given = [word for word in image.command[1:] if word.startswith("-")]
    assert set(given) <= known
    assert "--token-file" in given and "--no-token" not in given


@each
def test_the_command_refuses_a_start_without_its_secret(name: str) -> None:
    image = stages_of(name)[-1].image
    command = [word for word in image.command if word not in ("--device", "cuda")]  # without a GPU here
    line = [sys.executable, "-m", "crnn_deploy", *command]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "crnn-deploy-tokens" in done.stderr


@each
def test_the_health_check_asks_the_port_that_is_served(name: str) -> None:
    image = stages_of(name)[-1].image
    port = image.command[image.command.index("--port") + 1]
    assert image.ports == [port]
    compile(image.health[-1], name, "exec")
    assert f"http://127.0.0.1:{port}/v2/health/ready" in image.health[-1]
    assert image.stop_signal == "SIGTERM"
    assert {"interval", "timeout", "start-period", "retries"} <= image.health_options.keys()


@each
def test_labels_have_the_version_and_the_base(name: str) -> None:
    stage = stages_of(name)[-1]
    labels = {key.removeprefix("org.opencontainers.image."): each for key, each in stage.image.labels.items()}
    assert labels["version"] == __version__ and labels["licenses"] == "Apache-2.0"
    assert labels["base.name"].endswith(stage.base)


@pytest.mark.parametrize(
    ("path", "rules", "left_out"),
    [
        ("a.txt", "*", True),
        ("a.txt", "*\n!a.txt", False),
        ("folder/deep/a.txt", "*\n!folder", False),
        ("folder/__pycache__/a.pyc", "*\n!folder\n**/__pycache__", True),
        ("__pycache__/a.pyc", "**/__pycache__", True),
        ("folder/a.txt", "# folder\n\nfolder/*.md", False),
        ("folder/a.md", "folder/*.md", True),
    ],
)
def test_the_last_rule_that_fits_decides(path: str, rules: str, left_out: bool) -> None:
    assert ignored(path, rules) is left_out


@pytest.mark.parametrize("line", ["ADD a /a", 'RUN ["a"]', "COPY --chown=1 a /a", "CMD serve", "FROM a b"])
def test_an_instruction_that_is_not_understood_is_refused(line: str) -> None:
    with pytest.raises(ValueError):
        parse(f"FROM base:1\n{line}")
