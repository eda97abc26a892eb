"""What got slower (or larger) between two results files, by more than noise.

    python -m benchmarks.speed.compare BEFORE.json AFTER.json [--tolerance 0.1]

The script compares every quantity whose rounds are in both files. Scripts that use `benchmarks.common` write
rounds. A quantity is worse if both are true:

- the ratio of the medians is more than 1 + tolerance
- a two-sided Mann-Whitney U test finds the rounds different at 1 % (Mann & Whitney 1947; exact for few
  rounds, ties by mid-ranks); each file needs at least five rounds for this

If the machine was busier in one run than in the other, that shows too, so the load is printed. Files of
different machines or kinds of CPU are refused. If something got worse, the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, erfc, sqrt
from pathlib import Path
from typing import Any

LEVEL = 0.01  # of the test
EXACT = 20_000  # more ways than these to split the rounds, and the normal approximation serves


@dataclass(frozen=True)
class Pair:
    """One quantity in both files."""

    name: str
    unit: str
    before: float  # medians
    after: float
    p: float  # that both are rounds of the same

    @property
    def ratio(self) -> float:
        return self.after / self.before

    def verdict(self, tolerance: float) -> str:
        if self.p >= LEVEL or 1 / (1 + tolerance) <= self.ratio <= 1 + tolerance:
            return "same"
        return "worse" if self.ratio > 1 else "better"


def quantities(value: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """What was measured in rounds, by its path in the file; less is better in all of them."""
    if isinstance(value, dict):
        if isinstance(value.get("rounds"), list) and "unit" in value:
            yield name, value
        else:
            for key, inner in value.items():
                yield from quantities(inner, f"{name} / {key}" if name else key)


def same_chance(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of the Mann-Whitney U test."""
    n, m = len(first), len(second)
    together = [*first, *second]
    ranks = [
        sum(other < value for other in together) + (sum(other == value for other in together) + 1) / 2
        for value in together
    ]
    middle = n * (n + m + 1) / 2
    distance = abs(sum(ranks[:n]) - middle)
    if comb(n + m, n) <= EXACT:
        sums = [sum(chosen) for chosen in combinations(ranks, n)]
        return sum(abs(one - middle) >= distance - 1e-9 for one in sums) / len(sums)
    spread = sqrt(n * m * statistics.pvariance(ranks) / (n + m - 1))
    return erfc(max(0.0, distance - 0.5) / spread / sqrt(2)) if spread else 1.0


def pairs(before: dict[str, Any], after: dict[str, Any]) -> list[Pair]:
    """The quantities that both files have."""
    known = dict(quantities(before["rows"]))
    found = []
    for name, new in quantities(after["rows"]):
        if (old := known.get(name)) and old["unit"] == new["unit"]:
            chance = same_chance(old["rounds"], new["rounds"])
            found.append(Pair(name, new["unit"], old["median"], new["median"], chance))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="Compare with this results file.")
    parser.add_argument("after", type=Path, help="Compare this results file.")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.1,
        help="Call a quantity worse only if it grows by more than this share. The default is %(default)s.",
    )
    given = parser.parse_args(arguments)
    before, after = (json.loads(path.read_text(encoding="utf-8")) for path in (given.before, given.after))
    for key in ("suite", "machine", "cpu", "device"):
        if before[key] != after[key]:
            parser.error(f"{key}: {before[key]!r} before, {after[key]!r} after; nothing to compare")
    found = pairs(before, after) if "rows" in before and "rows" in after else []
    if not found:
        parser.error("the files have no quantity in common whose rounds they keep")
    counts = dict.fromkeys(("worse", "better", "same"), 0)
    for pair in sorted(found, key=lambda pair: -pair.ratio):
        verdict = pair.verdict(given.tolerance)
        counts[verdict] += 1
        if verdict != "same":
            print(
                f"{verdict:6} x {pair.ratio:.2f}  {pair.before:g} -> {pair.after:g} {pair.unit} "
                f"(p {pair.p:.3f})  {pair.name}"
            )
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    changed = {
        name: (before["versions"].get(name), after["versions"].get(name))
        for name in before["versions"].keys() | after["versions"].keys()
        if before["versions"].get(name) != after["versions"].get(name)
    }
    for name, (old, new) in sorted(changed.items()):
        print(f"{name}: {old} -> {new}")
    if "load" in before and "load" in after:
        print(f"load of the machine: {before['load']} -> {after['load']}")
    return 1 if counts["worse"] else 0


if __name__ == "__main__":
    sys.exit(main())
