"""ReLU and LeakyReLU are told from bare weights, and nothing is claimed where they do not show it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from matplotlib import get_data_path
from torch import Tensor, nn

from crnn_deploy.cli.main import main
from crnn_deploy.export.activation import leaky_relu
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.networks.gitycc import GitYccCRNN
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.synthesis.fonts import scan
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.texts import TextSource, read_words

DIGITS = "0123456789"
SMALL = (8, 16, 32, 32, 64, 64, 64)
NETWORKS: dict[str, Callable[[bool], nn.Module]] = {
    "crnn.pytorch": lambda leaky: CRNN(32, 1, 11, 16, widths=SMALL, leaky_relu=leaky),
    "gitycc": lambda leaky: GitYccCRNN(32, 1, 11, 16, 16, widths=SMALL, leaky_relu=leaky),
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Drawn numbers, dark on light, in the fonts that matplotlib brings: not what the package asks with."""
    faces = scan(folders=[Path(get_data_path())])
    rng = np.random.default_rng(5)
    texts = TextSource(DIGITS, read_words("train"), {"random": 1})
    renderer = Renderer(faces, DIGITS)
    drawn = [renderer.render(texts.sample(rng), rng, strength=0.0, inverted=False) for _ in range(48)]
    grey = np.stack([cv2.resize(image, (100, 32)) for image in drawn]).astype(np.float32)
    return torch.from_numpy((grey[:, None] / 255 - 0.5) / 0.5)


def remembering(family: str, leaky: bool, seed: int, images: Tensor) -> dict[str, Tensor]:
    """Bare weights whose batch norm has seen the images."""
    torch.manual_seed(seed)
    module = NETWORKS[family](leaky)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the mean over all that it sees
    module.train()
    with torch.no_grad():
        module(images)
    return module.state_dict()


@pytest.mark.parametrize("leaky", [False, True])
@pytest.mark.parametrize("family", NETWORKS)
def test_the_activation_is_told_and_never_the_other(family: str, leaky: bool, images: Tensor) -> None:
    told = []
    for seed in range(3):
        state = remembering(family, leaky, seed, images)

        def build(leaky_relu: bool, state: dict[str, Tensor] = state) -> nn.Module:
            module = NETWORKS[family](leaky_relu)
            module.load_state_dict(state)
            return module

        told.append(leaky_relu(build, RECIPES["paper"]))
    assert (not leaky) not in told
    assert leaky in told  # random weights do not show it each time


def test_nothing_is_told_of_weights_that_saw_nothing() -> None:
    def build(leaky: bool) -> nn.Module:
        torch.manual_seed(0)
        return NETWORKS["crnn.pytorch"](leaky)

    assert leaky_relu(build, RECIPES["paper"]) is None


@pytest.mark.parametrize("leaky", [False, True])
def test_export_takes_what_the_weights_tell(leaky: bool, images: Tensor, tmp_path: Path) -> None:
    torch.save(remembering("crnn.pytorch", leaky, 0, images), tmp_path / "bare.pth")
    arguments = ["export", "--checkpoint", str(tmp_path / "bare.pth"), "--recipe", "crnn.pytorch"]
    arguments += ["--alphabet-string", DIGITS]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    name = "LeakyReLU" if leaky else "ReLU"
    assert f"\nactivation: {name} (told by batch norm's means)\n" in result.stdout
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "bare.onnx")]).stdout
    assert ("LeakyRelu" in shown) == leaky
