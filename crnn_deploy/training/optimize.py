"""Optimisers, the learning rate over the steps, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.optim import Optimizer

from crnn_deploy.training.config import OptimizerConfig, ScheduleConfig

__all__ = ["Average", "factor", "optimizer_of"]

_ONECYCLE_WARMUP = 0.3  # as torch.optim.lr_scheduler.OneCycleLR
_ONECYCLE_START = 1 / 25
_NO_DECAY = 1  # dimensions of biases and of batch norm's weights, which do not decay


def optimizer_of(module: nn.Module, config: OptimizerConfig, *, fused: bool = False) -> Optimizer:
    """The optimiser of the weights that are trained; biases and batch norm are not decayed.

    fused: Adam and AdamW as one kernel for all weights
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > _NO_DECAY], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= _NO_DECAY], "weight_decay": 0.0},
    ]
    match config.name:
        case "adam":
            return torch.optim.Adam(groups, config.lr, config.betas, fused=fused or None)
        case "adamw":
            return torch.optim.AdamW(groups, config.lr, config.betas, fused=fused or None)
        case "rmsprop":
            return torch.optim.RMSprop(groups, config.lr, momentum=config.momentum)
        case "sgd":
            return torch.optim.SGD(groups, config.lr, momentum=config.momentum)
        case "adadelta":
            return torch.optim.Adadelta(groups, config.lr, config.rho)


def factor(config: ScheduleConfig, step: int, steps: int) -> float:
    """What the learning rate is multiplied by at a step, 0 <= step < steps.

    A function of the step alone, so that a resumed run needs nothing but its step. `onecycle` is Smith and
    Topin's (arXiv 1708.07120) as PyTorch has it; `trapezoid` stays flat and falls in a straight line at the
    end (Hägele and others, arXiv 2405.18392), so a run can be made longer before its fall.
    """
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    match config.name:
        case "constant":
            return warm
        case "step":
            assert config.every is not None
            return warm * config.gamma ** (step // config.every)
        case "multistep":
            return warm * config.gamma ** sum(step >= at for at in config.at)
        case "cosine":
            done = max(0.0, (step - config.warmup) / max(1, steps - config.warmup))
            return warm * (1 + math.cos(math.pi * done)) / 2
        case "trapezoid":
            return warm * min(1.0, (steps - step) / max(1.0, config.decay * steps))
        case "onecycle":
            top = _ONECYCLE_WARMUP * steps - 1
            if step <= top:
                done = step / top if top > 0 else 1.0
                return _ONECYCLE_START + (1 - _ONECYCLE_START) * (1 - math.cos(math.pi * done)) / 2
            done = (step - top) / max(1.0, steps - 1 - top)
            return (1 + math.cos(math.pi * done)) / 2


class Average:
    """An exponential moving average of a module's weights and statistics.

    module: on the device that it stays on
    decay: what is kept of the average at each step, less in the first steps
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._module, self._decay = module, decay
        current = module.state_dict()  # the module's own memory, whatever is loaded into it later
        self.state = {name: value.detach().clone() for name, value in current.items()}
        averaged = [name for name, value in current.items() if value.is_floating_point()]
        counted = [name for name in current if name not in averaged]
        # as lists: a GPU updates each in a kernel or two, not in one for each tensor
        self._averaged = [self.state[name] for name in averaged], [current[name] for name in averaged]
        self._counted = [self.state[name] for name in counted], [current[name] for name in counted]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(*self._averaged, 1 - decay)
        if self._counted[0]:
            torch._foreach_copy_(*self._counted)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the module has the average's weights."""
        own = {name: value.detach().clone() for name, value in self._module.state_dict().items()}
        self._module.load_state_dict(self.state)
        try:
            yield
        finally:
            self._module.load_state_dict(own)
