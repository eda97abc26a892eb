"""From pixels to the network's input. It depends on nothing but the image and the manifest."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.manifest import Clahe, Filter, Manifest, Stretch
from crnn_deploy.process import not_forked
from crnn_deploy.runtime.images import linear, resample
from crnn_deploy.runtime.images.pixels import Pixels

__all__ = ["content_width", "prepare", "prepare_contrasted"]


class _Size(NamedTuple):
    """How large an image becomes, in pixels."""

    rows: int  # of the network's input that the image covers, at its top left
    columns: int
    width: int  # of the network's input
    between: tuple[int, int] | None  # rows and columns after the first of two resizes


def prepare(image: Pixels, manifest: Manifest) -> NDArray[np.float32]:
    """The network's input (C, H, W) from an image of uint8, (H, W) grey or (H, W, 3) BGR.

    W is `manifest.width.bucket(...)`. Every number is (x / 255 - mean) / std in float32, as torchvision's
    ToTensor and Normalize give it.
    """
    size = _size(image.shape, manifest)
    with not_forked():
        return _network_input(_first_resize(image, size, manifest), image.shape, size, manifest)


def prepare_contrasted(image: Pixels, manifest: Manifest) -> NDArray[np.float32] | None:
    """The input, as of `prepare`, for a second reading by `manifest.contrast`; None where it is the same."""
    if manifest.contrast is None:
        return None
    size = _size(image.shape, manifest)
    with not_forked():
        [grey] = _first_resize(image, size, manifest)
        stretched = _stretched(grey, manifest.contrast.target)
        return None if stretched is None else _network_input([stretched], image.shape, size, manifest)


def _first_resize(image: Pixels, size: _Size, manifest: Manifest) -> list[NDArray[Any]]:
    """Colour planes in the image's order, filtered and resized, once or for the first of two times."""
    pixels: NDArray[Any] = image
    if manifest.color == "gray" and image.ndim == 3:
        pixels = _pillow_grey(image) if manifest.grey == "pillow" else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    for item in manifest.filters:
        pixels = _filtered(pixels, item)
    if size.between is None:
        return _resized(pixels, size.rows, size.columns, manifest.interpolation)
    once = manifest.width.resize == "height-first" and manifest.interpolation in _OPENCV
    if once and size.between[1] > 1:
        # by the factor, whose size is rounded, and not by the sizes: the samples lie elsewhere
        factor = manifest.height / image.shape[0]
        return _planes(_scaled(pixels, factor, factor, manifest.interpolation))
    return _resized(pixels, *size.between, manifest.interpolation)


def _second_resize(
    planes: list[NDArray[Any]], image_shape: Sequence[int], size: _Size, manifest: Manifest
) -> list[NDArray[Any]]:
    if size.between is None:
        return planes
    if image_shape[1] < image_shape[0] and manifest.width.tall != "keep":
        kernel = "pillow13-bicubic" if manifest.width.tall == "invert-pillow13" else "pillow-bicubic"
        return resample.resized(np.stack(planes), size.rows, size.columns, kernel)
    if manifest.interpolation in _OPENCV:
        across = size.columns / size.between[1]
        return [_scaled(plane, across, 1.0, manifest.interpolation) for plane in planes]
    return resample.resized(np.stack(planes), size.rows, size.columns, manifest.interpolation)


def _network_input(
    planes: list[NDArray[Any]], image_shape: Sequence[int], size: _Size, manifest: Manifest
) -> NDArray[np.float32]:
    """Planes after the first resize become the network's input: resized again, padded, normalised."""
    rows, columns = size.rows, size.columns
    planes = _second_resize(planes, image_shape, size, manifest)
    if len(planes) < manifest.channels:
        planes *= manifest.channels
    elif manifest.color == "rgb":
        planes = planes[::-1]

    prepared = np.empty((manifest.channels, manifest.height, size.width), np.float32)
    whole = (rows, columns) == prepared.shape[1:]
    for out, plane, mean, std in zip(prepared, planes, manifest.mean, manifest.std, strict=True):
        if whole:
            cv2.LUT(plane, _levels(mean, std), out)
            continue
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
    return _size(image_shape, manifest).columns


