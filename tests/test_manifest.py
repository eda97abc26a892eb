"""A manifest survives its JSON, and one that cannot work is refused."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crnn_deploy.errors import ManifestInvalid
from crnn_deploy.manifest import AdaptiveThreshold, Clahe, Manifest, StepRule, WidthRule

MANIFEST = Manifest(
    alphabet=tuple("abc"),
    blank=0,
    color="gray",
    height=32,
    width=WidthRule(100, 200, multiple=4),
    mean=(0.5,),
    std=(0.5,),
    interpolation="linear",
    steps=StepRule(4, 4),
    filters=(Clahe(2.0, 8), AdaptiveThreshold(15, 10.0, True)),
    source={"file": "crnn.pth"},
)

numbers = st.floats(-1e6, 1e6, allow_nan=False)
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
filters = st.one_of(
    st.builds(Clahe, st.floats(1e-3, 100), st.integers(1, 64)),
    st.builds(AdaptiveThreshold, st.integers(1, 40).map(lambda n: 2 * n + 1), numbers, st.booleans()),
)


@st.composite
def width_rules(draw: st.DrawFn) -> WidthRule:
    multiple = draw(st.integers(1, 32))
    low = draw(st.integers(1, 20))
    high = draw(st.integers(low, 40))
    fits = ["stretch", "pad", "letterbox"] if low == high else ["stretch", "pad"]
    fit = draw(st.sampled_from(fits))
    return WidthRule(
        minimum=low * multiple,
        maximum=high * multiple,
        multiple=multiple,
        fit=fit,
        pad=draw(st.one_of(st.just("edge"), st.integers(0, 255), st.floats(0, 255))),
        aspect=1.0 if fit == "letterbox" else draw(st.floats(0.1, 10)),
        rounding=draw(st.sampled_from(["floor", "nearest", "ceil"])),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    color = draw(st.sampled_from(["gray", "rgb", "bgr"]))
    channels = 1 if color == "gray" else 3
    alphabet = draw(st.lists(text.filter(bool), min_size=1, max_size=8, unique=True))
    width = draw(width_rules())
    stride = draw(st.integers(1, 16))
    per_channel = {"min_size": channels, "max_size": channels}
    return Manifest(
        alphabet=tuple(alphabet),
        blank=draw(st.integers(0, len(alphabet))),
        color=color,
        height=draw(st.integers(1, 200)),
        width=width,
        mean=tuple(draw(st.lists(numbers, **per_channel))),
        std=tuple(draw(st.lists(st.floats(1e-6, 1e6), **per_channel))),
        interpolation=draw(st.sampled_from(["nearest", "linear", "cubic", "area", "pillow-bicubic"])),
        steps=StepRule(stride, draw(st.integers(stride - width.minimum, 50))),
        output=draw(st.sampled_from(["logits", "log-probs", "argmax"])),
        filters=tuple(draw(st.lists(filters, max_size=3))) if channels == 1 else (),
        source=draw(st.dictionaries(text, text, max_size=3)),
    )


@given(manifests())
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_a_manifest_survives_its_json(manifest: Manifest) -> None:
    written = manifest.to_json()
    assert Manifest.from_json(written.encode().decode()) == manifest
    assert json.loads(written)["schema"] == 1
    assert manifest.classes == len(manifest.alphabet) + 1


any_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.just(10**400)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=12,
)


def accepted_or_refused(written: str) -> None:
    """No exception but ManifestInvalid; what is accepted is whole."""
    try:
        manifest = Manifest.from_json(written)
    except ManifestInvalid as error:
        assert str(error).startswith("the manifest is not valid: ")
    else:
        assert Manifest.from_json(manifest.to_json()) == manifest
        assert manifest.width.bucket(20, 70, manifest.height) in manifest.width.buckets()


@given(any_json)
def test_any_json_is_accepted_or_refused(value) -> None:
    accepted_or_refused(json.dumps(value))


def places(value, at=()):
    """Where the values of a JSON tree stand."""
    yield at
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(inner, (*at, key))


PLAIN = json.loads(MANIFEST.to_json())


@given(st.sampled_from([at for at in places(PLAIN) if at]), any_json)
@settings(max_examples=400)
def test_any_value_in_any_place_is_accepted_or_refused(at, value) -> None:
    plain = copy.deepcopy(PLAIN)
    holder = plain
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = value
    accepted_or_refused(json.dumps(plain))


@given(st.text())
def test_any_text_is_accepted_or_refused(written: str) -> None:
    accepted_or_refused(written)


def changed(**values) -> str:
    return json.dumps({**PLAIN, **values})


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "not the JSON object"),
        ("[]", "not the JSON object"),
        ("3", "not the JSON object"),
        ("null", "not the JSON object"),
        ("{}", "not the JSON object"),
        ("[" * 100_000, "not the JSON object"),
        (changed(schema=2), "upgrade crnn-deploy"),
        (changed(colour="red"), r"unknown fields \['colour'\]"),
        (json.dumps({k: v for k, v in PLAIN.items() if k != "blank"}), "blank"),
        (changed(blank=1.5), "blank is 1.5, not a whole number"),
        (changed(blank="0"), "blank is '0', not a whole number"),
        (changed(blank=True), "blank is True, not a whole number"),
        (changed(blank=4), "blank 4 of 4 classes"),
        (changed(blank=-1), "blank -1"),
        (changed(height=0), "height 0"),
        (changed(alphabet="abc"), "alphabet is not a list"),
        (changed(alphabet=[]), "the alphabet is empty"),
        (changed(alphabet=["a", 2]), "alphabet holds 2, not a string"),
        (changed(alphabet=["a", ""]), "character 1 of the alphabet is empty"),
        (changed(alphabet=["a", "b", "皖", "b"]), "holds 'b' twice"),
        (changed(alphabet=["a", "\ud800"]), "surrogate"),
        (changed(source={"file": "\udc80"}), "surrogate"),
        (changed(source=["a"]), "source is not an object"),
        (changed(source={"a": 1}), "source holds 1, not a string"),
        (changed(mean=0.5), "mean is not a list"),
        (changed(mean=["0.5"]), "mean is '0.5', not a number"),
        (changed(mean=[math.nan]), "mean is nan"),
        (changed(mean=[math.inf]), "mean is inf"),
        (changed(mean=[10**400]), "mean is 1000"),
        (changed(mean=[0.5, 0.5]), "for 1 channels"),
        (changed(std=[math.inf]), "std is inf"),
        (changed(std=[math.nan]), "std is nan"),
        (changed(std=[0.0]), "above 0"),
        (changed(std=[-0.5]), "above 0"),
        (changed(color="red"), "unknown color 'red'"),
        (changed(color="rgb", mean=[0, 0, 0], std=[1, 1, 1]), "grey images only"),
        (changed(interpolation="best"), "interpolation 'best'"),
        (changed(output="words"), "unknown output 'words'"),
        (changed(steps={"stride": 0, "offset": 0}), "stride 0"),
        (changed(steps={"stride": 4.0, "offset": 0}), "stride is 4.0"),
        (changed(steps={"stride": 4, "offset": -97}), "no time step at the smallest width, 100"),
        (changed(steps=4), "TypeError"),
        (changed(filters=[3]), "filter 3"),
        (changed(filters=[{"filter": "blur"}]), "there are clahe, adaptive-threshold"),
        (changed(filters=[{"filter": ["clahe"]}]), "unknown filter"),
        (changed(filters=[{"filter": "clahe", "clip": 2.0}]), "filter clahe"),
    ],
)
def test_what_cannot_work_is_refused_with_its_reason(written: str, reason: str) -> None:
    with pytest.raises(ManifestInvalid, match=reason):
        Manifest.from_json(written)


@pytest.mark.parametrize(
    "make",
    [
        lambda: WidthRule(0, 100),
        lambda: WidthRule(101, 100),
        lambda: WidthRule(100, 102, multiple=4),
        lambda: WidthRule(100, 100, multiple=0),
        lambda: WidthRule(100, 100, fit="squeeze"),
        lambda: WidthRule(100, 100, rounding="up"),
        lambda: WidthRule(100, 200, fit="letterbox"),
        lambda: WidthRule(100, 100, fit="letterbox", aspect=0.5),
        lambda: WidthRule(100, 100, aspect=0.0),
        lambda: WidthRule(100, 100, aspect=math.inf),
        lambda: WidthRule(100, 100, pad=256),
        lambda: WidthRule(100, 100, pad=math.nan),
        lambda: WidthRule(100, 100, pad="mirror"),
        lambda: WidthRule(100.0, 100.0),
        lambda: AdaptiveThreshold(1, 0.0, False),
        lambda: AdaptiveThreshold(14, 0.0, False),
        lambda: AdaptiveThreshold(15.0, 0.0, False),
        lambda: AdaptiveThreshold(15, math.nan, False),
        lambda: AdaptiveThreshold(15, 0.0, 1),
        lambda: Clahe(0.0, 8),
        lambda: Clahe(-1.0, 8),
        lambda: Clahe(math.inf, 8),
        lambda: Clahe(2.0, 0),
        lambda: Clahe(2.0, 2.5),
        lambda: replace(MANIFEST, alphabet=("a", "b", "a", "c")),
    ],
)
def test_parts_that_cannot_work_are_refused(make) -> None:
    with pytest.raises(ManifestInvalid):
        make()


sizes = st.integers(1, 3000)


@given(width_rules(), sizes, sizes, sizes)
def test_a_wider_image_has_no_smaller_bucket(rule: WidthRule, height: int, one: int, other: int) -> None:
    narrow, wide = sorted([one, other])
    assert rule.bucket(height, narrow, 32) <= rule.bucket(height, wide, 32)


@given(width_rules(), sizes, sizes, st.integers(1, 100))
def test_the_bucket_is_the_smallest_that_holds_the_natural_width(rule: WidthRule, height, width, net) -> None:
    buckets, natural = rule.buckets(), rule.natural(height, width, net)
    bucket = rule.bucket(height, width, net)
    assert bucket == next((b for b in buckets if b >= natural), rule.maximum)
    assert all(b % rule.multiple == 0 for b in buckets)
    assert rule.fixed == (len(buckets) == 1)


@given(sizes, sizes, st.integers(1, 100))
def test_the_natural_width_keeps_the_aspect_ratio(height: int, width: int, net: int) -> None:
    exact = Fraction(width * net, height)
    for rounding, expected in {
        "floor": math.floor(exact),
        "ceil": math.ceil(exact),
        "nearest": math.floor(exact + Fraction(1, 2)),
    }.items():
        assert WidthRule(1, 9, rounding=rounding).natural(height, width, net) == max(1, expected)


def test_the_natural_width_of_published_recipes() -> None:
    assert WidthRule(100, 100).bucket(31, 500, 32) == 100
    assert WidthRule(16, 400, aspect=160 / 280).natural(32, 280, 32) == 160
    assert WidthRule(100, 1600, multiple=4).bucket(32, 101, 32) == 104


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=6),
    st.integers(1, 400),
)
def test_a_chain_of_strided_layers_is_one_step_rule(layers, width: int) -> None:
    """A layer of kernel k, stride s, padding p gives (w + 2p - k) // s + 1."""
    stride, offset, steps = 1, 0, width
    for kernel, step, padding in layers:
        steps = (steps + 2 * padding - kernel) // step + 1
        offset += stride * (2 * padding - kernel + step)
        stride *= step
    assert StepRule(stride, offset)(width) == steps


def test_the_time_steps_of_crnn_pytorch() -> None:
    assert StepRule(4, 4)(100) == 26
