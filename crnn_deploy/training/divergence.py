"""A training that has become one no longer: a loss, a gradient or a weight that is not a finite number."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor

from crnn_deploy.errors import CrnnDeployError

__all__ = ["Divergence", "TrainingDiverged"]

_SMALLEST_SCALE = 2**-10  # of fp16's losses: some 26 gradients one after the other were not finite


class TrainingDiverged(CrnnDeployError, ArithmeticError):
    """A training that went on would only spread NaN; what was saved before is sound."""

    exit_code = 1


class Divergence:
    """Watches the steps of a training.

    behind: steps that may wait until they are looked at, so that none waits for a GPU
    """

    def __init__(self, *, behind: int) -> None:
        self._behind = behind
        self._waiting: deque[tuple[int, float, Tensor]] = deque()

    def add(self, step: int, rate: float, loss: Tensor, norm: Tensor) -> None:
        """A step that was done, from 1, its learning rate, its loss and the norm of its gradient."""
        self._waiting.append((step, rate, torch.stack((loss, norm.to(loss)))))

    def found(self, scaler: torch.amp.GradScaler, *, now: bool) -> str | None:
        """What is wrong with the first step that is wrong; None where none is.

        scaler: where it is enabled, a gradient may overflow: it leaves out such a step and lowers its factor
        now: look at all steps, since their weights are about to be kept
        """
        while self._waiting and (now or len(self._waiting) > self._behind):
            step, rate, both = self._waiting.popleft()
            loss, norm = both.tolist()
            if not math.isfinite(loss):
                return f"the loss of step {step} is {loss:g} at a learning rate of {rate:g}"
            overflown = scaler.get_scale() < _SMALLEST_SCALE if scaler.is_enabled() else True
            if not math.isfinite(norm) and overflown:
                return (
                    f"the gradient of step {step} is {norm:g} at a learning rate of {rate:g}, "
                    f"with a loss of {loss:g}"
                )
        return None
