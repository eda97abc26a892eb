"""Fetching by a list: what comes is checked, what is there is not fetched again, errors say what is wrong."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import tarfile
import tomllib
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from crnn_deploy.synthesis.fontsource import ListedFont

SCRIPT = Path(__file__).parents[2] / "training" / "fetch.py"
LICENCES = {
    *("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0"),
    *("GPL-2.0-or-later", "LGPL-3.0", "public domain"),
}
# npm's package files lie in $SHELF; $SHELF/said is what npm says before it fails
NPM = """#!/bin/sh
echo "$@" >> $SHELF/asked
[ -e $SHELF/said ] && { cat $SHELF/said >&2; exit 1; }
to=$4; shift 4
for package in "$@"; do
    cp "$SHELF/$(echo ${package#@} | tr '/@' '--').tgz" $to
done
"""
APT = """#!/bin/sh
echo "$@" >> $SHELF/asked
[ -e $SHELF/$2.tar ] || { echo "E: Unable to locate package $2" >&2; exit 100; }
cp $SHELF/$2.tar ./$2_1.0_all.deb
"""
DPKG = """#!/bin/sh
mkdir $3 && tar -xf $2 -C $3
"""


@pytest.fixture
def fetch() -> Any:
    spec = importlib.util.spec_from_file_location("fetch", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the stand-ins for npm, apt-get and dpkg-deb take packages from."""
    commands, made = tmp_path / "bin", tmp_path / "shelf"
    commands.mkdir()
    made.mkdir()
    for name, text in (("npm", NPM), ("apt-get", APT), ("dpkg-deb", DPKG)):
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SHELF", str(made))
    return made


