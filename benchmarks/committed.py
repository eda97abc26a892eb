"""The results in benchmarks/results, by the kind of CPU that they were measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["AVX2_ALONE", "RESULTS", "Rows", "results_of"]

RESULTS = Path(__file__).parent / "results"
Rows = dict[str, dict[str, Any]]
AVX2_ALONE = "avx2-alone"  # the kind of a CPU that `speed.avx2_alone` hid instructions of


def results_of(suite: str, folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The result of a script for each kind of CPU, by the kinds in order.

    A result that was measured in another way, such as int8--avx2-uint8--cpu.json, is none of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(f"{suite}--*--cpu.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        kind = path.stem.split("--")[1]
        if kind in (result["cpu"], AVX2_ALONE):
            found[kind] = result
    return found
