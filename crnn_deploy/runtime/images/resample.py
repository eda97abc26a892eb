"""Resizing as Pillow and PyTorch do it, without either."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["resized"]

# Pillow's Image.resize, to the bit (src/libImaging/Resample.c): two passes, the kernel widened when
# shrinking, weights in fixed point with 22 bits, rounded to uint8 after each pass. The horizontal pass comes
# first; in Pillow 13 it comes last where the height shrinks by more than twice as many pixels as the width
# (python-pillow/Pillow pull request 9549). The public checkpoints were trained with earlier versions. 12.2
# and 12.3 differ from these only for images more than 100 times as high as wide, which is not followed.
#
# torch-bilinear is torchvision's resize of a uint8 tensor with antialias: the same triangle, the horizontal
# pass first, in float32, and rounded once at the end. Where the output is one pixel wide, PyTorch 2.13 gives
# every row what the first one has, which is not followed.

_Planes = NDArray[np.uint8]  # (C, H, W)


def resized(planes: _Planes, rows: int, columns: int, interpolation: str) -> list[NDArray[np.uint8]]:
    """Planes (rows, columns) by one of manifest.Interpolation's names that start with pillow or torch."""
    library, kernel = interpolation.split("-")
    if library == "torch":
        exact = _pass(planes, columns, _TORCH)
        exact = _pass(exact.swapaxes(1, 2), rows, _TORCH).swapaxes(1, 2)
        return list(np.rint(exact).astype(np.uint8))
    fewer_rows, fewer_columns = planes.shape[1] - rows, planes.shape[2] - columns
    if library == "pillow13" and fewer_rows > max(0, 2 * fewer_columns):
        planes = _pass(planes.swapaxes(1, 2), rows, kernel).swapaxes(1, 2)
        return list(_pass(planes, columns, kernel))
    planes = _pass(planes, columns, kernel)
    return list(_pass(planes.swapaxes(1, 2), rows, kernel).swapaxes(1, 2))


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _keys_cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where((x >= -3.0) & (x < 3.0), np.sinc(x) * np.sinc(x / 3), 0.0)


# products of so few numbers OpenBLAS computes in the thread that asks for them; a process that forks while it
# has other threads compute them hangs
_ONE_THREAD = 2**18

_TORCH = "torch"
_KERNELS: dict[str, tuple[float, Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    "bilinear": (1.0, _triangle),
    "bicubic": (2.0, _keys_cubic),
    "lanczos": (3.0, _lanczos),
    _TORCH: (1.0, _triangle),
}


def _pass(planes: NDArray[Any], size: int, kernel: str) -> NDArray[Any]:
    """Resample the last axis to `size`: uint8, or float32 of PyTorch's kernel."""
    if planes.shape[-1] == size:
        return planes
    out = np.empty((*planes.shape[:-1], size), np.float32 if kernel == _TORCH else np.uint8)
    block = 32 if planes.size < 2**20 else 4  # keeps the float64 copy of a large image small
    weights_of = _cached_weights if max(planes.shape[-1], size) <= _OFTEN else _cached_weights_of_wide
    blocks = weights_of(planes.shape[-1], size, kernel, block)
    rows = max(1, _ONE_THREAD // max(weights.size for _, _, weights in blocks))
    for top in range(0, planes.shape[1], rows):
        some, into = planes[:, top : top + rows], out[:, top : top + rows]
        for start, first, weights in blocks:
            window = some[..., first : first + len(weights)]
            # exact, in whatever order it is summed: multiples of 2**-22 below 2**10
            sums = window.astype(np.float64) @ weights
            if kernel != _TORCH:
                sums += 0.5
                np.clip(sums, 0, 255, out=sums)
            into[..., start : start + weights.shape[1]] = sums
    return out


def _weights(
    size_in: int, size_out: int, kernel: str, block: int
) -> tuple[tuple[int, int, NDArray[np.float64]], ...]:
    """For each `block` of outputs: its start, the first input it draws on, and weights (inputs, outputs)."""
    reach, function = _KERNELS[kernel]
    number: Any = np.float32 if kernel == _TORCH else np.float64
    scale: Any = number(size_in) / number(size_out)
    widened = max(scale, number(1))
    support = number(reach) * widened
    centre = (np.arange(size_out, dtype=number) + number(0.5)) * scale
    first = np.maximum((centre - support + number(0.5)).astype(np.int64), 0)
    end = np.minimum((centre + support + number(0.5)).astype(np.int64), size_in)
    taps = first[:, None] + np.arange((end - first).max())  # (size_out, taps): inputs
    used = taps < end[:, None]
    at = (taps.astype(number) - centre[:, None] + number(0.5)) * (number(1) / widened)
    weights = np.where(used, function(at), number(0))
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # summed from left to right, as in C
    if kernel != _TORCH:
        weights = np.trunc(weights * 2**22 + np.copysign(0.5, weights)) / 2**22

    blocks = []
    for start in range(0, size_out, block):
        stop = min(start + block, size_out)
        matrix = np.zeros((end[stop - 1] - first[start], stop - start))
        output, tap = np.nonzero(used[start:stop])
        matrix[taps[start:stop][output, tap] - first[start], output] = weights[start:stop][output, tap]
        blocks.append((start, int(first[start]), matrix))
    return tuple(blocks)


# up to 0.3 MB each, and of the wide ones 19 MB
_OFTEN = 1024
_cached_weights = lru_cache(maxsize=256)(_weights)
_cached_weights_of_wide = lru_cache(maxsize=4)(_weights)
