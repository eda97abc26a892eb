"""The CRNN of Shi, Bai and Yao (arXiv 1507.05717): seven convolutions, two BiLSTMs, one score per class.

State-dict names are those of github.com/meijieru/crnn.pytorch, so its checkpoints and those of its many
descendants load as they are: Holmeyoung/crnn-pytorch and Sierkinhane/CRNN_Chinese_Characters_Rec, whose final
log-softmax is left to the caller here, and the conversion of bgshih/crnn's Torch 7 model.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from crnn_deploy.errors import CrnnDeployError

__all__ = ["CRNN", "PAPER_WIDTHS", "HeightInvalid", "convolutions", "recurrence"]

PAPER_WIDTHS = (64, 128, 256, 256, 512, 512, 512)
_BATCH_NORM = (2, 4, 6)
_POOLING: dict[int, nn.MaxPool2d] = {
    0: nn.MaxPool2d(2, 2),
    1: nn.MaxPool2d(2, 2),
    3: nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
    5: nn.MaxPool2d((2, 2), (2, 1), (0, 1)),
}


class HeightInvalid(CrnnDeployError, ValueError):
    """An input height that the poolings do not bring to one row."""

    def __init__(self, height: int) -> None:
        super().__init__(f"a CRNN's height is a multiple of 16, not {height}")


class BidirectionalLSTM(nn.Module):
    """One BiLSTM and a linear layer.

    Shape: (T, N, inputs) -> (T, N, outputs)
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True)
        self.embedding = nn.Linear(2 * hidden, outputs)

    def forward(self, sequence: Tensor) -> Tensor:
        recurrent, _ = self.rnn(sequence)
        scores: Tensor = self.embedding(recurrent)
        return scores


def convolutions(height: int, channels: int, widths: Sequence[int], leaky_relu: bool) -> nn.Sequential:
    """The seven convolutions. Raises HeightInvalid.

    Shape: (N, channels, height, W) -> (N, widths[-1], 1, W // 4 + 1)
    """
    if height < 16 or height % 16:
        raise HeightInvalid(height)
    cnn = nn.Sequential()
    for i, width in enumerate(widths):
        last = i == len(widths) - 1
        before = widths[i - 1] if i else channels
        # four poolings leave height / 16 rows; the last convolution spans them all
        kernel = (height // 16, 2) if last else (3, 3)
        cnn.add_module(f"conv{i}", nn.Conv2d(before, width, kernel, 1, 0 if last else 1))
        if i in _BATCH_NORM:
            cnn.add_module(f"batchnorm{i}", nn.BatchNorm2d(width))
        cnn.add_module(f"relu{i}", nn.LeakyReLU(0.2) if leaky_relu else nn.ReLU())
        if i in _POOLING:
            cnn.add_module(f"pooling{list(_POOLING).index(i)}", _POOLING[i])
    return cnn


def recurrence(inputs: int, hidden: int, inner: int, classes: int) -> nn.Sequential:
    """The two recurrent blocks, with `inner` features between them.

    Shape: (T, N, inputs) -> (T, N, classes)
    """
    return nn.Sequential(BidirectionalLSTM(inputs, hidden, inner), BidirectionalLSTM(inner, hidden, classes))


class CRNN(nn.Module):
    """Convolutions shrink the image to one row of features, a time step for every four pixels of width.

    height: input height in pixels, a multiple of 16 (the published networks use 32)
    channels: 1 or 3
    classes: number of classes, the CTC blank included
    hidden: LSTM units per direction
    leaky_relu: slope 0.2 in place of ReLU
    widths: channels of the seven convolutions
    inner: outputs of the first recurrent block (hidden by default)
    Raises HeightInvalid.

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
        inner: int | None = None,
    ) -> None:
        super().__init__()
        self.height = height
        self.cnn = convolutions(height, channels, widths, leaky_relu)
        self.rnn = recurrence(widths[-1], hidden, hidden if inner is None else inner, classes)
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        features = self.cnn(images).squeeze(2)  # (N, features, T)
        logits: Tensor = self.rnn(features.permute(2, 0, 1))  # (T, N, classes)
        return logits.permute(1, 0, 2)


def _initialise(module: nn.Module) -> None:
    """He's initialisation (He et al. 2015, arXiv 1502.01852), with BatchNorm as in crnn.pytorch.

    Convolutions without BatchNorm keep their scale, so that training leaves the CTC's plateau sooner than
    from crnn.pytorch's 0.02 for all.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
