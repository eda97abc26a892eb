"""Where a line of text lies in a scene: stretched, slanted, curved, turned and seen from one side."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.scene_table import Dice

__all__ = ["Placement", "View", "drawn_placement"]

Points = NDArray[np.float32]  # (..., 2), x and y

_MOST_RISE = 2.2  # of a turned word's rise, in letter heights; more leaves letters too small to read
_COARSE = 4  # pixels between the points that curves are computed at


@dataclass(frozen=True)
class Placement:
    """From the pixels of a mask, counted from the centre of the ink, to a plane."""

    width: float  # of the ink, pixels of the mask
    height: float
    stretch: float = 1.0
    slant: float = 0.0
    arc: float = 0.0  # radians that the baseline turns by; positive: the ends hang down
    wave: float = 0.0  # amplitude, pixels
    waves: float = 1.0  # in the word
    phase: float = 0.0
    tilt: float = 0.0  # radians
    aside: float = 0.0  # perspective along the line
    above: float = 0.0  # and across

    @property
    def curved(self) -> bool:
        return bool(self.arc or self.wave)

    def forward(self, points: Points) -> Points:
        """Points of the mask on the plane."""
        x, y = np.moveaxis(_project(self._straight(), points), -1, 0)
        if self.arc:
            radius, sign = self._radius()
            angle, r = x / radius, radius - sign * y
            x, y = r * np.sin(angle), sign * (radius - r * np.cos(angle))
        if self.wave:
            y = y + self.wave * np.sin(self._frequency() * x + self.phase)
        return _project(self._seen(), np.stack([x, y], -1))

    def backward(self, points: Points) -> Points:
        """Points of the plane on the mask."""
        x, y = np.moveaxis(_project(np.linalg.inv(self._seen()), points), -1, 0)
        if self.wave:
            y = y - self.wave * np.sin(self._frequency() * x + self.phase)
        if self.arc:
            radius, sign = self._radius()
            down = radius - sign * y
            x, y = np.arctan2(x, down) * radius, sign * (radius - np.hypot(x, down))
        return _project(np.linalg.inv(self._straight()), np.stack([x, y], -1))

    def homography(self) -> NDArray[np.float64]:
        """(3, 3), of a line that is not curved."""
        return self._seen() @ self._straight()

    def _straight(self) -> NDArray[np.float64]:
        return np.array([[self.stretch, self.slant, 0], [0, 1, 0], [0, 0, 1]], np.float64)

    def _radius(self) -> tuple[float, float]:
        return self.width * self.stretch / abs(self.arc), 1.0 if self.arc > 0 else -1.0

    def _frequency(self) -> float:
        return 2 * np.pi * self.waves / (self.width * self.stretch)

    def _seen(self) -> NDArray[np.float64]:
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        turned = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float64)
        far = self.aside / (self.width * self.stretch), self.above / self.height
        return turned @ np.array([[1, 0, 0], [0, 1, 0], [*far, 1]], np.float64)


@dataclass(frozen=True)
class View:
    """A crop of the plane as an image of some size."""

    placement: Placement
    left: float  # of the plane
    top: float
    across: float  # pixels of the image for one of the plane
    down: float
    width: int  # of the image
    height: int

    def points(self, points: Points) -> Points:
        """Points of the mask, counted from the ink's centre, in the image."""
        seen = self.placement.forward(points) - (self.left, self.top)
        return np.asarray(seen * (self.across, self.down), np.float32)

    def warped(self, mask: NDArray[np.uint8], centre: tuple[float, float]) -> NDArray[np.uint8]:
        """The mask as it is seen.

        centre: of the ink that is placed, in pixels of the mask
        """
        if not self.placement.curved:
            cut = np.array(
                [[self.across, 0, -self.left * self.across], [0, self.down, -self.top * self.down], [0, 0, 1]]
            )
            from_centre = np.array([[1, 0, -centre[0]], [0, 1, -centre[1]], [0, 0, 1]], np.float64)
            matrix = cut @ self.placement.homography() @ from_centre
            seen = cv2.warpPerspective(mask, matrix, (self.width, self.height), flags=cv2.INTER_LINEAR)
            return np.asarray(seen, np.uint8)
        columns = np.arange(0, self.width + _COARSE, _COARSE)
        rows = np.arange(0, self.height + _COARSE, _COARSE)
        grid = np.stack(np.meshgrid(columns / self.across + self.left, rows / self.down + self.top), -1)
        coarse = self.placement.backward(grid.astype(np.float32)) + centre
        # a point of the coarse grid lies at the corner of a cell of the fine one
        to_fine = np.array([[1 / _COARSE, 0, 0], [0, 1 / _COARSE, 0]], np.float64)
        fine = cv2.warpAffine(
            coarse.astype(np.float32),
            to_fine,
            (self.width, self.height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(cv2.remap(mask, fine[..., 0], fine[..., 1], cv2.INTER_LINEAR), np.uint8)


def drawn_placement(width: float, height: float, characters: int, dice: Dice) -> Placement:
    """A placement of ink of some size."""
    placed = Placement(width, height)
    if stretch := dice.throw("stretched") or dice.throw("condensed"):
        placed = replace(placed, stretch=stretch)
    wide = width * placed.stretch / height  # in letter heights
    if slant := dice.throw("slant"):
        placed = replace(placed, slant=slant * (dice.sign() if dice.rng.random() < 0.5 else -1.0))
    if (arc := dice.throw("arc")) and characters > 2:
        arc = min(arc, 0.8 * wide, 4.5 * _MOST_RISE / wide)
        placed = replace(placed, arc=arc * dice.sign())
    elif (wave := dice.throw("wave")) and characters > 3:
        waves = float(dice.rng.uniform(0.5, min(2.0, characters / 4)))
        phase = float(dice.rng.uniform(0, 2 * np.pi))
        placed = replace(placed, wave=wave * height, waves=waves, phase=phase)
    tilt = dice.throw("steep")
    if tilt is None and (tilt := dice.throw("tilt")):
        tilt *= float(dice.rng.random())  # small angles are common
    if tilt:
        tilt = min(tilt, float(np.arctan(_MOST_RISE / wide)))
        placed = replace(placed, tilt=tilt * dice.sign())
    if aside := dice.throw("perspective"):
        # seen from one side, a word is narrower too
        aside *= float(dice.rng.random()) * dice.sign()
        placed = replace(
            placed,
            aside=aside,
            above=float(dice.rng.uniform(-0.1, 0.1)) * dice.strength,
            stretch=placed.stretch * (1 - 0.5 * abs(aside)),
        )
    return placed


def _project(matrix: NDArray[np.floating[Any]], points: Points) -> Points:
    seen = points @ matrix[:, :2].T.astype(np.float32) + matrix[:, 2].astype(np.float32)
    return np.asarray(seen[..., :2] / seen[..., 2:], np.float32)
