"""An image as a file holds it, and its pixels."""

from __future__ import annotations

import os
from os import PathLike

import cv2

from crnn_deploy.datasets import Sample
from crnn_deploy.runtime.images.pixels import MAX_PIXELS, Pixels, decode_image, load_bytes, read_image

__all__ = ["read_encoded"]


def read_encoded(sample: Sample, *, max_pixels: int = MAX_PIXELS) -> tuple[bytes, Pixels]:
    """The encoded image, byte for byte where it has been a file, and its pixels as `read_image` gives them.

    Arrays and Pillow images are encoded as PNG. max_pixels: an image of more is refused
    Raises ImageNotFound, ImageUnreadable, ImageTooLarge.
    """
    image = sample.image
    if isinstance(image, str | PathLike):
        path = os.fsdecode(image)
        data = load_bytes(path, max_pixels)
        return data, decode_image(data, path, max_pixels=max_pixels)
    if isinstance(image, bytes | bytearray | memoryview):
        data = bytes(image)
        return data, decode_image(data, sample.name, max_pixels=max_pixels)
    pixels = read_image(image, max_pixels=max_pixels)
    return cv2.imencode(".png", pixels)[1].tobytes(), pixels
