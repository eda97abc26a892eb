"""`crnn-deploy recipes`: the built-in recipes, and each of them whole."""

from __future__ import annotations

import click

from crnn_deploy.cli.outputs import check_report
from crnn_deploy.cli.say import say

__all__ = ["recipes"]


def _names(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """The recipes that a shell completes a word to."""
    from crnn_deploy.recipes.recipe import RECIPES

    return [name for name in RECIPES if name.startswith(incomplete)]


@click.command()
@click.argument("name", metavar="[NAME]", required=False, shell_complete=_names)
def recipes(name: str | None) -> None:
    """List the built-in recipes, or show one.

    A recipe holds the facts about a model that its weights do not: preprocessing, alphabet, blank and width
    rule. Each line has the name of a recipe and the source of its values. With NAME, the command prints the
    whole recipe as TOML. Save that in a file and change it to make a recipe of your own, for --recipe
    FILE.toml.

    \b
    crnn-deploy recipes
    crnn-deploy recipes paper
    crnn-deploy recipes paper > own.toml
    """
    from crnn_deploy.errors import did_you_mean
    from crnn_deploy.recipes.recipe import RECIPES, RecipeInvalid
    from crnn_deploy.recipes.toml_file import to_toml

    check_report()
    if name is None:
        for recipe in RECIPES.values():
            say(f"{recipe.name:28}{recipe.about}")
        return
    if name not in RECIPES:
        hint = did_you_mean(name, RECIPES)
        raise RecipeInvalid(f"there is no built-in recipe {name!r}{hint}; crnn-deploy recipes lists them")
    say(to_toml(RECIPES[name]).rstrip("\n"))
