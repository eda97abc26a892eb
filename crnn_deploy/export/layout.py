"""What a network takes and puts out, told by running it: channels, layout of the output, time steps."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from crnn_deploy.errors import AlphabetMismatch, ModelInvalid, first_line
from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.export.steps import probed_widths, step_rule
from crnn_deploy.manifest import StepRule
from crnn_deploy.recipes.recipe import Recipe

__all__ = ["BatchFirst", "accepts_any_width", "fit_channels", "laid_out"]

_PROBE_BATCH = 3


def laid_out(module: nn.Module, recipe: Recipe, classes: int) -> tuple[nn.Module, StepRule]:
    """The module with the output (N, T, classes), and its time steps.

    Raises ModelInvalid, AlphabetMismatch.
    """
    module = _batch_first(module, recipe, classes)
    width = recipe.width
    try:
        steps = {w: _run(module, recipe, 1, w).shape[1] for w in probed_widths(width)}
    except ModelInvalid:
        if not width.fixed:
            raise
        steps = {width.minimum: _run(module, recipe, 1, width.minimum).shape[1]}
    return module, step_rule(steps)


def accepts_any_width(reference: ReferenceBackend) -> bool:
    """Whether the network itself runs at widths other than a fixed one, with the time steps of its rule."""
    manifest = reference.manifest
    if not manifest.width.fixed:
        return True
    shape = (1, manifest.channels, manifest.height)
    try:
        with torch.inference_mode():
            for width in probed_widths(manifest.width):
                if reference.module(torch.zeros(*shape, width)).shape[1] != manifest.steps(width):
                    return False
    except RuntimeError:
        return False
    return True


def fit_channels(module: nn.Module, recipe: Recipe) -> Recipe:
    """The recipe for the number of channels that the first convolution takes."""
    first = next((layer for layer in module.modules() if isinstance(layer, nn.Conv2d)), None)
    channels = 1 if recipe.color == "gray" else 3
    if first is None or first.in_channels == channels:
        return recipe
    if first.in_channels not in (1, 3):
        raise ModelInvalid(f"the network takes {first.in_channels} channels; images have 1 or 3")
    if channels == 1:
        return replace(recipe, color="rgb", mean=recipe.mean * 3, std=recipe.std * 3)
    return replace(recipe, color="gray", mean=recipe.mean[:1], std=recipe.std[:1])


class BatchFirst(nn.Module):
    """Another module's output as (N, T, classes)."""

    def __init__(self, module: nn.Module, order: tuple[int, ...]) -> None:
        super().__init__()
        self.module = module
        self.order = order

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images)
        return logits.permute(self.order)


def _batch_first(module: nn.Module, recipe: Recipe, classes: int) -> nn.Module:
    shape = tuple(_run(module, recipe, _PROBE_BATCH, recipe.width.minimum).shape)
    if len(shape) != 3:
        raise ModelInvalid(
            f"the network puts out a tensor of shape {shape}; a CTC network puts out (N, T, classes)"
        )
    orders = [
        (batch, 3 - batch - axis, axis)
        for batch in (0, 1)
        for axis in range(3)
        if axis != batch and shape[batch] == _PROBE_BATCH and shape[axis] == classes
    ]
    if not orders:
        # the published layouts are (N, T, classes) and (T, N, classes)
        raise AlphabetMismatch(classes - 1, shape[2])
    if len(orders) > 1:
        raise ModelInvalid(
            f"the layout of the output {shape} is ambiguous (as many time steps as classes); "
            "give the recipe another [width], or let the factory put out (N, T, classes)"
        )
    return module if orders[0] == (0, 1, 2) else BatchFirst(module, orders[0]).eval()


def _run(module: nn.Module, recipe: Recipe, batch: int, width: int) -> Tensor:
    channels = 1 if recipe.color == "gray" else 3
    images = torch.zeros(batch, channels, recipe.height, width)
    try:
        with torch.inference_mode():
            logits = module(images)
    except (RuntimeError, ValueError) as error:
        raise ModelInvalid(
            f"the network does not run on an image of {channels} x {recipe.height} x {width}; choose the "
            f"recipe's height, color and [width] to fit ({first_line(error)})"
        ) from error
    if not isinstance(logits, Tensor):
        raise ModelInvalid(f"the network puts out a {type(logits).__name__}, not a tensor of logits")
    return logits
