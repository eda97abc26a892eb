"""Pixels of an image as people hold it: a file, its bytes, an array, a Pillow image."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from os import PathLike
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError, shortened
from crnn_deploy.files import RegularFile
from crnn_deploy.process import not_forked
from crnn_deploy.runtime.images.budget import MemoryBudget, SharedBudget
from crnn_deploy.runtime.images.given import PillowImage, Source, why_no_image
from crnn_deploy.runtime.images.header import (
    EXIF_ORIENTATION,
    MAX_PIXELS,
    Header,
    ImageTooLarge,
    ImageUnreadable,
    check_size,
    plain_png,
    probe,
)
from crnn_deploy.runtime.images.paper import on_paper
from crnn_deploy.runtime.images.turned import turned

__all__ = [
    "MAX_PIXELS",
    "ImageNotFound",
    "ImageTooLarge",
    "ImageUnreadable",
    "Pixels",
    "Source",
    "decode_image",
    "join_budgets",
    "load_bytes",
    "read_image",
    "use_image",
]

# A file that cannot be decoded raises ImageUnreadable; OpenCV would print its own view of it besides.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
if hasattr(os, "register_at_fork"):
    # a child has none of the threads of OpenCV's pool, and would wait for ever for a lock of theirs
    os.register_at_fork(after_in_child=lambda: cv2.setNumThreads(0))

# of all threads together: a decoder takes up to 16 bytes for a pixel, and files are in memory meanwhile
_NO_MEMORY = -4  # OpenCV's code, which has had several names
_pixels, _file_bytes = MemoryBudget(MAX_PIXELS), MemoryBudget(2**29)

_LONGEST_NAME = 4096  # characters that a message shows of it: those of the longest path there is

T = TypeVar("T")
Pixels = NDArray[np.uint8]  # (H, W) grey or (H, W, 3) BGR


class ImageNotFound(CrnnDeployError, FileNotFoundError):
    """No image file at this path."""

    def __init__(self, path: str) -> None:
        shown = shortened(path if path and path.isprintable() else repr(path), _LONGEST_NAME)
        address = "; download what lies at an address first" if "://" in path else ""
        super().__init__(f"no image file at {shown}{address}")


def read_image(source: Source, *, max_pixels: int = MAX_PIXELS, decoded_grey: bool = False) -> Pixels:
    """Pixels of an image: uint8, (H, W) grey or (H, W, 3) BGR.

    source: path; encoded bytes; array (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA of uint8, uint16 or
        bool; or Pillow image of any mode but I and F
    max_pixels: an image of more is refused
    decoded_grey: opaque files and bytes become grey as OpenCV decodes them (IMREAD_GRAYSCALE), which takes
        the luma of a JPEG and rounds others otherwise than a conversion afterwards
    16 bits are scaled to 8, what is transparent lies on white or black (`paper.on_paper`), of an animation
    the first frame counts. The EXIF orientation is applied to files and to Pillow images as Image.open gives
    them; other Pillow images and arrays are taken as they stand.
    Raises ImageNotFound, ImageUnreadable, ImageTooLarge.
    """
    return use_image(source, lambda pixels: pixels, max_pixels=max_pixels, decoded_grey=decoded_grey)


def use_image(
    source: Source,
    function: Callable[[Pixels], T],
    *,
    max_pixels: int = MAX_PIXELS,
    decoded_grey: bool = False,
    name: str = "<bytes>",
) -> T:
    """What a function makes of the pixels of an image, which are as `read_image` gives them.

    name: what messages call an image that is given as bytes
    Until it returns, they count among those in memory: threads wait before they decode more than MAX_PIXELS
    together, and so decode one large image at a time. The function must not read another file.
    Raises what `read_image` raises.
    """
    if isinstance(source, np.ndarray):
        return function(_from_array(source, "<array>", max_pixels))
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
        header = probe(data, name, max_pixels)
        with _pixels.part(header.decoded):
            return function(_decoded(data, header, name, max_pixels, decoded_grey))
    if isinstance(source, str | PathLike):
        path = os.fsdecode(source)
        with _opened(path) as file, _file_bytes.part(file.size):
            data = _bytes_of(file, path, max_pixels)
            header = probe(data, path, max_pixels)
            with _pixels.part(header.decoded):
                return function(_decoded(data, header, path, max_pixels, decoded_grey))
    if isinstance(source, PillowImage):
        name = str(getattr(source, "filename", "") or "<Pillow image>")
        check_size(*source.size, name, max_pixels)
        with _pixels.part(source.size[0] * source.size[1]):
            return function(_from_pillow(source, name, max_pixels))
    raise ImageUnreadable(f"<{type(source).__name__}>", why_no_image(source))


def join_budgets(pixels: SharedBudget, file_bytes: SharedBudget) -> None:
    """Wait from now on before large images are decoded until all processes that join have room for them."""
    _pixels.join(pixels)
    _file_bytes.join(file_bytes)


def load_bytes(path: str, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of an image file, undecoded. Raises ImageNotFound, ImageUnreadable.

    max_pixels: a file that is larger than these need uncompressed, and 32 MiB, is refused
    """
    with _opened(path) as file:
        return _bytes_of(file, path, max_pixels)


def _opened(path: str) -> RegularFile:
    """Raises ImageNotFound, ImageUnreadable."""
    try:
        return RegularFile(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageNotFound(path) from None
    except IsADirectoryError:
        reason = "a folder, not an image file; pass the images in it one by one"
    except OSError as error:
        reason = f"cannot be opened: {error.strerror}"
    except ValueError as error:  # a NUL in the path
        reason = f"not a path: {error}"
    raise ImageUnreadable(path, reason)


def _bytes_of(file: RegularFile, path: str, max_pixels: int) -> bytes:
    """Raises ImageUnreadable."""
    try:
        return file.read(8 * max_pixels + 2**25)
    except OSError as error:
        raise ImageUnreadable(path, f"cannot be opened: {error.strerror}") from None


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
    # no name here, so that 16 bits are freed early
    return _from_array(_by_opencv(data, header, name, decoded_grey), name, max_pixels, header)


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
                pixels = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        pixels = None
        if error.code == _NO_MEMORY:
            reason = "there is not enough memory to decode it"
    if pixels is None:
        raise ImageUnreadable(name, reason)
    return turned(pixels, header.orientation) if header.alpha else pixels


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
        orientation = _orientation(image)
        if mode in ("La", "RGBa"):  # Pillow converts them one step at a time
            image = image.convert(mode.upper())
        if not mode.startswith("I;16"):
            image = image.convert("RGBA" if transparent else "L" if mode in ("1", "L") else "RGB")
        pixels: NDArray[Any] = turned(np.asarray(image), orientation)
    except Exception as error:  # Pillow decodes only now, and a bad file raises a bit of everything
        raise ImageUnreadable(name, f"Pillow cannot convert it: {error}") from error
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGRA if transparent else cv2.COLOR_RGB2BGR)
    return _from_array(pixels, name, max_pixels)


def _orientation(image: PillowImage) -> int:
    """What the EXIF of a Pillow image says, where it stands as `Image.open` gave it; 1: as it is.

    What was made of such an image keeps its EXIF, and may have been turned by it already.
    """
    if getattr(image, "format", None) is None:
        return 1
    image.load()  # that of a TIFF turns it
    with suppress(Exception):  # a damaged EXIF is passed over, as in a file
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    return 1


def _from_array(pixels: NDArray[Any], name: str, max_pixels: int, header: Header | None = None) -> Pixels:
    """Pixels of an array, or of a file with this header, as they are decoded."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4))):
        raise ImageUnreadable(name, _why_no_shape(pixels.shape))
    check_size(pixels.shape[1], pixels.shape[0], name, max_pixels)
    # libtiff multiplies colours of 8 bits by alpha
    premultiplied = header is not None and (
        header.premultiplied or (header.format == "TIFF" and pixels.dtype == np.uint8)
    )
    level = None if header is None or pixels.ndim != 2 else header.transparent_grey
    alpha: NDArray[Any] | None = None if level is None else np.where(pixels == level, 0, 255).astype(np.uint8)
    if pixels.dtype == np.bool_:
        pixels = pixels * np.uint8(255)
    elif pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        pixels = cv2.convertScaleAbs(pixels.astype(np.uint16, copy=False), alpha=1 / 257)  # rounds
    elif pixels.dtype != np.uint8:
        raise ImageUnreadable(name, f"pixels are {pixels.dtype}; pass uint8 (0-255), uint16 or bool")
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        alpha = np.asarray(cv2.extractChannel(pixels, 3))
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR)
        if header is not None and header.format == "BMP" and not alpha.any():
            alpha = None  # many programs leave the fourth byte of a BMP at 0
    if alpha is not None:
        pixels = on_paper(pixels, alpha, premultiplied)
    return np.ascontiguousarray(pixels)


def _why_no_shape(shape: tuple[int, ...]) -> str:
    reason = f"shape {shape} is not (H, W), (H, W, 1), (H, W, 3) BGR or (H, W, 4) BGRA"
    if len(shape) == 4:
        return f"{reason}; pass a stack of images as list(array)"
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        return f"{reason}; move the channels to the end: array.transpose(1, 2, 0)"
    return reason
