"""One step of a training: the layout of gradients, and that it changes no number."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from crnn_deploy.training.config import Config, read_config
from crnn_deploy.training.data import TrainingBatch
from crnn_deploy.training.learner import Learner
from crnn_deploy.training.model import Model, build, train_mode

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"out: out\nsteps: 1\nbatch: 4\nrecipe: {ROOT / 'training' / 'print.toml'}\n"
        "network: {name: compact}\nclip: null\n"
        "train: [{synthetic: {kinds: {word: 1}}}]\n"
    )
    return read_config(path)


def batch() -> TrainingBatch:
    torch.manual_seed(1)
    labels = torch.randint(1, 90, (4 * 5,))
    return TrainingBatch(torch.rand(4, 1, 32, 96), labels, torch.full((4,), 5), ("text",) * 4)


def built(config: Config) -> Model:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build(config)
    train_mode(model.module, False)
    return model


def gradient(model: Model) -> Tensor:
    """Of all weights, one after another."""
    found = [weight.grad for weight in model.module.parameters()]
    return torch.cat([one.flatten() for one in found if one is not None])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batch_norm_gets_a_gradient_in_the_layout_of_its_output(
    config: Config, precision: Literal["fp32", "bf16"]
) -> None:
    model = built(config)
    learner = Learner(config.model_copy(update={"precision": precision}), model, torch.device("cpu"))
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def note(layer: nn.Module, images: tuple[Tensor, ...], normed: Tensor) -> None:
        strides = normed.stride()
        # hooks of one tensor run in their order: this one sees what the norm will get
        normed.register_hook(lambda gradient: found.append((gradient.stride(), strides)))  # type: ignore[no-untyped-call]

    norms = [layer for layer in model.module.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in norms:
        layer.register_forward_hook(note)
    learner.learn(batch(), 0, 1e-3)
    assert len(found) == len(norms) > 5
    assert all(gradient == output for gradient, output in found)


def test_a_step_is_that_of_the_network_alone(config: Config) -> None:
    model, plain = built(config), built(config)
    learner = Learner(config, model, torch.device("cpu"))
    loss = learner.learn(batch(), 0, 1e-3)
    given = batch()
    log_probs = plain.module(given.images).log_softmax(2).transpose(0, 1)
    lengths = torch.full((4,), log_probs.shape[0])
    expected = nn.functional.ctc_loss(log_probs, given.labels, lengths, given.lengths, plain.manifest.blank)
    expected.backward()  # type: ignore[no-untyped-call]
    assert torch.allclose(loss, expected.detach(), rtol=1e-5)
    assert torch.allclose(gradient(model), gradient(plain), rtol=1e-3, atol=1e-5)
