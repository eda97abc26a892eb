"""Which recipe a checkpoint of a known family was trained for, and what tells it.

Several projects train the same network and prepare images differently, so weights alone may fit more than one
recipe. A wrong one gives wrong texts without an error; so where nothing tells it, the user is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.networks.families import Family, StateDict
from crnn_deploy.recipes.recipe import RECIPES, Blank, Recipe
from crnn_deploy.recipes.words import input_in_words

__all__ = ["Fitting", "RecipeUnclear", "doubt_of", "fitting_recipe", "recipes_with"]


class RecipeUnclear(CrnnDeployError, ValueError):
    """Weights that several recipes fit, and nothing that tells which."""

    def __init__(self, path: Path, family: str, recipes: list[Recipe]) -> None:
        shown = "; ".join(
            f"{recipe.name} ({input_in_words(recipe)}, blank {recipe.blank})" for recipe in recipes
        )
        super().__init__(
            f"{path}: these {family} weights fit {len(recipes)} recipes, and nothing in the file tells which "
            f"they were trained for; name it with --recipe NAME (start.recipe in a training): {shown}"
        )


@dataclass(frozen=True)
class Fitting:
    """A recipe, and what tells it."""

    recipe: Recipe
    told: str  # in words
    assumed: bool = False  # whether another recipe may be the right one
    doubt: str = ""  # in words, where the user names a built-in recipe that the network is not known with


def fitting_recipe(
    family: Family, state: StateDict, saved: Mapping[str, Any], blank: Blank | int | None, path: Path
) -> Fitting:
    """The recipe of a checkpoint that nobody named one for.

    saved: what the file says beside its weights; blank: as the user gave it
    Raises RecipeUnclear.
    """
    fits = _fits(family)
    if family.published is None:
        return Fitting(fits[0], f"the only one of {family.name}")
    if family.name == "mmocr" and (found := _mmocr(saved, blank)) is not None:
        return found
    height = saved.get("imgH")  # as the options of crnn.pytorch, clovaai and EasyOCR have it
    of_height = [recipe for recipe in fits if recipe.height == height]
    if len(_unlike(of_height)) == 1 and len(of_height) < len(fits):
        return Fitting(of_height[0], f"imgH {height} is saved beside the weights")
    if (name := family.published(state)) is not None:
        classes = family.classes(state)
        reason = f"assumed, as it is the published one of networks with {classes} classes"
        return Fitting(RECIPES[name], reason, assumed=True)
    raise RecipeUnclear(path, family.name, _unlike(fits))


def doubt_of(recipe: Recipe, family: Family, state: StateDict) -> str:
    """Why a recipe that the user named may be a mistake; empty where it fits, or is a file of the user."""
    fits = _fits(family)
    if RECIPES.get(recipe.name) is not recipe or _prepared(recipe) in map(_prepared, fits):
        return ""
    published = family.published(state) if family.published is not None else None
    names = dict.fromkeys(name for name in (published, *(one.name for one in fits)) if name is not None)
    return (
        f"the recipe {recipe.name} is of another network; weights of {family.name} go with "
        f"{', '.join(names)}; name the right one with --recipe, unless {recipe.name} is what they were "
        "trained with"
    )


def recipes_with(family: Family, classes: int) -> list[str]:
    """The built-in recipes of a family that have the characters of so many classes."""
    fits = _fits(family)
    return [
        name
        for name, recipe in RECIPES.items()
        if recipe.alphabet is not None
        and len(recipe.alphabet) + 1 == classes
        and (recipe.family == family.name or recipe in fits)
    ]


def _fits(family: Family) -> list[Recipe]:
    return [RECIPES[name] for name in (family.recipe, *family.others)]


def _mmocr(saved: Mapping[str, Any], blank: Blank | int | None) -> Fitting | None:
    """mmocr puts the blank first before version 1 and last from it on; all else is the same."""
    meta = saved.get("meta")
    if isinstance(meta, Mapping):
        version = meta.get("mmocr_version")
        if isinstance(version, str) and version[:1].isdigit():
            old = version.startswith("0.")
            return Fitting(RECIPES["mmocr-0.x" if old else "mmocr"], f"mmocr_version {version[:20]} is saved")
        # mmengine, which mmocr 1 trains with, took the place of mmcv's runner, which saved CLASSES
        if "mmengine_version" in meta:
            return Fitting(RECIPES["mmocr"], "mmengine_version is saved, as from mmocr 1 on")
        if "mmcv_version" in meta or "CLASSES" in meta:
            return Fitting(RECIPES["mmocr-0.x"], "it is saved as by mmcv, before mmocr 1")
    if blank is not None:
        return Fitting(RECIPES["mmocr-0.x" if blank in ("first", 0) else "mmocr"], f"--blank {blank}")
    return None


def _unlike(recipes: list[Recipe]) -> list[Recipe]:
    """Those that prepare images differently, or put the blank elsewhere; of like ones the first."""
    found: dict[Recipe, Recipe] = {}
    for recipe in recipes:
        found.setdefault(_prepared(recipe), recipe)
    return list(found.values())


def _prepared(recipe: Recipe) -> Recipe:
    """What a recipe says of images and the blank alone."""
    return replace(recipe, name="", about="", family=None, alphabet=None)
