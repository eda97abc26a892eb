"""The files of `training/`: configurations that the trainer takes, and a table of every key."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from crnn_deploy.recipes.alphabets import read_alphabet
from crnn_deploy.recipes.recipe import find_recipe
from crnn_deploy.training.config import Config, read_config

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "training").glob("*.yaml"))
ROW = re.compile(r"^\| `([a-z0-9_.]+)` \| (.+?) \| .+ \|$", re.MULTILINE)


def sections_of(annotation: Any) -> list[type[BaseModel]]:
    """The models that an annotation is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in sections_of(part)]


def keys_of(model: type[BaseModel], prefix: str, seen: set[type[BaseModel]]) -> Iterator[tuple[str, Any]]:
    """Dotted keys and their defaults; a section that stood before is one key."""
    for name, field in model.model_fields.items():
        new = [section for section in sections_of(field.annotation) if section not in seen]
        seen.update(new)
        for section in new:
            yield from keys_of(section, f"{prefix}{name}.", seen)
        if not new:
            required = field.is_required()
            yield prefix + name, "required" if required else to_jsonable_python(field.get_default())


def test_the_readme_has_every_key_with_its_default() -> None:
    text = (ROOT / "training" / "README.md").read_text(encoding="utf-8").split("## Every key")[1]
    told = [(key, yaml.safe_load(default)) for key, default in ROW.findall(text)]
    assert dict(told) == dict(keys_of(Config, "", set()))
    assert len(told) == len(dict(told))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_configuration_is_valid_and_its_recipes_exist(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = read_config(path)
    names = [config.recipe, config.start.recipe if config.start else None]
    for name in names:
        if name is not None:
            find_recipe(name)
    assert f"--config training/{path.name}" in path.read_text(encoding="utf-8").split("\nout:")[0]


def test_the_readme_lists_every_configuration() -> None:
    text = (ROOT / "training" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in FILES if f"| `{path.name}` |" not in text] == []


def test_the_alphabet_script_writes_the_first_level_alone(tmp_path: Path) -> None:
    script = str(ROOT / "training" / "gb2312.py")
    written = subprocess.run([sys.executable, script, "--level", "1"], capture_output=True, check=True).stdout
    (tmp_path / "alphabet.txt").write_bytes(written)
    alphabet = read_alphabet(tmp_path / "alphabet.txt")
    assert {len(character) for character in alphabet} == {1}
    level1 = [c for c in alphabet if "\u4e00" <= c <= "\u9fff"]
    assert (len(level1), level1[0], level1[-1]) == (3755, "啊", "座")  # as GB 2312 says of its rows 16 to 55
