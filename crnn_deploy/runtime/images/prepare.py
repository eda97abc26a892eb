"""From pixels to the network's input. It depends on nothing but the image and the manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.manifest import Clahe, Filter, Manifest
from crnn_deploy.runtime.images.pixels import Pixels

__all__ = ["content_width", "prepare"]


def prepare(image: Pixels, manifest: Manifest) -> NDArray[np.float32]:
    """The network's input (C, H, W) from an image of uint8, (H, W) grey or (H, W, 3) BGR.

    W is `manifest.width.bucket(...)`. Every number is (x / 255 - mean) / std in float32, as torchvision's
    ToTensor and Normalize give it.
    """
    width = manifest.width.bucket(image.shape[0], image.shape[1], manifest.height)
    rows, columns = _content_size(image.shape, manifest)
    pixels: NDArray[Any] = image
    if manifest.color == "gray" and image.ndim == 3:
        pixels = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    for item in manifest.filters:
        pixels = _filtered(pixels, item)
    planes = _resized(pixels, rows, columns, manifest.interpolation)
    if len(planes) < manifest.channels:
        planes *= manifest.channels
    elif manifest.color == "rgb":
        planes = planes[::-1]

    prepared = np.empty((manifest.channels, manifest.height, width), np.float32)
    for out, plane, mean, std in zip(prepared, planes, manifest.mean, manifest.std, strict=True):
        out[:rows, :columns] = cv2.LUT(plane, _levels(mean, std))
        if manifest.width.pad == "edge":
            out[:rows, columns:] = out[:rows, columns - 1 : columns]
            out[rows:] = out[rows - 1]
        else:
            out[:rows, columns:] = out[rows:] = _normalise(manifest.width.pad, mean, std)
    return prepared


def content_width(image_shape: Sequence[int], manifest: Manifest) -> int:
    """How many pixels of the network's input width an image of shape (H, W) or (H, W, C) covers.

    The rest is padding. Column x of the image lies at x * content_width / W of the input.
    """
    return _content_size(image_shape, manifest)[1]


def _content_size(image_shape: Sequence[int], manifest: Manifest) -> tuple[int, int]:
    """Rows and columns of the network's input that the image covers, at its top left."""
    (height, width), rule = image_shape[:2], manifest.width
    bucket = rule.bucket(height, width, manifest.height)
    if rule.fit == "stretch":
        return manifest.height, bucket
    too_wide = width * manifest.height > bucket * height
    if rule.fit == "letterbox" and too_wide:
        return rule.natural(width, height, bucket), bucket
    return manifest.height, min(bucket, rule.natural(height, width, manifest.height))


def _normalise(level: Any, mean: float, std: float) -> Any:
    """(x / 255 - mean) / std of a grey level or an array of them, each step in float32."""
    return (np.float32(level) / np.float32(255) - np.float32(mean)) / np.float32(std)


@lru_cache(maxsize=64)
def _levels(mean: float, std: float) -> NDArray[np.float32]:
    """The network's number for each of the 256 grey levels."""
    levels: NDArray[np.float32] = _normalise(np.arange(256), mean, std)
    return levels


def _filtered(grey: NDArray[Any], item: Filter) -> NDArray[Any]:
    if isinstance(item, Clahe):
        return cv2.createCLAHE(item.clip, (item.tiles, item.tiles)).apply(grey)
    kind = cv2.THRESH_BINARY_INV if item.invert else cv2.THRESH_BINARY
    return cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, kind, item.block, item.offset)


_OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


def _resized(image: NDArray[Any], rows: int, columns: int, interpolation: str) -> list[NDArray[Any]]:
    """Colour planes (rows, columns), in the image's order."""
    if interpolation in _PILLOW:
        planes = np.moveaxis(image, 2, 0) if image.ndim == 3 else image[None]
        planes = _pillow_pass(planes, columns, interpolation)
        return list(_pillow_pass(planes.swapaxes(1, 2), rows, interpolation).swapaxes(1, 2))
    resized = cv2.resize(image, (columns, rows), interpolation=_OPENCV[interpolation])
    return list(cv2.split(resized))


# Pillow's Image.resize, to the bit (src/libImaging/Resample.c): a horizontal and then a vertical pass, the
# kernel widened when shrinking, weights in fixed point with 22 bits, rounded to uint8 after each pass. The
# order is that of Pillow up to 12, with which the public checkpoints were trained; 13 goes vertically first
# when the height shrinks by more than twice as many pixels as the width.


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _keys_cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


# products of so few numbers OpenBLAS computes in the thread that asks for them; a process that forks while it
# has other threads compute them hangs
_ONE_THREAD = 2**18

_PILLOW: dict[str, tuple[float, Callable[[NDArray[np.float64]], NDArray[np.float64]]]] = {
    "pillow-bilinear": (1.0, _triangle),
    "pillow-bicubic": (2.0, _keys_cubic),
}


def _pillow_pass(planes: NDArray[np.uint8], size: int, kernel: str) -> NDArray[np.uint8]:
    """Resample the last axis to `size`."""
    if planes.shape[-1] == size:
        return planes
    out = np.empty((*planes.shape[:-1], size), np.uint8)
    block = 32 if planes.size < 2**20 else 4  # keeps the float64 copy of a large image small
    weights_of = _pillow_weights if max(planes.shape[-1], size) <= _OFTEN else _pillow_weights_of_wide
    blocks = weights_of(planes.shape[-1], size, kernel, block)
    rows = max(1, _ONE_THREAD // max(weights.size for _, _, weights in blocks))
    for top in range(0, planes.shape[1], rows):
        some, into = planes[:, top : top + rows], out[:, top : top + rows]
        for start, first, weights in blocks:
            window = some[..., first : first + len(weights)]
            # exact, in whatever order it is summed: multiples of 2**-22 below 2**10
            sums = window.astype(np.float64) @ weights
            sums += 0.5
            into[..., start : start + weights.shape[1]] = np.clip(sums, 0, 255, out=sums)
    return out


def _weights(
    size_in: int, size_out: int, kernel: str, block: int
) -> tuple[tuple[int, int, NDArray[np.float64]], ...]:
    """For each `block` of outputs: its start, the first input it draws on, and weights (inputs, outputs)."""
    reach, function = _PILLOW[kernel]
    scale = size_in / size_out
    widened = max(scale, 1.0)
    support = reach * widened
    centre = (np.arange(size_out) + 0.5) * scale
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + support + 0.5).astype(np.int64), size_in)
    taps = first[:, None] + np.arange((end - first).max())  # (size_out, taps): inputs
    used = taps < end[:, None]
    weights = np.where(used, function((taps - centre[:, None] + 0.5) * (1.0 / widened)), 0.0)
    weights /= np.cumsum(weights, axis=1)[:, -1:]  # summed from left to right, as in C
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
_pillow_weights = lru_cache(maxsize=256)(_weights)
_pillow_weights_of_wide = lru_cache(maxsize=4)(_weights)
