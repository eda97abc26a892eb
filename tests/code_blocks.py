"""The code blocks of the documents, and how they are run.

    python tests/code_blocks.py [PAGE...]        # runs all, those marked as slow too, and shows the seconds

A page's blocks run one after another in a folder of its own, which holds the project's examples and what the
pages take for granted: a folder `crops/`, a `model.onnx`, a `word.png`. What is behind `sh` runs in Bash,
`python` in Python; `json`, `toml` and `yaml` are parsed. An HTML comment right above a block says what is
different about it:

    <!-- not run: REASON -->             it is not run
    <!-- slow -->                        it runs in this script alone
    <!-- output -->                      the blocks before it printed this; `...` stands for anything
    <!-- before: COMMAND -->             this runs first, and is not shown
    <!-- background until: TEXT -->      it runs until the page ends; the next block waits for TEXT
    <!-- exit code: N -->                it ends with this code

`pip install` is not run: in its place the extras are looked up in setup.cfg. A server gets a free port in
place of 8000.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

__all__ = ["PAGES", "ROOT", "Block", "Failed", "blocks_of", "run_page"]

ROOT = Path(__file__).parents[1]
PAGES = (
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "THIRD_PARTY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "calibration", "export", "training")),
)
MARKS = ("not run", "slow", "output", "before", "background until", "exit code")
RUN = ("sh", "python")
PARSED = ("json", "toml", "yaml")
# README.md's blocks that are not run; comments there would be lines that readers of the file have to pass
NOT_RUN = {
    "-m pytest -q -n 2": "it runs the tests, and this is one of them",
    "crnn-deploy build-engine": "it needs thousands of images, and one of NVIDIA's libraries",
}
SLOW = (
    "crnn-deploy export --checkpoint training/latin.pth",  # as in docs/tutorial.md, where it is run
    "crnn-deploy train --config training/finetune.yaml",
)

_FENCE = re.compile(r"^((?:<!-- [^\n]*? -->\n)*)```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- ([\w ]+?)(?:: (.*?))? -->")
_SECONDS = 900  # that a block may take


class Failed(AssertionError):
    """A block that does not do what its page says."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int  # of its fence, from 1
    language: str
    code: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def slow(self) -> bool:
        return "slow" in self.marks or (self._unmarked and any(text in self.code for text in SLOW))

    @property
    def not_run(self) -> str | None:
        """Why it is not run; None where it is."""
        if "not run" in self.marks:
            return self.marks["not run"]
        return next(
            (why for text, why in NOT_RUN.items() if self._unmarked and text in self.code),
            None,
        )

    @property
    def _unmarked(self) -> bool:
        return self.page.name == "README.md" and self.page.parent == ROOT


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order. Raises Failed for a block that nothing can be done with."""
    text = page.read_text(encoding="utf-8")
    blocks = []
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start(2)) + 1
        marks = {name: value or "" for name, value in _MARK.findall(match[1])}
        block = Block(page, line, match[2], match[3], marks)
        if unknown := marks.keys() - set(MARKS):
            raise Failed(f"{block.place}: no mark is called {sorted(unknown)[0]!r}")
        blocks.append(block)
    return blocks


def run_page(page: Path, folder: Path, *, slow: bool) -> Iterator[tuple[Block, float]]:
    """Run a page's blocks in an empty folder; each that was run, and the seconds it took. Raises Failed."""
    port = _free_port()
    environment = _furnish(folder, port)
    servers: list[subprocess.Popen[bytes]] = []
    said, silent = "", False  # by the blocks since the last output; whether the last of them was not run
    try:
        for block in blocks_of(page):
            began = time.monotonic()
            if block.not_run is not None or (block.slow and not slow):
                if block.language in RUN:
                    said, silent = "", True
                continue
            code = block.code.replace(":8000", f":{port}")
            if "output" in block.marks:
                if not silent:
                    _check_output(block, code, said)
                said, silent = "", False
            elif block.language in PARSED:
                _parse(block)
            elif block.language not in RUN:
                raise Failed(
                    f"{block.place}: it is neither run nor says why: put <!-- not run: REASON --> above it"
                )
            elif "background until" in block.marks:
                servers.append(_start(block, code, folder, environment))
            else:
                if "before" in block.marks:
                    _shell(block, block.marks["before"], folder, environment, 0)
                said += _run(block, code, folder, environment)
                silent = False
            yield block, time.monotonic() - began
    finally:
        for server in servers:
            server.terminate()
            server.wait(60)


def _run(block: Block, code: str, folder: Path, environment: dict[str, str]) -> str:
    expected = int(block.marks.get("exit code", "0"))
    if block.language == "sh":
        return _shell(block, code, folder, environment, expected)
    return _process(block, [sys.executable, "-c", code], folder, environment, expected)


