"""Memory that a stranger's network may take: a checkpoint tells its shapes, and shapes are cheap to write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

__all__ = ["TooLarge", "bounded_outputs", "bounded_weights"]

_MOST_OUTPUTS = 2**28  # numbers that one layer puts out, 1 GiB in fp32
_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full)


class TooLarge(Exception):
    """A network beyond its bounds; the message says of what."""


class bounded_weights(TorchFunctionMode):  # noqa: N801 - used as a function
    """Within `with`, tensors of at most so many numbers are made. Raises TooLarge before the one beyond."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self._left = numbers

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _MAKERS and args:
            self._left -= prod(args[0]) if isinstance(args[0], tuple | list) else prod(args)
            if self._left < 0:
                raise TooLarge("its weights are fewer than its network's")
        return func(*args, **(kwargs or {}))


@contextmanager
def bounded_outputs() -> Iterator[Callable[[nn.Module], None]]:
    """A function that watches a network until the block ends. Its layers raise TooLarge before they put out
    more than 2^28 numbers.
    """
    handles: list[Any] = []

    def watch(module: nn.Module) -> None:
        handles.extend(layer.register_forward_pre_hook(_check) for layer in module.modules())

    try:
        yield watch
    finally:
        for handle in handles:
            handle.remove()


def _check(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    images = inputs[0]
    if isinstance(layer, nn.Conv2d):
        # of strided ones it is more than they put out, and as much as they take
        numbers = images.numel() // layer.in_channels * max(layer.in_channels, layer.out_channels)
    elif isinstance(layer, nn.Linear):
        numbers = images.numel() // layer.in_features * layer.out_features
    elif isinstance(layer, nn.LSTM):
        numbers = images.numel() // layer.input_size * 8 * layer.hidden_size
    else:
        return
    if numbers > _MOST_OUTPUTS:
        shape = " x ".join(map(str, images.shape))
        raise TooLarge(f"a layer of its network makes {numbers:,} numbers of an input of {shape}")
