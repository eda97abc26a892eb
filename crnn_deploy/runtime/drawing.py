"""Images with a box around every character that was read in them."""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import OutputUnwritable, fitting_name, open_regular, write
from crnn_deploy.runtime.decoding.ctc import Char, PlacedChar
from crnn_deploy.runtime.images.pixels import MAX_PIXELS, Pixels, read_image
from crnn_deploy.runtime.records import Record

__all__ = ["NotDrawn", "boxed", "draw_all", "place", "write_boxed", "write_drawing"]

_LEAST_HEIGHT = 96  # pixels; a smaller image is drawn enlarged
_MOST_WIDTH = 16_384  # pixels of the enlarged image
_LABELS = 28  # pixels of the strip above, for the characters that were read
_COLOURS = ((180, 90, 20), (30, 60, 200))  # BGR, in turn
_HEADER = 33  # bytes of a PNG: its signature and its first chunk
_LONGEST_PATH = 4095  # bytes, on Linux


class NotDrawn(CrnnDeployError):
    """An image whose text was read and that is not drawn."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is read and not drawn: {reason}")


def boxed(pixels: Pixels, chars: Sequence[Char]) -> NDArray[Any]:
    """An image (H, W) or (H, W, 3) BGR, enlarged by a whole factor, with boxes, and labels beside them.

    A box spans the character's frames and the image's height, and the label stands above; the box of a
    character that stands below another lies where its text says, and the label stands to the left. OpenCV's
    letters are ASCII: other characters have a box without a label.
    """
    height, width = pixels.shape[:2]
    downwards = any(isinstance(char, PlacedChar) and char.bottom - char.top < height for char in chars)
    size = width if downwards else height
    factor = max(
        1, min(math.ceil(_LEAST_HEIGHT / size), _MOST_WIDTH // max(width, height if downwards else 1))
    )
    drawn: NDArray[Any] = cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR) if pixels.ndim == 2 else pixels
    drawn = cv2.resize(drawn, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
    above, beside = (0, _LABELS) if downwards else (_LABELS, 0)
    drawn = cv2.copyMakeBorder(drawn, above, 0, beside, 0, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    for at, char in enumerate(chars):
        top, bottom = (char.top, char.bottom) if isinstance(char, PlacedChar) else (0, height)
        left, right = (beside + edge for edge in _edges(char.left, char.right, factor))
        low, high = (above + edge for edge in _edges(top, bottom, factor))
        colour = _COLOURS[at % len(_COLOURS)]
        cv2.rectangle(drawn, (left, low), (right, high), colour, 1)
        if char.char.isascii() and char.char.isprintable():
            (wide, tall), _ = cv2.getTextSize(char.char, cv2.FONT_HERSHEY_SIMPLEX, 0.6, 1)
            at_pixel = (max(0, (left + right + 1 - wide) // 2), _LABELS - 9)
            if downwards:
                at_pixel = ((_LABELS - wide) // 2, (low + high + tall) // 2)
            cv2.putText(drawn, char.char, at_pixel, cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, 1, cv2.LINE_AA)
    return drawn


def _edges(begin: float, end: float, factor: int) -> tuple[int, int]:
    """First and last pixel of an enlarged interval."""
    return round(begin * factor), max(round(end * factor) - 1, 0)


def place(path: str, folder: Path, ending: str = ".png") -> Path:
    """Where what is made of an image of this path goes: the same path below a folder, never outside it.

    A name that would be too long for a file system is shortened, and a path too long stands at the top.
    """
    pure = PurePath(path)
    parts = ["__" if part == ".." else part for part in pure.parts if part != pure.anchor] or ["image"]
    above = [fitting_name(part, "") for part in parts[:-1]]
    target = folder.joinpath(*above, fitting_name(parts[-1], ending))
    if len(os.fsencode(os.path.abspath(target))) > _LONGEST_PATH:
        return folder / fitting_name("~".join(parts), ending)
    return target


def write_boxed(path: str, chars: Sequence[Char], folder: Path, max_pixels: int = MAX_PIXELS) -> None:
    """Draw the image at a path below a folder, with boxes around its characters. Raises NotDrawn."""
    write_drawing(path, folder, lambda pixels: boxed(pixels, chars), max_pixels)


def write_drawing(
    path: str, folder: Path, drawn: Callable[[Pixels], NDArray[Any]], max_pixels: int = MAX_PIXELS
) -> None:
    """Draw the image at a path below a folder, as a PNG. Only what this has drawn is overwritten.

    drawn: what is drawn of the image's pixels
    Raises NotDrawn.
    """
    target = place(path, folder)
    try:
        if os.path.lexists(target) and not _is_drawing(target):
            raise OutputUnwritable(target, "it is there and no such drawing; name another folder")
        encoded: NDArray[np.uint8] = cv2.imencode(".png", drawn(read_image(path, max_pixels=max_pixels)))[1]
        data = encoded.tobytes()
        write(target, data[:_HEADER] + _MARK + data[_HEADER:])
    except (CrnnDeployError, OSError, ValueError, MemoryError, cv2.error) as error:
        raise NotDrawn(path, str(error) or type(error).__name__) from None


def draw_all(records: Iterable[Record], folder: Path, max_pixels: int = MAX_PIXELS) -> list[str]:
    """Draw what was read below a folder; the errors of those that cannot be drawn."""
    errors = []
    for record in records:
        if record.error is None:
            try:
                write_boxed(record.path, record.chars, folder, max_pixels)
            except NotDrawn as error:
                errors.append(str(error))
    return errors


def _is_drawing(path: Path) -> bool:
    if path.is_symlink():
        return False
    try:
        with open_regular(path) as file:
            return file.read(_HEADER + len(_MARK))[_HEADER:] == _MARK
    except OSError:
        return False


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_MARK = _chunk(b"tEXt", b"Software\0crnn-deploy infer --draw")
