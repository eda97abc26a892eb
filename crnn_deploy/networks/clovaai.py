"""None-VGG-BiLSTM-CTC and None-ResNet-BiLSTM-CTC of github.com/clovaai/deep-text-recognition-benchmark.

EasyOCR (github.com/JaidedAI/EasyOCR) took both over with other sizes: its generation 1 is the ResNet with 512
LSTM units, its generation 2 the VGG with 256 channels. Read from model.py, modules/feature_extraction.py and
modules/sequence_modeling.py of the first and easyocr/model/ of the second; the paper is arXiv 1904.01906.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

__all__ = ["FourStage", "resnet", "vgg"]


def vgg(channels: int, features: int) -> nn.Sequential:
    """The convolutions of the CRNN paper, with a quarter of the batch norm and no padding in the width.

    Shape: (N, channels, H, W) -> (N, features, H // 16 - 1, W // 4 - 1)
    """
    a, b, c, d = features // 8, features // 4, features // 2, features
    return nn.Sequential(
        *(nn.Conv2d(channels, a, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(a, b, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(b, c, 3, 1, 1), nn.ReLU()),
        *(nn.Conv2d(c, c, 3, 1, 1), nn.ReLU(), nn.MaxPool2d((2, 1))),
        *(nn.Conv2d(c, d, 3, 1, 1, bias=False), nn.BatchNorm2d(d), nn.ReLU()),
        *(nn.Conv2d(d, d, 3, 1, 1, bias=False), nn.BatchNorm2d(d), nn.ReLU(), nn.MaxPool2d((2, 1))),
        *(nn.Conv2d(d, d, 2), nn.ReLU()),
    )


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut.

    Shape: (N, before, H, W) -> (N, after, H, W)
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU()
        self.downsample = nn.Sequential()
        if before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu(self.bn1(self.conv1(images)))
        result: Tensor = self.relu(self.bn2(self.conv2(hidden)) + self.downsample(images))
        return result


def resnet(channels: int, features: int) -> nn.Sequential:
    """The residual network of the focusing attention network (Cheng and others, ICCV 2017).

    Shape: (N, channels, H, W) -> (N, features, H // 16 - 1, W // 4 + 1)
    """
    network = nn.Sequential()

    def convolution(
        name: str,
        before: int,
        after: int,
        kernel: int = 3,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (1, 1),
    ) -> None:
        network.add_module(f"conv{name}", nn.Conv2d(before, after, kernel, stride, padding, bias=False))
        network.add_module(f"bn{name}", nn.BatchNorm2d(after))
        network.add_module(f"relu{name}", nn.ReLU())

    def blocks(name: str, before: int, after: int, count: int) -> None:
        layers = [BasicBlock(before if i == 0 else after, after) for i in range(count)]
        network.add_module(f"layer{name}", nn.Sequential(*layers))

    stem, a, b, c, d = features // 16, features // 8, features // 4, features // 2, features
    convolution("0_1", channels, stem)
    convolution("0_2", stem, a)
    network.add_module("maxpool1", nn.MaxPool2d(2))
    blocks("1", a, b, 1)
    convolution("1", b, b)
    network.add_module("maxpool2", nn.MaxPool2d(2))
    blocks("2", b, c, 2)
    convolution("2", c, c)
    network.add_module("maxpool3", nn.MaxPool2d(2, (2, 1), (0, 1)))
    blocks("3", c, d, 5)
    convolution("3", d, d)
    blocks("4", d, d, 3)
    convolution("4_1", d, d, 2, (2, 1), (0, 1))
    convolution("4_2", d, d, 2, (1, 1), (0, 0))
    return network


class BatchFirstBiLSTM(nn.Module):
    """One BiLSTM and a linear layer.

    Shape: (N, T, inputs) -> (N, T, hidden)
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * hidden, hidden)

    def forward(self, sequence: Tensor) -> Tensor:
        recurrent, _ = self.rnn(sequence)
        result: Tensor = self.linear(recurrent)
        return result


class FourStage(nn.Module):
    """No rectification, `convolutions`, two BiLSTMs and CTC. The rows left by the convolutions are averaged.

    convolutions: `vgg` or `resnet`
    features: channels that they put out
    hidden: LSTM units per direction
    classes: number of classes, the CTC blank included

    Shape: images (N, channels, H, W) -> logits (N, T, classes); T is W // 4 - 1 (VGG) or W // 4 + 1 (ResNet)
    """

    def __init__(self, convolutions: nn.Sequential, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.FeatureExtraction = nn.Sequential(OrderedDict(ConvNet=convolutions))
        self.SequenceModeling = nn.Sequential(
            BatchFirstBiLSTM(features, hidden), BatchFirstBiLSTM(hidden, hidden)
        )
        self.Prediction = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        columns = self.FeatureExtraction(images).mean(2)  # (N, features, T)
        logits: Tensor = self.Prediction(self.SequenceModeling(columns.permute(0, 2, 1)))
        return logits
