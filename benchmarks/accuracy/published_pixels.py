"""The pixels that each project's own code makes of an image file: the reference for this toolkit's recipes.

The steps are written again here from that code. `PUBLISHED` has a function for each recipe. The function
reads a file as the project's demo or predictor does, and gives the network's input for that image alone: (C,
H, W), float32. Pillow and PyTorch are those that are installed; `as_installed` gives the recipe for that
Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image

from crnn_deploy.recipes.recipe import Recipe

__all__ = ["PUBLISHED", "NoInput", "as_installed", "easyocr_grey", "easyocr_input"]

Array = NDArray[Any]

_PILLOW = tuple(map(int, PIL.__version__.split(".")[:2]))


class NoInput(Exception):
    """The project's own code fails on an image of this size, or a library has a way of its own for it."""


def as_installed(recipe: Recipe) -> Recipe:
    """The recipe that resizes as the Pillow that is installed."""
    if _PILLOW < (13, 0):
        return recipe
    name: Any = recipe.interpolation.replace("pillow-", "pillow13-")
    width = recipe.width
    if width.tall == "invert":
        width = replace(width, tall="invert-pillow13")
    return replace(recipe, interpolation=name, width=width)


def _read(path: Path, flags: int) -> Array:
    pixels = cv2.imread(str(path), flags)
    assert pixels is not None, path
    return pixels


def _resized(image: Image.Image, size: tuple[int, int], kernel: Image.Resampling) -> Array:
    if (12, 2) <= _PILLOW < (13, 0) and image.height > 100 * image.width and size[1] < image.height:
        raise NoInput  # these versions alone go vertically first
    return np.asarray(image.resize(size, kernel))


def _to_tensor(image: Array) -> Array:
    """torchvision's ToTensor, then sub_(0.5).div_(0.5)."""
    tensor = torch.from_numpy(image.copy())[None].float().div(255).sub_(0.5).div_(0.5)
    return tensor.numpy()


def _meijieru(path: Path) -> Array:
    """github.com/meijieru/crnn.pytorch demo.py, and dataset.py's resizeNormalize."""
    return _to_tensor(_resized(Image.open(path).convert("L"), (100, 32), Image.Resampling.BILINEAR))


def _clovaai(path: Path) -> Array:
    """github.com/clovaai/deep-text-recognition-benchmark dataset.py, RawDataset and ResizeNormalize."""
    return _to_tensor(_resized(Image.open(path).convert("L"), (100, 32), Image.Resampling.BICUBIC))


def _gitycc(path: Path) -> Array:
    """github.com/GitYCC/crnn-pytorch src/dataset.py, Synth90kDataset."""
    image = _resized(Image.open(path).convert("L"), (100, 32), Image.Resampling.BILINEAR)
    return np.asarray((image.reshape(1, 32, 100) / 127.5) - 1.0, np.float32)


