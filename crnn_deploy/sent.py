"""What a client sends and what comes back: images, the boxes of pages, and results of the server's JSON."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

from crnn_deploy.errors import CrnnDeployError, ReadFailed
from crnn_deploy.regions.region import Region
from crnn_deploy.runtime.decoding.ctc import Alternative, Char, PageChar, PlacedChar, Text
from crnn_deploy.runtime.images.given import Source
from crnn_deploy.runtime.images.header import ImageUnreadable

if TYPE_CHECKING:
    from crnn_deploy.runtime.images.pixels import Pixels

__all__ = [
    "NAME",
    "Sent",
    "SentBox",
    "SentImage",
    "SentPage",
    "batches",
    "boxes_at_once",
    "in_json",
    "result_of",
    "sent_image",
]

_IMAGES_AT_ONCE, _BYTES_AT_ONCE = 32, 2**22  # of a request, of which one image alone may have more bytes
_BOXES_AT_ONCE = 128  # of a request, which has their page in it
NAME = "image"  # of every image in requests, and so in the server's messages
_BOX_NAME = re.compile(rf"\A{NAME}(?:: box \d+)?:? ")  # of one of its boxes, in these messages
_FARTHEST = 1e300  # pixels that a server takes for a number
_LONGEST_SIDE = 16_383  # pixels of a WebP
_PNG, _WEBP = (".png", ()), (".webp", (64, 101))  # 64: cv2.IMWRITE_WEBP_QUALITY, beyond 100 lossless


@dataclass(frozen=True)
class SentImage:
    """An image as it is sent."""

    name: str  # for messages
    data: bytes

    def failure(self, reason: str) -> CrnnDeployError:
        """The error that a Recognizer gives for an image in which a server can read nothing."""
        from crnn_deploy.runtime.images.pixels import decode_image

        try:
            decode_image(self.data, self.name)
        except ImageUnreadable as error:
            return error
        return ReadFailed(self.name, reason.removeprefix(f"{NAME}: "))


class SentPage:
    """An image of which boxes are sent."""

    def __init__(self, image: SentImage) -> None:
        self.image = image

    @cached_property
    def text(self) -> str:
        """Its bytes as JSON has them."""
        return base64.b64encode(self.image.data).decode()

    @cached_property
    def pixels(self) -> Pixels:
        """Raises ImageUnreadable."""
        from crnn_deploy.runtime.images.pixels import decode_image

        return decode_image(self.image.data, self.image.name)


@dataclass(frozen=True)
class SentBox:
    """A box of an image as it is sent."""

    page: SentPage
    number: int  # among the page's boxes, from 0
    region: Region

    @property
    def name(self) -> str:
        return f"{self.page.image.name}: box {self.number}"

    @property
    def is_plain(self) -> bool:
        """Whether a server takes its coordinates for numbers."""
        return all(abs(value) < _FARTHEST for point in self.region.polygon for value in point)

    def failure(self, reason: str) -> CrnnDeployError:
        """The error that a Recognizer gives for a box in which a server can read nothing.

        Raises ImageUnreadable where the page is none.
        """
        from crnn_deploy.runtime.images.crop import crop

        pixels = self.page.pixels
        try:
            crop(pixels, self.region, name=self.name)
        except CrnnDeployError as error:
            return error
        return ReadFailed(self.name, _BOX_NAME.sub("", reason))


Sent = SentImage | SentBox


def sent_image(source: Source) -> SentImage | CrnnDeployError:
    """An image ready to be sent, or why it is none."""
    from crnn_deploy.runtime.images.pixels import load_bytes, read_image  # OpenCV, which others need not load

    name = os.fsdecode(source) if isinstance(source, str | PathLike) else f"<{type(source).__name__}>"
    try:
        if isinstance(source, bytes | bytearray | memoryview):
            name, data = "<bytes>", bytes(source)
        elif isinstance(source, str | PathLike):
            data = load_bytes(name)
        else:
            data = _lossless(read_image(source))
        if not data:
            raise ImageUnreadable(name, "empty file")
    except CrnnDeployError as error:
        return error
    return SentImage(name, data)


def _lossless(pixels: Pixels) -> bytes:
    """Pixels as a file of which a decoder makes the same pixels, and the same grey as of an array.

    Of a coloured PNG, OpenCV lets libpng make the grey, which rounds otherwise; of a WebP it does so itself.
    """
    import cv2

    ending, flags = _WEBP if pixels.ndim == 3 and max(pixels.shape) <= _LONGEST_SIDE else _PNG
    return cv2.imencode(ending, pixels, flags)[1].tobytes()


def batches(
    images: Iterable[SentImage | CrnnDeployError],
) -> Iterator[list[SentImage | CrnnDeployError]]:
    """Images that are sent together."""
    some: list[SentImage | CrnnDeployError] = []
    size = 0
    for image in images:
        length = len(image.data) if isinstance(image, SentImage) else 0
        if some and (len(some) == _IMAGES_AT_ONCE or size + length > _BYTES_AT_ONCE):
            yield some
            some, size = [], 0
        some.append(image)
        size += length
    if some:
        yield some


def boxes_at_once(boxes: Sequence[SentBox]) -> Iterator[Sequence[Sent | CrnnDeployError]]:
    """Boxes that are sent together; in the place of one that JSON cannot hold, its error."""
    good = [box if box.is_plain else box.failure("") for box in boxes]
    for at in range(0, len(good), _BOXES_AT_ONCE):
        yield good[at : at + _BOXES_AT_ONCE]


def in_json(boxes: Sequence[SentBox]) -> bytes:
    """The body of a request for boxes of one page."""
    polygons = json.dumps([box.region.polygon for box in boxes], allow_nan=False)
    ordered = json.dumps(boxes[0].region.ordered)
    data = boxes[0].page.text
    image = f'{{"name": "{NAME}", "data": "{data}", "boxes": {polygons}, "ordered": {ordered}}}'
    return f'{{"images": [{image}]}}'.encode()


def result_of(image: Sent, plain: Mapping[str, Any]) -> Text | CrnnDeployError:
    """A result of the server's JSON. Raises AttributeError, KeyError, TypeError, ValueError."""
    if plain["status"] == "error":
        if not isinstance(plain["error"], str):
            raise TypeError("no error")
        return image.failure(plain["error"])
    chars = tuple(map(_char, plain.get("chars", ())))
    alternatives = tuple(Alternative(**one) for one in plain.get("alternatives", ()))
    text, confidence = plain["text"], plain["confidence"]
    if not isinstance(text, str) or not isinstance(confidence, float):
        raise TypeError("no text")
    return Text(text, confidence, chars, alternatives, plain.get("rotated"))


def _char(plain: Mapping[str, Any]) -> Char:
    """Raises KeyError, TypeError, ValueError."""
    if "polygon" in plain:
        return PageChar(**{**plain, "polygon": tuple((float(x), float(y)) for x, y in plain["polygon"])})
    return (PlacedChar if "top" in plain else Char)(**plain)
