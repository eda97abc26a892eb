"""`crnn-deploy recipes`: the built-in recipes, and each of them whole."""

from __future__ import annotations

import click

from crnn_deploy.cli.outputs import check_report
from crnn_deploy.cli.say import say
from crnn_deploy.cli.values import RecipeText

__all__ = ["recipes"]


@click.command()
@click.argument("name", metavar="[NAME]", required=False, type=RecipeText())
def recipes(name: str | None) -> None:
    """List the built-in recipes, or show one.

    A recipe is what to know of a model beside its weights: preprocessing, alphabet, blank and width rule.
    Each line has a recipe's name and where its numbers come from. With NAME the command prints that recipe
    whole, as TOML. Saved in a file and changed, it is a recipe of your own for --recipe FILE.toml.

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
