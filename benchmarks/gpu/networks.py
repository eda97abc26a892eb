"""The networks that are measured: checkpoint, ONNX file and images to read."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from crnn_deploy.manifest import Manifest
from crnn_deploy.models import DEFAULT
from crnn_deploy.networks.compact import CompactCRNN
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.recipes import RECIPES
from crnn_deploy.stages.benchmark import draw_images
from crnn_deploy.stages.export import export
from crnn_deploy.stages.inspection import load_onnx, manifest_of
from crnn_deploy.stages.reference import Settings, open_reference
from gpu.work import Work

__all__ = ["DEFAULT_MODEL", "PAPER", "Network", "networks", "prepare", "split", "words"]

DEFAULT_MODEL, PAPER = "default model", "paper's, 37 classes"
_ROOT = Path(__file__).parents[2]
_WORDS = 200  # images to read


@dataclass(frozen=True)
class Network:
    """One network as PyTorch and as ONNX."""

    name: str
    checkpoint: Path
    onnx: Path

    def manifest(self) -> Manifest:
        """How its ONNX file is fed."""
        manifest = manifest_of(load_onnx(self.onnx))
        assert manifest is not None
        return manifest

    def module(self) -> nn.Module:
        """In fp32, on the CPU."""
        return open_reference(self.checkpoint, Settings(alphabet=self.manifest().alphabet)).module


def networks(folder: Path) -> tuple[Network, ...]:
    """The default model, and the paper's network where `prepare` has made it."""
    found = (
        Network(DEFAULT_MODEL, _ROOT / "training" / "default.pth", DEFAULT),
        Network(PAPER, folder / "paper.pth", folder / "paper.onnx"),
    )
    return tuple(network for network in found if network.onnx.exists())


def words(folder: Path) -> Path:
    """The folder of images to read."""
    return folder / "words"


def prepare(work: Work) -> None:
    """Make the paper's network with random weights that are as alive as trained ones, and images to read."""
    work.attempt(partial(_draw, words(work.folder)), "images of drawn words")
    work.attempt(partial(_export, work.folder), PAPER)


def _draw(folder: Path) -> int:
    folder.mkdir()
    for at, data in enumerate(draw_images("words", _WORDS)):
        (folder / f"{at:04}.jpg").write_bytes(data)
    return _WORDS


def _export(folder: Path) -> dict[str, float]:
    sys.path.insert(0, str(_ROOT / "export"))
    from export_all import random_checkpoint

    recipe = RECIPES["paper"]
    alphabet = tuple("0123456789abcdefghijklmnopqrstuvwxyz")
    checkpoint = folder / "paper.pth"
    random_checkpoint(recipe, alphabet, checkpoint)
    reference = open_reference(checkpoint, Settings(recipe="paper", alphabet=alphabet))
    return {"max_delta": export(reference, folder / "paper.onnx").report.max_delta}


def split(module: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Convolutions, images (N, C, H, W) -> (T, N, features); and the rest, to logits (N, T, classes)."""
    if isinstance(module, CompactCRNN):
        return _Features(module.features), _Labels(module.sequence, module.classifier)
    if isinstance(module, CRNN):
        return _Features(module.cnn), _Labels(*(part for block in module.rnn for part in block.children()))
    raise TypeError(f"{type(module).__name__} is not one of the networks that are measured")


class _Features(nn.Module):
    def __init__(self, convolutions: nn.Module) -> None:
        super().__init__()
        self.convolutions = convolutions

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.convolutions(images)
        return features.squeeze(2).permute(2, 0, 1)


class _Labels(nn.Module):
    """LSTMs and linear layers in turn."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, sequence: Tensor) -> Tensor:
        for layer in self.layers:
            result = layer(sequence)
            sequence = result[0] if isinstance(result, tuple) else result
        return sequence.permute(1, 0, 2)
