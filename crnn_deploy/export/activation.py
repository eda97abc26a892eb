"""ReLU or LeakyReLU: as somebody says it, or told by what batch norm remembers of training.

The projects of crnn.pytorch, Sierkinhane, GitYCC and mmocr have a switch between the two, each with the slope
0.2. They leave no key in a checkpoint. But batch norm keeps the mean that each channel had in training, and
that mean is another one behind the other activation. So drawn text goes through the network with both, and
the one whose means come closer to the remembered ones is the one it was trained with. What it was trained on
is not known, so several kinds of text are drawn, and the kind that comes closest counts. Variances mislead:
they follow the contrast of the images. `benchmarks/accuracy/activation.py` measures how far this can be
trusted.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn_deploy.export.checkpoints.checkpoint import Checkpoint
from crnn_deploy.manifest import Manifest
from crnn_deploy.plain_text import plain_text
from crnn_deploy.recipes.recipe import Recipe
from crnn_deploy.recipes.settings import Activation

__all__ = ["ActivationTold", "activation_of", "distances", "leaky_relu"]

Build = Callable[[bool], nn.Module]  # whether LeakyReLU -> the trained network

_RATIO = 2.0  # one must be nearer by this factor
_NEAR = 0.02  # distances below it are not told apart
_POLARITIES = (False, True)  # light on dark
_CONTRASTS = (1.0, 0.5)
_STROKES = (1, 2, 3)  # pixels at height 32
_IMAGES = 4  # of each kind
_WIDTH = 128  # pixels at height 32
_CHARACTERS = list(string.ascii_letters + string.digits)
_IN_CONFIGURATION = re.compile(r"\bleaky_relu\s*=\s*(True|False)\b")  # of mmocr, which saves its text


@dataclass(frozen=True)
class ActivationTold:
    """Which activation a network has, and what tells it."""

    leaky: bool  # LeakyReLU
    why: str  # in words
    assumed: bool = False  # whether nothing tells it

    def line(self) -> str:
        return f"{'LeakyReLU' if self.leaky else 'ReLU'} ({self.why})"


def activation_of(
    build: Build, recipe: Recipe, checkpoint: Checkpoint, given: Activation | None, fed: Manifest | None
) -> ActivationTold:
    """The activation of a network whose project has both.

    given: by the user; fed: the manifest of a model that was made of the checkpoint
    """
    if given is not None:
        return ActivationTold(given == "leaky-relu", f"--activation {given}")
    if recipe.leaky_relu is not None:
        return ActivationTold(recipe.leaky_relu, f"recipe {recipe.name}")
    if checkpoint.leaky_relu is not None:
        return ActivationTold(checkpoint.leaky_relu, "saved beside the weights")
    texts = [value for value in _within_meta(checkpoint) if isinstance(value, str)]
    if len(found := {word for text in texts for word in _IN_CONFIGURATION.findall(text)}) == 1:
        return ActivationTold(found == {"True"}, "the configuration saved beside the weights")
    if fed is not None and "activation" in fed.source:
        return ActivationTold(fed.source["activation"].startswith("Leaky"), "the other model's manifest")
    if (leaky := leaky_relu(build, recipe)) is not None:
        return ActivationTold(leaky, "told by batch norm's means")
    why = "assumed: nothing in the checkpoint tells it; if it was trained with LeakyReLU, give --activation "
    return ActivationTold(False, f"{why}leaky-relu", assumed=True)


def _within_meta(checkpoint: Checkpoint) -> list[Any]:
    """The texts of mmocr's configuration are in `meta`, as `config` before version 1 and `cfg` from it on."""
    meta = checkpoint.saved.get("meta")
    return [meta.get("config"), meta.get("cfg")] if isinstance(meta, Mapping) else []


class _Seen(Exception):
    """All batch norms have been compared."""


def leaky_relu(build: Build, recipe: Recipe) -> bool | None:
    """Whether the weights were trained with LeakyReLU; None where they do not show it."""
    relu, leaky = distances(build, recipe)
    if max(relu, leaky) < max(_NEAR, _RATIO * min(relu, leaky)):
        return None
    return leaky < relu


