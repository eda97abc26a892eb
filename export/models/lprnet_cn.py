"""LPRNet, the reader of Chinese plates of github.com/sirius-ai/LPRNet_Pytorch (arXiv 1806.10447).

It has no recurrence; averages over the image tell each column of the others. State-dict names are those of
its Final_LPRNet_model.pth. The published code divides each feature map by the mean square over the batch, so
that a plate's text depends on its neighbours. Here the mean is over the one plate, as it is there with a
batch of one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 68


class ChannelStridePool(nn.Module):
    """3 x 3 maximum over every `channels`-th channel: the published MaxPool3d over (channels, H, W).

    Shape: (N, C, H, W) -> (N, C / channels, H - 2, (W - 3) // columns + 1)
    """

    def __init__(self, channels: int, columns: int) -> None:
        super().__init__()
        self.channels = channels
        self.columns = columns

    def forward(self, images: Tensor) -> Tensor:
        return functional.max_pool2d(images[:, :: self.channels], 3, (1, self.columns))


class SmallBasicBlock(nn.Module):
    """A 3 x 3 convolution in two parts, between two of 1 x 1.

    Shape: (N, inputs, H, W) -> (N, outputs, H, W)
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 4
        self.block = nn.Sequential(
            *(nn.Conv2d(inputs, middle, 1), nn.ReLU()),
            *(nn.Conv2d(middle, middle, (3, 1), padding=(1, 0)), nn.ReLU()),
            *(nn.Conv2d(middle, middle, (1, 3), padding=(0, 1)), nn.ReLU()),
            nn.Conv2d(middle, outputs, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.block(images)
        return result


class LPRNet(nn.Module):
    """Shape: images (N, 3, 24, 94) -> logits (N, 68, 18)"""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            *(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), ChannelStridePool(1, 1)),  # 0-3
            *(SmallBasicBlock(64, 128), nn.BatchNorm2d(128), nn.ReLU(), ChannelStridePool(2, 2)),  # 4-7
            *(SmallBasicBlock(64, 256), nn.BatchNorm2d(256), nn.ReLU()),  # 8-10
            *(SmallBasicBlock(256, 256), nn.BatchNorm2d(256), nn.ReLU(), ChannelStridePool(4, 2)),  # 11-14
            nn.Dropout(0.5),  # 15
            *(nn.Conv2d(64, 256, (1, 4)), nn.BatchNorm2d(256), nn.ReLU(), nn.Dropout(0.5)),  # 16-19
            *(nn.Conv2d(256, CLASSES, (13, 1)), nn.BatchNorm2d(CLASSES), nn.ReLU()),  # 20-22
        )
        self.container = nn.Sequential(nn.Conv2d(448 + CLASSES, CLASSES, 1))

    def forward(self, images: Tensor) -> Tensor:
        context = []
        for i, layer in enumerate(self.backbone):
            images = layer(images)
            if i in (2, 6):
                context.append(functional.avg_pool2d(images, 5))
            elif i == 13:
                context.append(functional.avg_pool2d(images, (4, 10), (4, 2)))
        context.append(images)
        scaled = [features / features.square().mean((1, 2, 3), keepdim=True) for features in context]
        logits: Tensor = self.container(torch.cat(scaled, 1)).mean(2)
        return logits


def factory() -> nn.Module:
    return LPRNet()
