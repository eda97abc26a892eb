"""Was a network trained with ReLU or LeakyReLU? A state dict does not say, but its batch norm gives LeakyReLU away.

The running mean m of a batch norm is the mean of the convolution before it: m = W e + bias, where W is the kernel
summed over its taps (but for the borders) and e holds the mean of each input channel. ReLU leaves no negative
number, and max pooling neither, so no mean in e is negative. With more outputs than inputs the system is
overdetermined: where some e solves it well and no e without a negative number does, it was not ReLU.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["infer_leaky_relu"]

_TALL = 1.5  # outputs per input from which a system is overdetermined enough
_SOLVED = 0.25  # residual of the best e, as a share of m - bias, up to which the statistics are trusted
_REFUTED = 2.5  # the best e without a negative number is this much worse: it was not ReLU
_ITERATIONS = 2000


def infer_leaky_relu(state: Mapping[str, Tensor]) -> bool | None:
    """Whether a checkpoint of the families `crnn`, `mmocr` and `gitycc` was trained with LeakyReLU.

    None where its statistics do not tell, as in weights fresh from their initialisation.
    """
    ratios = []
    for name, mean in state.items():
        if ".batchnorm" not in name or not name.endswith(".running_mean"):
            continue
        convolution = name.replace(".batchnorm", ".conv").removesuffix("running_mean")
        kernel = state[convolution + "weight"].double().sum((2, 3))  # (outputs, inputs)
        if kernel.shape[0] < _TALL * kernel.shape[1]:
            continue
        deviation = (state[name.replace("running_mean", "running_var")].double() + 1e-5).sqrt()
        target = (mean.double() - state[convolution + "bias"].double()) / deviation
        kernel = kernel / deviation[:, None]
        best = _residual(kernel, torch.linalg.lstsq(kernel, target[:, None]).solution[:, 0], target)
        if best < _SOLVED * target.norm():
            ratios.append(_residual(kernel, _without_negatives(kernel, target), target) / best)
    return bool(max(ratios) > _REFUTED) if ratios else None


def _residual(kernel: Tensor, solution: Tensor, target: Tensor) -> float:
    return float((kernel @ solution - target).norm())


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
