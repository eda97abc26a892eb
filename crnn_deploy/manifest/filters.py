"""What is done to a grey image at its original size, and when it is read a second time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from crnn_deploy.decoding_rule import shown
from crnn_deploy.errors import ManifestInvalid, did_you_mean
from crnn_deploy.manifest.bounds import MOST_LEVEL, need_numbers, need_whole

__all__ = [
    "FILTERS",
    "AdaptiveThreshold",
    "Clahe",
    "Contrast",
    "Filter",
    "Stretch",
    "filter_from_plain",
    "filter_to_plain",
]

_MOST_CLIP = 1000.0  # beyond 8,000 OpenCV's counts of a large tile overflow; published recipes have 2
_MOST_TILES = 64  # OpenCV holds a table for each of tiles x tiles, and crashes at 2**16; recipes have 8
_MOST_TAILS = 0.25  # half of all pixels at most, both ends together
_MOST_BLOCK = 1023  # pixels; beyond 2,900 OpenCV's sums overflow


@dataclass(frozen=True)
class Clahe:
    """Contrast-limited adaptive histogram equalisation of a grey image (cv2.createCLAHE)."""

    clip: float  # contrast limit
    tiles: int  # the image is cut into tiles x tiles

    def __post_init__(self) -> None:
        need_whole(1, _MOST_TILES, tiles=self.tiles)
        need_numbers(0, _MOST_CLIP, clip=self.clip)
        if not self.clip:
            raise ManifestInvalid("clahe with clip 0; it must be above 0")


@dataclass(frozen=True)
class AdaptiveThreshold:
    """Black and white by the mean of each pixel's neighbourhood (cv2.adaptiveThreshold, MEAN_C)."""

    block: int  # side of the neighbourhood in pixels, odd
    offset: float  # subtracted from the mean
    invert: bool  # True: dark pixels become white

    def __post_init__(self) -> None:
        need_whole(3, _MOST_BLOCK, block=self.block)
        need_numbers(-MOST_LEVEL, MOST_LEVEL, offset=self.offset)
        if self.block % 2 == 0:
            raise ManifestInvalid(f"adaptive-threshold with block {self.block}; it must be odd")
        if not isinstance(self.invert, bool):
            raise ManifestInvalid(f"invert {shown(self.invert)} is not true or false")


@dataclass(frozen=True)
class Stretch:
    """Grey levels spread over 0-255, as Pillow's ImageOps.autocontrast does with its `cutoff`.

    Levels that are nearer than `least` are spread as if they were that far apart, so that the noise of bare
    paper does not become letters.
    """

    tails: float  # share of the pixels, at each end, that become black or white
    least: int  # levels

    def __post_init__(self) -> None:
        need_numbers(0, _MOST_TAILS, tails=self.tails)
        need_whole(1, 255, least=self.least)


Filter = Clahe | AdaptiveThreshold | Stretch
FILTERS: dict[str, type[Clahe] | type[AdaptiveThreshold] | type[Stretch]] = {
    "clahe": Clahe,
    "adaptive-threshold": AdaptiveThreshold,
    "stretch": Stretch,
}


@dataclass(frozen=True)
class Contrast:
    """A second reading of grey images that were read unsurely, with their contrast stretched (EasyOCR).

    github.com/JaidedAI/EasyOCR recognition.py: below 0.1 (`contrast_ths`), target 0.5 (`adjust_contrast`).
    """

    below: float  # confidence, by EasyOCR's own measure, under which an image is read again
    target: float  # contrast 0-1 under which its grey levels are stretched first

    def __post_init__(self) -> None:
        need_numbers(0, 1, below=self.below, target=self.target)


def filter_to_plain(item: Filter) -> dict[str, Any]:
    """What `filter_from_plain` reads."""
    name = next(name for name, kind in FILTERS.items() if isinstance(item, kind))
    return {"filter": name, **asdict(item)}


def filter_from_plain(plain: Mapping[str, Any]) -> Filter:
    """A filter from its JSON or TOML form, `{"filter": "clahe", "clip": 2.0, "tiles": 8}`."""
    if not isinstance(plain, Mapping):
        raise ManifestInvalid(f"filter {shown(plain)} is not a table of its values")
    values = dict(plain)
    name = values.pop("filter", None)
    if not isinstance(name, str) or name not in FILTERS:
        raise ManifestInvalid(
            f"unknown filter {shown(name)}{did_you_mean(name, FILTERS)}; there are {', '.join(FILTERS)}"
        )
    try:
        return FILTERS[name](**values)
    except TypeError as error:
        raise ManifestInvalid(f"filter {name}: {str(error)[:200]}") from error
