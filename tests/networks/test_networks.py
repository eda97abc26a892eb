"""Every network family against what was published: key names, shapes, time steps and numbers.

`published/FAMILY.tsv` holds the state dict of the upstream project's own module (key, shape), and
`published/logits.json` what that module made of `state_of` and `images_of`: the first five classes of the
second image at its first, middle and last time step. `published/README.md` says which code wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published_steps import TIME_STEPS
from torch import Tensor, nn

from crnn_deploy.networks.compact import COMPACT_WIDTHS, CompactCRNN
from crnn_deploy.networks.crnn import CRNN, HeightInvalid
from crnn_deploy.networks.families import FAMILIES, recognise
from crnn_deploy.networks.gitycc import GitYccCRNN
from crnn_deploy.recipes.recipe import RECIPES

PUBLISHED = Path(__file__).parent / "published"
LOGITS: list[dict[str, Any]] = json.loads((PUBLISHED / "logits.json").read_text())
OWN = "compact"  # this project's own network, which nobody else publishes
NAMES = [family.name for family in FAMILIES if family.name != OWN]

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def published(name: str) -> Shapes:
    """Keys and shapes of a family's checkpoint, in the order of the file."""
    lines = (PUBLISHED / f"{name}.tsv").read_text().splitlines()
    rows = (line.split("\t") for line in lines)
    return {key: tuple(int(size) for size in shape.split(",") if size) for key, shape in rows}


