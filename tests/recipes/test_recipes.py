"""Recipes: built-in ones against the numbers that each project publishes, files against what they say."""

from __future__ import annotations

import importlib.util
import string
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from crnn_deploy.manifest import AdaptiveThreshold, Clahe, Contrast, Manifest, StepRule, WidthRule
from crnn_deploy.networks.families import FAMILIES
from crnn_deploy.recipes.recipe import RECIPES, Recipe, RecipeInvalid, find_recipe
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.images.prepare import prepare

EXPORT = Path(__file__).parents[2] / "export"
DATA = Path(__file__).parents[2].parent / "shared" / "data"
LEVELS = np.arange(256)

sides = st.integers(1, 3000)


def manifest_of(recipe: Recipe) -> Manifest:
    return recipe.manifest(recipe.alphabet or ("a", "b"), StepRule(4, 0))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_a_built_in_recipe_is_whole(recipe: Recipe) -> None:
    assert recipe.family in {family.name for family in FAMILIES} or recipe.name == "paddleocr"
    assert recipe.factory is None
    assert "github.com/" in recipe.about or "arXiv" in recipe.about
    manifest_of(recipe)  # raises where it contradicts itself
    assert find_recipe(recipe.name) is recipe


def test_an_alphabet_tells_the_recipes_of_a_family_apart() -> None:
    for family in FAMILIES:
        if family.name == "compact":  # trained by this toolkit alone: its checkpoints hold their recipe
            continue
        known = [r for r in RECIPES.values() if r.family == family.name and r.alphabet is not None]
        assert known, family.name
        if family.name.startswith("easyocr"):
            assert len({len(r.alphabet or ()) for r in known}) == len(known)


@pytest.mark.parametrize(
    ("name", "classes", "sample"),
    [  # the published checkpoints' classes, and what some of them mean
        ("crnn.pytorch", 37, {1: "0", 10: "9", 11: "a", 36: "z"}),
        ("gitycc", 37, {1: "0", 36: "z"}),
        ("mmocr", 37, {0: "0", 35: "z"}),
        ("mmocr-0.x", 37, {1: "0", 36: "z"}),
        ("clovaai-vgg", 37, {1: "0", 36: "z"}),
        ("clovaai-resnet-sensitive", 95, dict(enumerate(string.printable[:-6], 1))),
        ("doctr-vgg16", 127, {0: "0", 36: "A", 62: "!", 94: "°", 99: "฿", 100: "à", 125: "Ç"}),
        ("easyocr-english-g2", 97, {1: "0", 11: "!", 43: " ", 44: "€", 45: "A", 71: "a", 96: "z"}),
        ("easyocr-latin-g2", 352, {1: " ", 17: "0", 95: "~", 96: "ª", 351: "€"}),
        ("easyocr-latin-g1", 168, {43: " ", 44: "A", 70: "a", 96: "À", 167: "ž"}),
        ("easyocr-cyrillic-g2", 208, {44: "€", 45: "₽", 46: "A", 98: "А", 207: "ӯ"}),
        ("easyocr-cyrillic-g1", 187, {44: "a", 70: "A", 96: "Ё", 186: "ө"}),
        ("easyocr-kannada-g2", 168, {44: "a", 167: "೯"}),
        ("easyocr-telugu-g2", 166, {44: "a", 165: "ౣ"}),
        ("easyocr-bengali-g1", 170, {44: "a", 169: "৯"}),
        ("easyocr-tamil-g1", 127, {44: "a", 126: "ழ"}),
    ],
)
def test_classes_are_those_of_the_published_checkpoint(
    name: str, classes: int, sample: dict[int, str]
) -> None:
    manifest = manifest_of(RECIPES[name])
    tokens = list(manifest.alphabet)
    tokens.insert(manifest.blank, "blank")
    assert len(tokens) == classes
    assert {index: tokens[index] for index in sample} == sample


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("crnn.pytorch", (LEVELS / 255 - 0.5) / 0.5),
        ("sierkinhane-360cc", (LEVELS / 255 - 0.588) / 0.193),
        ("gitycc", LEVELS / 127.5 - 1),
        ("mmocr", (LEVELS - 127) / 127),
        ("clovaai-vgg", (LEVELS / 255 - 0.5) / 0.5),
        ("easyocr-english-g2", (LEVELS / 255 - 0.5) / 0.5),
        (str(EXPORT / "crnn_plate_eu36.toml"), (LEVELS / 255 - 0.5) / 0.5),
        (str(EXPORT / "lprnet_cn.toml"), (LEVELS - 127.5) * 0.0078125),
    ],
)
def test_pixels_become_the_published_numbers(name: str, published: np.ndarray) -> None:
    recipe = find_recipe(name)
    for mean, std in zip(recipe.mean, recipe.std, strict=True):
        np.testing.assert_allclose((LEVELS / 255 - mean) / std, published, atol=1e-6)


