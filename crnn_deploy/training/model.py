"""The network that is trained: new, or from a checkpoint, with the alphabet that it shall read."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from crnn_deploy.datasets.labels import characters_alphabet
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.export.layout import BatchFirst
from crnn_deploy.export.probabilities import LogOfProbabilities
from crnn_deploy.export.reference import open_reference, reference_of
from crnn_deploy.manifest import Manifest
from crnn_deploy.networks.compact import COMPACT_DEPTHS, COMPACT_WIDTHS, CompactCRNN
from crnn_deploy.networks.crnn import CRNN, PAPER_WIDTHS
from crnn_deploy.recipes.alphabets import AlphabetInvalid, check_alphabet, check_distinct, read_alphabet
from crnn_deploy.recipes.recipe import find_recipe
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.training.config import AlphabetConfig, Config, NetworkConfig

__all__ = ["HeadNotFound", "Model", "build"]


class HeadNotFound(CrnnDeployError, ValueError):
    """A network whose last layer cannot be fitted to another alphabet."""


@dataclass(frozen=True)
class Model:
    """A network and how images reach it."""

    module: nn.Module  # images (N, C, H, W) -> logits (N, T, classes)
    weights: nn.Module  # the same, or what it wraps: its state dict has the names of its family
    manifest: Manifest


def build(config: Config) -> Model:
    """The network that a training starts with.

    Raises AlphabetInvalid, RecipeInvalid, HeadNotFound, and what opening a checkpoint raises.
    """
    alphabet = None if config.alphabet is None else _alphabet(config.alphabet)
    if config.start is None:
        recipe = find_recipe(config.recipe)
        alphabet = alphabet or recipe.alphabet
        if alphabet is None:
            raise AlphabetInvalid(f"neither `alphabet` nor the recipe {recipe.name} names characters")
        alphabet = check_distinct(alphabet, "the alphabet of a new network")
        channels = 1 if recipe.color == "gray" else 3
        module = _network(config.network, recipe.height, channels, len(alphabet) + 1)
        opened = reference_of(module, recipe, alphabet, {})
        return Model(opened.module, module, opened.manifest)
    try:
        opened = open_reference(config.start.checkpoint, CheckpointSettings(config.start.recipe))
    except AlphabetInvalid:
        if alphabet is None:
            raise
        # neither checkpoint nor recipe names characters, so these must be the ones it was trained with
        opened = open_reference(
            config.start.checkpoint, CheckpointSettings(config.start.recipe, alphabet=alphabet)
        )
    manifest = opened.manifest
    if alphabet is not None and alphabet != manifest.alphabet:
        manifest = _with_alphabet(opened.module, manifest, alphabet)
    if config.start.freeze_cnn:
        for layer in _convolutions(opened.module):
            layer.requires_grad_(False)
    inner = opened.module
    while isinstance(inner, BatchFirst | LogOfProbabilities):
        inner = inner.module
    return Model(opened.module, inner, manifest)


def train_mode(module: nn.Module, freeze_cnn: bool) -> None:
    """Training mode; batch norm of frozen convolutions keeps its statistics."""
    module.train()
    if freeze_cnn:
        for layer in _convolutions(module):
            layer.eval()


def _convolutions(module: nn.Module) -> list[nn.Module]:
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]


def _alphabet(config: AlphabetConfig) -> tuple[str, ...]:
    if config.string is not None:
        return check_alphabet(tuple(config.string), "the configuration")
    if config.file is not None:
        return read_alphabet(config.file)
    return characters_alphabet(str(config.characters))


def _network(config: NetworkConfig, height: int, channels: int, classes: int) -> nn.Module:
    if config.name == "compact":
        widths = config.widths or [max(8, round(width * config.scale)) for width in COMPACT_WIDTHS]
        depths = config.depths or COMPACT_DEPTHS
        return CompactCRNN(
            height, channels, classes, config.hidden, widths=widths, depths=depths, head=config.head
        )
    widths = [max(1, round(width * config.scale)) for width in PAPER_WIDTHS]
    return CRNN(height, channels, classes, config.hidden, leaky_relu=config.leaky_relu, widths=widths)


def _with_alphabet(module: nn.Module, manifest: Manifest, alphabet: tuple[str, ...]) -> Manifest:
    """Give the network a last layer for another alphabet; characters of both keep their weights."""
    heads = [
        (name, layer)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and layer.out_features == manifest.classes
    ]
    if not heads:
        raise HeadNotFound(
            "the network ends in no linear layer over its classes; it cannot take another alphabet"
        )
    name, old = heads[-1]
    alphabet = check_distinct(alphabet, "the alphabet to be trained")
    blank = 0 if manifest.blank == 0 else len(alphabet)
    before = (*manifest.alphabet[: manifest.blank], None, *manifest.alphabet[manifest.blank :])
    after = (*alphabet[:blank], None, *alphabet[blank:])
    new = nn.Linear(old.in_features, len(after), bias=old.bias is not None)
    # of a token of several classes the last one, which encoding takes
    rows = {token: row for row, token in enumerate(before)}
    with torch.no_grad():
        for row, token in enumerate(after):
            if token in rows:
                new.weight[row] = old.weight[rows[token]]
                if old.bias is not None:
                    new.bias[row] = old.bias[rows[token]]
    module.set_submodule(name, new)
    return replace(manifest, alphabet=alphabet, blank=blank)
