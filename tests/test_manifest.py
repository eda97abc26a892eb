"""The manifest: what goes in comes out, and what contradicts itself is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.errors import ManifestInvalid
from crnn_deploy.manifest import AdaptiveThreshold, Clahe, Manifest, StepRule, Stretch, WidthRule
from crnn_deploy.recipes.recipe import RECIPES, Recipe, find_recipe
from crnn_deploy.runtime.long_lines import uncut

VALID = Manifest(
    alphabet=("a", "b", "fi", " "),
    blank=0,
    color="gray",
    height=32,
    width=WidthRule(32, 320, multiple=8),
    mean=(0.5,),
    std=(0.5,),
    interpolation="linear",
    steps=StepRule(4, 4),
    filters=(Stretch(0.01, 96), Clahe(2.0, 8), AdaptiveThreshold(15, 10.0, True)),
    source={"recipe": "own"},
)


decoding_rules = st.builds(
    DecodingRule,
    decoder=st.sampled_from(["greedy", "beam"]),
    beam_width=st.integers(1, 99),
    alpha=st.floats(0, 2),
    allow=st.none() | st.text(st.characters(exclude_categories=["Cs"])),
    pattern=st.none() | st.just("[0-9]+"),
    max_length=st.none() | st.integers(0, 9),
    hotwords=st.lists(st.text(st.characters(exclude_categories=["Cs"]))).map(tuple),
    accents=st.booleans(),
    aggregate=st.sampled_from(["min", "mean", "product", "likelihood"]),
    temperature=st.floats(0.5, 8),
)


@st.composite
def width_rules(draw: st.DrawFn) -> WidthRule:
    multiple = draw(st.integers(1, 32))
    low = draw(st.integers(1, 40))
    return WidthRule(
        minimum=multiple * low,
        maximum=multiple * draw(st.integers(low, 90)),
        multiple=multiple,
        fit=draw(st.sampled_from(["stretch", "pad"])),
        pad=draw(st.sampled_from([0.0, 127.5, "edge"])),
        aspect=draw(st.floats(0.25, 4)),
        rounding=draw(st.sampled_from(["floor", "nearest", "ceil"])),
        order=draw(st.sampled_from(["product", "ratio", "scale", "inverse"])),
    )


@given(
    alphabet=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=3), min_size=1, unique=True
    ),
    last=st.booleans(),
    width=width_rules(),
    stride=st.integers(1, 8),
    together=st.none() | st.integers(1, 99),
    decoding=decoding_rules,
)
def test_json_round_trip(
    alphabet: list[str],
    last: bool,
    width: WidthRule,
    stride: int,
    together: int | None,
    decoding: DecodingRule,
) -> None:
    manifest = replace(
        VALID,
        alphabet=tuple(alphabet),
        blank=len(alphabet) if last else 0,
        width=width,
        steps=StepRule(stride, stride),
        max_batch=together,
        decoding=decoding,
    )
    assert Manifest.from_json(manifest.to_json()) == manifest


@given(rule=width_rules(), height=st.integers(1, 500), width=st.integers(1, 5000), taller=st.integers(0, 50))
def test_a_bucket_is_the_smallest_that_holds_the_natural_width(
    rule: WidthRule, height: int, width: int, taller: int
) -> None:
    bucket = rule.bucket(height, width, 32)
    assert bucket in rule.buckets()
    natural = rule.natural(height, width, 32)
    assert abs(natural - width * 32 / height * rule.aspect) <= 1
    assert bucket >= natural or bucket == rule.maximum
    assert bucket - natural < rule.multiple or bucket == rule.minimum
    assert rule.bucket(height + taller, width, 32) <= bucket  # monotone
    assert rule.bucket(height, width + taller, 32) >= bucket


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(-3, 3)), min_size=1, max_size=5))
def test_a_chain_of_strided_layers_is_one_rule(layers: list[tuple[int, int, int]]) -> None:
    """floor((w + a) / s) after floor((w + b) / t) is floor((w + b + t a) / (s t))."""

    def chain(width: int) -> int:
        for stride, padding, extra in layers:
            width = (width + 2 * padding + extra) // stride
        return width

    stride, offset = 1, 0
    for step, padding, extra in layers:
        offset += stride * (2 * padding + extra)
        stride *= step
    rule = StepRule(stride, offset)
    assert all(rule(width) == chain(width) for width in range(40, 140))


@given(
    rule=width_rules(),
    rounding=st.sampled_from(["floor", "nearest", "ceil", "half-even"]),
    to=st.sampled_from(["natural", "exact"]),
    height_first=st.booleans(),
    tall=st.sampled_from(["keep", "invert", "invert-pillow13"]),
    height=st.integers(1, 500),
    width=st.integers(1, 5000),
)
def test_every_rule_gives_one_of_its_buckets(
    rule: WidthRule, rounding: Any, to: Any, height_first: bool, tall: Any, height: int, width: int
) -> None:
    rule = replace(rule, multiple_rounding=rounding, multiple_of=to)
    if rule.fit == "pad":
        rule = replace(rule, tall=tall)
    elif height_first:
        rule = replace(rule, resize="height-first")
    assert rule.bucket(height, width, 32) in rule.buckets()
    manifest = replace(VALID, width=rule, grey="pillow", steps=StepRule(1, 0))
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_what_earlier_versions_wrote_means_what_it_meant() -> None:
    """The JSON of an export before widths had an order, and before grey and contrast."""
    width = {"minimum": 64, "maximum": 3200, "multiple": 64, "fit": "pad", "pad": "edge", "aspect": 1.0}
    plain = json.loads(VALID.to_json()) | {"width": {**width, "rounding": "floor"}}
    assert not {"grey", "contrast"} & set(plain) and len(json.loads(VALID.to_json())["width"]) == 7
    manifest = Manifest.from_json(json.dumps(plain))
    assert manifest.width == WidthRule(64, 3200, 64, "pad", "edge", 1.0, "floor")
    assert (manifest.grey, manifest.contrast) == ("opencv", None)
    assert manifest.width.bucket(30, 61, 64) == 192 and manifest.width.bucket(60, 20, 64) == 64
    assert manifest.width.natural(60, 20, 64) == 21 and manifest.width.between(60, 20, 64) is None


@pytest.mark.parametrize(
    "values",
    [
        {"grey": "luma"},
        {"contrast": {"below": 2, "target": 0.5}},
        {"contrast": {"below": 0.1}},
        {"contrast": 0.1},
        {"width": {"minimum": 8, "maximum": 80, "order": "ratios"}},
        {"width": {"minimum": 8, "maximum": 80, "multiple_rounding": "up"}},
        {"width": {"minimum": 8, "maximum": 80, "multiple_of": "width"}},
        {"width": {"minimum": 8, "maximum": 80, "resize": "twice"}},
        {"width": {"minimum": 8, "maximum": 80, "fit": "pad", "resize": "height-first"}},
        {"width": {"minimum": 8, "maximum": 80, "tall": "invert"}},
        {"width": {"minimum": 8, "maximum": 80, "fit": "pad", "tall": "turn"}},
        {"interpolation": "pillow12-bicubic"},
        {"color": "rgb", "mean": [0.5] * 3, "std": [0.5] * 3, "filters": [], "grey": "pillow"},
    ],
)
def test_an_input_rule_that_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid):
        Manifest.from_json(json.dumps(json.loads(VALID.to_json()) | values))


def test_an_older_file_is_read_greedily_and_a_plain_one_can_be_read_by_older_versions() -> None:
    assert "decoding" not in json.loads(VALID.to_json())
    assert Manifest.from_json(VALID.to_json()).decoding == DecodingRule()


@pytest.mark.parametrize(
    "plain",
    [
        {"decoder": "beem"},
        {"decoder": "closest-word"},  # its words are no part of a manifest
        {"beam_width": 0},
        {"unknown": 0.5},
        {"beam_width": 2.5},
        {"nbest": True},
        {"accents": 1},
        {"alpha": "1"},
        {"alpha": 1e9},
        {"temperature": 0},
        {"temperature": 1e-300},  # confidences would be NaN
        {"temperature": 1e300},
        {"boost": 1e4},
        {"distance": 65},
        {"max_length": 10_001},
        {"nbest": 10_001},
        {"mask": "A" * 10_001},
        {"pattern": "a" * 4097},
        {"allow": "a" * 200_000},
        {"block": "\ud800"},
        {"hotwords": ["a" * 257]},
        {"hotwords": ["a" * 250] * 300},
        {"hotwords": ["\udfff"]},
        {"hotwords": "word"},
        {"hotwords": [1]},
        {"allow": 7},
        {"lexicon": "words.txt"},
        [],
        None,
    ],
    ids=lambda plain: str(plain)[:30],
)
def test_a_decoding_that_makes_no_sense_is_refused(plain: Any) -> None:
    text = json.dumps(json.loads(VALID.to_json()) | {"decoding": plain})
    with pytest.raises(ManifestInvalid):
        Manifest.from_json(text)


WRONG: list[dict[str, Any]] = [
    {"max_batch": 0},
    {"max_batch": 1.5},
    {"alphabet": ()},
    {"alphabet": ("", "")},
    {"blank": 5},
    {"blank": -1},
    {"color": "cmyk"},
    {"interpolation": "best"},
    {"output": "text"},
    {"height": 0},
    {"mean": (0.5, 0.5)},
    {"std": (0.0,)},
    {"color": "rgb", "mean": (0.5,) * 3, "std": (0.5,) * 3},  # filters need grey
    {"steps": StepRule(4, -40)},
    {"alphabet": tuple(map(chr, range(0x100, 0x100 + 2**16 + 1)))},
    {"alphabet": ("a" * 65,)},
    {"alphabet": ("a", "\ud800")},
    {"height": 30_000},
    {"height": 10**5000},
    {"height": 1024, "width": WidthRule(8, 2**16, multiple=8)},  # 256 MB for one image
    {"alphabet": tuple(map(chr, range(0x10000, 0x20000))), "width": WidthRule(8, 2**16, multiple=8)},
    {"mean": (1001.0,)},
    {"std": (1e-7,)},
    {"mean": (float("nan"),)},
    {"std": (float("inf"),)},
    {"max_batch": 5000},
    {"filters": (Clahe(2.0, 8),) * 4},
    {"source": {str(i): "" for i in range(65)}},
    {"source": {"recipe": "a" * 5000}},
]


@pytest.mark.parametrize("change", WRONG, ids=lambda change: next(iter(change)))
def test_contradictions_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid):
        replace(VALID, **change)


@pytest.mark.parametrize(
    "values",
    [
        {"minimum": 0, "maximum": 9},
        {"minimum": 9, "maximum": 8},
        {"minimum": 30, "maximum": 320, "multiple": 8},
        {"minimum": 8, "maximum": 8, "multiple": 0},
        {"minimum": 8, "maximum": 16, "fit": "letterbox"},
        {"minimum": 8, "maximum": 8, "fit": "squash"},
        {"minimum": 8, "maximum": 8, "aspect": 0.0},
        {"minimum": 8, "maximum": 8, "pad": 256.0},
        {"minimum": 8, "maximum": 8, "rounding": "up"},
        {"minimum": 8, "maximum": 2**17},
        {"minimum": 8, "maximum": 8, "aspect": 1e-300},
        {"minimum": 8, "maximum": 8, "aspect": 101.0},
        {"minimum": 8, "maximum": 8, "pad": float("nan")},
    ],
)
def test_width_rules_that_make_no_sense(values: dict[str, Any]) -> None:
    with pytest.raises(ManifestInvalid):
        WidthRule(**values)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Clahe, (2.0, 65_536)),  # OpenCV crashes
        (Clahe, (2.0, 0)),
        (Clahe, (0, 8)),
        (Clahe, (1e5, 8)),
        (Clahe, (float("nan"), 8)),
        (AdaptiveThreshold, (2, 1.0, True)),
        (AdaptiveThreshold, (14, 1.0, True)),
        (AdaptiveThreshold, (99_999, 1.0, True)),
        (AdaptiveThreshold, (15, 1e5, True)),
        (AdaptiveThreshold, (15, 1.0, 1)),
        (Stretch, (-0.1, 96)),
        (Stretch, (0.5, 96)),  # nothing would be left between the ends
        (Stretch, (float("nan"), 96)),
        (Stretch, (0.01, 0)),
        (Stretch, (0.01, 256)),
        (Stretch, (0.01, 9.5)),
        (StepRule, (0, 0)),
        (StepRule, (10**6, 0)),
        (StepRule, (4, 10**6)),
    ],
)
def test_filters_and_steps_that_make_no_sense(kind: Any, values: tuple[Any, ...]) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        kind(*values)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "text",
    [
        VALID.to_json().replace('"height": 32', f'"height": {"9" * 5000}'),
        VALID.to_json().replace('"height": 32', '"height": 1e999'),
        VALID.to_json().replace('"height": 32', '"height": 32, "height": 64'),
        VALID.to_json().replace('"mean": [0.5]', '"mean": [NaN]'),
        VALID.to_json().replace('"mean": [0.5]', '"mean": [-Infinity]'),
        VALID.to_json().replace('"recipe"', '"recipe \\ud800"'),
        '{"schema": ' + "[" * 100_000,
        '{"schema": 1, "source": ' + '{"a":' * 3000 + "1" + "}" * 3001,
        VALID.to_json() + " " * 2**22,
    ],
    ids=range(9),
)
def test_json_beyond_all_bounds_is_one_line(text: str) -> None:
    with pytest.raises(ManifestInvalid) as caught:
        Manifest.from_json(text)
    assert len(str(caught.value)) < 200


FILES = sorted((Path(__file__).parents[1] / "export").glob("*.toml"))


@pytest.mark.parametrize(
    "recipe", [*RECIPES.values(), *map(find_recipe, map(str, FILES))], ids=lambda recipe: recipe.name
)
def test_every_recipe_stays_well_within_the_bounds(recipe: Recipe) -> None:
    longest = tuple(map(chr, range(0x4E00, 0x4E00 + 18_385)))  # the longest published alphabet, PP-OCRv5's
    manifest = replace(recipe, blank="first").manifest(recipe.alphabet or longest, StepRule(4, 4))
    assert manifest.room >= 8 * manifest.width.maximum
    assert replace(manifest, alphabet=longest).room >= 4 * manifest.width.maximum
    # lines of any width are still cut and read
    widest = 2**16 // recipe.width.multiple * recipe.width.multiple
    assert uncut(manifest).width.maximum in (recipe.width.maximum, widest)


def test_classes_may_share_a_token_or_have_none() -> None:
    manifest = replace(VALID, alphabet=("a", "b", "", "b"))
    assert Manifest.from_json(manifest.to_json()) == manifest and manifest.classes == 5


def test_a_newer_schema_says_upgrade() -> None:
    plain = json.loads(VALID.to_json())
    with pytest.raises(ManifestInvalid, match="upgrade"):
        Manifest.from_json(json.dumps({**plain, "schema": 2}))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_any_other_json_is_refused_in_our_words(data: st.DataObject) -> None:
    plain = json.loads(VALID.to_json())
    name = data.draw(st.sampled_from(sorted(plain)))
    value = data.draw(json_values)
    assume(value != plain[name])
    try:
        manifest = Manifest.from_json(json.dumps({**plain, name: value}))
    except ManifestInvalid:
        return
    assert Manifest.from_json(manifest.to_json()) == manifest


@given(st.text(max_size=20))
def test_any_text_is_refused_in_our_words(text: str) -> None:
    with pytest.raises(ManifestInvalid):
        Manifest.from_json(text)