def _shell(block: Block, code: str, folder: Path, environment: dict[str, str], expected: int) -> str:
    return _process(block, ["bash", "-euo", "pipefail", "-c", code], folder, environment, expected)


def _process(
    block: Block, command: list[str], folder: Path, environment: dict[str, str], expected: int
) -> str:
    ran = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_SECONDS,
    )
    if ran.returncode != expected:
        raise Failed(f"{block.place} ends with {ran.returncode}, not {expected}:\n{ran.stdout}")
    return ran.stdout


def _start(block: Block, code: str, folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """A block in the background, once it has said what its page waits for."""
    log = folder / f"background-{block.line}.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {code}"], cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT
        )
    until = time.monotonic() + 60
    while block.marks["background until"] not in log.read_text():
        if server.poll() is not None or time.monotonic() > until:
            server.kill()
            raise Failed(
                f"{block.place} does not say {block.marks['background until']!r}:\n{log.read_text()}"
            )
        time.sleep(0.1)
    return server


def _check_output(block: Block, expected: str, said: str) -> None:
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("..."))
    plain = re.sub(r"[ \t]+$", "", said, flags=re.MULTILINE)
    if not re.search(pattern, plain, re.DOTALL):
        raise Failed(f"{block.place} shows what is not printed; printed is:\n{said}")


def _parse(block: Block) -> None:
    try:
        if block.language == "json":
            json.loads(block.code)
        elif block.language == "toml":
            tomllib.loads(block.code)
        else:
            list(yaml.safe_load_all(block.code))
    except ValueError as error:
        raise Failed(f"{block.place} is no {block.language}: {error}") from None


def _furnish(folder: Path, port: int) -> dict[str, str]:
    """Put what the pages take for granted into a folder; the environment in which their blocks run."""
    for name in (
        "benchmarks",
        "calibration",
        "crnn_deploy",
        "export",
        "training",
        "constraints.txt",
        "setup.cfg",
    ):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(ROOT / "examples" / "images", folder / "crops")
    labels = (ROOT / "examples" / "labels.txt").read_text(encoding="utf-8")
    for name, text in {
        "labels.txt": labels.replace("images/", "crops/"),
        "labels.tsv": re.sub(r"^images/(\S+) ", r"crops/\1\t", labels, flags=re.MULTILINE),
        "crops/labels.txt": labels.replace("images/", ""),
        "words.txt": "Printed\nEXIT\nfaçade\nnaïve\n",
        "lines.txt": "a naïve façade\nPrinted in Köln\nBest before 03/2027\n",
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    models = ROOT / "crnn_deploy" / "models"
    for name in ("model", "plates"):
        shutil.copy(models / "latin.onnx", folder / f"{name}.onnx")
        shutil.copy(models / "latin.int8.onnx", folder / f"{name}.int8.onnx")
    for number, name in enumerate(("word.png", "line.png", "a.png", "b.jpg"), 1):
        shutil.copy(ROOT / "examples" / "images" / f"{number:02}.png", folder / name)
    shutil.copy(ROOT / "examples" / "page" / "poster.png", folder / "page.png")
    (folder / "docs" / "pictures").mkdir(parents=True)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").touch()
    for name, lines in {
        "crnn-deploy": _CRNN_DEPLOY.format(port=port, python=sys.executable),
        "pip": _PIP.format(python=sys.executable, here=__file__),
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
        "python3": f'#!/bin/sh\n[ "$1 $2" = "-m venv" ] || exec {sys.executable} "$@"\n',
    }.items():
        (programs / name).write_text(lines)
        (programs / name).chmod(stat.S_IRWXU)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


_CRNN_DEPLOY = """#!/bin/sh
case "$*" in
  serve*--port*) ;;
  serve*) set -- "$@" --port {port} ;;
esac
exec {python} -m crnn_deploy "$@"
"""
_PIP = """#!/bin/sh
exec {python} {here} --pip "$@"
"""


def _check_pip(words: list[str]) -> int:
    """What stands for pip: 0 where the extras that it is to install are there."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    known = set(setup["options.extras_require"])
    asked = {
        extra
        for word in words
        for inside in re.findall(r"(?:\.|crnn-deploy)\[(.*?)\]", word)
        for extra in inside.split(",")
    }
    if words[:1] != ["install"] or asked - known:
        print(f"no extras {sorted(asked - known)} for pip {' '.join(words)}")
        return 1
    return 0


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def main() -> int:
    if sys.argv[1:2] == ["--pip"]:
        return _check_pip(sys.argv[2:])
    failed = 0
    for page in [Path(name).resolve() for name in sys.argv[1:]] or PAGES:
        with TemporaryDirectory() as folder:
            try:
                for block, seconds in run_page(page, Path(folder), slow=True):
                    print(f"{block.place}: {seconds:.1f} s", flush=True)
            except Failed as error:
                failed += 1
                print(error, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
