"""MobileNetV3 (Howard and others, arXiv 1905.02244) as the convolutions of a text recogniser.

State-dict names are those of torchvision's `mobilenet_v3_small().features` (and `_large`).
Three strides are (2, 1), as in docTR (github.com/mindee/doctr, models/classification/mobilenet, the `_r`
models), so that a time step is four pixels wide.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

__all__ = ["mobilenet_v3_large", "mobilenet_v3_small"]


@dataclass(frozen=True)
class _Block:
    """A row of tables 1 and 2 of the paper."""

    kernel: int
    expanded: int  # channels of the depthwise convolution
    outputs: int
    squeeze: bool  # with squeeze-and-excitation
    hardswish: bool  # in place of ReLU
    stride: tuple[int, int] = (1, 1)


_SMALL = (
    _Block(3, 16, 16, True, False, (2, 2)),
    _Block(3, 72, 24, False, False, (2, 1)),
    _Block(3, 88, 24, False, False),
    _Block(5, 96, 40, True, True, (2, 1)),
    _Block(5, 240, 40, True, True),
    _Block(5, 240, 40, True, True),
    _Block(5, 120, 48, True, True),
    _Block(5, 144, 48, True, True),
    _Block(5, 288, 96, True, True, (2, 1)),
    _Block(5, 576, 96, True, True),
    _Block(5, 576, 96, True, True),
)
_LARGE = (
    _Block(3, 16, 16, False, False),
    _Block(3, 64, 24, False, False, (2, 2)),
    _Block(3, 72, 24, False, False),
    _Block(5, 72, 40, True, False, (2, 1)),
    _Block(5, 120, 40, True, False),
    _Block(5, 120, 40, True, False),
    _Block(3, 240, 80, False, True, (2, 1)),
    _Block(3, 200, 80, False, True),
    _Block(3, 184, 80, False, True),
    _Block(3, 184, 80, False, True),
    _Block(3, 480, 112, True, True),
    _Block(3, 672, 112, True, True),
    _Block(5, 672, 160, True, True, (2, 1)),
    _Block(5, 960, 160, True, True),
    _Block(5, 960, 160, True, True),
)


def _convolution(
    before: int,
    after: int,
    kernel: int,
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
    activation: nn.Module | None = None,
) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after, eps=0.001, momentum=0.01),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [activation]))


def _multiple_of_8(channels: int) -> int:
    """The nearest multiple of 8, but not below nine tenths of `channels`."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class SqueezeExcitation(nn.Module):
    """Each channel is scaled by what the channels' means say of it.

    Shape: (N, channels, H, W) -> the same
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = _multiple_of_8(channels // 4)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Hardsigmoid()

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean((2, 3), keepdim=True)
        scale: Tensor = self.scale_activation(self.fc2(self.activation(self.fc1(means))))
        return scale * images


class InvertedResidual(nn.Module):
    """Expand, convolve each channel, squeeze and excite, project.

    Shape: (N, before, H, W) -> (N, outputs, H / stride, W / stride)
    """

    def __init__(self, before: int, block: _Block) -> None:
        super().__init__()
        activation = nn.Hardswish() if block.hardswish else nn.ReLU()
        layers: list[nn.Module] = []
        if block.expanded != before:
            layers.append(_convolution(before, block.expanded, 1, activation=activation))
        layers.append(
            _convolution(
                block.expanded, block.expanded, block.kernel, block.stride, block.expanded, activation
            )
        )
        if block.squeeze:
            layers.append(SqueezeExcitation(block.expanded))
        layers.append(_convolution(block.expanded, block.outputs, 1))
        self.block = nn.Sequential(*layers)
        self.shortcut = block.stride == (1, 1) and before == block.outputs

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.block(images)
        return result + images if self.shortcut else result


def _mobilenet(channels: int, blocks: tuple[_Block, ...]) -> nn.Sequential:
    layers: list[nn.Module] = [_convolution(channels, 16, 3, (2, 2), activation=nn.Hardswish())]
    before = 16
    for block in blocks:
        layers.append(InvertedResidual(before, block))
        before = block.outputs
    layers.append(_convolution(before, 6 * before, 1, activation=nn.Hardswish()))
    return nn.Sequential(*layers)


def mobilenet_v3_small(channels: int) -> nn.Sequential:
    """Shape: (N, channels, 32, W) -> (N, 576, 1, (W + 3) // 4)"""
    return _mobilenet(channels, _SMALL)


def mobilenet_v3_large(channels: int) -> nn.Sequential:
    """Shape: (N, channels, 32, W) -> (N, 960, 1, (W + 3) // 4)"""
    return _mobilenet(channels, _LARGE)
