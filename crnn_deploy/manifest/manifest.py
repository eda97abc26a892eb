"""What a model file knows of itself: alphabet, blank, input rule and time steps.

The manifest travels as one JSON value under `METADATA_KEY` in the ONNX file's metadata. Everything that
feeds a network or reads its output takes its numbers from here and from nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from crnn_deploy.decoding_rule import DecodingRule, shown
from crnn_deploy.errors import ManifestInvalid, ManifestMissing
from crnn_deploy.files import parse_json
from crnn_deploy.manifest.bounds import (
    MOST_WIDTH,
    need_numbers,
    need_one_of,
    need_text,
    need_whole,
)
from crnn_deploy.manifest.filters import FILTERS, Contrast, Filter, filter_from_plain, filter_to_plain
from crnn_deploy.manifest.width_rule import StepRule, WidthRule

__all__ = ["METADATA_KEY", "SCHEMA", "Color", "Grey", "Interpolation", "Manifest", "OutputKind"]

METADATA_KEY = "crnn_deploy.manifest"
SCHEMA = 1

_MOST_HEIGHT = 1024  # pixels; published models have 32 to 128
_MOST_VALUES = 2**24  # of one input, 64 MB; EasyOCR has 204,800
_MOST_LOGITS = 2**29  # of one image, 2 GB; 6,737 classes at 3,200 pixels have 5.4 million
_MOST_TOKENS = 2**16  # of an alphabet; the longest published one has 18,385
_MOST_TOKEN = 64  # code points of a token; the longest clusters of Indic scripts have about 10
_MOST_NUMBER = 1000.0  # of mean and std, which belong to values in 0-1
_SMALLEST_STD = 1e-6  # the pixels are divided by it
_MOST_BATCH = 2**12  # images
_MOST_SOURCES = 64  # entries
_MOST_SOURCE = 4096  # characters of one, as of a path
_MOST_TEXT = 2**22  # characters of the JSON text; the longest alphabet has 0.2 million

Color = Literal["gray", "rgb", "bgr"]
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
        need_whole(1, _MOST_HEIGHT, height=self.height)
        _need_tokens(self.alphabet)
        need_whole(0, len(self.alphabet), blank=self.blank)
        if len(self.source) > _MOST_SOURCES:
            raise ManifestInvalid(f"source has {len(self.source):,} entries, more than {_MOST_SOURCES}")
        need_text("source", [*self.source.keys(), *self.source.values()], _MOST_SOURCE)
        need_one_of(Color, color=self.color)
        need_one_of(Interpolation, interpolation=self.interpolation)
        need_one_of(OutputKind, output=self.output)
        need_one_of(Grey, grey=self.grey)
        if self.max_batch is not None:
            need_whole(1, _MOST_BATCH, max_batch=self.max_batch)
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ManifestInvalid(
                f"mean {shown(self.mean)} and std {shown(self.std)} for {self.channels} channels"
            )
        for mean, std in zip(self.mean, self.std, strict=True):
            need_numbers(-_MOST_NUMBER, _MOST_NUMBER, mean=mean)
            need_numbers(-_MOST_NUMBER, _MOST_NUMBER, std=std)
            if abs(std) < _SMALLEST_STD:
                raise ManifestInvalid(f"std is {shown(std)}; the pixels are divided by it")
        if self.filters and self.color != "gray":
            raise ManifestInvalid("filters work on grey images only")
        if (self.grey != "opencv" or self.contrast or self.width.tall != "keep") and self.color != "gray":
            raise ManifestInvalid("grey, contrast and tall are for grey images; the input has colours")
        if len(self.filters) > len(FILTERS):
            raise ManifestInvalid(f"{len(self.filters):,} filters; there are {', '.join(FILTERS)}")
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
        try:
            return cls.from_json(text)
        except ManifestInvalid as error:
            raise ManifestInvalid(error.reason, path) from None

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


def _need_tokens(alphabet: tuple[str, ...]) -> None:
    if not alphabet:
        raise ManifestInvalid("the alphabet is empty")
    if len(alphabet) > _MOST_TOKENS:
        raise ManifestInvalid(f"the alphabet has {len(alphabet):,} characters, more than {_MOST_TOKENS:,}")
    need_text("alphabet", alphabet, _MOST_TOKEN)
    if not any(alphabet):
        raise ManifestInvalid("the alphabet has empty tokens alone")
