"""What a model file knows of itself: alphabet, blank, input rule and time steps.

The manifest travels as one JSON value under `METADATA_KEY` in the ONNX file's metadata. Everything that
feeds a network or reads its output takes its numbers from here and from nowhere else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from crnn_deploy.decoding_rule import DecodingRule, shown
from crnn_deploy.errors import ManifestInvalid, ManifestMissing
from crnn_deploy.files import parse_json

__all__ = [
    "METADATA_KEY",
    "MOST_WIDTH",
    "SCHEMA",
    "AdaptiveThreshold",
    "Clahe",
    "Color",
    "Contrast",
    "Filter",
    "Fit",
    "Grey",
    "Interpolation",
    "Manifest",
    "MultipleOf",
    "Order",
    "OutputKind",
    "Resize",
    "Rounding",
    "StepRule",
    "Tall",
    "WidthRule",
]

METADATA_KEY = "crnn_deploy.manifest"
SCHEMA = 1

# A manifest comes from a stranger, so every number in it has bounds, well beyond what published models have.
MOST_WIDTH = 2**16  # pixels of the network's input; EasyOCR has 3,200
_MOST_HEIGHT = 1024  # pixels; published models have 32 to 128
_MOST_OFFSET = 2**19  # pixels; a network with 80 steps at each of 3,200 widths has 256,000
_MOST_VALUES = 2**24  # of one input, 64 MB; EasyOCR has 204,800
_MOST_LOGITS = 2**29  # of one image, 2 GB; 6,737 classes at 3,200 pixels have 5.4 million
_MOST_TOKENS = 2**16  # of an alphabet; the longest published one has 18,385
_MOST_TOKEN = 64  # code points of a token; the longest clusters of Indic scripts have about 10
_MOST_NUMBER = 1000.0  # of mean and std, which belong to values in 0-1
_SMALLEST_STD = 1e-6  # the pixels are divided by it
_MOST_ASPECT = 100.0  # and its reciprocal the least
_MOST_BATCH = 2**12  # images
_MOST_BETWEEN = 2**18  # pixels of a side between two resizes
_MOST_CLIP = 1000.0  # beyond 8,000 OpenCV's counts of a large tile overflow; published recipes have 2
_MOST_TILES = 64  # OpenCV holds a table for each of tiles x tiles, and crashes at 2**16; recipes have 8
_MOST_BLOCK = 1023  # pixels; beyond 2,900 OpenCV's sums overflow
_MOST_LEVEL = 255.0  # grey levels
_MOST_SOURCES = 64  # entries
_MOST_SOURCE = 4096  # characters of one, as of a path
_MOST_TEXT = 2**22  # characters of the JSON text; the longest alphabet has 0.2 million

Color = Literal["gray", "rgb", "bgr"]
Fit = Literal["stretch", "pad", "letterbox"]
Rounding = Literal["floor", "nearest", "ceil", "half-even"]
Order = Literal["product", "ratio", "scale", "inverse"]
MultipleOf = Literal["natural", "exact"]
Resize = Literal["once", "height-first"]
Tall = Literal["keep", "invert", "invert-pillow13"]
Grey = Literal["opencv", "pillow", "decoder"]
OutputKind = Literal["logits", "log-probs", "argmax"]
Interpolation = Literal[
    "nearest",
    "linear",
    "cubic",
    "area",
    "lanczos",
    "pillow-bilinear",
    "pillow-bicubic",
    "pillow-lanczos",
    "pillow13-bilinear",
    "pillow13-bicubic",
    "pillow13-lanczos",
    "torch-bilinear",
]


@dataclass(frozen=True)
class Clahe:
    """Contrast-limited adaptive histogram equalisation of a grey image (cv2.createCLAHE)."""

    clip: float  # contrast limit
    tiles: int  # the image is cut into tiles x tiles

    def __post_init__(self) -> None:
        _need_whole(1, _MOST_TILES, tiles=self.tiles)
        _need_numbers(0, _MOST_CLIP, clip=self.clip)
        if not self.clip:
            raise ManifestInvalid("clahe with clip 0; it must be above 0")


@dataclass(frozen=True)
class AdaptiveThreshold:
    """Black and white by the mean of each pixel's neighbourhood (cv2.adaptiveThreshold, MEAN_C)."""

    block: int  # side of the neighbourhood in pixels, odd
    offset: float  # subtracted from the mean
    invert: bool  # True: dark pixels become white

    def __post_init__(self) -> None:
        _need_whole(3, _MOST_BLOCK, block=self.block)
        _need_numbers(-_MOST_LEVEL, _MOST_LEVEL, offset=self.offset)
        if self.block % 2 == 0:
            raise ManifestInvalid(f"adaptive-threshold with block {self.block}; it must be odd")
        if not isinstance(self.invert, bool):
            raise ManifestInvalid(f"invert {shown(self.invert)} is not true or false")


