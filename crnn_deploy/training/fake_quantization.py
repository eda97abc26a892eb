"""Training with the rounding of INT8 in the forward pass, in the convolutions that `quantize` quantises.

Weights are rounded by channel as `stages.qdq` does; batch norm, which the export folds into them, scales a
channel's weights and their rounding alike. Inputs are rounded to the range of their batch, which needs no
state, so a resumed training stays exact. Gradients pass through the rounding (Bengio and others, arXiv
1308.3432).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crnn_deploy.stages.qdq import WEIGHT_LEVEL

__all__ = ["fake_quantize"]

_LEVELS = 127  # of activations


class _RoundedConv2d(nn.Conv2d):
    """A convolution whose weights and inputs are those of INT8; the names of its state are a Conv2d's."""

    weight_level: int

    def forward(self, input: Tensor) -> Tensor:
        weight = _rounded(self.weight, self.weight.detach().abs().amax((1, 2, 3), True), self.weight_level)
        inputs = _rounded(input, input.detach().abs().amax(), _LEVELS)
        result: Tensor = self._conv_forward(inputs, weight, self.bias)
        return result


def fake_quantize(module: nn.Module, *, weight_level: int = WEIGHT_LEVEL) -> None:
    """Let the convolutions of a module round weights and inputs, in place; weights and names stay.

    weight_level: largest level of a weight
    """
    for layer in module.modules():
        if type(layer) is nn.Conv2d:
            layer.__class__ = _RoundedConv2d
            layer.weight_level = weight_level  # type: ignore[assignment]


def _rounded(values: Tensor, largest: Tensor, levels: int) -> Tensor:
    scale = torch.where(largest > 0, largest / levels, torch.ones_like(largest))
    return values + ((values.detach() / scale).round() * scale - values.detach())
