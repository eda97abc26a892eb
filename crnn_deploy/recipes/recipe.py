"""Recipes: how each public CRNN family feeds its network and reads its output, in one typed table.

A recipe is what a checkpoint does not hold: preprocessing, alphabet, blank and width rule. Recipes for models
that are not built in are TOML files with the same fields (`export/` has examples). A checkpoint may hold a
recipe too. It comes from strangers, so it says how images are prepared and nothing else: it names no code.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from crnn_deploy.errors import CrnnDeployError, ManifestInvalid, did_you_mean, shortened
from crnn_deploy.files import read_regular
from crnn_deploy.manifest import (
    Color,
    Contrast,
    Filter,
    Grey,
    Interpolation,
    Manifest,
    OutputKind,
    StepRule,
    WidthRule,
    filter_from_plain,
)
from crnn_deploy.recipes import vocabularies

__all__ = [
    "HIGHEST",
    "RECIPES",
    "Blank",
    "Recipe",
    "RecipeInvalid",
    "find_recipe",
    "recipe_of_checkpoint",
    "recipe_of_manifest",
]

Blank = Literal["first", "last"]

HIGHEST = 1024  # pixels of a network's input
_MOST_PIXELS = 2**20  # of the smallest input that a checkpoint asks for
_LONGEST = 1_000_000  # characters of a text, bytes of a recipe file
_MOST_FILTERS = 8
_SHOWN = 60  # characters of a value in an error


class RecipeInvalid(CrnnDeployError, ValueError):
    """A recipe name that is not built in, or a recipe file that cannot be read."""


@dataclass(frozen=True)
class Recipe:
    """What to know of a model beside its weights."""

    name: str  # as given to --recipe
    about: str  # where its numbers come from
    width: WidthRule  # width of the input
    family: str | None = None  # network in crnn_deploy.networks; None for a model of one's own
    factory: str | None = None  # of one's own module, `package.module:name` or `file.py:name`
    alphabet: tuple[str, ...] | None = None  # None: it belongs to the checkpoint or the user
    blank: Blank | int = "first"  # class of the CTC blank, or its number
    color: Color = "gray"  # channel order of the input
    height: int = 32  # pixels
    mean: tuple[float, ...] = (0.5,)  # per channel, of values in 0-1
    std: tuple[float, ...] = (0.5,)  # per channel
    interpolation: Interpolation = "linear"  # names without a prefix are OpenCV's
    filters: tuple[Filter, ...] = ()  # applied to the grey image at its original size
    grey: Grey = "opencv"  # how colour becomes grey: cvtColor, Pillow's "L", OpenCV's decoders
    contrast: Contrast | None = None  # read again what was read unsurely
    leaky_relu: bool | None = None  # slope 0.2 in place of ReLU; None: as the checkpoint tells
    folder: Path = field(default=Path(), compare=False)  # where the recipe's file lies

    def blank_class(self, characters: int) -> int:
        """The class of the blank beside so many characters. Raises RecipeInvalid."""
        if isinstance(self.blank, int):
            if self.blank > characters:
                raise RecipeInvalid(
                    f"blank is class {self.blank}, and the network has {characters + 1} classes"
                )
            return self.blank
        return 0 if self.blank == "first" else characters

    def manifest(
        self,
        alphabet: tuple[str, ...],
        steps: StepRule,
        *,
        output: OutputKind = "logits",
        source: Mapping[str, str] | None = None,
        max_batch: int | None = None,
    ) -> Manifest:
        """The manifest of a model that is fed by this recipe. Raises ManifestInvalid, RecipeInvalid."""
        return Manifest(
            alphabet=alphabet,
            blank=self.blank_class(len(alphabet)),
            color=self.color,
            height=self.height,
            width=self.width,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            steps=steps,
            output=output,
            filters=self.filters,
            source=source or {},
            max_batch=max_batch,
            grey=self.grey,
            contrast=self.contrast,
        )


_EASYOCR_WIDTH = WidthRule(
    64,
    3200,
    multiple=64,
    fit="pad",
    pad="edge",
    rounding="floor",
    order="ratio",
    multiple_of="exact",
    tall="invert",
)
_EASYOCR_ABOUT = (
    # its cv2.resize(..., PIL.LANCZOS) is OpenCV's linear: both have the number 1
    "github.com/JaidedAI/EasyOCR utils.py, recognition.py: grey, height 64, width in proportion, "
    "the last column repeated up to a multiple of 64; unsure images are read again with more contrast"
)
_MMOCR = Recipe(
    name="mmocr",
    about="github.com/open-mmlab/mmocr configs/textrecog/crnn: grey, width in proportion, rounded "
    "to a multiple of 16, at least 32",
    family="mmocr",
    alphabet=tuple(vocabularies.LATIN_36),
    blank="last",
    width=WidthRule(32, 1600, multiple=16, rounding="ceil", order="scale", multiple_rounding="half-even"),
    grey="decoder",
    mean=(127 / 255,),
    std=(127 / 255,),
)
_DOCTR = Recipe(
    name="doctr-vgg16",
    about="github.com/mindee/doctr models/recognition: colour, fitted into 128 x 32 on black; "
    "words wider than 8:1, which docTR cuts into pieces, stay whole",
    family="doctr-vgg16",
    alphabet=tuple(vocabularies.DOCTR_FRENCH),
    blank="last",
    color="rgb",
    width=WidthRule(128, 128, fit="letterbox", rounding="floor", order="inverse"),
    mean=(0.694, 0.695, 0.693),
    std=(0.299, 0.296, 0.301),
    interpolation="torch-bilinear",
)
_CLOVAAI = Recipe(
    name="clovaai-vgg",
    about="github.com/clovaai/deep-text-recognition-benchmark dataset.py: grey, 100 x 32 whatever the aspect",
    family="clovaai-vgg",
    alphabet=tuple(vocabularies.LATIN_36),
    width=WidthRule(100, 100),
    interpolation="pillow-bicubic",
    grey="pillow",
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
        grey="decoder",
        contrast=Contrast(below=0.1, target=0.5),
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
        grey="pillow",
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
        about="github.com/Sierkinhane/CRNN_Chinese_Characters_Rec demo.py: grey, to height 32, "
        "then the width x 4/7; its 6,735 characters are in lib/config/alphabets.py",
        family="crnn",
        width=WidthRule(4, 1600, aspect=160 / 280, rounding="floor", resize="height-first"),
        mean=(0.588,),
        std=(0.193,),
        interpolation="cubic",
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
        grey="pillow",
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
        width=WidthRule(
            320,
            3200,
            fit="pad",
            pad=127.5,
            rounding="ceil",
            order="ratio",
            multiple_rounding="floor",
            multiple_of="exact",
        ),
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
            f"there is no recipe {name_or_file!r}{did_you_mean(name_or_file, RECIPES)}; "
            f"built in are {', '.join(RECIPES)}; or pass a .toml file"
        )
    try:
        plain = tomllib.loads(read_regular(path, _LONGEST).decode())
    except FileNotFoundError as error:
        raise RecipeInvalid(f"no recipe file at {path}") from error
    except RecursionError as error:
        raise RecipeInvalid(f"{path} is not a TOML recipe: its values are nested too deep") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        if "int_max_str_digits" in reason:
            reason = "it holds a number of more than 4,300 digits"
        raise RecipeInvalid(f"{path} is not a TOML recipe: {reason}") from error
    try:
        return _from_toml(plain, path)
    except (RecipeInvalid, ManifestInvalid) as error:
        raise RecipeInvalid(f"{path}: {_without_lead(error)}") from error


def recipe_of_checkpoint(plain: Mapping[Any, Any], path: Path) -> Recipe:
    """The recipe that the checkpoint at `path` holds: how images are prepared, and nothing else.

    Raises RecipeInvalid.
    """
    try:
        values = _typed(plain, _PREPARATION)
        if "width" not in values:
            raise RecipeInvalid("it has no width (minimum, maximum)")
        recipe = Recipe(**{"name": path.stem, "about": str(path), **values, "folder": path.parent})
        if recipe.height * recipe.width.minimum > _MOST_PIXELS:
            size = f"{recipe.height} x {recipe.width.minimum}"
            raise RecipeInvalid(f"its smallest image has {size} pixels, more than {_MOST_PIXELS:,}")
    except (RecipeInvalid, ManifestInvalid) as error:
        raise RecipeInvalid(
            f"its recipe is not valid: {_without_lead(error)}; give another one with --recipe NAME|FILE.toml"
        ) from error
    return recipe


def recipe_of_manifest(manifest: Manifest) -> Recipe:
    """What a model's manifest says of its recipe, under the name that it has there."""
    return Recipe(
        name=manifest.source.get("recipe", ""),
        about="",
        blank=manifest.blank,
        color=manifest.color,
        height=manifest.height,
        width=manifest.width,
        mean=manifest.mean,
        std=manifest.std,
        interpolation=manifest.interpolation,
        filters=manifest.filters,
        grey=manifest.grey,
        contrast=manifest.contrast,
    )


