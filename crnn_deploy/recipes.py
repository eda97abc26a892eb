"""Recipes: how each public CRNN family feeds its network and reads its output, in one typed table.

A recipe is what a checkpoint does not hold: preprocessing, alphabet, blank and width rule. Recipes for models
that are not built in are TOML files with the same fields (`export/` has examples).
"""

from __future__ import annotations

import string
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from crnn_deploy.errors import CrnnDeployError, ManifestInvalid
from crnn_deploy.manifest import Color, Filter, Interpolation, WidthRule, filter_from_plain

__all__ = ["RECIPES", "Recipe", "RecipeInvalid", "find_recipe"]


class RecipeInvalid(CrnnDeployError, ValueError):
    """A recipe name that is not built in, or a recipe file that cannot be read."""


@dataclass(frozen=True)
class Recipe:
    """What to know of a model beside its weights."""

    name: str  # as given to --recipe
    about: str  # where its numbers come from
    width: WidthRule  # width of the input
    family: str | None = None  # network in crnn_deploy.networks; None for a model of one's own
    model: str | None = None  # factory of one's own module, `package.module:factory` or `file.py:factory`
    alphabet: tuple[str, ...] | None = None  # None: it belongs to the checkpoint or the user
    blank: Literal["first", "last"] = "first"  # class of the CTC blank
    color: Color = "gray"  # channel order of the input
    height: int = 32  # pixels
    mean: tuple[float, ...] = (0.5,)  # per channel, of values in 0-1
    std: tuple[float, ...] = (0.5,)  # per channel
    interpolation: Interpolation = "linear"  # names without a prefix are OpenCV's
    filters: tuple[Filter, ...] = ()  # applied to the grey image at its original size
    leaky_relu: bool | None = None  # slope 0.2 in place of ReLU; None: told from the checkpoint
    folder: Path = field(default=Path(), compare=False)  # where the recipe's file lies


_LOWER = string.digits + string.ascii_lowercase

_TABLE = (
    Recipe(
        name="crnn.pytorch",
        about="github.com/meijieru/crnn.pytorch demo.py: grey, 100 x 32 whatever the aspect",
        family="crnn",
        alphabet=tuple(_LOWER),
        width=WidthRule(100, 100),
        interpolation="pillow-bilinear",
    ),
    Recipe(
        name="paper",
        about="arXiv 1507.05717 section 3.2: height 32, width in proportion and at least 100",
        family="crnn",
        alphabet=tuple(_LOWER),
        width=WidthRule(100, 1600, multiple=4),
    ),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _TABLE}


def find_recipe(name_or_file: str) -> Recipe:
    """A built-in recipe by its name, or one read from a TOML file. Raises RecipeInvalid."""
    if name_or_file in RECIPES:
        return RECIPES[name_or_file]
    path = Path(name_or_file)
    if path.suffix != ".toml":
        raise RecipeInvalid(
            f"there is no recipe {name_or_file!r}; built in are {', '.join(RECIPES)}; or pass a .toml file"
        )
    try:
        plain = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeInvalid(f"no recipe file at {path}") from error
    except (OSError, ValueError) as error:
        raise RecipeInvalid(f"{path} is not a TOML recipe: {error}") from error
    try:
        return _from_plain(plain, path)
    except (RecipeInvalid, ManifestInvalid, TypeError, ValueError) as error:
        raise RecipeInvalid(f"{path}: {error}") from error


def _from_plain(plain: dict[str, Any], path: Path) -> Recipe:
    base = plain.pop("base", None)
    if base is not None and base not in RECIPES:
        raise RecipeInvalid(f"base {base!r} is not a built-in recipe")
    known = {f.name for f in fields(Recipe)} - {"folder"}
    if unknown := set(plain) - known:
        raise RecipeInvalid(f"unknown keys {sorted(unknown)}; known are {sorted(known | {'base'})}")
    values: dict[str, Any] = {"name": path.stem, "about": str(path), **plain, "folder": path.parent}
    if "alphabet" in values:
        values["alphabet"] = tuple(values["alphabet"])
    for name in ("mean", "std"):
        if name in values:
            values[name] = tuple(float(x) for x in values[name])
    if "filters" in values:
        values["filters"] = tuple(filter_from_plain(f) for f in values["filters"])
    if "width" in values:
        values["width"] = WidthRule(**values["width"])
    if base is not None:
        return replace(RECIPES[base], **values)
    if "width" not in values:
        raise RecipeInvalid("it has no [width] table (minimum, maximum)")
    return Recipe(**values)