Filter = Clahe | AdaptiveThreshold
_FILTERS: dict[str, type[Clahe] | type[AdaptiveThreshold]] = {
    "clahe": Clahe,
    "adaptive-threshold": AdaptiveThreshold,
}


@dataclass(frozen=True)
class Contrast:
    """A second reading of grey images that were read unsurely, with their contrast stretched (EasyOCR).

    github.com/JaidedAI/EasyOCR recognition.py: below 0.1 (`contrast_ths`), target 0.5 (`adjust_contrast`).
    """

    below: float  # confidence, by EasyOCR's own measure, under which an image is read again
    target: float  # contrast 0-1 under which its grey levels are stretched first

    def __post_init__(self) -> None:
        _need_numbers(0, 1, below=self.below, target=self.target)


_LATER = ("order", "multiple_rounding", "multiple_of", "resize", "tall")  # of a width rule


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
        _need_whole(1, MOST_WIDTH, minimum=self.minimum, maximum=self.maximum, multiple=self.multiple)
        _need_numbers(1 / _MOST_ASPECT, _MOST_ASPECT, aspect=self.aspect)
        if self.minimum > self.maximum:
            raise ManifestInvalid(f"widths from {self.minimum} to {self.maximum}")
        if self.minimum % self.multiple or self.maximum % self.multiple:
            raise ManifestInvalid(
                f"widths {self.minimum} and {self.maximum} are not multiples of {self.multiple}"
            )
        _need_one_of(Fit, fit=self.fit)
        _need_one_of(Rounding, rounding=self.rounding, multiple_rounding=self.multiple_rounding)
        _need_one_of(Order, order=self.order)
        _need_one_of(MultipleOf, multiple_of=self.multiple_of)
        _need_one_of(Resize, resize=self.resize)
        _need_one_of(Tall, tall=self.tall)
        if self.fit == "letterbox" and not (self.fixed and self.aspect == 1):
            raise ManifestInvalid("letterbox needs a fixed width and an aspect factor of 1")
        if self.resize == "height-first" and self.fit != "stretch":
            raise ManifestInvalid("resize height-first needs fit stretch")
        if self.tall != "keep" and self.fit != "pad":
            raise ManifestInvalid(f"tall {self.tall} needs fit pad")
        if self.pad != "edge" and not _is_number(self.pad, 0, _MOST_LEVEL):
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
        _need_whole(1, MOST_WIDTH, stride=self.stride)
        _need_whole(-MOST_WIDTH, _MOST_OFFSET, offset=self.offset)

    def __call__(self, width: int) -> int:
        return (width + self.offset) // self.stride


