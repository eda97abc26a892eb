"""The boxes of one page, as a file has them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.regions.region import Point, Region

__all__ = ["MOST_POINTS", "MOST_REGIONS", "BoxesInvalid", "PageBoxes", "Unit"]

# a newspaper's page has some 20,000 words; a polygon that follows each pixel of a long line has some 5,000
MOST_REGIONS = 100_000  # of a page
MOST_POINTS = 10_000  # of a polygon or a baseline

Unit = Literal["pixel", "mm10", "inch1200"]  # the last two: tenths of a millimetre, 1/1200 of an inch


class BoxesInvalid(CrnnDeployError, ValueError):
    """A file of boxes that cannot be read, or is not what its format says."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


@dataclass(frozen=True)
class PageBoxes:
    """Where the texts of one page are."""

    image: str  # what the file calls the page's image; "" where it names none
    regions: tuple[Region, ...]
    size: tuple[float, float] | None = None  # width and height of the page, as the file says them, in `unit`
    unit: Unit = "pixel"  # of the regions and the size; a physical one comes with a size
    document: bytes = field(default=b"", repr=False)  # PAGE XML in UTF-8; b"" of other formats
    note: str = ""  # what was assumed in reading the file, to be shown

    def in_pixels(self, width: int, height: int) -> tuple[Region, ...]:
        """The regions on the page's image of this size: scaled where their unit is a physical one."""
        if self.unit == "pixel" or self.size is None:
            return self.regions
        across, down = width / self.size[0], height / self.size[1]

        def scaled(points: tuple[Point, ...]) -> tuple[Point, ...]:
            return tuple((x * across, y * down) for x, y in points)

        return tuple(
            replace(region, polygon=scaled(region.polygon), baseline=scaled(region.baseline))
            for region in self.regions
        )
