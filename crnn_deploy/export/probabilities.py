"""A network that puts out probabilities, as one that puts out their logarithms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crnn_deploy.export.scores import normalised
from crnn_deploy.manifest import OutputKind
from crnn_deploy.recipes.recipe import Recipe
from crnn_deploy.runtime.backends.outputs import SMALLEST

__all__ = ["LogOfProbabilities", "with_logarithms"]

_BATCH = 3


class LogOfProbabilities(nn.Module):
    """Another module's probabilities (N, T, classes) as log-probabilities, in float32 or better.

    A probability below 1e-30 counts as 1e-30, whose logarithm, -69, is finite.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        probabilities: Tensor = self.module(images)
        wide = torch.promote_types(probabilities.dtype, torch.float32)
        return probabilities.to(wide).clamp_min(SMALLEST).log()


def with_logarithms(module: nn.Module, recipe: Recipe) -> tuple[nn.Module, OutputKind]:
    """A module that puts out logits or log-probabilities, and which of them; told by running it on noise.

    module: images (N, C, H, W) -> scores (N, T, classes)
    """
    channels = 1 if recipe.color == "gray" else 3
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(_BATCH, channels, recipe.height, recipe.width.minimum, generator=generator)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (recipe.mean, recipe.std))
    with torch.inference_mode():
        scores = module((noise - mean) / std)
    kind = normalised([scores.float().numpy()])
    if kind == "probabilities":
        return LogOfProbabilities(module).eval(), "log-probs"
    return module, kind or "logits"
