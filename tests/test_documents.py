"""What the documents name is there: imports, modules, files, commands and their options."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import crnn_deploy
from crnn_deploy.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [
    path.relative_to(ROOT)
    for path in (
        *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "THIRD_PARTY.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *(ROOT / folder / "README.md" for folder in ("benchmarks", "calibration", "export", "training")),
    )
]
FOLDERS = (
    "benchmarks",
    "calibration",
    "container",
    "crnn_deploy",
    "docs",
    "examples",
    "export",
    "tests",
    "training",
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
SOURCE = (".py", ".sh", ".toml", ".yaml", ".cu", ".md")
MADE_BY_USERS = {"labels.toml", "net.py", "own.toml"}
pages = pytest.mark.parametrize("page", PAGES, ids=str)


def text_of(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    return BLOCK.sub("", text_of(page))


def python_blocks() -> list[tuple[Path, str]]:
    return [
        (page, code)
        for page in PAGES
        for language, code in BLOCK.findall(text_of(page))
        if language == "python"
    ]


@pytest.mark.parametrize(("page", "code"), python_blocks(), ids=[str(page) for page, _ in python_blocks()])
def test_python_imports_what_is_there_from_the_package_itself(page: Path, code: str) -> None:
    tree = ast.parse(code)
    lines: list[ast.stmt] = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert lines
    exec(compile(ast.Module(lines, []), str(page), "exec"), {})
    for line in lines:
        if isinstance(line, ast.ImportFrom) and (line.module or "").startswith("crnn_deploy"):
            assert line.module == "crnn_deploy"
            assert {alias.name for alias in line.names} <= set(crnn_deploy.__all__)


def test_every_public_name_is_there_and_importing_the_package_is_light() -> None:
    assert all(hasattr(crnn_deploy, name) for name in crnn_deploy.__all__)
    code = (
        "import sys, crnn_deploy; print([m for m in ('numpy', 'cv2', 'click', 'torch') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_the_readme_is_short() -> None:
    assert len(text_of(Path("README.md")).splitlines()) <= 120


@pages
def test_dotted_names_of_the_package_are_there(page: Path) -> None:
    for name in set(re.findall(r"\bcrnn_deploy(?:\.\w+)+", text_of(page))):
        assert resolved(name) or name == "crnn_deploy.manifest", name
    for name in set(re.findall(r"\bpython -m (benchmarks\.[a-z_.0-9]+)", text_of(page))):
        assert importlib.util.find_spec(name), name


def resolved(name: str) -> bool:
    """Whether a dotted name is a module, or what a module holds."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pages
def test_paths_in_backticks_and_links_are_there(page: Path) -> None:
    absent = []
    for token in INLINE.findall(prose_of(page)):
        path = token.rstrip("/")
        whole = re.fullmatch(r"\w[\w./-]*", path) and path not in MADE_BY_USERS
        inside = path.split("/")[0] in FOLDERS and "/" in token
        if whole and (inside or path.endswith(SOURCE)):
            near = (ROOT / path, ROOT / page.parent / path)
            absent += [] if any(place.exists() for place in near) else [token]
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose_of(page)):
        if not target.startswith("http"):
            absent += [] if (ROOT / page.parent / target).exists() else [target]
    assert absent == []


@pages
def test_files_that_commands_name_in_the_repository_are_there(page: Path) -> None:
    blocks = "".join(code for _, code in BLOCK.findall(text_of(page)))
    named = re.findall(rf"(?<![\w/.])(?:{'|'.join(FOLDERS)})/[\w./-]+\.(?:py|sh|toml|yaml|pth)\b", blocks)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pages
def test_commands_and_options_are_there(page: Path) -> None:
    for words in commands_of(text_of(page)):
        command: click.Command | None = main
        context = click.Context(main)
        at = 0
        while isinstance(command, click.Group) and at < len(words) and not words[at].startswith("-"):
            command = command.get_command(context, words[at])
            assert command is not None, f"crnn-deploy has no {' '.join(words)}"
            at += 1
        assert command is not None
        known = {option for part in command.params for option in (*part.opts, *part.secondary_opts)}
        given = {word.split("=")[0] for word in words[at:] if re.match(r"--?[a-z]", word)}
        assert given <= known | {"--help"}, f"{' '.join(words)}: {sorted(given - known)}"


def commands_of(text: str) -> Iterator[list[str]]:
    """The words after each `crnn-deploy` in blocks and backticks, up to the end of that command."""
    code = [block.replace("\\\n", " ") for _, block in BLOCK.findall(text)]
    for line in "\n".join((*code, *INLINE.findall(BLOCK.sub("", text)))).splitlines():
        for part in re.split(r"&&|\||;|\s#", line.removeprefix("$ ")):
            words = re.sub(r"'[^']*'|\"[^\"]*\"", "TEXT", part).split()
            for at, word in enumerate(words[:3]):
                if word.rsplit("/", 1)[-1] == "crnn-deploy" and words[at + 1 : at + 2]:
                    yield words[at + 1 :]
                    break
