"""The CRNN of docTR (github.com/mindee/doctr, models/recognition/crnn) and its VGG; see mobilenet.py too."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["DoctrCRNN", "vgg16_bn"]


def vgg16_bn(channels: int) -> nn.Sequential:
    """torchvision's `vgg16_bn().features` with the last three poolings (2, 1), as docTR's `vgg16_bn_r`.

    Shape: (N, channels, 32, W) -> (N, 512, 1, W // 4)
    """
    layers: list[nn.Module] = []
    before = channels
    for width, convolutions, pooling in (
        (64, 2, (2, 2)),
        (128, 2, (2, 2)),
        (256, 3, (2, 1)),
        (512, 3, (2, 1)),
        (512, 3, (2, 1)),
    ):
        for _ in range(convolutions):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(pooling))
    return nn.Sequential(*layers)


class DoctrCRNN(nn.Module):
    """Convolutions, one LSTM module of two bidirectional layers, a linear layer.

    feat_extractor: `vgg16_bn` or a MobileNetV3
    column: features of one column that it puts out, channels times rows
    hidden: LSTM units per direction
    classes: number of classes, the CTC blank included

    Shape: images (N, channels, H, W) -> logits (N, T, classes); T is W // 4 (VGG) or (W + 3) // 4 (MobileNet)
    """

    def __init__(self, feat_extractor: nn.Sequential, column: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.feat_extractor = feat_extractor
        self.decoder = nn.LSTM(column, hidden, num_layers=2, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        columns = self.feat_extractor(images).flatten(1, 2)  # (N, channels x rows, T)
        sequence, _ = self.decoder(columns.permute(0, 2, 1))
        logits: Tensor = self.linear(sequence)
        return logits