def state_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights that keep signals alive through any depth; the stream of RandomState is frozen by NumPy."""
    rng = np.random.RandomState(0)
    state = {}
    for key, shape in shapes.items():
        kind = key.rsplit(".", 1)[1]
        if kind == "num_batches_tracked":
            state[key] = torch.tensor(1)
            continue
        if kind == "running_var" or (kind == "weight" and len(shape) == 1):
            values = rng.uniform(0.5, 1.5, shape)
        elif kind == "running_mean":
            values = rng.uniform(-0.3, 0.3, shape)
        elif len(shape) == 1:
            values = rng.uniform(-0.1, 0.1, shape)
        else:
            values = rng.uniform(-1, 1, shape) * np.sqrt(6 / np.prod(shape[1:]))
        state[key] = torch.from_numpy(values.astype(np.float32))
    return state


def images_of(channels: int, height: int, width: int) -> Tensor:
    values = np.random.RandomState(1).uniform(-1, 1, (2, channels, height, width))
    return torch.from_numpy(values.astype(np.float32))


def channels_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return next(shape for shape in shapes.values() if len(shape) == 4)[1]


def load(state: Mapping[str, Tensor], leaky_relu: bool = False) -> nn.Module:
    family = recognise(state)
    assert family is not None
    module = family.build(state, leaky_relu)
    module.load_state_dict(dict(state), strict=True)
    return module.eval()


def test_every_family_is_published() -> None:
    assert sorted(path.stem for path in PUBLISHED.glob("*.tsv")) == sorted(NAMES)
    assert {entry["family"] for entry in LOGITS} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_is_recognised_as_one_family(name: str) -> None:
    state = {key: torch.empty(shape) for key, shape in published(name).items()}
    assert [family.name for family in FAMILIES if family.matches(state)] == [name]


@pytest.mark.parametrize("entry", LOGITS, ids=lambda e: e["family"] + ("-leaky" if e["leaky_relu"] else ""))
def test_logits_are_those_of_the_upstream_module(entry: dict[str, Any]) -> None:
    shapes = published(entry["family"])
    module = load(state_of(shapes), entry["leaky_relu"])
    assert list(module.state_dict()) == list(shapes)
    with torch.inference_mode():
        logits = module(images_of(channels_of(shapes), entry["height"], entry["width"]))
    assert list(logits.shape) == entry["shape"]
    steps = logits.shape[1]
    picked = logits[1, [0, steps // 2, steps - 1], :5].numpy()
    np.testing.assert_allclose(picked, entry["logits"], atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_time_steps_at_other_widths(name: str) -> None:
    shapes = published(name)
    family = next(family for family in FAMILIES if family.name == name)
    with torch.device("meta"):  # shapes alone
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        module = family.build(state, False).eval()
        found = [
            module(torch.empty(3, channels_of(shapes), RECIPES[family.recipe].height, width)).shape
            for width in (32, 33, 100, 257)
        ]
    assert [tuple(shape) for shape in found] == [(3, t, family.classes(state)) for t in TIME_STEPS[name]]


@pytest.mark.parametrize("name", NAMES)
def test_the_default_recipe_is_of_the_family_and_has_its_classes(name: str) -> None:
    family = next(family for family in FAMILIES if family.name == name)
    recipe = RECIPES[family.recipe]
    assert recipe.family == name
    assert recipe.alphabet is not None
    state = {key: torch.empty(shape) for key, shape in published(name).items()}
    assert family.classes(state) == len(recipe.alphabet) + 1


@given(
    height=st.sampled_from([16, 32, 48, 64]),
    channels=st.sampled_from([1, 3]),
    classes=st.integers(2, 40),
    hidden=st.integers(1, 9),
    inner=st.integers(1, 9),
    widths=st.lists(st.integers(1, 6), min_size=7, max_size=7),
    width=st.integers(8, 70),
)
@settings(max_examples=40, deadline=None)
def test_a_crnn_of_any_size_is_built_from_its_shapes(
    height: int, channels: int, classes: int, hidden: int, inner: int, widths: list[int], width: int
) -> None:
    saved = CRNN(height, channels, classes, hidden, inner=inner, widths=widths).eval()
    module = load(saved.state_dict())
    images = torch.rand(2, channels, height, width)
    with torch.inference_mode():
        logits = module(images)
        assert torch.equal(logits, saved(images))
    assert logits.shape == (2, width // 4 + 1, classes)
    assert module.height == height


@given(
    height=st.sampled_from([16, 32, 48, 64]),
    channels=st.sampled_from([1, 3]),
    classes=st.integers(2, 40),
    hidden=st.integers(1, 9),
    widths=st.lists(st.integers(1, 6), min_size=5, max_size=5),
    depths=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    head=st.none() | st.integers(1, 6),
    width=st.integers(1, 70),
)
@settings(max_examples=25, deadline=None)
def test_a_compact_network_of_any_size_is_built_from_its_shapes(
    height: int,
    channels: int,
    classes: int,
    hidden: int,
    widths: list[int],
    depths: tuple[int, int],
    head: int | None,
    width: int,
) -> None:
    saved = CompactCRNN(height, channels, classes, hidden, widths=widths, depths=depths, head=head).eval()
    assert [family.name for family in FAMILIES if family.matches(saved.state_dict())] == [OWN]
    module = load(saved.state_dict())
    images = torch.rand(2, channels, height, width)
    with torch.inference_mode():
        logits = module(images)
        assert torch.equal(logits, saved(images))
    assert logits.shape == (2, (width + 3) // 4, classes)
    assert module.height == height
    [family] = [family for family in FAMILIES if family.name == OWN]
    assert family.classes(saved.state_dict()) == classes


def test_the_compact_network_has_the_parameters_and_time_steps_counted_by_hand() -> None:
    a, b, c, d, e = COMPACT_WIDTHS
    norm = 2  # weight and bias of each channel
    convolutions = 9 * (a + a * b + b * b + b * c + c * d) + 2 * d * e + norm * (a + b + b + c + d + e)
    separable = sum(n * (25 * w + w * w + 2 * norm * w) for n, w in ((2, c), (3, d)))
    recurrent = 2 * 4 * 128 * (e + 128 + 2)
    module = CompactCRNN(32, 1, 37).eval()
    found = sum(parameter.numel() for parameter in module.parameters())
    assert found == convolutions + separable + recurrent + 37 * (2 * 128 + 1)
    with torch.inference_mode():
        steps = tuple(module(torch.zeros(1, 1, 32, width)).shape[1] for width in (32, 33, 100, 257))
    assert steps == TIME_STEPS[OWN]


@pytest.mark.parametrize("height", [32, 48, 64])
def test_gitycc_tells_its_height_from_the_columns(height: int) -> None:
    saved = GitYccCRNN(height, 3, 11, 5, 7, widths=(2, 2, 3, 3, 4, 4, 4))
    module = load(saved.state_dict())
    assert module.height == height
    assert module(torch.rand(2, 3, height, 40)).shape == (2, 9, 11)


@pytest.mark.parametrize("height", [0, 8, 20, 33])
def test_a_crnn_refuses_a_height_that_leaves_more_than_one_row(height: int) -> None:
    for network in (CRNN, CompactCRNN):
        with pytest.raises(HeightInvalid, match=f"multiple of 16, not {height}"):
            network(height, 1, 37)


def test_weights_saved_before_pytorch_counted_batches_load() -> None:
    state = {key: value for key, value in state_of(published("crnn")).items() if "num_batches" not in key}
    assert len(state) < len(published("crnn"))
    load(state)


def without(name: str, *parts: str) -> dict[str, Tensor]:
    return {k: torch.empty(s) for k, s in published(name).items() if not k.startswith(parts)}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"conv1.weight": torch.empty(64, 3, 7, 7), "fc.weight": torch.empty(1000, 512)},
        without("crnn", "rnn."),
        without("clovaai-vgg", "Prediction.")
        | {"Prediction.attention_cell.i2h.weight": torch.empty(256, 512)},
        without("clovaai-resnet")
        | {"Transformation.LocalizationNetwork.conv.0.weight": torch.empty(64, 1, 3, 3)},
        without("clovaai-vgg", "SequenceModeling."),
        without("doctr-vgg16", "decoder."),
        without("mmocr", "decoder.") | {"decoder.decoder.weight": torch.empty(37, 512, 1, 1)},
    ],
    ids=[
        "empty",
        "resnet18",
        "no-rnn",
        "attention",
        "tps",
        "no-lstm",
        "other-decoder",
        "convolution-decoder",
    ],
)
def test_another_network_is_not_recognised(state: dict[str, Tensor]) -> None:
    assert recognise(state) is None


@pytest.mark.parametrize("seed", range(3))
def test_new_convolutions_keep_the_scale_of_what_they_read(seed: int) -> None:
    """He et al. 2015. With weights of 0.02, as in crnn.pytorch, the features fade to 0.006."""
    torch.manual_seed(seed)
    module = CRNN(32, 1, 11).eval()  # batch norm, which has seen nothing, changes nothing
    with torch.no_grad():
        features = module.cnn(torch.randn(2, 1, 32, 64))
    assert 1 / 8 < features.square().mean().sqrt() < 8