def _size(image_shape: Sequence[int], manifest: Manifest) -> _Size:
    (height, width), rule = image_shape[:2], manifest.width
    bucket = rule.bucket(height, width, manifest.height)
    rows, columns = manifest.height, bucket
    if rule.fit == "letterbox":
        across, down = width * manifest.height, bucket * height
        if across > down:
            rows = min(rows, rule.natural_height(height, width, bucket))
        elif across < down:
            columns = min(columns, rule.natural(height, width, manifest.height))
    elif rule.fit == "pad":
        columns = min(columns, rule.natural(height, width, manifest.height))
    return _Size(rows, columns, bucket, rule.between(height, width, manifest.height))


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
    if isinstance(item, Stretch):
        return _spread(grey, item)
    kind = cv2.THRESH_BINARY_INV if item.invert else cv2.THRESH_BINARY
    return cv2.adaptiveThreshold(grey, 255, cv2.ADAPTIVE_THRESH_MEAN_C, kind, item.block, item.offset)


def _spread(grey: NDArray[Any], item: Stretch) -> NDArray[Any]:
    """Grey levels over 0-255, by the levels beyond which `item.tails` of the pixels lie at each end."""
    counts = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    cut = item.tails * grey.size
    low = int(np.searchsorted(np.cumsum(counts), cut, side="right"))
    high = 255 - int(np.searchsorted(np.cumsum(counts[::-1]), cut, side="right"))
    levels = (np.arange(256) - (low + high) / 2) * (255 / max(high - low, item.least)) + 127.5
    return cv2.LUT(grey, np.rint(np.clip(levels, 0, 255)).astype(np.uint8))


_OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


def _resized(image: NDArray[Any], rows: int, columns: int, interpolation: str) -> list[NDArray[Any]]:
    """Colour planes (rows, columns), in the image's order."""
    if interpolation in _OPENCV:
        if interpolation == "linear" and linear.NEEDED:
            return _planes(linear.resized(image, rows, columns))
        resized = cv2.resize(image, (columns, rows), interpolation=_OPENCV[interpolation])
        return _planes(resized)
    planes = np.moveaxis(image, 2, 0) if image.ndim == 3 else image[None]
    return resample.resized(planes, rows, columns, interpolation)


def _planes(image: NDArray[Any]) -> list[NDArray[Any]]:
    return [image] if image.ndim == 2 else list(cv2.split(image))


def _scaled(image: NDArray[Any], across: float, down: float, interpolation: str) -> NDArray[Any]:
    """An image resized by factors, as OpenCV rounds the size and places the samples then."""
    if interpolation == "linear" and linear.NEEDED:
        rows, columns = round(image.shape[0] * down), round(image.shape[1] * across)
        return linear.resized(image, rows, columns, (across, down))
    return cv2.resize(image, (0, 0), fx=across, fy=down, interpolation=_OPENCV[interpolation])


def _pillow_grey(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey of BGR pixels (H, W, 3), as Pillow's convert("L") rounds it (src/libImaging/Convert.c)."""
    grey = np.empty(image.shape[:2], np.uint8)
    rows = max(1, 2**20 // image.shape[1])  # keeps the copy of a large image small
    for top in range(0, len(image), rows):
        blue, green, red = np.moveaxis(image[top : top + rows].astype(np.uint32), 2, 0)
        grey[top : top + rows] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16
    return grey


def _stretched(grey: NDArray[Any], target: float) -> NDArray[np.uint8] | None:
    """Grey levels spread where their contrast is below the target, else None.

    github.com/JaidedAI/EasyOCR recognition.py, adjust_contrast_grey.
    """
    low, high = np.percentile(grey, (10, 90))
    if (high - low) / max(10, high + low) >= target:
        return None
    levels = (np.arange(256) - low + 25) * (200.0 / max(10, high - low))
    return np.asarray(cv2.LUT(grey, np.clip(levels, 0, 255).astype(np.uint8)), np.uint8)
