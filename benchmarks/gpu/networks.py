"""The networks that are measured: checkpoint, ONNX file and images to read."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.gpu.work import Work
from crnn_deploy.evaluation.speed import draw_images
from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.export.reference import open_reference
from crnn_deploy.manifest import Manifest
from crnn_deploy.models import DEFAULT
from crnn_deploy.networks.compact import CompactCRNN
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.recipes.settings import CheckpointSettings

__all__ = ["DEFAULT_MODEL", "PAPER", "Network", "engines_of", "networks", "prepare", "split", "words"]

DEFAULT_MODEL, PAPER = "default model", "paper's, 37 classes"
_ROOT = Path(__file__).parents[2]
_ALPHABET = tuple("0123456789abcdefghijklmnopqrstuvwxyz")
_WORDS = 200  # images to read


@dataclass(frozen=True)
class Network:
    """One network as PyTorch and as ONNX."""

    name: str
    checkpoint: Path
    onnx: Path  # may be absent where it could not be exported
    settings: CheckpointSettings

    def manifest(self) -> Manifest:
        return _reference(self).manifest

    def module(self) -> nn.Module:
        """A copy in fp32 on the CPU."""
        return copy.deepcopy(_reference(self).module)


@cache
def _reference(network: Network) -> ReferenceBackend:
    return open_reference(network.checkpoint, network.settings)


def networks(folder: Path) -> tuple[Network, ...]:
    """The default model, and the paper's network where `prepare` has made it."""
    default = Network(DEFAULT_MODEL, _ROOT / "training" / "latin.pth", DEFAULT, CheckpointSettings())
    checkpoint, settings = folder / "paper.pth", CheckpointSettings("paper", alphabet=_ALPHABET)
    paper = Network(PAPER, checkpoint, folder / "paper.onnx", settings)
    return (default, paper) if checkpoint.exists() else (default,)


def engines_of(network: Network, folder: Path) -> dict[str, Path]:
    """The engines of a network that take the likeliest class on the GPU, by precision."""
    stem = network.onnx.stem
    found = sorted(folder.glob(f"{stem}-*-argmax.engine"))
    return {path.stem.removeprefix(f"{stem}-").removesuffix("-argmax"): path for path in found}


def words(folder: Path) -> Path:
    """The folder of images to read."""
    return folder / "words"


def prepare(work: Work) -> None:
    """Images to read, and the paper's network with random weights: as a checkpoint and as ONNX."""
    if not words(work.folder).exists():  # an earlier run may have made them in the same folder
        work.attempt(partial(_draw, words(work.folder)), "images of drawn words")
    if not (work.folder / "paper.pth").exists():
        work.attempt(partial(_save, work.folder / "paper.pth"), PAPER, "parameters")
    for network in networks(work.folder)[1:]:
        if not network.onnx.exists():
            work.attempt(partial(_export, network), network.name, "export's max_delta")


def _draw(folder: Path) -> int:
    whole = folder.with_name(f".{folder.name}.part")  # one that is cut off must not pass for it
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir(parents=True)
    for at, data in enumerate(draw_images("words", _WORDS)):
        (whole / f"{at:04}.jpg").write_bytes(data)
    whole.rename(folder)
    return _WORDS


def _save(path: Path) -> int:
    torch.manual_seed(0)
    module = CRNN(32, 1, len(_ALPHABET) + 1)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):  # by the published initialisation the signal fades
            nn.init.kaiming_normal_(layer.weight)
    whole = path.with_name(f".{path.name}.part")
    torch.save(module.state_dict(), whole)
    whole.replace(path)
    return sum(parameter.numel() for parameter in module.parameters())


def _export(network: Network) -> float:
    from crnn_deploy.export.exporter import export  # needs more libraries than the rest

    return export(_reference(network), network.onnx).report.max_delta


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
