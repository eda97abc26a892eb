"""How many time steps a network gives, found without computing them: shapes alone go through it."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["steps_by_shapes"]


def steps_by_shapes(module: nn.Module, channels: int, height: int, widths: Iterable[int]) -> dict[int, int]:
    """Time steps at each width of a module (N, C, H, W) -> (N, T, classes); none where shapes do not tell.

    They do not where what the module does depends on numbers, or where it makes tensors of its own.
    """
    try:
        empty = _without_recurrence(copy.deepcopy(module)).to("meta")
        with torch.inference_mode():
            return {
                width: empty(torch.empty(1, channels, height, width, device="meta")).shape[1]
                for width in widths
            }
    except Exception:  # a module of one's own may raise anything, and then it is run
        return {}


class _Shape(nn.Module):
    """A recurrent layer's output in its shape alone: on such tensors PyTorch would go step by step."""

    def __init__(self, layer: nn.LSTM | nn.GRU) -> None:
        super().__init__()
        self.features = layer.hidden_size * (2 if layer.bidirectional else 1)

    def forward(self, sequence: Tensor) -> tuple[Tensor, None]:
        return sequence.new_empty(*sequence.shape[:-1], self.features), None


def _without_recurrence(module: nn.Module) -> nn.Module:
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LSTM | nn.GRU) and not child.proj_size:
                setattr(parent, name, _Shape(child))
    return module
