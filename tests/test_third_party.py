"""THIRD_PARTY.md names all that is shipped and all that the models were trained on."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "crnn_deploy"
PAGE = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8")


def table(path: str) -> dict[str, dict[str, dict[str, str]]]:
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


def data_files() -> list[str]:
    """What the package holds beside Python."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    found = []
    for package, patterns in setup["options.package_data"].items():
        for pattern in patterns.split():
            folder = ROOT / package.replace(".", "/")
            found += [path.relative_to(ROOT).as_posix() for path in sorted(folder.glob(pattern))]
    return found


def test_every_file_beside_python_is_package_data() -> None:
    there = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".py" and path.parent.name != "__pycache__"
    }
    assert there == set(data_files())


@pytest.mark.parametrize("path", data_files())
def test_a_file_that_is_shipped_is_named(path: str) -> None:
    assert re.search(rf"`(?:{re.escape(Path(path).parent.as_posix())}/)?{re.escape(Path(path).name)}`", PAGE)


def test_every_checkpoint_and_training_is_named() -> None:
    files = [*(ROOT / "training").glob("*.pth"), *(ROOT / "training").glob("*.yaml")]
    assert len(files) > 10
    absent = [path.name for path in files if f"`training/{path.name}`" not in PAGE]
    assert absent == []


def test_every_package_of_fonts_and_words_has_a_licence() -> None:
    packages = table("crnn_deploy/synthesis/fonts.toml")["packages"]
    rows = dict(re.findall(r"^\| `(fonts-[\w-]+)` \| ([^|]+) \|", PAGE, re.MULTILINE))
    wanted = {name for names in packages.values() for name in names}
    assert {name for name in wanted if name.startswith("fonts-")} == rows.keys()
    assert all(licence.strip() for licence in rows.values())
    assert all(f"`{name}`" in PAGE for name in wanted)


@pytest.mark.parametrize(("row", "key"), [("Latin", "families"), ("simplified Chinese", "chinese")])
def test_the_fonts_of_npm_are_counted_by_licence(row: str, key: str) -> None:
    families = table("crnn_deploy/synthesis/fontsource.toml")[key]
    licences = Counter(family["licence"] for family in families.values())
    counts = [licences[name] for name in ("OFL-1.1", "Apache-2.0", "CC0-1.0")]
    assert sum(counts) == len(families)
    assert f"| {row}, {len(families)} | {' | '.join(map(str, counts))} |" in PAGE


def test_every_photograph_has_its_author_and_licence() -> None:
    expected = [
        f"| `{package}` | {name} | {row['author']} | {row['licence']} |"
        for package, rows in table("training/photographs.toml").items()
        for name, row in rows.items()
    ]
    assert [line for line in expected if line not in PAGE] == []
    listed = re.findall(r"^\| `(?!fonts-)[\w.-]+` \| [^|]+ \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert len(listed) == len(expected)