def test_a_360cc_line_is_160_wide() -> None:
    assert RECIPES["sierkinhane-360cc"].width.bucket(32, 280, 32) == 160


@pytest.mark.parametrize("shape", [(20, 300, 3), (64, 64, 3), (32, 128, 3), (7, 25, 3)])
def test_doctr_fits_a_word_into_its_frame(shape: tuple[int, int, int]) -> None:
    manifest = manifest_of(RECIPES["doctr-vgg16"])
    prepared = prepare(np.full(shape, 255, np.uint8), manifest)
    ratio = shape[0] / shape[1]
    rows, columns = (32, int(32 / ratio)) if ratio > 32 / 128 else (int(128 * ratio), 128)
    white, black = ((level - 0.694) / 0.299 for level in (1.0, 0.0))
    expected = np.full((32, 128), black)
    expected[:rows, :columns] = white
    np.testing.assert_allclose(prepared[0], expected, atol=1e-5)


def test_doctr_takes_red_first() -> None:
    red = np.zeros((32, 128, 3), np.uint8)
    red[..., 2] = 255  # BGR
    prepared = prepare(red, manifest_of(RECIPES["doctr-mobilenet-small"]))
    assert (prepared.mean((1, 2)) > 0).tolist() == [True, False, False]


def test_an_unknown_recipe_names_the_known_ones() -> None:
    with pytest.raises(RecipeInvalid, match=r"no recipe 'crnn'.*crnn\.pytorch, paper.*\.toml"):
        find_recipe("crnn")


def write(folder: Path, text: str) -> str:
    file = folder / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_a_recipe_file_says_everything(tmp_path: Path) -> None:
    text = """
        about = "my own"
        factory = "net.py:make"
        alphabet = ["a", "ch", " "]
        blank = "last"
        color = "gray"
        height = 48
        mean = [0.25]
        std = [1]
        interpolation = "cubic"
        grey = "pillow"
        contrast = { below = 0.1, target = 0.5 }
        leaky_relu = true
        [width]
        minimum = 8
        maximum = 800
        multiple = 8
        fit = "pad"
        pad = "edge"
        rounding = "floor"
        order = "ratio"
        multiple_rounding = "half-even"
        multiple_of = "exact"
        resize = "once"
        tall = "invert"
        [[filters]]
        filter = "clahe"
        clip = 3
        tiles = 4
    """
    assert find_recipe(write(tmp_path, text)) == Recipe(
        name="mine",
        about="my own",
        width=WidthRule(
            *(8, 800, 8, "pad", "edge", 1.0, "floor"), "ratio", "half-even", "exact", "once", "invert"
        ),
        factory="net.py:make",
        alphabet=("a", "ch", " "),
        blank="last",
        height=48,
        mean=(0.25,),
        std=(1.0,),
        interpolation="cubic",
        filters=(Clahe(3, 4),),
        grey="pillow",
        contrast=Contrast(0.1, 0.5),
        leaky_relu=True,
        folder=tmp_path,
    )


def test_a_recipe_file_may_start_from_a_built_in_one(tmp_path: Path) -> None:
    mine = find_recipe(write(tmp_path, 'base = "doctr-vgg16"\nalphabet = "abc"'))
    built_in = RECIPES["doctr-vgg16"]
    assert mine.alphabet == ("a", "b", "c")
    assert (mine.name, mine.folder) == ("mine", tmp_path)
    assert (mine.family, mine.blank, mine.width, mine.mean) == (
        *(built_in.family, built_in.blank),
        *(built_in.width, built_in.mean),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("about = ", "not a TOML recipe"),
        ('about = "x"', r"no \[width\] table"),
        ('base = "nobody"', "base 'nobody' is not a built-in recipe"),
        ('base = "paper"\ncolour = "gray"', r"unknown keys .*did you mean color.*; known are .*'color'"),
        ("[width]\nminimum = 8\nmaximum = 4", "widths from 8 to 4"),
        ("[width]\nminimum = 8\nmaximum = 16\nmultiple = 5", "not multiples of 5"),
        ("[width]\nminimum = 8\nmaximum = 16\nlength = 5", "length"),
        ('base = "paper"\n[[filters]]\nfilter = "blur"', "unknown filter 'blur'"),
        ('base = "paper"\nmean = ["a"]', "mean holds 'a', not numbers"),
        ('base = "paper"\nheight = "x"', "height is 'x', not a whole number from 1 to 1024"),
        ('base = "paper"\nheight = 0x' + "f" * 5000, "height is a number of more than 60 digits"),
        ("height = " + "9" * 5000, "it holds a number of more than 4,300 digits"),
        ("height = " + "[" * 3000 + "]" * 3000, "its values are nested too deep"),
        ("width = [8, 16]", "width is a list, not a table"),
        ("[width]\nminimum = 8", "width has no maximum"),
        ("[width]\nminimum = [8]\nmaximum = 9", "width.minimum is a list, not a number or a word"),
        ('base = "paper"\nalphabet = 5', "alphabet is 5, not a text or a list of texts"),
        ('base = "paper"\nalphabet = [5]', "alphabet is a list, not a text or a list of texts"),
        ('base = "paper"\nblank = -3', "blank is -3, not first, last or the number of a class"),
        ('base = "paper"\nfactory = ["x"]', "factory is a list, not a text"),
        ('base = "paper"\nmodel = "net.py:make"', "rename model to factory"),
        ("base = [1]", "base is a list, not a text"),
        ('base = "paper"\nstd = [nan]', "std holds nan, not numbers"),
        ('base = "paper"\nfilters = 3', "filters is 3, not a list"),
        ('base = "paper"\nfilters = ["clahe"]', "filters hold 'clahe', not tables"),
        ('base = "paper"\nleaky_relu = 1', "leaky_relu is 1, not true or false"),
        ('base = "paper"\nfolder = "/"', r"unknown keys \['folder'\]"),
    ],
)
def test_a_bad_recipe_file_says_why(tmp_path: Path, text: str, reason: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(RecipeInvalid, match=reason) as caught:
        find_recipe(file)
    assert file in str(caught.value)


def test_a_missing_recipe_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeInvalid, match=r"no recipe file at .*none\.toml"):
        find_recipe(str(tmp_path / "none.toml"))


