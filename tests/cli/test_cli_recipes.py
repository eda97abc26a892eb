"""`crnn-deploy recipes`: what it lists and shows, and that a recipe shown is a recipe to give."""

from __future__ import annotations

import string
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from crnn_deploy.cli.main import main
from crnn_deploy.manifest import AdaptiveThreshold, Clahe, Contrast, Stretch, WidthRule
from crnn_deploy.recipes.recipe import RECIPES, Recipe, find_recipe
from crnn_deploy.recipes.toml_file import to_toml

EXPORT = Path(__file__).parents[2] / "export"
RARE = Recipe(
    name='own "one"\\',
    about="a\ttab, a line\nand \x00\x1b\x7f\x85",
    width=WidthRule(100, 200, multiple=4, aspect=4 / 7, pad=127.5, fit="pad", rounding="floor"),
    alphabet=("", "ch", "'", '"', "\\", "\u202e", "字"),
    blank=3,
    height=48,
    mean=(1e-05, 0.1, 1 / 3),
    std=(-1.0, 2.0, 1e5),
    color="bgr",
    filters=(Stretch(0.25, 1), Clahe(2.0, 8), AdaptiveThreshold(15, -10.5, True)),
    contrast=Contrast(0.1, 0.5),
    leaky_relu=False,
    factory="own.py:build",
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["recipes", *arguments])


def test_the_list_has_a_line_for_each_recipe() -> None:
    result = run()
    assert result.exit_code == 0
    assert [line.split(maxsplit=1) for line in result.stdout.splitlines()] == [
        [recipe.name, recipe.about] for recipe in RECIPES.values()
    ]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_shown_is_the_same_recipe_as_a_file(name: str, tmp_path: Path) -> None:
    result = run(name)
    assert (result.exit_code, result.stderr) == (0, "")
    (tmp_path / "own.toml").write_bytes(result.stdout_bytes)
    assert find_recipe(str(tmp_path / "own.toml")) == RECIPES[name]
    shown = tomllib.loads(result.stdout)
    assert "base" not in shown and shown["width"]["minimum"] == RECIPES[name].width.minimum


@pytest.mark.parametrize(
    "recipe",
    [
        RARE,
        replace(RARE, alphabet=tuple(string.printable), leaky_relu=True, contrast=None, filters=()),
        *(find_recipe(str(path)) for path in sorted(EXPORT.glob("*.toml"))),
    ],
    ids=lambda recipe: Path(recipe.name).name,
)
def test_any_recipe_is_the_same_in_its_toml(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(to_toml(recipe), encoding="utf-8", newline="")
    assert find_recipe(str(path)) == recipe


def test_a_name_that_is_not_there_gets_the_nearest_one() -> None:
    result = run("mmocr-0x")
    assert result.exit_code == 2
    assert result.stderr == (
        "Error: there is no built-in recipe 'mmocr-0x' (did you mean mmocr-0.x?); "
        "crnn-deploy recipes lists them\n"
    )
    assert "did you mean" not in run("nothing-like-it").stderr
