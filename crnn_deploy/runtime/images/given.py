"""What people hand over where an image is asked for: one image, several, or what is neither."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["PillowImage", "Source", "is_one", "why_no_image"]


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
    def getexif(self) -> Any: ...
    def load(self) -> Any: ...


Source = str | PathLike[str] | bytes | bytearray | memoryview | NDArray[Any] | PillowImage


def is_one(given: object) -> bool:
    """Whether something stands for one image, readable or not, and not for images one after another.

    A path, bytes, a Pillow image and an array are one image; a row of paths as pandas gives it (an array of
    texts or objects with one axis) is several. What gives no images in an order that the caller knows, such
    as a mapping, a set, an open file or a tensor, is one that cannot be read: `why_no_image` says why.
    """
    if isinstance(given, np.ndarray):
        return given.ndim != 1 or given.dtype.kind not in "OU"
    if isinstance(given, str | PathLike | bytes | bytearray | memoryview | PillowImage):
        return True
    if _is_unordered(given) or _is_file(given) or _is_foreign_array(given):
        return True
    try:
        iter(given)  # type: ignore[call-overload]
    except TypeError:
        return True
    return False


def why_no_image(given: object) -> str:
    """Why something is no image, and what to pass in its place."""
    reason = "not a path, bytes, an array or a Pillow image"
    if given is None:
        return f"{reason}; cv2.imread gives None for a file that it cannot read, so pass the path itself"
    if isinstance(given, Mapping):
        return f"{reason}; pass the images of a mapping as a list, such as list(images.values())"
    if _is_unordered(given):
        return f"{reason}; a set has no order in which its texts could come, so pass a list"
    if _is_file(given):
        return f"{reason}; pass the path of an open file, or the bytes that its read() gives"
    if _is_foreign_array(given):
        return (
            f"{reason}; pass a NumPy array of uint8, (H, W) or (H, W, 3) BGR, such as "
            "tensor.cpu().numpy() of a tensor with these axes"
        )
    if isinstance(given, Iterable):
        return f"{reason}; pass several images in one list, and pixels as a NumPy array of uint8"
    return reason


def _is_unordered(given: object) -> bool:
    return isinstance(given, Mapping | set | frozenset)


def _is_file(given: object) -> bool:
    return hasattr(given, "read") and not isinstance(given, Mapping)


def _is_foreign_array(given: object) -> bool:
    """Whether this is an array or a table of another library: a tensor, a data frame."""
    shape = getattr(given, "shape", None)
    return hasattr(shape, "__len__") and len(shape) > 1  # type: ignore[arg-type]
