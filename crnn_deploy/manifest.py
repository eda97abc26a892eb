"""What a model file knows of itself: alphabet, blank, input rule and time steps.

The manifest travels as one JSON value under `METADATA_KEY` in the ONNX file's metadata. Everything that
feeds a network or reads its output takes its numbers from here and from nowhere else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.errors import ManifestInvalid

__all__ = [
    "METADATA_KEY",
    "SCHEMA",
    "AdaptiveThreshold",
    "Clahe",
    "Color",
    "Filter",
    "Fit",
    "Interpolation",
    "Manifest",
    "OutputKind",
    "Rounding",
    "StepRule",
    "WidthRule",
]

METADATA_KEY = "crnn_deploy.manifest"
SCHEMA = 1
_LARGEST = 1e6  # of any number in a manifest
_SMALLEST_STD = 1e-6

Color = Literal["gray", "rgb", "bgr"]
Fit = Literal["stretch", "pad", "letterbox"]
Rounding = Literal["floor", "nearest", "ceil"]
OutputKind = Literal["logits", "log-probs", "argmax"]
Interpolation = Literal["nearest", "linear", "cubic", "area", "lanczos", "pillow-bilinear", "pillow-bicubic"]


@dataclass(frozen=True)
class Clahe:
    """Contrast-limited adaptive histogram equalisation of a grey image (cv2.createCLAHE)."""

    clip: float  # contrast limit
    tiles: int  # the image is cut into tiles x tiles

    def __post_init__(self) -> None:
        _need_whole(tiles=self.tiles)
        _need_numbers(clip=self.clip)
        if self.clip <= 0 or self.tiles < 1:
            raise ManifestInvalid(f"clahe with clip {self.clip} and {self.tiles} tiles; both must be above 0")


@dataclass(frozen=True)
class AdaptiveThreshold:
    """Black and white by the mean of each pixel's neighbourhood (cv2.adaptiveThreshold, MEAN_C)."""

    block: int  # side of the neighbourhood in pixels, odd
    offset: float  # subtracted from the mean
    invert: bool  # True: dark pixels become white

    def __post_init__(self) -> None:
        _need_whole(block=self.block)
        _need_numbers(offset=self.offset)
        if self.block < 3 or self.block % 2 == 0:
            raise ManifestInvalid(
                f"adaptive-threshold with block {self.block}; it must be odd and at least 3"
            )
        if not isinstance(self.invert, bool):
            raise ManifestInvalid(f"invert {self.invert!r} is not true or false")


Filter = Clahe | AdaptiveThreshold
_FILTERS: dict[str, type[Clahe] | type[AdaptiveThreshold]] = {
    "clahe": Clahe,
    "adaptive-threshold": AdaptiveThreshold,
}


