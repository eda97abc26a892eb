"""ReLU or LeakyReLU? A state dict does not say, but the statistics of its batch norm can refute ReLU.

The running mean m of a batch norm is the mean of the convolution before it: m = W e + bias, where W is the
kernel summed over its taps (but for the borders) and e holds the mean of each input channel. ReLU and max
pooling leave no negative number, so with ReLU no mean in e is negative. With more outputs than inputs the
system is overdetermined: where it is solved well by some e, and badly by every e without a negative number,
it was not ReLU.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["infer_leaky_relu"]

_TALL = 1.5  # live outputs per input from which the system is overdetermined enough
_SOLVED = 0.25  # error of the best e, relative to m - bias, up to which the statistics are trusted
_REFUTED = 0.1  # error of the best e without a negative number from which it may not have been ReLU,
_FACTOR = 2.5  # and it must be this many times the error of the best e
_ITERATIONS = 2000


def infer_leaky_relu(state: Mapping[str, Tensor]) -> bool | None:
    """Whether a checkpoint of the families `crnn`, `mmocr` and `gitycc` was trained with LeakyReLU.

    None where its statistics do not tell, as with weights fresh from their initialisation.
    """
    answers = [
        _refutes_relu(state, name.removesuffix("running_mean"))
        for name in state
        if ".batchnorm" in name and name.endswith(".running_mean")
    ]
    known = [answer for answer in answers if answer is not None]
    return any(known) if known else None


def _refutes_relu(state: Mapping[str, Tensor], norm: str) -> bool | None:
    mean, variance = state[f"{norm}running_mean"].double(), state[f"{norm}running_var"].double()
    if (variance == 1).all():  # as initialised
        return None
    convolution = norm.replace(".batchnorm", ".conv")
    deviation = (variance + 1e-5).sqrt()
    kernel = state[f"{convolution}weight"].double().sum((2, 3)) / deviation[:, None]  # (outputs, inputs)
    target = (mean - state[f"{convolution}bias"].double()) / deviation
    live = kernel.abs().amax(1) > 1e-3
    if live.sum() < _TALL * kernel.shape[1]:
        return None
    kernel, target = kernel[live], target[live]
    best = _error(kernel, torch.linalg.lstsq(kernel, target[:, None]).solution[:, 0], target)
    if best > _SOLVED:
        return None
    error = _error(kernel, _without_negatives(kernel, target), target)
    return error > max(_REFUTED, _FACTOR * best)


def _error(kernel: Tensor, solution: Tensor, target: Tensor) -> float:
    return float((kernel @ solution - target).norm() / target.norm())


def _without_negatives(kernel: Tensor, target: Tensor) -> Tensor:
    """Least squares with no negative number in the solution, by accelerated projected gradients (FISTA)."""
    gram, moment = kernel.T @ kernel, kernel.T @ target
    step = 1 / torch.linalg.matrix_norm(gram, 2)
    solution = ahead = torch.zeros_like(moment)
    momentum = 1.0
    for _ in range(_ITERATIONS):
        following = (ahead - step * (gram @ ahead - moment)).clamp(min=0)
        faster = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead = following + (momentum - 1) / faster * (following - solution)
        solution, momentum = following, faster
    return solution
