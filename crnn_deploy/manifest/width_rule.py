"""How wide the network sees an image, and how many time steps come out of that."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from crnn_deploy.decoding_rule import shown
from crnn_deploy.errors import ManifestInvalid
from crnn_deploy.manifest.bounds import (
    MOST_LEVEL,
    MOST_WIDTH,
    is_number,
    need_numbers,
    need_one_of,
    need_whole,
)

__all__ = ["Fit", "MultipleOf", "Order", "Resize", "Rounding", "StepRule", "Tall", "WidthRule"]

_MOST_OFFSET = 2**19  # pixels; a network with 80 steps at each of 3,200 widths has 256,000
_MOST_ASPECT = 100.0  # and its reciprocal the least
_MOST_BETWEEN = 2**18  # pixels of a side between two resizes
_LATER = ("order", "multiple_rounding", "multiple_of", "resize", "tall")  # of a width rule

Fit = Literal["stretch", "pad", "letterbox"]
Rounding = Literal["floor", "nearest", "ceil", "half-even"]
Order = Literal["product", "ratio", "scale", "inverse"]
MultipleOf = Literal["natural", "exact"]
Resize = Literal["once", "height-first"]
Tall = Literal["keep", "invert", "invert-pillow13"]


@dataclass(frozen=True)
class WidthRule:
    """How wide an image is when the network sees it: a function of that image alone.

    A BiLSTM reads padding, so a width that depended on the neighbours in a batch would change the text.
    The *natural* width keeps the aspect ratio at the network's height; the *bucket* is the natural width
    rounded up to `multiple` and held between `minimum` and `maximum`. A fixed width has minimum == maximum.

    The fields from `order` on follow a project to the pixel. A floating-point number that is a whole one but
    for its last bit is rounded to another width, so the order of the operations counts.
    """

    minimum: int  # pixels
    maximum: int  # pixels
    multiple: int = 1  # pixels; buckets are multiples of this
    fit: Fit = "stretch"  # to the bucket; pad on the right; or letterbox (keep aspect, pad right, below)
    pad: float | Literal["edge"] = 0.0  # grey level 0-255 of the padding, or repeat the last column
    aspect: float = 1.0  # natural width is multiplied by this (the 360CC models train at 280 -> 160)
    rounding: Rounding = "nearest"  # of the natural width
    order: Order = "product"  # w x H / h; or H x (w / h), ratio; (H / h) x w, scale; H / (h / w), inverse
    multiple_rounding: Rounding = "ceil"  # to the multiple
    multiple_of: MultipleOf = "natural"  # which is rounded to the multiple: after or before `rounding`
    resize: Resize = "once"  # or first to the height with the aspect kept, and then to the width
    tall: Tall = "keep"  # of images higher than wide: their aspect, or EasyOCR's way (`between`)

    def __post_init__(self) -> None:
        need_whole(1, MOST_WIDTH, minimum=self.minimum, maximum=self.maximum, multiple=self.multiple)
        need_numbers(1 / _MOST_ASPECT, _MOST_ASPECT, aspect=self.aspect)
        if self.minimum > self.maximum:
            raise ManifestInvalid(f"widths from {self.minimum} to {self.maximum}")
        if self.minimum % self.multiple or self.maximum % self.multiple:
            raise ManifestInvalid(
                f"widths {self.minimum} and {self.maximum} are not multiples of {self.multiple}"
            )
        need_one_of(Fit, fit=self.fit)
        need_one_of(Rounding, rounding=self.rounding, multiple_rounding=self.multiple_rounding)
        need_one_of(Order, order=self.order)
        need_one_of(MultipleOf, multiple_of=self.multiple_of)
        need_one_of(Resize, resize=self.resize)
        need_one_of(Tall, tall=self.tall)
        if self.fit == "letterbox" and not (self.fixed and self.aspect == 1):
            raise ManifestInvalid("letterbox needs a fixed width and an aspect factor of 1")
        if self.resize == "height-first" and self.fit != "stretch":
            raise ManifestInvalid("resize height-first needs fit stretch")
        if self.tall != "keep" and self.fit != "pad":
            raise ManifestInvalid(f"tall {self.tall} needs fit pad")
        if self.pad != "edge" and not is_number(self.pad, 0, MOST_LEVEL):
            raise ManifestInvalid(f"padding {shown(self.pad)} is neither a grey level (0-255) nor 'edge'")

    def to_plain(self) -> dict[str, Any]:
        """Its fields by name; without those that earlier versions do not know, where nothing needs them."""
        plain, defaults = asdict(self), {item.name: item.default for item in fields(self)}
        return {name: value for name, value in plain.items() if name not in _LATER or value != defaults[name]}

    @property
    def fixed(self) -> bool:
        return self.minimum == self.maximum

    def natural(self, image_height: int, image_width: int, height: int) -> int:
        """Width in pixels that keeps the aspect ratio of an image at the network's `height`; at least 1."""
        if self._inverts(image_height, image_width):
            rows, _ = self._inverted(image_height, image_width, height)
            return math.ceil(height * (height / rows))
        return max(1, _rounded(self._exact(image_height, image_width, height), self.rounding))

    def natural_height(self, image_height: int, image_width: int, width: int) -> int:
        """Height in pixels that keeps the aspect ratio of an image at the network's `width`; at least 1."""
        turned: dict[Order, Order] = {"ratio": "inverse", "inverse": "ratio"}
        rule = replace(self, order=turned.get(self.order, self.order))
        return rule.natural(image_width, image_height, width)

    def bucket(self, image_height: int, image_width: int, height: int) -> int:
        """Width in pixels of the network's input for an image of this size."""
        exact: float
        if self._inverts(image_height, image_width):
            exact = height * (1.0 / (image_width / image_height))
        elif self.multiple_of == "exact":
            exact = self._exact(image_height, image_width, height)
        else:
            exact = self.natural(image_height, image_width, height)
        multiples = _rounded(exact / self.multiple, self.multiple_rounding)
        return min(self.maximum, max(self.minimum, multiples * self.multiple))

    def between(self, image_height: int, image_width: int, height: int) -> tuple[int, int] | None:
        """Rows and columns of the first of two resizes; None where an image is resized once.

        With `resize` height-first that is the network's height, the aspect kept. With `tall` invert it is
        what EasyOCR (utils.py, compute_ratio_and_resize) makes of an image higher than wide: as wide as the
        network is high, the aspect kept; it is then resized to the network's height by Pillow's bicubic, and
        padded as if it were as wide as it is high.
        """
        if self._inverts(image_height, image_width):
            return self._inverted(image_height, image_width, height)
        if self.resize == "height-first":
            columns = _height_first(image_height, image_width, height)
            return (height, columns) if columns <= _MOST_BETWEEN else None
        return None

    def _exact(self, image_height: int, image_width: int, height: int) -> float:
        """The width in proportion, before it is rounded."""
        if self.resize == "height-first":
            return _height_first(image_height, image_width, height) / (1 / self.aspect)
        match self.order:
            case "product":
                exact = image_width * height / image_height
            case "ratio":
                exact = height * (image_width / image_height)
            case "scale":
                exact = height / image_height * image_width
            case "inverse":
                exact = height / (image_height / image_width)
        return exact * self.aspect

    def _inverts(self, image_height: int, image_width: int) -> bool:
        return self.tall != "keep" and image_width < image_height

    def _inverted(self, image_height: int, image_width: int, height: int) -> tuple[int, int]:
        return min(_MOST_BETWEEN, int(height * (1.0 / (image_width / image_height)))), height

    def buckets(self) -> range:
        """Every width that the rule can give."""
        return range(self.minimum, self.maximum + 1, self.multiple)

    def spread(self, count: int) -> list[int]:
        """Widths to try a network at, in equal ratios from the smallest to the largest, or to 800.

        Of a fixed width: from it to four times as much.
        """
        high = 4 * self.minimum if self.fixed else min(self.maximum, max(800, self.minimum))
        ratio = (high / self.minimum) ** (1 / (count - 1))
        return [round(self.minimum * ratio**i) for i in range(count)]


def _rounded(exact: float, rounding: Rounding) -> int:
    match rounding:
        case "floor":
            return math.floor(exact)
        case "nearest":
            return math.floor(exact + 0.5)
        case "ceil":
            return math.ceil(exact)
        case "half-even":
            return round(exact)


def _height_first(image_height: int, image_width: int, height: int) -> int:
    """Columns after OpenCV has scaled an image to the network's height by one factor."""
    return max(1, round(image_width * (height / image_height)))


@dataclass(frozen=True)
class StepRule:
    """Time steps of a network: `(width + offset) // stride`, which any chain of strided layers reduces to."""

    stride: int  # pixels per time step; more than the widths differ by where all have as many steps
    offset: int  # pixels

    def __post_init__(self) -> None:
        need_whole(1, MOST_WIDTH, stride=self.stride)
        need_whole(-MOST_WIDTH, _MOST_OFFSET, offset=self.offset)

    def __call__(self, width: int) -> int:
        return (width + self.offset) // self.stride