@dataclass(frozen=True)
class WidthRule:
    """How wide an image is when the network sees it: a function of that image alone.

    A BiLSTM reads padding, so a width that depended on the neighbours in a batch would change the text.
    The *natural* width keeps the aspect ratio at the network's height; the *bucket* is the natural width
    rounded up to `multiple` and held between `minimum` and `maximum`. A fixed width has minimum == maximum.
    """

    minimum: int  # pixels
    maximum: int  # pixels
    multiple: int = 1  # pixels; buckets are multiples of this
    fit: Fit = "stretch"  # to the bucket; pad on the right; or letterbox (keep aspect, pad right, below)
    pad: float | Literal["edge"] = 0.0  # grey level 0-255 of the padding, or repeat the last column
    aspect: float = 1.0  # natural width is multiplied by this (the 360CC models train at 280 -> 160)
    rounding: Rounding = "nearest"  # of the natural width

    def __post_init__(self) -> None:
        _need_whole(minimum=self.minimum, maximum=self.maximum, multiple=self.multiple)
        _need_numbers(aspect=self.aspect)
        if not 1 <= self.minimum <= self.maximum:
            raise ManifestInvalid(f"widths from {self.minimum} to {self.maximum}")
        if self.multiple < 1 or self.minimum % self.multiple or self.maximum % self.multiple:
            raise ManifestInvalid(
                f"widths {self.minimum} and {self.maximum} are not multiples of {self.multiple}"
            )
        if self.fit not in get_args(Fit) or self.rounding not in get_args(Rounding):
            raise ManifestInvalid(f"unknown fit {self.fit!r} or rounding {self.rounding!r}")
        if self.fit == "letterbox" and not (self.fixed and self.aspect == 1):
            raise ManifestInvalid("letterbox needs a fixed width and an aspect factor of 1")
        if self.aspect <= 0:
            raise ManifestInvalid(f"aspect factor {self.aspect}")
        if self.pad != "edge" and not (_is_number(self.pad) and 0 <= self.pad <= 255):
            raise ManifestInvalid(f"padding {self.pad!r} is neither a grey level (0-255) nor 'edge'")

    @property
    def fixed(self) -> bool:
        return self.minimum == self.maximum

    def natural(self, image_height: int, image_width: int, height: int) -> int:
        """Width in pixels that keeps the aspect ratio of an image at the network's `height`; at least 1."""
        exact = image_width * height / image_height * self.aspect
        if self.rounding == "nearest":
            exact += 0.5
        return max(1, math.ceil(exact) if self.rounding == "ceil" else math.floor(exact))

    def bucket(self, image_height: int, image_width: int, height: int) -> int:
        """Width in pixels of the network's input for an image of this size."""
        natural = self.natural(image_height, image_width, height)
        return min(self.maximum, max(self.minimum, -(-natural // self.multiple) * self.multiple))

    def buckets(self) -> range:
        """Every width that the rule can give."""
        return range(self.minimum, self.maximum + 1, self.multiple)


@dataclass(frozen=True)
class StepRule:
    """Time steps of a network: `(width + offset) // stride`, which any chain of strided layers reduces to."""

    stride: int  # pixels per time step
    offset: int  # pixels

    def __post_init__(self) -> None:
        _need_whole(stride=self.stride, offset=self.offset)
        if self.stride < 1:
            raise ManifestInvalid(f"stride {self.stride}")

    def __call__(self, width: int) -> int:
        return (width + self.offset) // self.stride


@dataclass(frozen=True)
class Manifest:
    """All that a runtime must know to turn an image into the network's input and its output into text."""

    alphabet: tuple[str, ...]  # the characters in class order, blank left out; one may be several code points
    blank: int  # class index of the CTC blank
    color: Color  # channel order of the input
    height: int  # pixels
    width: WidthRule  # width of the input
    mean: tuple[float, ...]  # per channel, of values in 0-1
    std: tuple[float, ...]  # per channel; the input is (x / 255 - mean) / std
    interpolation: Interpolation  # names without a prefix are OpenCV's
    steps: StepRule  # time steps T for a width
    output: OutputKind = "logits"  # what the graph puts out
    filters: tuple[Filter, ...] = ()  # applied to the grey image at its original size
    source: Mapping[str, str] = field(default_factory=dict)  # where the weights came from
    max_batch: int | None = None  # images that may run together where a kernel's result depends on it
    decoding: DecodingRule = field(default_factory=DecodingRule)  # how its texts are found by default

    def __post_init__(self) -> None:
        _need_whole(blank=self.blank, height=self.height)
        _need_text("alphabet", self.alphabet)
        _need_text("source", [*self.source.keys(), *self.source.values()])
        if not self.alphabet:
            raise ManifestInvalid("the alphabet is empty")
        if "" in self.alphabet:
            raise ManifestInvalid(f"character {self.alphabet.index('')} of the alphabet is empty")
        if len(set(self.alphabet)) != len(self.alphabet):
            twice = next(c for i, c in enumerate(self.alphabet) if c in self.alphabet[:i])
            raise ManifestInvalid(f"the alphabet holds {twice!r} twice")
        if not 0 <= self.blank < self.classes:
            raise ManifestInvalid(f"blank {self.blank} of {self.classes} classes")
        if self.color not in get_args(Color) or self.interpolation not in get_args(Interpolation):
            raise ManifestInvalid(f"unknown color {self.color!r} or interpolation {self.interpolation!r}")
        if self.output not in get_args(OutputKind):
            raise ManifestInvalid(f"unknown output {self.output!r}")
        if self.max_batch is not None:
            _need_whole(max_batch=self.max_batch)
            if self.max_batch < 1:
                raise ManifestInvalid(f"max_batch {self.max_batch}")
        if self.height < 1:
            raise ManifestInvalid(f"height {self.height}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ManifestInvalid(f"mean {self.mean} and std {self.std} for {self.channels} channels")
        for mean, std in zip(self.mean, self.std, strict=True):
            _need_numbers(mean=mean, std=std)
            if std < _SMALLEST_STD:
                raise ManifestInvalid(f"std {std}; the pixels are divided by it, it must be above 0")
        if self.filters and self.color != "gray":
            raise ManifestInvalid("filters work on grey images only")
        if self.decoding.decoder == "closest-word":
            raise ManifestInvalid("its decoder is closest-word, whose words a manifest does not hold")
        if self.steps(self.width.minimum) < 1:
            raise ManifestInvalid(f"no time step at the smallest width, {self.width.minimum}")

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
        for name in ("max_batch", "decoding"):
            if not plain[name]:
                del plain[name]  # earlier versions know no such key
        return json.dumps({"schema": SCHEMA, **plain}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read `to_json`'s text. Raises ManifestInvalid."""
        try:
            plain: dict[str, Any] = json.loads(text)
            schema = plain.pop("schema")
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise ManifestInvalid("it is not the JSON object that crnn-deploy writes") from error
        if schema != SCHEMA:
            raise ManifestInvalid(
                f"its schema is {schema!r}, this version reads {SCHEMA}; upgrade crnn-deploy"
            )
        unknown = set(plain) - {f.name for f in fields(cls)}
        if unknown:
            raise ManifestInvalid(f"unknown fields {sorted(unknown)}")
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
                    "mean": tuple(plain["mean"]),
                    "std": tuple(plain["std"]),
                    "filters": tuple(filter_from_plain(f) for f in plain.get("filters", [])),
                    "decoding": DecodingRule.from_plain(plain.get("decoding", {})),
                }
            )
        except ManifestInvalid:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise ManifestInvalid(f"{type(error).__name__}: {error}") from error


def _need_whole(**values: Any) -> None:
    for name, value in values.items():
        if not (isinstance(value, int) and _is_number(value)):
            raise ManifestInvalid(f"{name} is {value!r}, not a whole number up to {_LARGEST:.0e}")


def _need_numbers(**values: Any) -> None:
    for name, value in values.items():
        if not _is_number(value):
            raise ManifestInvalid(f"{name} is {value!r}, not a number from -{_LARGEST:.0e} to {_LARGEST:.0e}")


def _is_number(value: Any) -> bool:
    """Neither NaN, infinite nor beyond what float32 arithmetic on pixels stands."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def _need_text(name: str, values: Iterable[Any]) -> None:
    for value in values:
        if not isinstance(value, str):
            raise ManifestInvalid(f"{name} holds {value!r}, not a string")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ManifestInvalid(f"{name} holds {value!r}, half of a surrogate pair") from error


def filter_to_plain(item: Filter) -> dict[str, Any]:
    """What `filter_from_plain` reads."""
    name = next(name for name, kind in _FILTERS.items() if isinstance(item, kind))
    return {"filter": name, **asdict(item)}


def filter_from_plain(plain: Mapping[str, Any]) -> Filter:
    """A filter from its JSON or TOML form, `{"filter": "clahe", "clip": 2.0, "tiles": 8}`."""
    if not isinstance(plain, Mapping):
        raise ManifestInvalid(f"filter {plain!r} is not a table of its values")
    values = dict(plain)
    name = values.pop("filter", None)
    if not isinstance(name, str) or name not in _FILTERS:
        raise ManifestInvalid(f"unknown filter {name!r}; there are {', '.join(_FILTERS)}")
    try:
        return _FILTERS[name](**values)
    except TypeError as error:
        raise ManifestInvalid(f"filter {name}: {error}") from error