def _from_toml(plain: Mapping[str, Any], path: Path) -> Recipe:
    if "model" in plain:
        raise RecipeInvalid(
            "the key for a network of your own is called factory now: rename model to factory"
        )
    values = _typed(plain, {**_PREPARATION, **_BY_HAND})
    base = values.pop("base", None)
    if base is not None and base not in RECIPES:
        raise RecipeInvalid(f"base {_shown(base)} is not a built-in recipe{did_you_mean(base, RECIPES)}")
    values = {"name": path.stem, "about": str(path), **values, "folder": path.parent}
    if base is not None:
        return replace(RECIPES[base], **values)
    if "width" not in values:
        raise RecipeInvalid("it has no [width] table (minimum, maximum)")
    return Recipe(**values)


def _without_lead(error: Exception) -> str:
    return error.reason if isinstance(error, ManifestInvalid) else str(error)


def _typed(plain: Mapping[Any, Any], readers: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    """The values, each as its reader takes it. Raises RecipeInvalid, ManifestInvalid."""
    if unknown := [name for name in plain if name not in readers]:
        raise RecipeInvalid(
            f"unknown keys {_shown_names(unknown)}{did_you_mean(unknown[0], readers)}; "
            f"known are {sorted(readers)}"
        )
    values = {}
    for name, value in plain.items():
        try:
            values[name] = readers[name](value)
        except _Wrong as error:
            raise RecipeInvalid(f"{name} {error.said or f'is {_shown(value)}'}, not {error}") from error
    return values


class _Wrong(Exception):
    """A value that a reader does not take; the message is what it takes. said: of a part of it."""

    def __init__(self, taken: str, said: str = "") -> None:
        super().__init__(taken)
        self.said = said


def _shown(value: object) -> str:
    """A value in an error, short; of a list or a table its kind."""
    if isinstance(value, str | float) or value is None:
        return shortened(repr(value), _SHOWN)
    if isinstance(value, int):  # Python writes no number of more than 4,300 digits
        return str(value) if abs(value) < 10**_SHOWN else f"a number of more than {_SHOWN} digits"
    kinds = {list: "a list", tuple: "a list", dict: "a table of values"}
    return next((name for kind, name in kinds.items() if isinstance(value, kind)), type(value).__name__)


def _is_plain(value: object) -> bool:
    """A word or a number that can be written."""
    return isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 10**_SHOWN)


