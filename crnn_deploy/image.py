"""From an image as people hold it to the network's input.

`read` gives pixels, `prepare` gives the network's numbers. Both depend on nothing but the image and the
manifest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from os import PathLike
from typing import Any, Protocol, TypeVar, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.budget import Budget
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import read_regular
from crnn_deploy.fork import not_forked
from crnn_deploy.image_header import (
    MAX_PIXELS,
    Header,
    ImageTooLarge,
    ImageUnreadable,
    check_size,
    plain_png,
    probe,
)
from crnn_deploy.manifest import Clahe, Filter, Manifest

__all__ = [
    "MAX_PIXELS",
    "ImageNotFound",
    "ImageTooLarge",
    "ImageUnreadable",
    "Pixels",
    "Source",
    "content_width",
    "decode",
    "load",
    "prepare",
    "read",
    "use",
]

# A file that cannot be decoded raises ImageUnreadable; OpenCV would print its own view of it besides.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# of all threads together: a decoder takes up to 16 bytes for a pixel, and files are in memory meanwhile
_NO_MEMORY = -4  # OpenCV's code, which has had several names
_pixels, _file_bytes = Budget(MAX_PIXELS), Budget(2**29)

T = TypeVar("T")
Pixels = NDArray[np.uint8]  # (H, W) grey or (H, W, 3) BGR


@runtime_checkable
class PillowImage(Protocol):
    """What is used of PIL.Image.Image, so that Pillow need not be installed."""

    @property
    def mode(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def info(self) -> dict[Any, Any]: ...
    def convert(self, mode: str) -> PillowImage: ...


Source = str | PathLike[str] | bytes | bytearray | memoryview | NDArray[Any] | PillowImage


class ImageNotFound(CrnnDeployError, FileNotFoundError):
    """No image file at this path."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no image file at {path if path and path.isprintable() else repr(path)}")


