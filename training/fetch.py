"""Fetch the fonts and photographs that scene text is drawn with, from packages of npm and Debian.

    python training/fetch.py fonts
    python training/fetch.py photographs

Each file is checked against the SHA-256 in a list: crnn_deploy/synthesis/fontsource.toml or
training/photographs.toml. If a run was stopped, start it again; it goes on where it was.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from PIL import Image

from crnn_deploy.cli.script import ScriptCommand
from crnn_deploy.files import replacing, sha256, write
from crnn_deploy.synthesis.fontsource import ListedFont, listed_fonts

PHOTOGRAPHS = Path(__file__).with_name("photographs.toml")
_PACKAGES_AT_ONCE = 10
_LONGER_SIDE = 1024  # pixels of a photograph
_QUALITY = 90  # of its JPEG


@click.group()
def main() -> None:
    """Fetch fonts and photographs for drawn scene text."""


@main.command(cls=ScriptCommand)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="runs/fonts")
@click.option(
    "--chinese", is_flag=True, help="Fetch the fonts for simplified Chinese instead of the Latin ones."
)
def fonts(folder: Path, chinese: bool) -> None:
    """Fetch the fonts of fontsource.toml from npm into FOLDER (runs/fonts)."""
    missing: dict[str, list[ListedFont]] = defaultdict(list)
    try:
        listed = listed_fonts().values()
    except (ValueError, KeyError) as error:
        raise click.UsageError(f"crnn_deploy/synthesis/fontsource.toml cannot be read: {error}") from error
    wanted = [font for font in listed if (font.subset != "latin") == chinese]
    for font in wanted:
        path = folder / font.name
        if not path.is_file() or sha256(path) != font.sha256:
            missing[f"{font.package}@{font.version}"].append(font)
    packages = list(missing)
    with click.progressbar(length=len(packages), label="packages") as bar:
        for start in range(0, len(packages), _PACKAGES_AT_ONCE):
            some = packages[start : start + _PACKAGES_AT_ONCE]
            for font, content in _from_npm({package: missing[package] for package in some}):
                write(folder / font.name, content)
            bar.update(len(some))
    click.echo(f"{folder}: {len(wanted)} fonts")


def _from_npm(wanted: dict[str, list[ListedFont]]) -> Iterator[tuple[ListedFont, bytes]]:
    with tempfile.TemporaryDirectory(prefix="crnn-deploy-fetch-") as name:
        _run(["npm", "pack", "--loglevel=error", "--pack-destination", name, *wanted], Path(name))
        for package, listed in wanted.items():
            tarball = Path(name) / f"{package[1:].replace('/', '-').replace('@', '-')}.tgz"
            try:
                with tarfile.open(tarball) as tar:
                    contents = [tar.extractfile(f"package/files/{font.name}") for font in listed]
                    read = [content.read() if content else b"" for content in contents]
            except (OSError, KeyError, EOFError, tarfile.TarError) as error:
                raise click.ClickException(f"npm brought no {package} with the files of the list") from error
            for font, content in zip(listed, read, strict=True):
                _check(f"{font.name} of {package}", hashlib.sha256(content).hexdigest(), font.sha256)
                yield font, content


@main.command(cls=ScriptCommand)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="runs/photographs")
def photographs(folder: Path) -> None:
    """Fetch the photographs of photographs.toml from Debian's packages into FOLDER (runs/photographs)."""
    table = _listed_photographs()
    failed = False
    for package, rows in table.items():
        missing = {name: row for name, row in rows.items() if not _photograph(folder, name).is_file()}
        try:
            if missing:
                click.echo(f"{package}: {len(missing)} photographs")
                _from_debian(package, missing, folder)
        except click.ClickException as error:  # the other packages are worth having without this one
            click.echo(f"error: {error}", err=True)
            failed = True
    names = [name for rows in table.values() for name in rows]
    there = sum(_photograph(folder, name).is_file() for name in names)
    click.echo(f"{folder}: {there} of {len(names)} photographs")
    if failed:
        raise SystemExit(1)


def _listed_photographs() -> dict[str, dict[str, Any]]:
    """The rows of the list by package and name."""
    try:
        table = tomllib.loads(PHOTOGRAPHS.read_text(encoding="utf-8"))
    except ValueError as error:  # no TOML, no UTF-8
        raise click.UsageError(f"{PHOTOGRAPHS} cannot be read: {error}") from error
    for name, row in (named for rows in table.values() for named in rows.items()):
        if not {"file", "sha256"} <= row.keys():
            raise click.UsageError(f"{PHOTOGRAPHS}: {name} lacks its file or its sha256; write both")
    return table


def _photograph(folder: Path, name: str) -> Path:
    return folder / f"{name}.jpg"


def _from_debian(package: str, rows: dict[str, Any], folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="crnn-deploy-fetch-") as name:
        _run(["apt-get", "download", package], Path(name))
        [archive] = Path(name).glob("*.deb")
        _run(["dpkg-deb", "--extract", str(archive), "contents"], Path(name))
        for target, row in rows.items():
            path = Path(name) / "contents" / row["file"]
            if not path.is_file():
                raise click.ClickException(
                    f"{archive.name} has no {row['file']}: the list has another version"
                )
            _check(f"{row['file']} of {archive.name}", sha256(path), row["sha256"])
            with replacing(_photograph(folder, target)) as written, Image.open(path) as image:
                image.draft("RGB", (_LONGER_SIDE, _LONGER_SIDE))
                shrunk = image.convert("RGB")
                shrunk.thumbnail((_LONGER_SIDE, _LONGER_SIDE))
                shrunk.save(written, quality=_QUALITY)


def _run(command: Sequence[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise click.ClickException(
            f"there is no {command[0]} on this machine; install it, and start again"
        ) from error
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-600:]
        raise click.ClickException(f"{' '.join(command[:3])} failed with code {done.returncode}: {said}")


def _check(what: str, found: str, listed: str) -> None:
    if found != listed:
        raise click.ClickException(f"{what} has the SHA-256 {found}, and in the list it is {listed}")


if __name__ == "__main__":
    main()