def _sierkinhane(path: Path) -> Array:
    """github.com/Sierkinhane/CRNN_Chinese_Characters_Rec demo.py with 360CC_config.yaml."""
    grey: Array = cv2.cvtColor(_read(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2GRAY)
    scale = 32 / grey.shape[0]
    if round(grey.shape[1] * scale) < 1:
        raise NoInput
    grey = cv2.resize(grey, (0, 0), fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    across = int(grey.shape[1] / (280 / 160))
    if across < 4:  # its network pools twice, to nothing
        raise NoInput
    grey = cv2.resize(grey, (0, 0), fx=across / grey.shape[1], fy=1.0, interpolation=cv2.INTER_CUBIC)
    return (np.reshape(grey, (1, 32, across)).astype(np.float32) / 255.0 - 0.588) / 0.193


def _mmocr(path: Path) -> Array:
    """github.com/open-mmlab/mmocr 1.x: LoadImageFromFile, RescaleToHeight, TextRecogDataPreprocessor.

    0.x (ResizeOCR, Normalize) takes the same steps, width_downsample_ratio being 1/16.
    """
    grey: Array = _read(path, cv2.IMREAD_GRAYSCALE)
    across = max(32, math.ceil(32.0 / grey.shape[0] * grey.shape[1]))
    if across % 16 != 0:
        across = round(across / 16) * 16
    grey = cv2.resize(grey, (across, 32), interpolation=cv2.INTER_LINEAR)
    return ((grey.astype(np.float32) - 127) / 127)[None]


def _doctr(path: Path) -> Array:
    """github.com/mindee/doctr transforms/modules/pytorch.py Resize, models/preprocessor/pytorch.py."""
    rgb = cv2.cvtColor(_read(path, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    target, actual = 32 / 128, rgb.shape[0] / rgb.shape[1]
    if target == actual:
        size = (32, 128)
    elif actual > target:
        size = (32, max(int(32 / actual), 1))
    else:
        size = (max(int(128 * actual), 1), 128)
    if size[1] == 1:  # PyTorch 2.13 gives every row what the first one has
        raise NoInput
    pixels = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float()
    if tuple(pixels.shape[2:]) != size:
        pixels = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        pixels = torch.round(pixels)
    pixels = torch.nn.functional.pad(pixels, (0, 128 - size[1], 0, 32 - size[0])).div(255)[0]
    mean, std = torch.tensor((0.694, 0.695, 0.693)), torch.tensor((0.299, 0.296, 0.301))
    return pixels.sub(mean[:, None, None]).div(std[:, None, None]).numpy()


def _paddleocr(path: Path) -> Array:
    """github.com/PaddlePaddle/PaddleOCR tools/infer/predict_rec.py, resize_norm_img, for an image alone."""
    image: Array = _read(path, cv2.IMREAD_COLOR)
    height, width = image.shape[:2]
    limit = int(48 * max(320 / 48, width * 1.0 / height))
    ratio = width / float(height)
    across = limit if math.ceil(48 * ratio) > limit else math.ceil(48 * ratio)
    resized: Array = cv2.resize(image, (across, 48)).astype(np.float32).transpose((2, 0, 1)) / 255
    padded = np.zeros((3, 48, limit), dtype=np.float32)
    padded[:, :, :across] = (resized - 0.5) / 0.5
    return padded


def easyocr_grey(source: Path | Array) -> Array:
    """github.com/JaidedAI/EasyOCR utils.py, reformat_input: of a path, or of a BGR array."""
    if isinstance(source, np.ndarray):
        return cv2.cvtColor(source, cv2.COLOR_BGR2GRAY) if source.ndim == 3 else source
    return _read(source, cv2.IMREAD_GRAYSCALE)


def easyocr_input(grey: Array, adjust_contrast: float = 0.0) -> Array:
    """utils.py (get_image_list, compute_ratio_and_resize), recognition.py (AlignCollate, NormalizePAD)."""
    height, width = grey.shape
    ratio = width / height
    if ratio < 1.0:
        ratio = 1.0 / ratio
        grey = cv2.resize(grey, (64, int(64 * ratio)), interpolation=Image.Resampling.LANCZOS)
    else:
        grey = cv2.resize(grey, (int(64 * ratio), 64), interpolation=Image.Resampling.LANCZOS)
    limit = math.ceil(ratio) * 64
    if adjust_contrast > 0:
        high, low = np.percentile(grey, 90), np.percentile(grey, 10)
        if (high - low) / np.maximum(10, high + low) < adjust_contrast:
            spread = (grey.astype(int) - low + 25) * (200.0 / np.maximum(10, high - low))
            grey = np.maximum(0, np.minimum(255, spread)).astype(np.uint8)
    ratio = grey.shape[1] / float(grey.shape[0])
    across = min(limit, math.ceil(64 * ratio))
    image = _resized(Image.fromarray(grey), (across, 64), Image.Resampling.BICUBIC)
    padded = np.zeros((1, 64, limit), np.float32)
    padded[:, :, :across] = _to_tensor(image)
    padded[:, :, across:] = padded[:, :, across - 1 : across]
    return padded


def _easyocr(path: Path) -> Array:
    return easyocr_input(easyocr_grey(path))


PUBLISHED: dict[str, Callable[[Path], Array]] = {
    "crnn.pytorch": _meijieru,
    "sierkinhane-360cc": _sierkinhane,
    "mmocr": _mmocr,
    "mmocr-0.x": _mmocr,
    "gitycc": _gitycc,
    "clovaai-vgg": _clovaai,
    "clovaai-resnet": _clovaai,
    "doctr-vgg16": _doctr,
    "doctr-mobilenet-small": _doctr,
    "doctr-mobilenet-large": _doctr,
    "paddleocr": _paddleocr,
    "easyocr-g1": _easyocr,
    "easyocr-english-g2": _easyocr,
}