def distances(build: Build, recipe: Recipe) -> tuple[float, float]:
    """How far the means are from those that batch norm remembers, with ReLU and with LeakyReLU.

    In deviations, squared; the mean over a layer's channels, summed over the layers. 0.0 without batch norm.

    recipe: how its images are prepared
    """
    found = []
    for leaky in (False, True):
        module = build(leaky).eval()
        norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        if not any(layer.running_mean is not None and layer.running_mean.any() for layer in norms):
            return 0.0, 0.0
        first = next(layer for layer in module.modules() if isinstance(layer, nn.Conv2d))
        height = int(getattr(module, "height", recipe.height))
        # (polarities, contrasts, strokes, all channels of all layers)
        offsets = np.array(
            [
                [
                    [
                        _offsets(
                            module, _lines(height, first.in_channels, recipe, inverted, contrast, stroke)
                        )
                        for stroke in _STROKES
                    ]
                    for contrast in _CONTRASTS
                ]
                for inverted in _POLARITIES
            ]
        )
        found.append(min(float((mixed**2).sum()) for mixed in _mixtures(offsets)))
    return found[0], found[1]


def _mixtures(offsets: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """The mean offsets of images of one kind, and of kinds mixed half and half."""
    choices = [[*([i] for i in range(n)), list(range(n))] for n in offsets.shape[:3]]
    for polarities, contrasts, strokes in product(*choices):
        yield offsets[np.ix_(polarities, contrasts, strokes)].mean(axis=(0, 1, 2))


def _lines(
    height: int, channels: int, recipe: Recipe, inverted: bool, contrast: float, stroke: int
) -> Tensor:
    """Lines of drawn letters and digits: (N, channels, height, W)."""
    rng = np.random.default_rng(0)
    scale = height / 32
    images = []
    for _ in range(_IMAGES):
        dark, light = (round(128 + sign * 127 * contrast * rng.uniform(0.7, 1)) for sign in (-1, 1))
        paper, ink = (dark, light) if inverted else (light, dark)
        line = plain_text(
            "".join(rng.choice(_CHARACTERS, 7)),
            (height, round(_WIDTH * scale)),
            (4, round(0.78 * height)),
            0.8 * scale,
            paper=paper,
            ink=ink,
            thickness=max(1, round(stroke * scale)),
            smooth=True,
        )
        images.append(cv2.GaussianBlur(line, (0, 0), 0.7))
    grey = np.repeat(np.stack(images)[:, None], channels, axis=1).astype(np.float32) / 255
    return torch.from_numpy(np.ascontiguousarray((grey - recipe.mean[0]) / recipe.std[0], np.float32))


def _offsets(module: nn.Module, images: Tensor) -> NDArray[np.float64]:
    """How far each channel's mean before a batch norm is from the remembered one, in deviations.

    Divided by the root of its layer's channels, so that squares add up to means over the layers.
    """
    found: list[NDArray[np.float64]] = []
    layers = [
        layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d) and layer.track_running_stats
    ]
    left = len(layers)

    def compare(layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        assert isinstance(layer, nn.BatchNorm2d)
        assert layer.running_mean is not None and layer.running_var is not None
        nonlocal left
        left -= 1
        if layer.running_mean.any():  # it has seen an image
            seen = inputs[0].mean(dim=(0, 2, 3))
            offset = (seen - layer.running_mean) / torch.sqrt(layer.running_var + layer.eps)
            found.append((offset / len(offset) ** 0.5).double().numpy())
        if not left:
            raise _Seen  # what comes behind the last one costs time and tells nothing

    hooks = [layer.register_forward_hook(compare) for layer in layers]
    try:
        with torch.inference_mode(), suppress(_Seen):
            module(images)
    finally:
        for hook in hooks:
            hook.remove()
    return np.concatenate([np.zeros(0), *found])