def read(source: Source, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Pixels of an image: uint8, (H, W) grey or (H, W, 3) BGR.

    source: path; encoded bytes; array (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA of uint8, uint16 or
        bool; or Pillow image of any mode but I and F
    max_pixels: an image of more is refused
    16 bits are scaled to 8, transparent pixels lie on white, of an animation the first frame counts. The
    EXIF orientation of a file is applied, except to transparent ones; arrays and Pillow images are taken as
    they stand.
    Raises ImageNotFound, ImageUnreadable, ImageTooLarge.
    """
    return use(source, lambda pixels: pixels, max_pixels=max_pixels)


def use(source: Source, function: Callable[[Pixels], T], *, max_pixels: int = MAX_PIXELS) -> T:
    """What a function makes of the pixels of an image, which are as `read` gives them.

    Until it returns, they count among those in memory: threads wait before they decode more than MAX_PIXELS
    together, and so decode one large image at a time. The function must not read another file.
    Raises what `read` raises.
    """
    if isinstance(source, np.ndarray):
        return function(_from_array(source, "<array>", max_pixels))
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        header = probe(data, "<bytes>", max_pixels)
        with _pixels.part(header.decoded):
            return function(_decoded(data, header, "<bytes>", max_pixels))
    if isinstance(source, str | PathLike):
        path = os.fsdecode(source)
        with _file_bytes.part(_size(path)):
            data = load(path, max_pixels)
            header = probe(data, path, max_pixels)
            with _pixels.part(header.decoded):
                return function(_decoded(data, header, path, max_pixels))
    if isinstance(source, PillowImage):
        name = str(getattr(source, "filename", "") or "<Pillow image>")
        check_size(*source.size, name, max_pixels)
        with _pixels.part(source.size[0] * source.size[1]):
            return function(_from_pillow(source, name, max_pixels))
    raise ImageUnreadable(f"<{type(source).__name__}>", "not a path, bytes, an array or a Pillow image")


def load(path: str, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of an image file, undecoded. Raises ImageNotFound, ImageUnreadable.

    max_pixels: a file that is larger than these need uncompressed, and 32 MiB, is refused
    """
    try:
        return read_regular(path, 8 * max_pixels + 2**25)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageNotFound(path) from None
    except IsADirectoryError:
        reason = "a folder, not an image file"
    except OSError as error:
        reason = f"cannot be opened: {error.strerror}"
    except ValueError as error:  # a NUL in the path
        reason = f"not a path: {error}"
    raise ImageUnreadable(path, reason)


def _size(path: str) -> int:
    """Bytes of a file, as far as can be told before it is opened."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0


def decode(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Pixels of an encoded image, as `read` gives them; errors call it `name`.

    Raises ImageUnreadable, ImageTooLarge.
    """
    header = probe(data, name, max_pixels)
    with _pixels.part(header.decoded):
        return _decoded(data, header, name, max_pixels)


def _decoded(data: bytes, header: Header, name: str, max_pixels: int) -> Pixels:
    # libtiff multiplies colours of 8 bits by alpha; no name here, so that 16 bits are freed early
    return _from_array(_by_opencv(data, header, name), name, max_pixels, header.format == "TIFF")


def _by_opencv(data: bytes, header: Header, name: str) -> NDArray[Any]:
    """What OpenCV makes of an image that `probe` accepted."""
    if header.format == "PNG":
        data = plain_png(data, header, name)
    elif header.format == "PNM":
        data += b"\n"  # OpenCV wants something after the last number
    # only the second flag applies EXIF orientation, only the first keeps alpha
    flags = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    reason = f"corrupt {header.format}, it cannot be decoded"
    try:
        with not_forked():
            pixels: NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        pixels = None
        if error.code == _NO_MEMORY:
            reason = "there is not enough memory to decode it"
    if pixels is None:
        raise ImageUnreadable(name, reason)
    if header.transparent_gray is not None and pixels.ndim == 2:
        pixels[pixels == header.transparent_gray] = np.iinfo(pixels.dtype).max
    return pixels


def _from_pillow(image: PillowImage, name: str, max_pixels: int) -> Pixels:
    mode = image.mode
    if mode in ("I", "F"):
        raise ImageUnreadable(name, f"mode {mode} says not which value is white; convert it to L or I;16")
    transparent = mode in ("LA", "La", "P", "PA", "RGBA", "RGBa") or "transparency" in image.info
    try:
        if mode in ("La", "RGBa"):  # Pillow converts them one step at a time
            image = image.convert(mode.upper())
        if not mode.startswith("I;16"):
            image = image.convert("RGBA" if transparent else "L" if mode in ("1", "L") else "RGB")
        pixels: NDArray[Any] = np.asarray(image)
    except Exception as error:  # Pillow decodes only now, and a bad file raises a bit of everything
        raise ImageUnreadable(name, f"Pillow cannot convert it: {error}") from error
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if transparent else cv2.COLOR_RGB2BGR)
    return _from_array(pixels, name, max_pixels)


def _from_array(pixels: NDArray[Any], name: str, max_pixels: int, premultiplied: bool = False) -> Pixels:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ImageUnreadable(
            name, f"shape {pixels.shape} is not (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA"
        )
    check_size(pixels.shape[1], pixels.shape[0], name, max_pixels)
    premultiplied &= pixels.dtype == np.uint8
    if pixels.dtype == np.bool_:
        pixels = pixels * np.uint8(255)
    elif pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        pixels = cv2.convertScaleAbs(pixels.astype(np.uint16, copy=False), alpha=1 / 257)  # rounds
    elif pixels.dtype != np.uint8:
        raise ImageUnreadable(name, f"pixels are {pixels.dtype}; pass uint8 (0-255), uint16 or bool")
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = _on_white(pixels, premultiplied)
    return np.ascontiguousarray(pixels)


def _on_white(bgra: NDArray[Any], premultiplied: bool) -> NDArray[Any]:
    """A transparent image laid on white paper: black letters on nothing stay legible."""
    bgr: NDArray[Any] = cv2.cvtColor(bgra, cv2.COLOR_BGRA2BGR)
    alpha: NDArray[Any] = cv2.cvtColor(cv2.extractChannel(bgra, 3), cv2.COLOR_GRAY2BGR)
    if not premultiplied:
        cv2.multiply(bgr, alpha, dst=bgr, scale=1 / 255)  # rounds
    return cv2.add(bgr, cv2.bitwise_not(alpha, dst=alpha), dst=bgr)


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


def _filtered(gray: NDArray[Any], item: Filter) -> NDArray[Any]:
    if isinstance(item, Clahe):
        return cv2.createCLAHE(item.clip, (item.tiles, item.tiles)).apply(gray)
    kind = cv2.THRESH_BINARY_INV if item.invert else cv2.THRESH_BINARY
    return cv2.adaptiveThreshold(gray, 255, cv2.ADAPTIVE_THRESH_MEAN_C, kind, item.block, item.offset)


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
    center = (np.arange(size_out) + 0.5) * scale
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    end = np.minimum((center + support + 0.5).astype(np.int64), size_in)
    taps = first[:, None] + np.arange((end - first).max())  # (size_out, taps): inputs
    used = taps < end[:, None]
    weights = np.where(used, function((taps - center[:, None] + 0.5) * (1.0 / widened)), 0.0)
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
