"""The benchmark of faults: it tells rows that are lost, doubled or changed, and draws every fault."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pa = pytest.importorskip("pyarrow", reason="needs the extra ray")
pq = pytest.importorskip("pyarrow.parquet", reason="needs the extra ray")

from benchmarks.cluster.faults import FAULTS, Place, Run, compared, expected_of, summary  # noqa: E402

PER_FILE = 3
CLEAN = {"rows": 8, "errors": 1, "lost": 0, "doubled": 0, "of no input": 0, "changed": 0}
Rows = list[dict[str, Any]]


def place(folder: Path) -> Place:
    from pyarrow.fs import LocalFileSystem

    return Place(str(folder), str(folder), LocalFileSystem())


def records(folder: Path) -> Rows:
    """Seven images and one that cannot be read, as `infer` has them."""
    found: Rows = [
        {"path": f"{folder}/a/{at}.jpg", "text": f"word {at}", "confidence": 1 / (at + 3), "error": None}
        for at in range(7)
    ]
    return [*found, {"path": f"{folder}/broken.jpg", "text": "", "confidence": None, "error": "empty file"}]


def compare(tmp_path: Path, change: Callable[[Rows], object]) -> dict[str, int]:
    """What is said of an output in which `change` has changed the rows."""
    images, out = tmp_path / "images", tmp_path / "out"
    whole = records(images)
    (tmp_path / "infer.jsonl").write_text("".join(json.dumps(record) + "\n" for record in whole))
    rows: Rows = [
        {**row, "id": at // PER_FILE << 32 | at % PER_FILE} for at, row in enumerate(records(images))
    ]
    change(rows)
    (out / "_run").mkdir(parents=True)
    (out / "_run" / "plan.parquet").write_bytes(b"which readers of rows pass over")
    for at in range(0, len(rows), PER_FILE):
        part = out / "00000" / f"part-{at // PER_FILE:08}.parquet"
        part.parent.mkdir(exist_ok=True)
        fields = {"id": pa.int64(), "path": pa.string(), "text": pa.string()}
        schema = pa.schema({**fields, "confidence": pa.float64(), "error": pa.string()})
        pq.write_table(pa.Table.from_pylist(rows[at : at + PER_FILE], schema), part)
    assert place(out).parts() == -(-len(rows) // PER_FILE)
    expected = expected_of(tmp_path / "infer.jsonl", images)
    return compared(place(out), place(images), expected, PER_FILE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: None, {}),
        (lambda rows: rows.reverse(), {}),
        (lambda rows: rows.pop(4), {"rows": 7, "lost": 2}),  # a name and an id
        (lambda rows: rows.append(rows[2]), {"rows": 9, "doubled": 2}),
        (lambda rows: rows.append({**rows[2], "id": 9 << 32}), {"rows": 9, "doubled": 1, "of no input": 1}),
        (lambda rows: rows[1].update(id=rows[0]["id"]), {"lost": 1, "doubled": 1}),
        (lambda rows: rows[3].update(path="x.jpg"), {"lost": 1, "of no input": 1}),
        (lambda rows: rows[3].update(text="word 4"), {"changed": 1}),
        (lambda rows: rows[3].update(confidence=rows[3]["confidence"] * (1 + 2**-52)), {"changed": 1}),
        (lambda rows: rows[5].update(error="no"), {"errors": 2, "changed": 1}),
        (lambda rows: rows[7].update(error=None), {"errors": 0, "changed": 1}),
    ],
)
def test_each_difference_is_told(
    tmp_path: Path, change: Callable[[Rows], object], told: dict[str, int]
) -> None:
    assert compare(tmp_path, change) == {**CLEAN, **told}


def test_every_fault_comes_and_the_store_and_the_disk_where_they_can() -> None:
    rng = random.Random(0)
    runs = [Run.drawn(number, 60, FAULTS, rng) for number in range(201)]
    assert runs[0].faults == []
    for number, run in enumerate(runs[1:], 1):
        kinds = [fault.kind for fault in run.faults]
        assert FAULTS[(number - 1) % len(FAULTS)] in kinds and 1 <= len(kinds) <= 3
        assert ("store" in kinds) <= (run.where == "store") and ("disk" in kinds) is (run.where == "disk")
        assert [fault.at for fault in run.faults] == sorted(fault.at for fault in run.faults)
        assert all(-1 <= fault.at < 60 for fault in run.faults)
    assert any(fault.at == -1 for run in runs for fault in run.faults)
    alone = [Run.drawn(number, 60, [kind for kind in FAULTS if kind != "store"], rng) for number in range(99)]
    assert not [run for run in alone if run.where == "store"]


def test_the_runs_are_summed_up() -> None:
    row = {**CLEAN, "faults": [{"fault": "node"}], "whole": True, "manifest agrees": True}
    row |= {"starts": 2, "seconds": 1.5}
    lost = {**row, "lost": 2, "whole": False, "faults": [{"fault": "node"}, {"fault": "driver"}]}
    told = summary({"run 1": row, "run 2": lost})
    assert told["runs"] == 2 and told["whole"] == 1 and told["lost"] == 2 and told["starts"] == 4
    assert told["faults"] == {"node": 2, "driver": 1} and told["rows"] == 16
