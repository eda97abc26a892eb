"""The CRNN of github.com/GitYCC/crnn-pytorch (src/model.py): a linear layer before two plain BiLSTMs.

It differs from crnn.pytorch also in its last two poolings, which do not overlap in the width, and in its
batch norm, after the fifth and sixth convolution only.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from crnn_deploy.networks.crnn import PAPER_WIDTHS

__all__ = ["GitYccCRNN"]

_BATCH_NORM = (4, 5)
_POOLING = {0: (2, 2), 1: (2, 2), 3: (2, 1), 5: (2, 1)}


class GitYccCRNN(nn.Module):
    """Seven convolutions, a linear layer, two BiLSTMs, a linear layer.

    height: input height in pixels, a multiple of 16 from 32 on
    channels: 1 or 3
    classes: number of classes, the CTC blank included
    mapped: inputs of the first LSTM
    hidden: LSTM units per direction
    leaky_relu: slope 0.2 in place of ReLU
    widths: channels of the seven convolutions

    Shape: images (N, channels, height, W) -> logits (N, W // 4 - 1, classes)
    """

    def __init__(
        self,
        height: int,
        channels: int,
        classes: int,
        mapped: int = 64,
        hidden: int = 256,
        *,
        leaky_relu: bool = False,
        widths: Sequence[int] = PAPER_WIDTHS,
    ) -> None:
        super().__init__()
        self.height = height
        self.cnn = nn.Sequential()
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            before = widths[i - 1] if i else channels
            self.cnn.add_module(f"conv{i}", nn.Conv2d(before, width, 2 if last else 3, 1, 0 if last else 1))
            if i in _BATCH_NORM:
                self.cnn.add_module(f"batchnorm{i}", nn.BatchNorm2d(width))
            self.cnn.add_module(f"relu{i}", nn.LeakyReLU(0.2) if leaky_relu else nn.ReLU())
            if i in _POOLING:
                self.cnn.add_module(f"pooling{list(_POOLING).index(i)}", nn.MaxPool2d(_POOLING[i]))
        self.map_to_seq = nn.Linear(widths[-1] * (height // 16 - 1), mapped)
        self.rnn1 = nn.LSTM(mapped, hidden, bidirectional=True)
        self.rnn2 = nn.LSTM(2 * hidden, hidden, bidirectional=True)
        self.dense = nn.Linear(2 * hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        columns = self.cnn(images).flatten(1, 2)  # (N, features x rows, T)
        sequence = self.map_to_seq(columns.permute(2, 0, 1))  # (T, N, mapped)
        sequence, _ = self.rnn1(sequence)
        sequence, _ = self.rnn2(sequence)
        logits: Tensor = self.dense(sequence)
        return logits.permute(1, 0, 2)
