"""Scores by a whole number, such as the length of a text, in a few bands of neighbouring numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from crnn_deploy.metrics import Score

__all__ = ["MOST_BANDS", "Band", "banded"]

MOST_BANDS = 8
_BALANCE = 0.87  # of what bounds at any number reach is what round ones must reach
_LEAST = 1 / 4  # of an equal share of the images is what a band must hold


@dataclass(frozen=True)
class Band:
    """All images whose number lies from `low` to `high`."""

    low: int
    high: int  # included
    score: Score

    @property
    def label(self) -> str:
        """`7` or `7-12`."""
        return f"{self.low}" if self.low == self.high else f"{self.low}-{self.high}"

    def to_plain(self) -> dict[str, Any]:
        return {"from": self.low, "to": self.high, **self.score.to_plain()}


def banded(scores: Mapping[int, Score]) -> tuple[Band, ...]:
    """At most eight bands in rising order, which hold comparable numbers of images.

    Eight numbers or fewer have a band each. Of more, the bands follow each other without a gap from the
    smallest number to the largest, and the bounds between them are as round as the balance allows.
    scores: score of the images of each number, which is not negative
    """
    if len(scores) <= MOST_BANDS:
        return tuple(Band(number, number, scores[number]) for number in sorted(scores))
    images = {number: scores[number].images for number in sorted(scores)}
    ends = _ends(images, 1)
    least = _BALANCE * _balance(_sizes(images, ends))
    for step in _round_steps(max(images)):
        if _balance(_sizes(images, rounder := _ends(images, step))) >= least:
            ends = rounder
    ends = _without_small_ones(ends, _sizes(images, ends))
    lows = [min(images), *(end + 1 for end in ends[:-1])]
    return tuple(
        Band(low, high, sum((scores[n] for n in images if low <= n <= high), Score()))
        for low, high in zip(lows, ends, strict=True)
    )


def _ends(images: Mapping[int, int], step: int) -> list[int]:
    """The last number of each band: a multiple of `step`, but for the largest number, which ends the last.

    images: how many each number has, in rising order of the numbers
    """
    cells: dict[int, int] = {}  # images by the multiple at or above their number
    for number, here in images.items():
        end = -(-number // step) * step
        cells[end] = cells.get(end, 0) + here
    ends: list[int] = []
    left, size, last = sum(cells.values()), 0, 0
    for end, here in cells.items():
        share = (left + size) / (MOST_BANDS - len(ends))  # of what no finished band holds
        if size and len(ends) < MOST_BANDS - 1 and size + here / 2 > share:
            ends.append(last)
            size = 0
        left, size, last = left - here, size + here, end
    return [*ends, max(images)]


def _sizes(images: Mapping[int, int], ends: list[int]) -> list[int]:
    """How many images each band has."""
    sizes = dict.fromkeys(ends, 0)
    each = iter(ends)
    end = next(each)
    for number, here in images.items():
        while number > end:
            end = next(each)
        sizes[end] += here
    return list(sizes.values())


def _balance(sizes: list[int]) -> float:
    """How many bands of equal size would part the images as finely (e to the entropy of the shares)."""
    total = sum(sizes)
    return math.exp(-sum(size / total * math.log(size / total) for size in sizes))


def _without_small_ones(ends: list[int], sizes: list[int]) -> list[int]:
    """The ends once each band with few images has joined the smaller of its neighbours."""
    ends, sizes = ends.copy(), sizes.copy()
    while min(sizes) < _LEAST * sum(sizes) / MOST_BANDS:
        at = sizes.index(min(sizes))
        left = at > 0 and (at + 1 == len(sizes) or sizes[at - 1] <= sizes[at + 1])
        here = sizes.pop(at)
        neighbour = at - 1 if left else at
        sizes[neighbour] += here
        del ends[neighbour]
    return ends


def _round_steps(largest: int) -> Iterator[int]:
    """2, 5, 10, 20, 50 and so on, below the largest number."""
    for power in count():
        for digit in (1, 2, 5):
            if (step := digit * 10**power) >= largest:
                return
            if step > 1:
                yield step