def module_of(recipe: Recipe) -> nn.Module:
    assert recipe.factory is not None
    file, _, factory = recipe.factory.partition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, recipe.folder / file)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    module: nn.Module = getattr(found, factory)()
    return module.eval()


@pytest.mark.parametrize("file", sorted(EXPORT.glob("*.toml")), ids=lambda file: file.stem)
def test_a_shipped_recipe_file_fits_its_network(file: Path) -> None:
    recipe = find_recipe(str(file))
    manifest = manifest_of(recipe)
    images = torch.zeros(5, manifest.channels, manifest.height, manifest.width.minimum)
    with torch.inference_mode():
        logits = module_of(recipe)(images)
    assert logits.ndim == 3
    assert 5 in logits.shape and manifest.classes in logits.shape


def checkpoint(name: str, file: str) -> dict[str, Tensor]:
    path = DATA / "checkpoints" / name / file
    if not path.exists():
        pytest.skip("the real checkpoints are not here (../shared/data/checkpoints)")
    state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def greedy(classes: list[int], manifest: Manifest) -> str:
    tokens: list[str] = list(manifest.alphabet)
    tokens.insert(manifest.blank, "")
    return "".join(tokens[c] for before, c in zip([-1, *classes], classes, strict=False) if c != before)


def test_the_plate_reader_reads_its_plate() -> None:
    recipe = find_recipe(str(EXPORT / "crnn_plate_eu36.toml"))
    assert recipe.filters == (Clahe(2.0, 8), AdaptiveThreshold(15, 10, invert=True))
    manifest, module = manifest_of(recipe), module_of(recipe)
    module.load_state_dict(checkpoint("crnn_plate_eu36", "crnn_model.pth"))
    image = prepare(read_image(DATA / "checkpoints" / "crnn_plate_eu36" / "EM727PD.jpg"), manifest)
    with torch.inference_mode():
        logits = module(torch.from_numpy(image)[None])
    assert logits.shape == (32, 1, 37)
    assert greedy(logits[:, 0].argmax(1).tolist(), manifest) == "EM727PD"


def test_lprnet_reads_nine_of_ten_plates_and_each_by_itself() -> None:
    recipe = find_recipe(str(EXPORT / "lprnet_cn.toml"))
    manifest, module = manifest_of(recipe), module_of(recipe)
    module.load_state_dict(checkpoint("lprnet_cn", "Final_LPRNet_model.pth"))
    rows = (DATA / "plates_cn" / "labels.tsv").read_text(encoding="utf-8").splitlines()
    plates = [row.split("\t") for row in rows if (DATA / "plates_cn" / row.split("\t")[0]).exists()]
    images = torch.stack(
        [torch.from_numpy(prepare(read_image(DATA / "plates_cn" / file), manifest)) for file, _ in plates]
    )
    with torch.inference_mode():
        logits = module(images)
        torch.testing.assert_close(module(images[7:8]), logits[7:8], atol=1e-3, rtol=1e-4)
    assert logits.shape == (len(plates), 68, 18)
    texts = [greedy(classes, manifest) for classes in logits.argmax(1).tolist()]
    exact = sum(text == label for text, (_, label) in zip(texts, plates, strict=True))
    assert len(plates) >= 200
    assert exact >= 0.88 * len(plates)