def _shown_names(names: list[Any]) -> str:
    shown = ", ".join(_shown(name) for name in names[:4])
    return f"[{shown}{', ...' if len(names) > 4 else ''}]"


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise _Wrong("a text")
    return value


def _choice(literal: Any) -> Callable[[Any], Any]:
    choices = get_args(literal)

    def read(value: Any) -> Any:
        if not isinstance(value, str) or value not in choices:
            raise _Wrong(f"one of {', '.join(choices)}{did_you_mean(value, choices)}")
        return value

    return read


def _blank(value: Any) -> Blank | int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LONGEST:
        return value
    if value not in get_args(Blank):
        raise _Wrong("first, last or the number of a class")
    return cast(Blank, value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("true or false")
    return value


def _height(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= HIGHEST:
        raise _Wrong(f"a whole number from 1 to {HIGHEST}")
    return value


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= 3:
        raise _Wrong("a list of a number for each channel")
    for number in value:
        if not isinstance(number, int | float) or isinstance(number, bool) or not abs(number) <= _LONGEST:
            raise _Wrong("numbers", f"holds {_shown(number)}")
    return tuple(float(number) for number in value)


def _alphabet(value: Any) -> tuple[str, ...]:
    if not isinstance(value, str | list) or not all(isinstance(token, str) for token in value):
        raise _Wrong("a text or a list of texts")
    return tuple(value)


def _width(value: Any) -> WidthRule:
    if not isinstance(value, Mapping):
        raise _Wrong("a table of minimum, maximum and what else WidthRule has")
    known = [f.name for f in fields(WidthRule)]
    if unknown := [name for name in value if name not in known]:
        raise RecipeInvalid(
            f"unknown keys {_shown_names(unknown)} in width{did_you_mean(unknown[0], known)}; "
            f"known are {known}"
        )
    for name in known:
        if name in value and not _is_plain(value[name]):
            raise RecipeInvalid(f"width.{name} is {_shown(value[name])}, not a number or a word")
    if missing := [name for name in ("minimum", "maximum") if name not in value]:
        raise RecipeInvalid(f"width has no {' and no '.join(missing)}")
    return WidthRule(**value)


def _filters(value: Any) -> tuple[Filter, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST_FILTERS:
        raise _Wrong(f"a list of at most {_MOST_FILTERS} tables")
    for item in value:
        if not isinstance(item, Mapping):
            raise RecipeInvalid(f"filters hold {_shown(item)}, not tables")
        for name, inner in item.items():
            if not isinstance(name, str) or not _is_plain(inner):
                raise RecipeInvalid(f"{_shown(name)} of a filter is {_shown(inner)}, not a number or a word")
    return tuple(filter_from_plain(item) for item in value)


def _contrast(value: Any) -> Contrast:
    if not isinstance(value, Mapping) or sorted(value, key=str) != ["below", "target"]:
        raise _Wrong("a table of below and target")
    if not all(map(_is_plain, value.values())):
        raise _Wrong("a table of below and target, numbers from 0 to 1")
    return Contrast(**value)


_PREPARATION: dict[str, Callable[[Any], Any]] = {  # what a checkpoint may say
    "about": _text,
    "width": _width,
    "blank": _blank,
    "color": _choice(Color),
    "height": _height,
    "mean": _numbers,
    "std": _numbers,
    "interpolation": _choice(Interpolation),
    "filters": _filters,
    "grey": _choice(Grey),
    "contrast": _contrast,
    "leaky_relu": _flag,
}
_BY_HAND: dict[
    str, Callable[[Any], Any]
] = {  # what a recipe file may say besides; `factory` is code that runs
    "name": _text,
    "family": _text,
    "factory": _text,
    "alphabet": _alphabet,
    "base": _text,
}
