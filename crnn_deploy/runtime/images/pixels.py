"""Pixels of an image as people hold it: a file, its bytes, an array, a Pillow image."""

from __future__ import annotations

import os
from collections.abc import Callable
from os import PathLike
from typing import Any, Protocol, TypeVar, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import read_regular
from crnn_deploy.process import not_forked
from crnn_deploy.runtime.images.budget import MemoryBudget
from crnn_deploy.runtime.images.header import (
    MAX_PIXELS,
    Header,
    ImageTooLarge,
    ImageUnreadable,
    check_size,
    plain_png,
    probe,
)

__all__ = [
    "MAX_PIXELS",
    "ImageNotFound",
    "ImageTooLarge",
    "ImageUnreadable",
    "Pixels",
    "Source",
    "decode_image",
    "load_bytes",
    "read_image",
    "use_image",
]

# A file that cannot be decoded raises ImageUnreadable; OpenCV would print its own view of it besides.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# of all threads together: a decoder takes up to 16 bytes for a pixel, and files are in memory meanwhile
_NO_MEMORY = -4  # OpenCV's code, which has had several names
_pixels, _file_bytes = MemoryBudget(MAX_PIXELS), MemoryBudget(2**29)

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


def read_image(source: Source, *, max_pixels: int = MAX_PIXELS, decoded_grey: bool = False) -> Pixels:
    """Pixels of an image: uint8, (H, W) grey or (H, W, 3) BGR.

    source: path; encoded bytes; array (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA of uint8, uint16 or
        bool; or Pillow image of any mode but I and F
    max_pixels: an image of more is refused
    decoded_grey: opaque files and bytes become grey as OpenCV decodes them (IMREAD_GRAYSCALE), which takes
        the luma of a JPEG and rounds others otherwise than a conversion afterwards
    16 bits are scaled to 8, transparent pixels lie on white, of an animation the first frame counts. The
    EXIF orientation of a file is applied, except to transparent ones; arrays and Pillow images are taken as
    they stand.
    Raises ImageNotFound, ImageUnreadable, ImageTooLarge.
    """
    return use_image(source, lambda pixels: pixels, max_pixels=max_pixels, decoded_grey=decoded_grey)


def use_image(
    source: Source,
    function: Callable[[Pixels], T],
    *,
    max_pixels: int = MAX_PIXELS,
    decoded_grey: bool = False,
) -> T:
    """What a function makes of the pixels of an image, which are as `read_image` gives them.

    Until it returns, they count among those in memory: threads wait before they decode more than MAX_PIXELS
    together, and so decode one large image at a time. The function must not read another file.
    Raises what `read_image` raises.
    """
    if isinstance(source, np.ndarray):
        return function(_from_array(source, "<array>", max_pixels))
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        header = probe(data, "<bytes>", max_pixels)
        with _pixels.part(header.decoded):
            return function(_decoded(data, header, "<bytes>", max_pixels, decoded_grey))
    if isinstance(source, str | PathLike):
        path = os.fsdecode(source)
        with _file_bytes.part(_size(path)):
            data = load_bytes(path, max_pixels)
            header = probe(data, path, max_pixels)
            with _pixels.part(header.decoded):
                return function(_decoded(data, header, path, max_pixels, decoded_grey))
    if isinstance(source, PillowImage):
        name = str(getattr(source, "filename", "") or "<Pillow image>")
        check_size(*source.size, name, max_pixels)
        with _pixels.part(source.size[0] * source.size[1]):
            return function(_from_pillow(source, name, max_pixels))
    raise ImageUnreadable(f"<{type(source).__name__}>", "not a path, bytes, an array or a Pillow image")


def load_bytes(path: str, max_pixels: int = MAX_PIXELS) -> bytes:
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


def decode_image(
    data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, decoded_grey: bool = False
) -> Pixels:
    """Pixels of an encoded image, as `read_image` gives them; errors call it `name`.

    Raises ImageUnreadable, ImageTooLarge.
    """
    header = probe(data, name, max_pixels)
    with _pixels.part(header.decoded):
        return _decoded(data, header, name, max_pixels, decoded_grey)


def _decoded(data: bytes, header: Header, name: str, max_pixels: int, decoded_grey: bool) -> Pixels:
    # libtiff multiplies colours of 8 bits by alpha; no name here, so that 16 bits are freed early
    return _from_array(
        _by_opencv(data, header, name, decoded_grey), name, max_pixels, header.format == "TIFF"
    )


def _by_opencv(data: bytes, header: Header, name: str, decoded_grey: bool) -> NDArray[Any]:
    """What OpenCV makes of an image that `probe` accepted."""
    if header.format == "PNG":
        data = plain_png(data, header, name, gamma=decoded_grey)
    elif header.format == "PNM":
        data += b"\n"  # OpenCV wants something after the last number
    # only the second flag applies EXIF orientation, only the first keeps alpha
    flags = cv2.IMREAD_UNCHANGED if header.alpha else cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH
    if decoded_grey and not header.alpha and header.transparent_grey is None:
        flags = cv2.IMREAD_GRAYSCALE
    reason = f"corrupt {header.format}, it cannot be decoded"
    try:
        with not_forked():
            encoded = np.frombuffer(data, np.uint8)
            pixels: NDArray[Any] | None = cv2.imdecode(encoded, flags)
            if decoded_grey and header.alpha and pixels is not None and _opaque(pixels):
                pixels = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
    except cv2.error as error:
        pixels = None
        if error.code == _NO_MEMORY:
            reason = "there is not enough memory to decode it"
    if pixels is None:
        raise ImageUnreadable(name, reason)
    if header.transparent_grey is not None and pixels.ndim == 2:
        pixels[pixels == header.transparent_grey] = np.iinfo(pixels.dtype).max
    return pixels


def _opaque(pixels: NDArray[Any]) -> bool:
    """Whether nothing is transparent in what could have been."""
    transparent = pixels.ndim == 3 and pixels.shape[2] == 4
    return not transparent or bool((pixels[..., 3] == np.iinfo(pixels.dtype).max).all())


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
