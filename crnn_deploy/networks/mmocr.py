"""The CRNN of mmocr (github.com/open-mmlab/mmocr): crnn.pytorch's layers as a backbone and a decoder.

Read from backbones/mini_vgg.py (very_deep_vgg.py in mmocr 0.x) and decoders/crnn_decoder.py with `rnn_flag`,
as configs/textrecog/crnn sets it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from crnn_deploy.networks.crnn import PAPER_WIDTHS, convolutions, recurrence

__all__ = ["MmocrCRNN"]


class MmocrCRNN(nn.Module):
    """The paper's CRNN; the arguments are those of `CRNN`.

    Shape: images (N, channels, height, W) -> logits (N, W // 4 + 1, classes)
    """

    def __init__(
        self,
        height: int,
        channels: int,
        classes: int,
        hidden: int = 256,
        *,
        leaky_relu: bool = False,
        widths: Sequence[int] = PAPER_WIDTHS,
        inner: int = 256,
    ) -> None:
        super().__init__()
        self.height = height
        cnn = convolutions(height, channels, widths, leaky_relu)
        self.backbone = nn.Sequential(OrderedDict(cnn=cnn))
        self.decoder = nn.Sequential(OrderedDict(decoder=recurrence(widths[-1], hidden, inner, classes)))

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(images).squeeze(2)  # (N, features, T)
        logits: Tensor = self.decoder(features.permute(2, 0, 1))  # (T, N, classes)
        return logits.permute(1, 0, 2)
