"""An image as a file holds it, and its pixels."""

from __future__ import annotations

import os
from os import PathLike

import cv2

from crnn_deploy.datasets import Sample
from crnn_deploy.image import Pixels, decode, load, read

__all__ = ["read_encoded"]


def read_encoded(sample: Sample) -> tuple[bytes, Pixels]:
    """The encoded image, byte for byte where it has been a file, and its pixels as `image.read` gives them.

    Arrays and Pillow images are encoded as PNG.
    Raises ImageNotFound, ImageUnreadable, ImageTooLarge.
    """
    image = sample.image
    if isinstance(image, str | PathLike):
        path = os.fsdecode(image)
        data = load(path)
        return data, decode(data, path)
    if isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
        return data, decode(data, sample.name)
    pixels = read(image)
    return cv2.imencode(".png", pixels)[1].tobytes(), pixels
