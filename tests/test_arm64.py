"""What container/arm64.py compares, and what it tells an emulated process of its CPU, without emulation."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from container.arm64 import difference
from container.emulation import cpuinfo, features
from crnn_deploy.runtime.backends import cpu

ROOT = Path(__file__).parents[1]
# arch/arm64/include/uapi/asm/hwcap.h of Linux
AT_HWCAP, AT_HWCAP2 = 16, 26
FP, ASIMD, ATOMICS, ASIMDDP, SVE, PACG = 1 << 0, 1 << 1, 1 << 8, 1 << 20, 1 << 22, 1 << 31
DCPODP, I8MM, BF16, SME, SME_FA64 = 1 << 0, 1 << 13, 1 << 14, 1 << 23, 1 << 30


def record(name: str, text: str = "a", confidence: float | None = 0.5, status: str = "ok") -> dict[str, Any]:
    return {"path": name, "text": text, "confidence": confidence, "status": status}


@pytest.mark.parametrize(
    ("here", "there", "texts", "confidence"),
    [
        ([record("x/1.png")], [record("y/1.png")], [], 0.0),
        ([record("1", "a"), record("2", "b")], [record("1", "a"), record("2", "c")], ["2"], 0.0),
        ([record("1"), record("2")], [record("1"), record("2", confidence=0.75)], [], 0.25),
        ([record("1")], [record("1", "", None, "error")], ["1"], 0.5),
    ],
)
def test_what_differs_is_told(
    here: list[dict[str, Any]], there: list[dict[str, Any]], texts: list[str], confidence: float
) -> None:
    found = difference(here, there)
    assert (found.texts, found.confidence) == (texts, confidence)


@pytest.mark.parametrize("there", [[], [record("2")], [record("1"), record("2")]])
def test_records_of_other_images_are_refused(there: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="here"):
        difference([record("1")], there)


@pytest.mark.parametrize(
    ("hwcap", "hwcap2", "kind"),
    [
        (FP | ASIMD, 0, "arm64"),
        (FP | ASIMD | ATOMICS | ASIMDDP, 0, "arm64-dotprod"),
        (FP | ASIMD | ASIMDDP | SVE | PACG, DCPODP | I8MM | BF16 | SME_FA64, "arm64-dotprod-i8mm-bf16"),
    ],
)
def test_the_cpu_that_is_told_is_of_its_kind(hwcap: int, hwcap2: int, kind: str) -> None:
    vector = struct.pack("<6Q", AT_HWCAP, hwcap, AT_HWCAP2, hwcap2, 0, 0)
    told = cpuinfo(features(vector), 3)
    lines = [line.partition(":")[2] for line in told.splitlines() if line.startswith("Features")]
    assert len(lines) == 3 and len(set(lines)) == 1
    assert cpu.kind_of("aarch64", frozenset(lines[0].split())) == kind


def test_each_feature_has_its_bit() -> None:
    first = struct.pack("<4Q", AT_HWCAP, FP | SVE | PACG, AT_HWCAP2, DCPODP | SME | SME_FA64)
    assert features(first) == ["fp", "sve", "pacg", "dcpodp", "sme", "smefa64"]


def test_missing_packages_are_named_in_one_line(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "container.arm64", str(tmp_path / "work")]
    done = subprocess.run(line, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("apt-get install debootstrap qemu-user-static")
    assert not (tmp_path / "work").exists()


RESULTS = sorted((ROOT / "benchmarks" / "results").glob("arm64_emulated--*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_committed_result_passed_and_has_no_speed(path: Path) -> None:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["passed"] and result["doctor"] and result["speed"] == "not measured"
    assert "emulated by qemu-user" in result["machine"] and result["images with other pixels"] == []
    assert result["rows"].keys() == {"fp32", "int8"}
    for row in result["rows"].values():
        assert row["same texts"] == row["images"] == len(list((ROOT / "examples" / "images").iterdir()))
        assert row["largest difference of confidence"] <= row["tolerance"]
        assert row["batches of 1 and 8 equal to the bit"]


def test_both_an_old_core_and_all_that_is_emulated_have_results() -> None:
    kinds = {path.stem.split("--")[1] for path in RESULTS}
    assert kinds >= {"arm64", "arm64-dotprod-i8mm-bf16"}