@dataclass(frozen=True)
class Manifest:
    """All that a runtime must know to turn an image into the network's input and its output into text."""

    # The characters in class order, blank left out. One may be several code points, or of several classes;
    # a class whose token is empty puts nothing into a text.
    alphabet: tuple[str, ...]
    blank: int  # class index of the CTC blank
    color: Color  # channel order of the input
    height: int  # pixels
    width: WidthRule  # width of the input
    mean: tuple[float, ...]  # per channel, of values in 0-1
    std: tuple[float, ...]  # per channel, below 0 to invert; the input is (x / 255 - mean) / std
    interpolation: Interpolation  # names without a prefix are OpenCV's
    steps: StepRule  # time steps T for a width
    output: OutputKind = "logits"  # what the graph puts out
    filters: tuple[Filter, ...] = ()  # applied to the grey image at its original size
    source: Mapping[str, str] = field(default_factory=dict)  # where the weights came from
    max_batch: int | None = None  # images that may run together where a kernel's result depends on it
    decoding: DecodingRule = field(default_factory=DecodingRule)  # how its texts are found by default
    grey: Grey = "opencv"  # how colour becomes grey: cvtColor, Pillow's "L", OpenCV's decoders
    contrast: Contrast | None = None  # read again what was read unsurely

    def __post_init__(self) -> None:
        _need_whole(1, _MOST_HEIGHT, height=self.height)
        _need_tokens(self.alphabet)
        _need_whole(0, len(self.alphabet), blank=self.blank)
        if len(self.source) > _MOST_SOURCES:
            raise ManifestInvalid(f"source has {len(self.source):,} entries, more than {_MOST_SOURCES}")
        _need_text("source", [*self.source.keys(), *self.source.values()], _MOST_SOURCE)
        _need_one_of(Color, color=self.color)
        _need_one_of(Interpolation, interpolation=self.interpolation)
        _need_one_of(OutputKind, output=self.output)
        _need_one_of(Grey, grey=self.grey)
        if self.max_batch is not None:
            _need_whole(1, _MOST_BATCH, max_batch=self.max_batch)
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ManifestInvalid(
                f"mean {shown(self.mean)} and std {shown(self.std)} for {self.channels} channels"
            )
        for mean, std in zip(self.mean, self.std, strict=True):
            _need_numbers(-_MOST_NUMBER, _MOST_NUMBER, mean=mean)
            _need_numbers(-_MOST_NUMBER, _MOST_NUMBER, std=std)
            if abs(std) < _SMALLEST_STD:
                raise ManifestInvalid(f"std is {shown(std)}; the pixels are divided by it")
        if self.filters and self.color != "gray":
            raise ManifestInvalid("filters work on grey images only")
        if (self.grey != "opencv" or self.contrast or self.width.tall != "keep") and self.color != "gray":
            raise ManifestInvalid("grey, contrast and tall are for grey images; the input has colours")
        if len(self.filters) > len(_FILTERS):
            raise ManifestInvalid(f"{len(self.filters):,} filters; there are {', '.join(_FILTERS)}")
        if self.decoding.decoder == "closest-word":
            raise ManifestInvalid("its decoder is closest-word, whose words a manifest does not hold")
        if self.steps(self.width.minimum) < 1:
            raise ManifestInvalid(f"no time step at the smallest width, {self.width.minimum}")
        if self.width.maximum > self.room:
            raise ManifestInvalid(
                f"images of {self.width.maximum} x {self.height} pixels and {self.classes:,} classes; "
                f"no image may be wider than {self.room:,} pixels with these, for the memory it would take"
            )

    @property
    def room(self) -> int:
        """Pixels of the widest input that this height and this alphabet leave memory for."""
        by_logits = _MOST_LOGITS // self.classes * self.steps.stride - self.steps.offset
        return min(MOST_WIDTH, _MOST_VALUES // (self.height * self.channels), by_logits)

    @property
    def decoded_grey(self) -> bool:
        """Whether files become grey as OpenCV decodes them, `read_image`'s option of that name."""
        return self.grey == "decoder"

    @property
    def channels(self) -> int:
        return 1 if self.color == "gray" else 3

    @property
    def classes(self) -> int:
        """Number of classes, the blank included."""
        return len(self.alphabet) + 1

    def to_json(self) -> str:
        plain = asdict(self)
        plain["filters"] = [filter_to_plain(f) for f in self.filters]
        plain["decoding"] = self.decoding.to_plain()
        for name in ("max_batch", "decoding", "contrast"):
            if not plain[name]:
                del plain[name]  # earlier versions know no such key
        if self.grey == "opencv":
            del plain["grey"]
        plain["width"] = self.width.to_plain()
        return json.dumps({"schema": SCHEMA, **plain}, ensure_ascii=False)

    @classmethod
    def in_metadata(cls, metadata: Mapping[str, str], path: Path) -> Manifest:
        """The manifest in the metadata of an ONNX file. Raises ManifestMissing, ManifestInvalid."""
        if (text := metadata.get(METADATA_KEY)) is None:
            raise ManifestMissing(path)
        return cls.from_json(text)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read `to_json`'s text. Raises ManifestInvalid."""
        if len(text) > _MOST_TEXT:
            raise ManifestInvalid(f"it has {len(text):,} characters, more than the limit of {_MOST_TEXT:,}")
        try:
            plain: dict[str, Any] = parse_json(text)
            schema = plain.pop("schema")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ManifestInvalid("it is not the JSON object that crnn-deploy writes") from error
        if schema != SCHEMA:
            raise ManifestInvalid(
                f"its schema is {shown(schema)}, this version reads {SCHEMA}; upgrade crnn-deploy"
            )
        unknown = set(plain) - {f.name for f in fields(cls)}
        if unknown:
            raise ManifestInvalid(f"unknown fields {shown(sorted(unknown))}")
        for name in ("alphabet", "mean", "std", "filters"):
            if not isinstance(plain.get(name, []), list):
                raise ManifestInvalid(f"{name} is not a list")
        if not isinstance(plain.get("source", {}), dict):
            raise ManifestInvalid("source is not an object")
        try:
            return cls(
                **{
                    **plain,
                    "alphabet": tuple(plain["alphabet"]),
                    "width": WidthRule(**plain["width"]),
                    "steps": StepRule(**plain["steps"]),
                    "contrast": None if plain.get("contrast") is None else Contrast(**plain["contrast"]),
                    "mean": tuple(plain["mean"]),
                    "std": tuple(plain["std"]),
                    "filters": tuple(filter_from_plain(f) for f in plain.get("filters", [])),
                    "decoding": DecodingRule.from_plain(plain.get("decoding", {})),
                }
            )
        except ManifestInvalid:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ManifestInvalid(f"{type(error).__name__}: {str(error)[:200]}") from error


def _need_whole(least: int, most: int, **values: Any) -> None:
    for name, value in values.items():
        if not (isinstance(value, int) and _is_number(value, least, most)):
            raise ManifestInvalid(f"{name} is {shown(value)}, not a whole number from {least:,} to {most:,}")


def _need_numbers(least: float, most: float, **values: Any) -> None:
    for name, value in values.items():
        if not _is_number(value, least, most):
            raise ManifestInvalid(f"{name} is {shown(value)}, not a number from {least:g} to {most:g}")


def _is_number(value: Any, least: float, most: float) -> bool:
    """Whether it is within bounds, which neither NaN nor infinity is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _need_one_of(kind: Any, **values: Any) -> None:
    for name, value in values.items():
        if value not in get_args(kind):
            raise ManifestInvalid(f"unknown {name} {shown(value)}; there are {', '.join(get_args(kind))}")


def _need_tokens(alphabet: tuple[str, ...]) -> None:
    if not alphabet:
        raise ManifestInvalid("the alphabet is empty")
    if len(alphabet) > _MOST_TOKENS:
        raise ManifestInvalid(f"the alphabet has {len(alphabet):,} characters, more than {_MOST_TOKENS:,}")
    _need_text("alphabet", alphabet, _MOST_TOKEN)
    if not any(alphabet):
        raise ManifestInvalid("the alphabet has empty tokens alone")


def _need_text(name: str, values: Iterable[Any], longest: int) -> None:
    for value in values:
        if not isinstance(value, str):
            raise ManifestInvalid(f"{name} holds {shown(value)}, not a string")
        if len(value) > longest:
            raise ManifestInvalid(f"{name} holds {shown(value)}, which is longer than {longest:,} characters")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ManifestInvalid(f"{name} holds {shown(value)}, half of a surrogate pair") from error


def filter_to_plain(item: Filter) -> dict[str, Any]:
    """What `filter_from_plain` reads."""
    name = next(name for name, kind in _FILTERS.items() if isinstance(item, kind))
    return {"filter": name, **asdict(item)}


def filter_from_plain(plain: Mapping[str, Any]) -> Filter:
    """A filter from its JSON or TOML form, `{"filter": "clahe", "clip": 2.0, "tiles": 8}`."""
    if not isinstance(plain, Mapping):
        raise ManifestInvalid(f"filter {shown(plain)} is not a table of its values")
    values = dict(plain)
    name = values.pop("filter", None)
    if not isinstance(name, str) or name not in _FILTERS:
        raise ManifestInvalid(f"unknown filter {shown(name)}; there are {', '.join(_FILTERS)}")
    try:
        return _FILTERS[name](**values)
    except TypeError as error:
        raise ManifestInvalid(f"filter {name}: {str(error)[:200]}") from error
