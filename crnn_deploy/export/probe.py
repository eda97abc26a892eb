"""A network run on noise: what it puts out, or why it does not run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from crnn_deploy.errors import ModelInvalid
from crnn_deploy.export.limits import TooLarge
from crnn_deploy.export.witness import cause
from crnn_deploy.recipes.recipe import Recipe

__all__ = ["Unfit", "does_not_run", "noise_images", "output_of", "run_on_noise"]

# in Python's and PyTorch's errors where a forward takes a dictionary or an object apart
_NO_TENSOR = ("too many indices for tensor", "'Tensor' object has no attribute")
_KINDS = ("double", "half", "bfloat16", "dtype")  # in PyTorch's errors where number formats differ


class Unfit(Exception):
    """Images that the network does not run on; the message is why."""


def run_on_noise(module: nn.Module, recipe: Recipe, batch: int, width: int) -> Any:
    try:
        with torch.inference_mode():
            return module(noise_images(recipe, batch, width))
    except TooLarge:
        raise
    except Exception as error:  # the user's code may raise anything
        raise Unfit(cause(error)) from error


def output_of(module: nn.Module, recipe: Recipe, batch: int, width: int) -> Tensor:
    """The tensor that a network of one tensor puts out."""
    output = run_on_noise(module, recipe, batch, width)
    assert isinstance(output, Tensor)
    return output


def noise_images(recipe: Recipe, batch: int, width: int) -> Tensor:
    """Noise as of normalised images, the same every time."""
    channels = 1 if recipe.color == "gray" else 3
    noise = torch.Generator().manual_seed(0)
    return torch.rand(batch, channels, recipe.height, width, generator=noise) * 2 - 1


def does_not_run(recipe: Recipe, width: int, why: Unfit) -> ModelInvalid:
    channels = 1 if recipe.color == "gray" else 3
    remedy = "choose the recipe's height, color and [width] to fit"
    if "cuda" in str(why).lower():
        remedy = "let it make its tensors where the images are (x.device), which is the CPU here"
    elif any(kind in str(why).lower() for kind in _KINDS):
        remedy = "let it compute in float32"
    elif any(sign in str(why) for sign in _NO_TENSOR):
        remedy = "let its forward take the images alone, one tensor (N, C, H, W)"
    return ModelInvalid(
        f"the network does not run on an image of {channels} x {recipe.height} x {width}; {remedy} ({why})"
    )
