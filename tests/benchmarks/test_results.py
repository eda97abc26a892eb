"""The committed results are what the benchmark scripts write."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from benchmarks.speed.compare import quantities
from crnn_deploy.recipes.recipe import RECIPES

ROOT = Path(__file__).parents[2]
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_says_where_it_comes_from(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    suite, kind, device = path.stem.split("--")
    assert result["suite"] == suite and result["device"] == device
    if device == "cpu":  # one may be measured in several ways: int8--avx2-uint8--cpu.json
        assert f"{kind}-".startswith(f"{result['cpu']}-")
    assert result["machine"] and result["versions"]["crnn-deploy"]
    rows = [value for value in result.values() if isinstance(value, dict) and value is not result["versions"]]
    assert rows


# of the scripts that share benchmarks/common.py
SPEED = {
    "end_to_end",
    "jpeg",
    "latency",
    "lstm_kernels",
    "operators",
    "page_boxes",
    "peers",
    "scaling",
    "shipped_models",
    "startup",
    "throughput",
    "winograd",
}
SPEED_RESULTS = [path for path in RESULTS if path.stem.split("--")[0] in SPEED]
UNITS = {"CPU ms", "ms", "MB"}


def numbers(value: Any) -> list[float]:
    """All numbers of a result, however deep."""
    if isinstance(value, dict):
        return [number for inner in value.values() for number in numbers(inner)]
    if isinstance(value, list):
        return [number for inner in value for number in numbers(inner)]
    return [value] if isinstance(value, int | float) else []


def test_every_benchmark_of_speed_has_a_result() -> None:
    assert {path.stem.split("--")[0] for path in SPEED_RESULTS} == SPEED


@pytest.mark.parametrize("path", SPEED_RESULTS, ids=lambda path: path.stem)
def test_a_result_of_speed_keeps_its_rounds(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result.keys() == {"suite", "machine", "cpu", "device", "versions", "load", "rows"}
    assert result["load"] >= 0 and all(isinstance(row, dict) and row for row in result["rows"].values())
    assert all(abs(number) < float("inf") for number in numbers(result))  # NaN is none either
    found = dict(quantities(result["rows"]))
    assert found
    for name, row in found.items():
        assert row.keys() == {"unit", "median", "lower", "upper", "rounds"}, name
        assert row["unit"] in UNITS and row["rounds"] and min(row["rounds"]) > 0, name
        assert row["lower"] <= row["median"] <= row["upper"], name
        assert row["median"] == pytest.approx(statistics.median(row["rounds"]), rel=1e-3), name


def test_every_recipe_is_proven_and_stands_in_the_table() -> None:
    [path] = (path for path in RESULTS if path.stem.startswith("export_parity--"))
    result = json.loads(path.read_text(encoding="utf-8"))
    built_in = {recipe.name for recipe in RECIPES.values() if recipe.family is not None}
    names = built_in | {file.stem for file in (ROOT / "export").glob("*.toml") if file.stem != "template"}
    assert names <= result.keys()
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    table = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    shown = {
        name.replace("(trained)", "").strip(): float(cells[-3])
        for cells in table
        if len(cells) == 8 and "e-0" in cells[-3]
        for name in cells[1].split(",")
    }
    assert shown.keys() == names
    for name in names:
        row = result[name]
        assert row["passed"] and row["flips"] == row["text_changes"] == 0 and row["images"] >= 12
        assert row["max_delta"] <= shown[name] * 1.05  # shown with two digits


def test_the_pixels_of_the_table_are_those_that_were_compared() -> None:
    result = json.loads((ROOT / "benchmarks/results/family_pixels--avx2--cpu.json").read_text("utf-8"))
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    table = [line.split("|") for line in page.splitlines() if line.startswith("| ")]
    said = {
        name.strip(): cells[-2].strip()
        for cells in table
        if len(cells) == 8 and "e-0" in cells[-3]
        for name in cells[1].split(",")
    }
    for row in result["rows"]:
        assert row["images"] >= 1000 and row["other_size"] == 0 and row["most"] < 1.001, row
        if row["recipe"] in said:
            equal = said[row["recipe"]].startswith("equal")
            assert equal == (row["differ"] == 0) and (equal or said[row["recipe"]] == "within 1 level"), row
    assert max(row["differ"] for row in result["rows"]) == 96  # said below the table


def test_english_g2_reads_what_easyocr_reads() -> None:
    result = json.loads((ROOT / "benchmarks/results/english_g2--avx2--cpu.json").read_text("utf-8"))
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    for row in result["rows"].values():
        assert row["equal"] == row["images"] >= 158 and row["tall"] == 40
        assert f"{row['equal']} of {row['images']}" in page
