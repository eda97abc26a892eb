"""The results in benchmarks/results, by the kind of CPU that they were measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "Rows", "results_of"]

RESULTS = Path(__file__).parent / "results"
Rows = dict[str, dict[str, Any]]


def results_of(suite: str, folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The result of a script for each kind of CPU, by the kinds in order.

    A result that was measured in another way, such as int8--avx2-uint8--cpu.json, is none of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob(f"{suite}--*--cpu.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if path.stem.split("--")[1] == result["cpu"]:
            found[result["cpu"]] = result
    return found
