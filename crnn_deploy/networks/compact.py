"""A small recogniser for CPUs: plain convolutions while the channels are few, separable ones after.

Depthwise-separable convolutions and strides of (2, 1) are those of MobileNets as docTR uses them (see
mobilenet.py); plain 3 x 3 convolutions in the first stages, where they are faster than separable ones, are
those of EfficientNetV2 (Tan and Le, arXiv 2104.00298, section 3.2). ReLU throughout, which ONNX Runtime
fuses into the convolution and which quantises well; one BiLSTM.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from crnn_deploy.networks.crnn import HeightInvalid
from crnn_deploy.networks.depthwise import Depthwise

__all__ = ["COMPACT_DEPTHS", "COMPACT_WIDTHS", "CompactCRNN"]

COMPACT_WIDTHS = (24, 48, 96, 128, 192)
COMPACT_DEPTHS = (2, 3)


class _Convolution(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(
        self, before: int, after: int, kernel: tuple[int, int] = (3, 3), stride: tuple[int, int] = (1, 1)
    ) -> None:
        padding = (1, 1) if kernel == (3, 3) else (0, 0)
        super().__init__(
            nn.Conv2d(before, after, kernel, stride, padding, bias=False), nn.BatchNorm2d(after), nn.ReLU()
        )


class _Separable(nn.Module):
    """A 5 x 5 convolution of each channel and one across the channels, beside a shortcut.

    Shape: (N, channels, H, W) -> the same
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = Depthwise(channels, 5)
        self.norm1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.activation = nn.ReLU()

    def forward(self, images: Tensor) -> Tensor:
        separated = self.norm2(self.pointwise(self.norm1(self.depthwise(images))))
        result: Tensor = self.activation(images + separated)
        return result


class CompactCRNN(nn.Module):
    """Two strides of 2 and two of (2, 1) leave height / 16 rows; the last convolution spans them.

    height: input height in pixels, a multiple of 16
    channels: 1 or 3
    classes: number of classes, the CTC blank included
    hidden: LSTM units per direction
    widths: channels after each of the five changes of size
    depths: separable convolutions after the third change of size and after the fourth
    head: features between the LSTM and thousands of classes, two narrow matrices in place of a large one;
        None: one matrix
    Raises HeightInvalid.

    Shape: images (N, channels, height, W) -> logits (N, (W + 3) // 4, classes)
    """

    def __init__(
        self,
        height: int,
        channels: int,
        classes: int,
        hidden: int = 128,
        *,
        widths: Sequence[int] = COMPACT_WIDTHS,
        depths: tuple[int, int] = COMPACT_DEPTHS,
        head: int | None = None,
    ) -> None:
        super().__init__()
        if height < 16 or height % 16:
            raise HeightInvalid(height)
        self.height = height
        self.widths = tuple(widths)
        self.depths = depths
        a, b, c, d, e = widths
        self.features = nn.Sequential(
            *(
                _Convolution(channels, a, stride=(2, 2)),
                _Convolution(a, b, stride=(2, 2)),
                _Convolution(b, b),
            ),
            *(_Convolution(b, c, stride=(2, 1)), *(_Separable(c) for _ in range(depths[0]))),
            *(_Convolution(c, d, stride=(2, 1)), *(_Separable(d) for _ in range(depths[1]))),
            _Convolution(d, e, kernel=(height // 16, 1)),
        )
        self.sequence = nn.LSTM(e, hidden, bidirectional=True)
        self.classifier: nn.Module
        if head is None:
            self.classifier = nn.Linear(2 * hidden, classes)
        else:
            self.classifier = nn.Sequential(nn.Linear(2 * hidden, head, bias=False), nn.Linear(head, classes))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(images).squeeze(2)  # (N, features, T)
        sequence, _ = self.sequence(features.permute(2, 0, 1))  # (T, N, 2 x hidden)
        logits: Tensor = self.classifier(sequence)
        return logits.permute(1, 0, 2)
