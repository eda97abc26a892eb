"""Weights that are numbers: a training that diverged leaves NaN, and every network computes NaN from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["first_not_finite", "why_not_finite"]


def first_not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds NaN or an infinite number; None where all are finite.

    A mask, which holds nothing but 0 and -inf, is sound. On a GPU the tensors are waited for once.
    """
    floating = {name: value for name, value in tensors.items() if value.is_floating_point()}
    for name in _not_finite(floating):
        if not _is_mask(floating[name]):
            return name
    return None


def why_not_finite(tensor: Tensor) -> str:
    """What such a tensor holds, for a message."""
    nan, infinite = int(tensor.isnan().sum()), int(tensor.isinf().sum())
    kind = " and ".join(word for word, count in (("NaN", nan), ("infinite numbers", infinite)) if count)
    return f"{kind} ({nan + infinite:,} of {tensor.numel():,} values)"


@torch.no_grad()
def _not_finite(tensors: Mapping[str, Tensor]) -> Iterable[str]:
    if not tensors:
        return
    finite = torch.stack([value.isfinite().all() for value in tensors.values()])  # all on one device
    for name, sound in zip(tensors, finite.tolist(), strict=True):
        if not sound:
            yield name


def _is_mask(tensor: Tensor) -> bool:
    return bool(((tensor == 0) | (tensor == -torch.inf)).all())