def pack(path: Path, contents: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def asked(shelf: Path) -> list[str]:
    """The command lines since the last look."""
    if not (shelf / "asked").exists():
        return []
    lines = (shelf / "asked").read_text().splitlines()
    (shelf / "asked").unlink()
    return lines


# --- fonts ---


@pytest.fixture
def listed(fetch: Any, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ListedFont]:
    """Twelve packages of two files each, which are more than npm is asked for at once."""
    fonts = {}
    for at in range(12):
        contents = {f"a{at}-latin-{weight}-normal.woff": b"%d %d" % (at, weight) for weight in (400, 700)}
        pack(shelf / f"fontsource-a{at}-1.0.{at}.tgz", {f"package/files/{n}": c for n, c in contents.items()})
        for name, content in contents.items():
            digest = sha256(content).hexdigest()
            fonts[name] = ListedFont(
                name, f"@fontsource/a{at}", f"1.0.{at}", "OFL-1.1", digest, capitals=False, blank=""
            )
    monkeypatch.setattr(fetch, "listed_fonts", lambda: fonts)
    return fonts


def run(fetch: Any, kind: str, folder: Path) -> Result:
    return CliRunner().invoke(fetch.main, [kind, str(folder)])


def test_fonts_are_fetched_once(
    fetch: Any, shelf: Path, listed: dict[str, ListedFont], tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "fonts"
    result = run(fetch, "fonts", folder)
    assert result.exit_code == 0 and "24 fonts" in result.stdout
    assert {path.name for path in folder.iterdir()} == listed.keys()
    assert (folder / "a3-latin-700-normal.woff").read_bytes() == b"3 700"
    first, second = asked(shelf)
    assert first.count("@fontsource/") == 10 and second.endswith(
        "@fontsource/a10@1.0.10 @fontsource/a11@1.0.11"
    )
    assert run(fetch, "fonts", folder).exit_code == 0
    assert asked(shelf) == []


def test_what_is_missing_or_damaged_is_fetched_again(
    fetch: Any, shelf: Path, listed: dict[str, ListedFont], tmp_path: Path
) -> None:
    run(fetch, "fonts", tmp_path / "fonts")
    asked(shelf)
    (tmp_path / "fonts" / "a2-latin-400-normal.woff").unlink()
    (tmp_path / "fonts" / "a5-latin-700-normal.woff").write_bytes(b"torn")
    assert run(fetch, "fonts", tmp_path / "fonts").exit_code == 0
    [line] = asked(shelf)
    assert line.endswith("@fontsource/a2@1.0.2 @fontsource/a5@1.0.5")
    assert (tmp_path / "fonts" / "a5-latin-700-normal.woff").read_bytes() == b"5 700"


def test_other_content_than_the_list_has_is_an_error(
    fetch: Any, shelf: Path, listed: dict[str, ListedFont], tmp_path: Path
) -> None:
    name = "a11-latin-400-normal.woff"
    listed[name] = replace(listed[name], sha256="0" * 64)
    result = run(fetch, "fonts", tmp_path / "fonts")
    assert result.exit_code == 1
    assert (
        f"{name} of @fontsource/a11@1.0.11 has the SHA-256 {sha256(b'11 400').hexdigest()}" in result.stderr
    )
    assert not (tmp_path / "fonts" / name).exists()
    assert (tmp_path / "fonts" / "a9-latin-400-normal.woff").exists()  # what came before stays


def test_a_package_without_the_file_is_an_error(
    fetch: Any, shelf: Path, listed: dict[str, ListedFont], tmp_path: Path
) -> None:
    pack(shelf / "fontsource-a4-1.0.4.tgz", {"package/files/other.woff": b""})
    result = run(fetch, "fonts", tmp_path / "fonts")
    assert result.exit_code == 1 and "npm brought no @fontsource/a4@1.0.4 with the files" in result.stderr


def test_what_npm_says_is_passed_on(
    fetch: Any, shelf: Path, listed: dict[str, ListedFont], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shelf / "said").write_text("npm error code ENOTFOUND\nnpm error network request failed\n")
    result = run(fetch, "fonts", tmp_path / "fonts")
    assert result.exit_code == 1
    assert "npm error code ENOTFOUND npm error network request failed" in result.stderr
    monkeypatch.setenv("PATH", str(tmp_path))
    result = run(fetch, "fonts", tmp_path / "fonts")
    assert result.exit_code == 1 and "there is no npm on this machine" in result.stderr


def test_a_folder_that_cannot_be_written_is_one_line(
    fetch: Any, shelf: Path, listed: dict[str, ListedFont], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = run(fetch, "fonts", tmp_path / "file" / "fonts")
    assert result.exit_code == 2 and "Error: cannot write" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("error", [ValueError("line 3"), KeyError("families")])
def test_a_broken_list_of_fonts_is_one_line(
    error: Exception, fetch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr(fetch, "listed_fonts", broken)
    result = run(fetch, "fonts", tmp_path)
    assert result.exit_code == 2 and "fontsource.toml cannot be read" in result.stderr.splitlines()[-1]


def test_ctrl_c_ends_with_130(
    fetch: Any, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "listed_fonts", stopped)
    assert run(fetch, "fonts", tmp_path).exit_code == 130


# --- photographs ---


@pytest.fixture
def pictures(fetch: Any, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A list of two packages with a photograph each."""
    rows = []
    for package, size in (("hills", (3000, 1500)), ("lakes", (300, 600))):
        written = io.BytesIO()
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).save(written, "PNG")
        pack(shelf / f"{package}.tar", {f"usr/share/{package}.png": written.getvalue()})
        digest = sha256(written.getvalue()).hexdigest()
        rows.append(
            f'[{package}]\n{package}-1 = {{ file = "usr/share/{package}.png", author = "A", '
            f'licence = "CC0-1.0", sha256 = "{digest}" }}\n'
        )
    path = tmp_path / "photographs.toml"
    path.write_text("".join(rows))
    monkeypatch.setattr(fetch, "PHOTOGRAPHS", path)
    return path


def test_photographs_are_shrunk_and_fetched_once(
    fetch: Any, shelf: Path, pictures: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photographs"
    result = run(fetch, "photographs", folder)
    assert result.exit_code == 0, result.output
    assert "2 of 2 photographs" in result.stdout
    sizes = {}
    for path in folder.iterdir():
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            sizes[path.name] = image.size
    assert sizes == {"hills-1.jpg": (1024, 512), "lakes-1.jpg": (300, 600)}
    assert asked(shelf) == ["download hills", "download lakes"]
    (folder / "lakes-1.jpg").unlink()
    assert run(fetch, "photographs", folder).exit_code == 0
    assert asked(shelf) == ["download lakes"]


def test_a_package_that_fails_costs_only_its_own_photographs(
    fetch: Any, shelf: Path, pictures: Path, tmp_path: Path
) -> None:
    (shelf / "hills.tar").unlink()
    result = run(fetch, "photographs", tmp_path / "photographs")
    assert result.exit_code == 1 and "1 of 2 photographs" in result.stdout
    assert "apt-get download hills failed with code 100: E: Unable to locate package hills" in result.stderr
    assert [path.name for path in (tmp_path / "photographs").iterdir()] == ["lakes-1.jpg"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("usr/share/hills.png", "usr/share/gone.png", "hills_1.0_all.deb has no usr/share/gone.png"),
        ('sha256 = "', 'sha256 = "0', "usr/share/hills.png of hills_1.0_all.deb has the SHA-256"),
    ],
)
def test_a_package_of_another_version_is_an_error(
    old: str, new: str, said: str, fetch: Any, shelf: Path, pictures: Path, tmp_path: Path
) -> None:
    pictures.write_text(pictures.read_text().replace(old, new, 1))
    result = run(fetch, "photographs", tmp_path / "photographs")
    assert result.exit_code == 1 and said in result.stderr
    assert [path.name for path in (tmp_path / "photographs").iterdir()] == ["lakes-1.jpg"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("[a", "cannot be read"), ('[a]\nb = { file = "c" }', "b lacks its file or its sha256")],
)
def test_a_broken_list_of_photographs_is_one_line(
    text: str, said: str, fetch: Any, pictures: Path, tmp_path: Path
) -> None:
    pictures.write_text(text)
    result = run(fetch, "photographs", tmp_path / "photographs")
    assert result.exit_code == 2 and said in result.stderr.splitlines()[-1]


def test_the_list_of_photographs_holds_together() -> None:
    table = tomllib.loads(SCRIPT.with_name("photographs.toml").read_text(encoding="utf-8"))
    names = [name for rows in table.values() for name in rows]
    assert 35 <= len(names) == len(set(names)) <= 60
    for row in (row for rows in table.values() for row in rows.values()):
        assert row.keys() == {"file", "author", "licence", "sha256"}
        assert row["licence"] in LICENCES and row["author"]
        assert re.fullmatch("[0-9a-f]{64}", row["sha256"]) and not row["file"].startswith("/")
