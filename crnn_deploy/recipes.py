"""Recipes: how each public CRNN family feeds its network and reads its output, in one typed table.

A recipe is what a checkpoint does not hold: preprocessing, alphabet, blank and width rule. Recipes for models
that are not built in are TOML files with the same fields (`export/` has examples).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from crnn_deploy import vocabularies
from crnn_deploy.errors import CrnnDeployError, ManifestInvalid
from crnn_deploy.manifest import Color, Filter, Interpolation, WidthRule, filter_from_plain

__all__ = ["RECIPES", "Recipe", "RecipeInvalid", "find_recipe", "recipe_from_plain"]


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
    leaky_relu: bool | None = None  # slope 0.2 in place of ReLU; None: as the checkpoint tells, or ReLU
    folder: Path = field(default=Path(), compare=False)  # where the recipe's file lies


_EASYOCR_WIDTH = WidthRule(64, 3200, multiple=64, fit="pad", pad="edge", rounding="floor")
_EASYOCR_ABOUT = (
    # its cv2.resize(..., PIL.LANCZOS) is OpenCV's linear: both have the number 1
    "github.com/JaidedAI/EasyOCR utils.py, recognition.py: grey, height 64, width in proportion, "
    "the last column repeated up to a multiple of 64"
)
_MMOCR = Recipe(
    name="mmocr",
    about="github.com/open-mmlab/mmocr configs/textrecog/crnn: grey, width in proportion, at least 32 "
    "(mmocr also rounds it to the nearest multiple of 16)",
    family="mmocr",
    alphabet=tuple(vocabularies.LATIN_36),
    blank="last",
    width=WidthRule(32, 1600, rounding="ceil"),
    mean=(127 / 255,),
    std=(127 / 255,),
    leaky_relu=False,
)
_DOCTR = Recipe(
    name="doctr-vgg16",
    about="github.com/mindee/doctr models/recognition: colour, fitted into 128 x 32 on black; "
    "words wider than 8:1, which docTR cuts into pieces, stay whole",
    family="doctr-vgg16",
    alphabet=tuple(vocabularies.DOCTR_FRENCH),
    blank="last",
    color="rgb",
    width=WidthRule(128, 128, fit="letterbox", rounding="floor"),
    mean=(0.694, 0.695, 0.693),
    std=(0.299, 0.296, 0.301),
    interpolation="pillow-bilinear",
)
_CLOVAAI = Recipe(
    name="clovaai-vgg",
    about="github.com/clovaai/deep-text-recognition-benchmark dataset.py: grey, 100 x 32 whatever the aspect",
    family="clovaai-vgg",
    alphabet=tuple(vocabularies.LATIN_36),
    width=WidthRule(100, 100),
    interpolation="pillow-bicubic",
)


def _easyocr(model: str, alphabet: str | None, about: str = "") -> Recipe:
    """A recognition model of EasyOCR; its name ends in the generation."""
    return Recipe(
        name=f"easyocr-{model}",
        about=_EASYOCR_ABOUT + about,
        family=f"easyocr-{model[-2:]}",
        alphabet=None if alphabet is None else tuple(alphabet),
        height=64,
        width=_EASYOCR_WIDTH,
    )


_TABLE = (
    Recipe(
        name="crnn.pytorch",
        about="github.com/meijieru/crnn.pytorch demo.py: grey, 100 x 32 whatever the aspect; "
        "also Holmeyoung/crnn-pytorch with an alphabet of one's own",
        family="crnn",
        alphabet=tuple(vocabularies.LATIN_36),
        width=WidthRule(100, 100),
        interpolation="pillow-bilinear",
    ),
    Recipe(
        name="paper",
        about="arXiv 1507.05717 section 3.2: height 32, width in proportion and at least 100",
        family="crnn",
        alphabet=tuple(vocabularies.LATIN_36),
        width=WidthRule(100, 1600, multiple=4),
    ),
    Recipe(
        name="sierkinhane-360cc",
        about="github.com/Sierkinhane/CRNN_Chinese_Characters_Rec demo.py: grey, width in proportion, x 4/7; "
        "its 6,735 characters are in lib/config/alphabets.py",
        family="crnn",
        width=WidthRule(16, 1600, aspect=160 / 280, rounding="floor"),
        mean=(0.588,),
        std=(0.193,),
        interpolation="cubic",
        leaky_relu=False,
    ),
    _MMOCR,
    replace(
        _MMOCR,
        name="mmocr-0.x",
        about="github.com/open-mmlab/mmocr branch 0.x, convertors/ctc.py: as mmocr, with the blank first",
        blank="first",
    ),
    Recipe(
        name="gitycc",
        about="github.com/GitYCC/crnn-pytorch src/dataset.py: grey, 100 x 32 whatever the aspect",
        family="gitycc",
        alphabet=tuple(vocabularies.LATIN_36),
        width=WidthRule(100, 100),
        interpolation="pillow-bilinear",
        leaky_relu=False,
    ),
    _CLOVAAI,
    replace(_CLOVAAI, name="clovaai-vgg-sensitive", alphabet=tuple(vocabularies.LATIN_94)),
    replace(_CLOVAAI, name="clovaai-resnet", family="clovaai-resnet"),
    replace(
        _CLOVAAI,
        name="clovaai-resnet-sensitive",
        family="clovaai-resnet",
        alphabet=tuple(vocabularies.LATIN_94),
    ),
    _DOCTR,
    replace(_DOCTR, name="doctr-mobilenet-small", family="doctr-mobilenet-small"),
    replace(_DOCTR, name="doctr-mobilenet-large", family="doctr-mobilenet-large"),
    Recipe(
        name="paddleocr",
        about="github.com/PaddlePaddle/PaddleOCR tools/infer/predict_rec.py (PP-OCRv3, v4; RapidOCR), for "
        "`describe`: BGR, height 48, width in proportion, grey on the right up to 320",
        blank="first",
        color="bgr",
        height=48,
        width=WidthRule(320, 3200, fit="pad", pad=127.5, rounding="ceil"),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    _easyocr("english-g2", vocabularies.EASYOCR_ENGLISH_G2),
    _easyocr("latin-g2", vocabularies.EASYOCR_LATIN_G2),
    _easyocr("cyrillic-g2", vocabularies.EASYOCR_CYRILLIC_G2),
    _easyocr("kannada-g2", vocabularies.EASYOCR_KANNADA_G2),
    _easyocr("telugu-g2", vocabularies.EASYOCR_TELUGU_G2),
    _easyocr("g2", None, "; the characters of zh_sim_g2, japanese_g2 and korean_g2 are in config.py"),
    _easyocr("latin-g1", vocabularies.EASYOCR_LATIN_G1),
    _easyocr("cyrillic-g1", vocabularies.EASYOCR_CYRILLIC_G1),
    _easyocr("bengali-g1", vocabularies.EASYOCR_BENGALI_G1),
    _easyocr("tamil-g1", vocabularies.EASYOCR_TAMIL_G1),
    _easyocr("g1", None, "; the characters of the other models of this generation are in config.py"),
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
    return recipe_from_plain(plain, path)


def recipe_from_plain(plain: Mapping[str, Any], path: Path) -> Recipe:
    """A recipe from the fields of its TOML form; `path` is where they stand. Raises RecipeInvalid."""
    try:
        return _from_plain(dict(plain), path)
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
