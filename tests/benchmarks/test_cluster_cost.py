"""The cost model adds up, and its page shows what it says of the committed results."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cluster import cost_page
from benchmarks.cluster.cost_model import Assumed, Layout, Step, image_ms, main, measured_steps, predict

ROOT = Path(__file__).parents[2]
FETCH: dict[Layout, float] = {"folder": 2.0, "list": 2.0, "tars": 0.5, "local": 0.0}
STEP = Step(4000, 30, 2, FETCH, read_ms=0.5, recognise_ms=1.0, rows_ms=0.25, proof_ms=0.002)
ROUND = Assumed(
    pipeline_ms=0.25, start_cpu_seconds=0, start_seconds=0, vcpus=10, shard_bytes=4e6, bytes_per_request=1e6
)
STEPS = st.builds(
    Step,
    st.floats(100, 1e6),
    st.floats(1, 100),
    st.floats(1, 3),
    st.just(FETCH),
    *[st.floats(0.001, 100)] * 4,
    st.none() | st.floats(1, 1e5),
)


def test_a_run_over_objects_by_hand() -> None:
    cost = predict(STEP, 1_000_000, "folder", ROUND)
    assert cost.cpu_seconds == {
        **{"fetch": 2000, "read": 500, "recognise": 1000, "write": 250, "pipeline": 250},
        "start": 0,
    }
    assert cost.bytes_read == 4e9
    assert (cost.gets, cost.puts) == (2_000_000 + 1000, 200 + 1000)  # the proof reads again; lists of 1,000
    assert (cost.plan_seconds, cost.proof_cpu_seconds) == (100, 2 + 1)
    assert cost.proof_seconds == 1000 * 0.1 / 32  # it waits for answers
    found = cost.seconds(4)
    assert found["CPU"] == 4000 / 40 and found["store"] == 2_001_000 / 5500
    assert found["latency"] == 2_000_000 * 0.1 / 32 / 40
    assert cost.hours(4) == pytest.approx((100 + 3.125 + 2_001_000 / 5500) / 3600)
    assert cost.dollars["requests"] == pytest.approx(2.001 * 0.4 + 1.2 * 0.005)
    assert cost.dollars["machines"] == pytest.approx(4003 / 3600 * 0.0425)
    assert image_ms(STEP, "folder", ROUND) == 4


def test_a_run_over_tars_by_hand() -> None:
    cost = predict(STEP, 1_000_000, "tars", ROUND)
    assert cost.gets == 1000 + 4 * 1000 + 2 * 1000  # tars, their pieces, their parts
    assert cost.puts == 1000 + 1 and cost.plan_seconds == 0.1
    assert cost.seconds(4)["CPU"] == 2500 / 40
    assert cost.seconds(4)["latency"] == 5000 * 0.1 / 40  # one request after the other


def test_a_gpu_takes_the_network_off_the_cpu() -> None:
    cost = predict(replace(STEP, recognise_ms=0, images_per_gpu_second=500), 10**6, "tars", ROUND)
    assert cost.gpu_seconds == 2000 and cost.seconds(4)["GPU"] == 500
    assert cost.dollars["GPUs"] == 0  # nothing is assumed
    priced = replace(cost, assumed=replace(ROUND, dollars_per_gpu_hour=3.6))
    assert priced.dollars["GPUs"] == pytest.approx(2)


@given(STEPS, st.integers(1, 10**11), st.sampled_from([*FETCH]), st.floats(0.1, 100))
def test_a_deadline_takes_as_many_machines_as_it_says(
    step: Step, images: int, layout: Layout, hours: float
) -> None:
    cost = predict(step, images, layout, Assumed())
    found = cost.machines_within(hours)
    if found is None:
        assert cost.alone >= hours * 3600
        return
    machines, prefixes = found
    enough = replace(cost, assumed=replace(cost.assumed, prefixes=prefixes))
    assert enough.hours(machines) <= hours * (1 + 1e-9)
    if machines > 1:
        assert enough.hours(machines - 1) > hours * (1 - 1e-9)
    if prefixes > 1:
        fewer = replace(cost, assumed=replace(cost.assumed, prefixes=prefixes - 1))
        assert fewer.hours(machines) > hours * (1 - 1e-9)


def test_the_page_has_the_tables_and_the_picture_of_the_committed_results(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "cluster-cost.md").read_text(encoding="utf-8")
    assert cost_page.written(page, Assumed()) == page
    cost_page.draw(tmp_path / "x.svg", Assumed())
    assert (tmp_path / "x.svg").read_bytes() == (ROOT / "docs/pictures/cluster-cost.svg").read_bytes()


def test_the_proof_keeps_its_bars() -> None:
    result = json.loads((ROOT / "benchmarks/results/cluster_reconcile--avx2--cpu.json").read_text("utf-8"))
    for name, row in result["rows"].items():
        assert max(row["peak_mb"]) < 2000 and max(row["seconds"]) < 300, name
    assert {row["inputs"] for row in result["rows"].values()} == {10**6, 10**7}


def test_a_run_is_held_against_what_was_predicted(tmp_path: Path, capsys: Any) -> None:
    manifest = tmp_path / "manifest.json"
    step = measured_steps("words", "latin")
    took = image_ms(step, "local", Assumed()) * 3
    run = {"images_by_node": {"a": 1000, "b": 2000}, "worker_cpu_seconds": took * 1.25}
    manifest.write_text(json.dumps({"this_run": run}))
    main(["--manifest", str(manifest), "--network", "latin"])
    assert capsys.readouterr().out.splitlines()[-1] == "measured / predicted  1.25"
    run["images_by_node"] = {}
    manifest.write_text(json.dumps({"this_run": run}))
    with pytest.raises(SystemExit, match="no images"):
        main(["--manifest", str(manifest)])


def test_a_gpu_of_the_readers_has_columns(capsys: Any) -> None:
    main(["--gpu-rate", "20000", "--gpu-price", "1.5"])
    said = capsys.readouterr().out
    [row] = re.findall(r"^\| 10\^8, tars, latin \| (.*) \|$", said, re.M)
    assert float(row.split(" | ")[1]) == pytest.approx(1e8 / 20000 / 3600, rel=0.01)
