"""The reader of European plates of github.com/rafak1/ALPR (OCR/CRNN/crnn.py): a small CRNN with one LSTM.

The LSTM reads from left to right only. State-dict names are those of its crnn_model.pth.
"""

from torch import Tensor, nn

CLASSES = 37
HIDDEN = 256


class PlateCRNN(nn.Module):
    """Shape: images (N, 1, 32, W) -> logits (W // 4, N, 37)"""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d((2, 1))),
            *(nn.Conv2d(128, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool2d((4, 1))),
        )
        self.rnn = nn.Sequential(nn.LSTM(128, HIDDEN))
        self.embedding = nn.Linear(HIDDEN, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        features = self.cnn(images).squeeze(2)  # (N, 128, T)
        recurrent, _ = self.rnn(features.permute(2, 0, 1))
        logits: Tensor = self.embedding(recurrent)
        return logits


def factory() -> nn.Module:
    return PlateCRNN()
