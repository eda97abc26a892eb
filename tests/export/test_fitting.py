"""Weights that several projects' recipes fit: what tells the recipe, and that nothing is taken in silence.

The right recipes are those of the projects that save such files: mmocr 0.x saves `mmocr_version` or, when
published, `CLASSES` in `meta` (mmcv's runner), mmocr 1.x saves `mmengine_version`; clovaai's published
networks have 512 channels and 256 LSTM units; EasyOCR's config.py gives the classes of its models.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from crnn_deploy.cli.main import main
from crnn_deploy.export.fitting import RecipeUnclear
from crnn_deploy.export.reference import open_checkpoint, open_reference
from crnn_deploy.networks.clovaai import FourStage, resnet, vgg
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.networks.gitycc import GitYccCRNN
from crnn_deploy.networks.mmocr import MmocrCRNN
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.recipes.settings import CheckpointSettings

SMALL = (4, 4, 8, 8, 8, 8, 8)
CONFIGURATION = "model = dict(backbone=dict(type='MiniVGG', leaky_relu={}, input_channels=1))\n"


def some(count: int) -> tuple[str, ...]:
    return tuple(chr(0x4E00 + i) for i in range(count))


def crnn(classes: int) -> nn.Module:
    return CRNN(32, 1, classes, 8, widths=SMALL)


def mmocr(classes: int = 37) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return MmocrCRNN(32, 1, classes, 8, widths=SMALL, inner=8).state_dict()


def four_stage(kind: str, channels: int, hidden: int, classes: int) -> nn.Module:
    return FourStage((vgg if kind == "vgg" else resnet)(1, channels), channels, hidden, classes)


def save(content: Any, folder: Path) -> Path:
    path = folder / "x.pth"
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("module", "recipe"),
    [
        (crnn(37), "crnn.pytorch"),
        (crnn(6736), "sierkinhane-360cc"),
        (GitYccCRNN(32, 1, 37, 8, 8, widths=SMALL), "gitycc"),
        (four_stage("vgg", 512, 256, 37), "clovaai-vgg"),
        (four_stage("vgg", 512, 256, 95), "clovaai-vgg-sensitive"),
        (four_stage("vgg", 512, 256, 60), "clovaai-vgg"),
        (four_stage("resnet", 512, 256, 95), "clovaai-resnet-sensitive"),
        (four_stage("vgg", 256, 256, 97), "easyocr-english-g2"),
        (four_stage("vgg", 256, 256, 352), "easyocr-latin-g2"),
        (four_stage("vgg", 256, 256, 6719), "easyocr-g2"),
        (four_stage("resnet", 512, 512, 168), "easyocr-latin-g1"),
    ],
)
def test_published_networks_have_their_recipe(module: nn.Module, recipe: str, tmp_path: Path) -> None:
    path = save(module.state_dict(), tmp_path)
    classes = list(module.state_dict().values())[-1].shape[0]
    own = None if RECIPES[recipe].alphabet is not None and classes != 60 else some(classes - 1)
    manifest = open_reference(path, CheckpointSettings(alphabet=own)).manifest
    assert manifest.source["recipe"] == recipe
    assert (manifest.height, manifest.width) == (RECIPES[recipe].height, RECIPES[recipe].width)
    if recipe == "gitycc":
        assert manifest.source["assumed"] == "activation, alphabet"
    else:
        assert "recipe" in manifest.source["assumed"] and "assumed" in manifest.source["recipe_from"]


@pytest.mark.parametrize(
    ("module", "recipes"),
    [
        (crnn(11), ("crnn.pytorch", "paper", "sierkinhane-360cc")),
        (four_stage("vgg", 256, 256, 37), ("easyocr-english-g2", "clovaai-vgg")),
        (four_stage("vgg", 256, 256, 95), ("easyocr-english-g2", "clovaai-vgg")),
        (four_stage("vgg", 512, 512, 37), ("clovaai-vgg", "easyocr-g2")),
        (four_stage("vgg", 128, 128, 37), ("clovaai-vgg", "easyocr-g2")),
        (four_stage("resnet", 512, 512, 37), ("easyocr-latin-g1", "clovaai-resnet")),
        (four_stage("resnet", 256, 256, 37), ("clovaai-resnet", "easyocr-g1")),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_weights_that_fit_two_recipes_are_asked_for(
    module: nn.Module, recipes: tuple[str, ...], given: bool, tmp_path: Path
) -> None:
    """Also with an alphabet, which tells how many classes there are and not how images are prepared."""
    path = save(module.state_dict(), tmp_path)
    classes = list(module.state_dict().values())[-1].shape[0]
    with pytest.raises(RecipeUnclear) as caught:
        open_reference(path, CheckpointSettings(alphabet=some(classes - 1) if given else None))
    message = str(caught.value)
    assert "--recipe NAME" in message and len(message.splitlines()) == 1
    assert [recipe in message for recipe in recipes] == [True] * len(recipes)
    for recipe in recipes:
        manifest = open_reference(path, CheckpointSettings(recipe, alphabet=some(classes - 1))).manifest
        assert manifest.width == RECIPES[recipe].width and "assumed" not in manifest.source.get(
            "recipe_from", ""
        )


@pytest.mark.parametrize(("height", "recipe"), [(32, "clovaai-vgg"), (64, "easyocr-english-g2")])
def test_saved_options_tell_the_height(height: int, recipe: str, tmp_path: Path) -> None:
    content = {
        "state_dict": four_stage("vgg", 256, 256, 41).state_dict(),
        "opt": {"imgH": height, "imgW": 100},
    }
    manifest = open_reference(save(content, tmp_path), CheckpointSettings(alphabet=some(40))).manifest
    assert manifest.source["recipe"] == recipe and manifest.height == height
    assert "imgH" in manifest.source["recipe_from"]


@pytest.mark.parametrize(
    ("meta", "blank"),
    [
        ({"mmocr_version": "0.6.3+abcdef1", "CLASSES": None, "mmcv_version": "1.6.0"}, 0),
        ({"mmocr_version": "0.1.0"}, 0),
        ({"CLASSES": 0}, 0),  # as mmocr 0.x's publish_model.py leaves it
        ({"mmcv_version": "1.3.8", "epoch": 5}, 0),
        ({"mmocr_version": "1.0.1"}, 36),
        ({"mmengine_version": "0.7.1", "cfg": "", "epoch": 5}, 36),
    ],
)
def test_mmocr_puts_the_blank_where_its_version_has_it(
    meta: dict[str, Any], blank: int, tmp_path: Path
) -> None:
    path = save({"meta": meta, "state_dict": mmocr()}, tmp_path)
    manifest = open_reference(path, CheckpointSettings()).manifest
    assert manifest.blank == blank
    assert manifest.source["recipe"] == ("mmocr" if blank else "mmocr-0.x")


@pytest.mark.parametrize("content", [{}, {"meta": {}}, {"meta": {"mmocr_version": None}}, {"meta": "0.6"}])
def test_mmocr_without_a_version_is_asked_for(content: dict[str, Any], tmp_path: Path) -> None:
    path = save({**content, "state_dict": mmocr()}, tmp_path)
    with pytest.raises(RecipeUnclear, match=r"blank last\); mmocr-0\.x \(.*blank first\)"):
        open_reference(path, CheckpointSettings())
    assert open_reference(path, CheckpointSettings(blank="first")).manifest.source["recipe"] == "mmocr-0.x"
    assert open_reference(path, CheckpointSettings("mmocr-0.x")).manifest.blank == 0


@pytest.mark.parametrize("key", ["config", "cfg"])
@pytest.mark.parametrize("leaky", [False, True])
def test_mmocr_saves_its_activation_in_its_configuration(key: str, leaky: bool, tmp_path: Path) -> None:
    meta = {"mmocr_version": "0.6.3", key: CONFIGURATION.format(leaky)}
    reference = open_reference(save({"meta": meta, "state_dict": mmocr()}, tmp_path), CheckpointSettings())
    assert (nn.LeakyReLU in {type(layer) for layer in reference.module.modules()}) == leaky
    assert "assumed" not in reference.manifest.source["activation"]


@pytest.mark.parametrize("family", ["crnn", "mmocr", "gitycc"])
@pytest.mark.parametrize("activation", [None, "relu", "leaky-relu"])
def test_the_activation_is_given_or_said_to_be_assumed(family: str, activation: Any, tmp_path: Path) -> None:
    state = mmocr()
    if family != "mmocr":
        module = crnn(37) if family == "crnn" else GitYccCRNN(32, 1, 37, 8, 8, widths=SMALL)
        state = module.state_dict()
    recipe = {"crnn": "crnn.pytorch"}.get(family, family)
    path = save(state, tmp_path)
    reference = open_reference(path, CheckpointSettings(recipe, activation=activation))
    slopes = {layer.negative_slope for layer in reference.module.modules() if isinstance(layer, nn.LeakyReLU)}
    assert slopes == ({0.2} if activation == "leaky-relu" else set())
    assert ("activation" in reference.manifest.source["assumed"]) == (activation is None)
    again = open_checkpoint(path, CheckpointSettings(), reference.manifest)  # as its own model says
    assert slopes == {
        layer.negative_slope for layer in again.module.modules() if isinstance(layer, nn.LeakyReLU)
    }
    assert again.manifest.blank == reference.manifest.blank


@pytest.mark.parametrize("command", ["export", "inspect", "verify", "evaluate"])
def test_every_command_asks(command: str, tmp_path: Path, tiny_onnx: Path) -> None:
    path = save(crnn(11).state_dict(), tmp_path)
    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 100), 255, np.uint8))
    (tmp_path / "labels.csv").write_text("a.png,1\n")
    arguments: dict[str, list[object]] = {
        "export": ["--checkpoint", path],
        "inspect": [path],
        "verify": [path, path],
        "evaluate": [path, tmp_path / "labels.csv"],
    }
    given = [str(argument) for argument in (command, *arguments[command], "--alphabet-string", "0123456789")]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 2 and "--recipe NAME" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and result.stdout == ""


def test_an_activation_is_refused_where_there_is_no_choice(tmp_path: Path) -> None:
    path = save(four_stage("vgg", 512, 256, 37).state_dict(), tmp_path)
    result = CliRunner().invoke(main, ["export", "--checkpoint", str(path), "--activation", "leaky-relu"])
    assert result.exit_code == 2 and "leave --activation out" in result.stderr
