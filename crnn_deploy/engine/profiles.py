"""Which input sizes an engine serves: optimisation profiles from the manifest's width rule."""

from __future__ import annotations

import math
from dataclasses import replace

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.manifest import Manifest, WidthRule
from crnn_deploy.runtime.backends.engine_file import Profile, Range

__all__ = ["ProfileInvalid", "covered", "profiles_of"]


class ProfileInvalid(CrnnDeployError, ValueError):
    """Sizes that the network or its width rule does not have."""


def profiles_of(
    manifest: Manifest, batch: Range, widths: Range | None = None, count: int | None = None
) -> tuple[Profile, ...]:
    """Ranges of width buckets, one after the other without a gap, each a like factor wider.

    batch: of no more images than the manifest lets run together
    widths: by default all that the rule gives. The width they are tuned for is used in the range it lies in;
        other ranges are tuned for their geometric mean
    count: by default one profile for each doubling of the width
    Raises ProfileInvalid.
    """
    rule = manifest.width
    if manifest.max_batch is not None:
        sizes = (batch.minimum, batch.optimum, batch.maximum)
        batch = Range(*(min(size, manifest.max_batch) for size in sizes))
    if widths is None:
        widths, tuned = Range(rule.minimum, rule.minimum, rule.maximum), 0
    else:
        _check(widths, manifest)
        tuned = widths.optimum
    buckets = covered(rule, widths).buckets()
    if count is None:
        count = min(len(buckets), max(1, round(math.log2(widths.maximum / widths.minimum))))
    if not 1 <= count <= len(buckets):
        raise ProfileInvalid(f"{count} profiles are too many for an engine of {len(buckets)} widths")
    ends = _ends(buckets, count)
    starts = [buckets[0], *(end + rule.multiple for end in ends[:-1])]
    return tuple(
        Profile(batch, Range(low, tuned if low <= tuned <= high else _middle(low, high, rule), high))
        for low, high in zip(starts, ends, strict=True)
    )


def _middle(low: int, high: int, rule: WidthRule) -> int:
    """The bucket at the geometric mean."""
    return low + round((math.sqrt(low * high) - low) / rule.multiple) * rule.multiple


def covered(rule: WidthRule, widths: Range) -> WidthRule:
    """The rule of an engine that takes no other widths than these."""
    return replace(rule, minimum=widths.minimum, maximum=widths.maximum)


def _check(widths: Range, manifest: Manifest) -> None:
    rule = manifest.width
    outside = [w for w in (widths.minimum, widths.maximum) if not rule.minimum <= w <= rule.maximum]
    if outside:
        few = " (no time step is left)" if manifest.steps(widths.minimum) < 1 else ""
        raise ProfileInvalid(
            f"--width-range {widths}: the model's rule gives widths from {rule.minimum} to {rule.maximum}, "
            f"and never {outside[0]}{few}"
        )
    if widths.minimum % rule.multiple or widths.maximum % rule.multiple:
        raise ProfileInvalid(f"--width-range {widths}: the model's widths are multiples of {rule.multiple}")


def _ends(buckets: range, count: int) -> list[int]:
    """The largest bucket of each range: as even a factor as the buckets allow, none empty."""
    first, last = buckets[0], buckets[-1]
    ends: list[int] = []
    for at in range(1, count):
        exact = first * (last / first) ** (at / count)
        index = int((exact - first) // buckets.step)
        previous = buckets.index(ends[-1]) if ends else -1
        ends.append(buckets[min(max(index, previous + 1), len(buckets) - 1 - (count - at))])
    return [*ends, last]
