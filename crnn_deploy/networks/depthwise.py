"""Depthwise convolutions that are trained in bf16 on a CPU without losing the time that bf16 wins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

__all__ = ["Depthwise"]


class Depthwise(nn.Conv2d):
    """A convolution of each channel by itself, which keeps the size.

    In training on a CPU with bf16, the gradient of the weights is computed in fp32. In bf16 it takes oneDNN
    twice as long, a quarter of a compact network's step. Everything else is as in `nn.Conv2d`.

    Shape: (N, channels, H, W) -> the same
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, 1, kernel // 2, groups=channels, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        if self.training and images.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            low = images.to(torch.get_autocast_dtype("cpu"))
            result: Tensor = _InBfloat16.apply(low, self.weight)  # type: ignore[no-untyped-call]
            return result
        return super().forward(images)


class _InBfloat16(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(images, weight)
        return conv2d(images, weight.to(images.dtype), padding=weight.shape[2] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        images, weight = ctx.saved_tensors
        [gradient] = gradients
        wanted = ctx.needs_input_grad
        of_images, _ = _gradients(gradient, images, weight.to(images.dtype), (wanted[0], False))
        _, of_weight = _gradients(gradient.float(), images.float(), weight, (False, wanted[1]))
        return of_images, of_weight


def _gradients(
    gradient: Tensor, images: Tensor, weight: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Of images and weight, each where it is wanted."""
    if not any(wanted):
        return None, None
    padding = [weight.shape[2] // 2] * 2
    of_images, of_weight, _ = torch.ops.aten.convolution_backward(
        gradient, images, weight, None, [1, 1], padding, [1, 1], False, [0, 0], len(weight), [*wanted, False]
    )
    return of_images, of_weight
