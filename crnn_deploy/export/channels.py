"""How many channels a network takes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from crnn_deploy.errors import ModelInvalid
from crnn_deploy.export.probe import Unfit, run_on_noise
from crnn_deploy.networks.families import PUBLISHED
from crnn_deploy.recipes.recipe import Recipe

__all__ = ["fit_channels"]


def fit_channels(module: nn.Module, recipe: Recipe) -> Recipe:
    """The recipe for the number of channels that the first convolution takes. Raises ModelInvalid."""
    channels = 1 if recipe.color == "gray" else 3
    if isinstance(module, PUBLISHED):
        first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
        given = channels
    else:
        first, given = _first_convolution(module, recipe)
    if first is None or first.in_channels == given:
        return recipe
    if first.in_channels not in (1, 3):
        raise ModelInvalid(f"the network takes {first.in_channels} channels; images have 1 or 3")
    if channels == 1:
        return replace(
            recipe,
            color="rgb",
            mean=recipe.mean * 3,
            std=recipe.std * 3,
            width=replace(recipe.width, tall="keep"),
            grey="opencv",  # these two and `tall` are rules of grey images alone
            contrast=None,
        )
    return replace(recipe, color="gray", mean=recipe.mean[:1], std=recipe.std[:1])


def _first_convolution(module: nn.Module, recipe: Recipe) -> tuple[nn.Conv2d | None, int]:
    """The convolution that runs first, and the channels that it is given.

    A network of the user's own may hold its layers in any order, and may repeat or join channels before it.
    """
    called: list[tuple[nn.Conv2d, int]] = []

    def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(layer, nn.Conv2d) and inputs and isinstance(inputs[0], Tensor) and inputs[0].ndim >= 3:
            called.append((layer, inputs[0].shape[-3]))

    handles = [layer.register_forward_pre_hook(note) for layer in module.modules()]
    try:
        with suppress(Unfit):
            run_on_noise(module, recipe, 3, recipe.width.minimum)
    finally:
        for handle in handles:
            handle.remove()
    return called[0] if called else (None, 0)
