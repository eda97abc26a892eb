"""The benchmarks of speed: what they measure is what they say, and what got slower is told from noise."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import benchmarks.speed.compare
from benchmarks.committed import RESULTS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SCRIPTS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").glob("*/*.py")
    if '__name__ == "__main__"' in path.read_text(encoding="utf-8")
)
ASK_EACH = """
import contextlib, io, json, runpy, sys
helps = {}
for name in json.loads(sys.argv[1]):
    sys.argv[1:], said = ["--help"], io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            said.write(f"exit code {end.code}")
    helps[name] = said.getvalue()
print(json.dumps(helps))
"""


def test_every_script_answers_help_with_how_it_is_run() -> None:
    """All of them in one process, which imports the libraries once."""
    done = subprocess.run(
        [sys.executable, "-c", ASK_EACH, json.dumps(SCRIPTS)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    helps = json.loads(done.stdout)
    assert helps.keys() == set(SCRIPTS) and len(SCRIPTS) == 53
    for name, said in helps.items():
        assert said.startswith("usage:") and said.endswith("exit code 0"), (name, said)
        assert f"    python -m {name} " in said, name


def test_the_index_names_every_script_once() -> None:
    index = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert sorted(f"benchmarks.{name}" for name in re.findall(r"^- `([a-z_.0-9]+)", index, re.M)) == SCRIPTS


def results(path: Path, rounds: dict[str, list[float]], **header: str) -> Path:
    from benchmarks.common import measured

    rows = {name: {"cpu_per_image": measured(values, "CPU ms")} for name, values in rounds.items()}
    plain: dict[str, Any] = {
        "suite": "s",
        "machine": "m",
        "cpu": "avx2",
        "device": "cpu",
        "versions": {"numpy": "2"},
    }
    path.write_text(json.dumps({**plain, **header, "rows": rows}))
    return path


QUIET = [10.0, 10.1, 10.2, 9.9, 10.3, 10.05]
SLOWER = [value * 1.3 for value in QUIET]
NOISY = [8.0, 14.0, 9.0, 13.0, 10.0, 16.0]


@pytest.mark.parametrize(
    ("before", "after", "code", "line"),
    [
        (QUIET, SLOWER, 1, "worse  x 1.30"),
        (SLOWER, QUIET, 0, "better x 0.77"),
        (QUIET, [value * 1.04 for value in QUIET], 0, "1 same"),  # within the tolerance
        (QUIET, NOISY, 0, "1 same"),  # the median is 15 % higher, the rounds overlap
        (QUIET[:3], SLOWER[:3], 0, "1 same"),  # three rounds cannot show it
    ],
)
def test_what_got_slower_is_told_from_noise(
    before: list[float], after: list[float], code: int, line: str, tmp_path: Path, capsys: Any
) -> None:
    first, second = results(tmp_path / "a", {"x": before}), results(tmp_path / "b", {"x": after})
    assert benchmarks.speed.compare.main([str(first), str(second)]) == code
    assert line in capsys.readouterr().out


def test_a_quantity_of_one_file_is_passed_over(tmp_path: Path, capsys: Any) -> None:
    first = results(tmp_path / "a", {"x": QUIET, "gone": QUIET})
    second = results(tmp_path / "b", {"x": QUIET, "new": SLOWER})
    assert benchmarks.speed.compare.main([str(first), str(second)]) == 0
    assert "0 worse, 0 better, 1 same" in capsys.readouterr().out


@pytest.mark.parametrize("header", [{"machine": "another"}, {"suite": "another"}, {"cpu": "another"}])
def test_results_of_other_machines_are_refused(header: dict[str, str], tmp_path: Path, capsys: Any) -> None:
    first, second = results(tmp_path / "a", {"x": QUIET}), results(tmp_path / "b", {"x": QUIET}, **header)
    with pytest.raises(SystemExit) as stopped:
        benchmarks.speed.compare.main([str(first), str(second)])
    assert stopped.value.code == 2
    assert "another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [  # scipy 1.17.1's mannwhitneyu, method="exact" and for the last two "asymptotic"
        ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 0.007936507936507936),
        ([1, 4, 6, 7], [2, 3, 5, 8, 9], 0.7301587301587302),
        ([1.1, 2.2, 3.3], [0.5, 2.0, 4.0], 1.0),
        ([*range(0, 30, 2)], [x + 5.5 for x in range(0, 30, 2)], 0.15846460599820356),
        ([1, 2, 2, 3] * 3, [2, 3, 3, 4] * 3, 0.006527484479669648),
    ],
)
def test_the_test_is_that_of_mann_and_whitney(first: list[float], second: list[float], p: float) -> None:
    assert benchmarks.speed.compare.same_chance(first, second) == pytest.approx(p, rel=1e-9)


@given(
    st.lists(st.integers(0, 9), min_size=2, max_size=6), st.lists(st.integers(0, 9), min_size=2, max_size=6)
)
def test_the_chance_is_one_and_does_not_care_which_came_first(first: list[int], second: list[int]) -> None:
    p = benchmarks.speed.compare.same_chance(first, second)
    assert 0 < p <= 1
    assert p == pytest.approx(benchmarks.speed.compare.same_chance(second, first))
    assert benchmarks.speed.compare.same_chance(first, first) == 1


def test_rounds_are_kept_beside_their_median_and_quartiles() -> None:
    from benchmarks.common import measured

    values = [3.0, 1.0, 2.0, 5.0, 4.0]
    row = measured(values, "CPU ms")
    assert row["rounds"] == values
    lower, median, upper = np.percentile(values, [25, 50, 75])
    assert (row["lower"], row["median"], row["upper"]) == (lower, median, upper)
    assert measured([2.0], "ms")["lower"] == 2.0


def test_tasks_run_in_turn_twice_and_the_second_time_counts() -> None:
    from benchmarks.common import cpu_in_turn

    called: list[str] = []

    def task(name: str) -> None:
        called.append(name)
        until = time.process_time() + (0.05 if len(called) % 2 else 0)
        while time.process_time() < until:
            pass

    spent = cpu_in_turn({name: partial(task, name) for name in ("a", "b")}, {"a": 1, "b": 4}, 3)
    assert called == ["a", "a", "b", "b"] * 3
    assert [len(values) for values in spent.values()] == [3, 3]
    # the first times, of 50 ms each, are not counted
    assert all(value < 50 for value in (*spent["a"], *spent["b"]))


@pytest.fixture
def networks(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scripts get a tiny network in place of those that they export."""
    import benchmarks.common

    def given(names: list[str], classes: int = 37) -> dict[str, Path]:
        return dict.fromkeys(names, tiny_onnx)

    monkeypatch.setattr(benchmarks.common, "export_networks", given)
    for script in ("end_to_end", "latency", "peers", "scaling", "startup", "throughput", "winograd"):
        monkeypatch.setattr(import_module(f"benchmarks.speed.{script}"), "export_networks", given)
    return tiny_onnx


def quantities_of(path: Path, suite: str) -> dict[str, dict[str, Any]]:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["suite"] == suite and result["versions"]["crnn-deploy"]
    return dict(benchmarks.speed.compare.quantities(result["rows"]))


def test_throughput_measures_every_engine_at_every_batch_and_width(networks: Path, tmp_path: Path) -> None:
    import benchmarks.speed.throughput

    sizes = ["--network", "tiny", "--batches", "1,2", "--widths", "104,120"]
    benchmarks.speed.throughput.main([*sizes, "--rounds", "2", "--json", str(tmp_path / "x")])
    rows = json.loads((tmp_path / "x").read_text())["rows"]
    cells = {(row["backend"], row["batch"], row["width"]) for row in rows.values() if "backend" in row}
    engines = {engine for engine, _, _ in cells}
    assert {"ONNX Runtime fp32", "ONNX Runtime int8", "PyTorch eager"} <= engines
    assert len(cells) == 4 * len(engines)
    for name, row in quantities_of(tmp_path / "x", "throughput").items():
        assert len(row["rounds"]) == 2 and row["median"] > 0, name


def test_latency_has_percentiles_in_order(
    networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import benchmarks.speed.latency
    from crnn_deploy.networks.crnn import CRNN

    small = CRNN(32, 1, 11, hidden=8, widths=(4, 4, 8, 8, 8, 8, 8))
    monkeypatch.setattr(benchmarks.speed.latency, "module", lambda network: small)
    benchmarks.speed.latency.main(
        ["--words", "3", "--rounds", "2", "--threads", "1", "--json", str(tmp_path / "x")]
    )
    rows = json.loads((tmp_path / "x").read_text())["rows"]
    assert len(rows) == 5
    for row in rows.values():
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]


def test_a_loss_shows_in_what_infer_costs_more_than_inference_alone(networks: Path, tmp_path: Path) -> None:
    import benchmarks.speed.end_to_end

    few = [
        "--images",
        "16",
        "--paper-images",
        "16",
        "--rounds",
        "1",
        "--networks",
        "compact",
        "--models",
        "latin",
        "--workers",
        "1",
    ]
    benchmarks.speed.end_to_end.main([*few, "--json", str(tmp_path / "x")])
    rows = json.loads((tmp_path / "x").read_text())["rows"]
    for name in ("compact", "latin"):
        assert rows[f"{name}: inference alone"]["of_inference_alone"] == 1
        assert 0 < rows[f"{name}: infer"]["of_inference_alone"] < 1  # start-up is counted


def test_padding_makes_every_batch_as_wide_as_its_widest_word() -> None:
    import benchmarks.speed.peers

    words = [np.ones((1, 32, width), np.float32) for width in (16, 40, 24)]
    [batch] = benchmarks.speed.peers.padded(words)
    assert batch.shape == (3, 1, 32, 40)
    assert batch.sum(axis=(1, 2, 3)).tolist() == [32 * 16, 32 * 40, 32 * 24]


def test_jpeg_decoders_give_the_same_picture() -> None:
    import benchmarks.speed.jpeg
    from crnn_deploy.evaluation.speed import draw_images

    [data] = draw_images("words", 1)
    found = benchmarks.speed.jpeg.decoders()
    whole = np.asarray(found["OpenCV, grey"](data), int)
    for times in benchmarks.speed.jpeg.REDUCED:
        small = np.asarray(found[f"OpenCV, grey, 1/{times}"](data))
        assert small.shape == (-(-whole.shape[0] // times), -(-whole.shape[1] // times))
    assert np.abs(np.asarray(found["decode_image"](data)).mean() - whole.mean()) < 2
    assert benchmarks.speed.jpeg.speeds([data] * 24, 1).keys() >= {"32-64 px high: OpenCV, BGR"}


def test_convolutions_end_before_the_recurrence(networks: Path, tmp_path: Path) -> None:
    import onnx

    import benchmarks.speed.winograd

    benchmarks.speed.winograd.convolutions(networks, tmp_path / "x.onnx")
    run = benchmarks.speed.winograd.onnx_runtime(tmp_path / "x.onnx", np.zeros((1, 1, 32, 104), np.float32))
    assert run().shape == (1, 8, 1, 27)  # a column for each step
    assert not any(node.op_type == "LSTM" for node in onnx.load(tmp_path / "x.onnx").graph.node)


def test_starts_are_measured_and_a_command_that_fails_is_told(tmp_path: Path) -> None:
    import benchmarks.speed.startup

    rows = benchmarks.speed.startup.starts({"x": [sys.executable, "-c", "pass"]}, 2)
    assert len(rows["x"]["cpu"]["rounds"]) == 2 and rows["x"]["clock"]["median"] > 0
    with pytest.raises(RuntimeError, match="y ended with 3"):
        benchmarks.speed.startup.starts({"y": [sys.executable, "-c", "raise SystemExit(3)"]}, 1)
    spent = benchmarks.speed.startup.imports([sys.executable, "-c", "import click"], 1)
    assert spent["click"] > 0 and "numpy" not in spent


def test_greedy_decoding_and_streams_are_counted(
    networks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import benchmarks.speed.scaling

    assert len(benchmarks.speed.scaling.decoding(1)) == 3 * len(benchmarks.speed.scaling.CLASSES)
    from benchmarks.common import word_files

    word_files(tmp_path / "words", 3)
    files = sorted((tmp_path / "words").glob("*/*.jpg"))
    monkeypatch.setattr(benchmarks.speed.scaling, "peak_memory", lambda: 0.0)  # of the tests' process
    [row] = benchmarks.speed.scaling.streams(networks, files, 1000).values()
    assert row["exit_code"] == 0 and row["images_per_second"] > 0


def test_results_of_one_name_are_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import benchmarks.accuracy.drawn_text

    monkeypatch.setattr("sys.argv", ["drawn_text", "--data", "a/labels.tsv", "--data", "b/labels.tsv"])
    with pytest.raises(SystemExit):
        benchmarks.accuracy.drawn_text.main()
    assert "two results would be called labels.tsv" in capsys.readouterr().err


def test_all_suites_of_speed_can_be_measured_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import benchmarks.speed.suites as suites

    measured = {path.stem.split("--")[0] for path in RESULTS.glob("*--cpu.json")}
    assert suites.SUITES.keys() == {name for name in measured if f"benchmarks.speed.{name}" in SCRIPTS}
    (tmp_path / "signed_numbers").mkdir()
    options: dict[str, list[str]] = {}
    for name in suites.SUITES:
        measuring = suites.command(name, tmp_path / "result.json", tmp_path)
        at = measuring.index("-m") + 1
        options[measuring[at]] = [word for word in measuring[at + 1 :] if word.startswith("--")]
        assert ("signed_numbers" in " ".join(measuring)) == (name == "int8")
    asked = subprocess.run(
        [sys.executable, "-c", ASK_EACH, json.dumps([*options])], capture_output=True, text=True, cwd=ROOT
    )
    helps = json.loads(asked.stdout.splitlines()[-1])
    assert all(f"{word} " in helps[name] for name, words in options.items() for word in words)

    commands = {"peers": "raise SystemExit(3)", "startup": "print('measured')"}
    monkeypatch.setattr(suites, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(suites, "command", lambda name, target, data: [sys.executable, "-c", commands[name]])
    with pytest.raises(SystemExit):
        suites.main(["peers", "startup", "--out", str(tmp_path / "out")])
    failed, ended = capsys.readouterr().out.splitlines()
    assert "FAILED with exit code 3" in failed and "startup--" in ended
    assert (tmp_path / "logs" / "startup.log").read_text() == "measured\n"

    def measured_now(name: str, command: Sequence[str], target: Path) -> bool:
        assert command[1:4] == ["-m", "benchmarks.speed.avx2_alone", sys.executable]
        target.write_text('{"suite": "peers", "cpu": "avx2"}', encoding="utf-8")
        return True

    monkeypatch.setattr(suites, "measure", measured_now)
    suites.main(["peers", "--out", str(tmp_path), "--avx2-alone"])
    result = json.loads((tmp_path / "peers--avx2-alone--cpu.json").read_text(encoding="utf-8"))
    assert result == {"suite": "peers", "cpu": "avx2-alone"}
    with pytest.raises(SystemExit):
        suites.main(["speed"])
    assert "there is no suite speed" in capsys.readouterr().err


def test_plots_are_the_same_twice(tmp_path: Path) -> None:
    import benchmarks.speed.plots

    drawn = []
    for name in ("a", "b"):
        benchmarks.speed.plots.main(["--out", str(tmp_path / name)])
        drawn.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert drawn[0] == drawn[1]
    assert drawn[0].keys() == {f"{suite}.svg" for suite in benchmarks.speed.plots.PLOTS}


def test_the_page_has_the_tables_of_the_committed_results() -> None:
    import benchmarks.speed.tables

    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    assert benchmarks.speed.tables.written(page, RESULTS) == page


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_a_page_has_the_accuracy_of_the_committed_results(page: Path) -> None:
    import benchmarks.accuracy.tables

    text = page.read_text(encoding="utf-8")
    assert benchmarks.accuracy.tables.written(text, RESULTS) == text


def test_every_table_of_accuracy_stands_in_a_page_and_is_of_a_model_that_comes_with_the_project() -> None:
    import benchmarks.accuracy.tables

    pages = "".join(path.read_text(encoding="utf-8") for path in DOCS.glob("*.md"))
    places = re.findall(r"<!-- (\w+) of ([\w-]+) -->", pages)
    assert sorted(name for name, _ in places) == sorted(benchmarks.accuracy.tables.TABLES)
    shipped = {
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ROOT / "crnn_deploy" / "models").glob("*.onnx")
    }
    for name, result in places:
        text = (RESULTS / f"{result}.json").read_text(encoding="utf-8")
        measured = set(re.findall(r'"sha256": "(\w{64})"', text))
        assert not measured or measured & shipped, (name, result)


def test_a_page_without_a_place_for_its_table_is_refused() -> None:
    from benchmarks.pages import placed

    assert placed("a <!-- b --> c <!-- end --> d", "b", "T") == "a <!-- b -->\n\nT\n\n<!-- end --> d"
    for page in ("a", "a <!-- b --> c"):
        with pytest.raises(SystemExit, match="no place for the table b"):
            placed(page, "b", "T")


def test_a_page_has_the_kinds_of_cpu_side_by_side(tmp_path: Path) -> None:
    import benchmarks.speed.tables

    for path in RESULTS.glob("*--avx2--cpu.json"):
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
        other = json.loads(text.replace('"cpu": "avx2"', '"cpu": "avx512-vnni-bf16"'))
        if other["suite"] == "peers":
            del other["rows"]["PP-OCRv4: rapidocr_onnxruntime"]
        if other["suite"] not in ("winograd", "scaling"):  # not measured there
            name = path.name.replace("avx2", "avx512-vnni-bf16")
            (tmp_path / name).write_text(json.dumps(other), encoding="utf-8")
    page = (DOCS / "performance.md").read_text(encoding="utf-8")
    lines = benchmarks.speed.tables.written(page, tmp_path).splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("| paper: cv2.dnn, batch 1 | avx2 | 20"))
    assert lines[at + 1].startswith("| paper: cv2.dnn, batch 1 | avx512-vnni-bf16 | 20")
    assert sum(line.startswith("| PP-OCRv4") for line in lines) == 1
    assert sum(line.startswith("| ncnn | ") for line in lines) == 1
    # bars belong to a kind, and need the suites that they are about
    [bar] = [line for line in lines if line.startswith("| INT8, ")]
    assert bar.startswith("| INT8, 5 x PyTorch eager | avx2 | 3.21 x ")
    scaling = (RESULTS / "scaling--avx2--cpu.json").read_text(encoding="utf-8")
    (tmp_path / "scaling--avx512-vnni-bf16--cpu.json").write_text(
        scaling.replace('"cpu": "avx2"', '"cpu": "avx512-vnni-bf16"'), encoding="utf-8"
    )
    lines = benchmarks.speed.tables.written(page, tmp_path).splitlines()
    bars = [line for line in lines if line.startswith("| INT8, ")]
    assert bars[1].startswith("| INT8, 7.5 x PyTorch eager | avx512-vnni-bf16 | 3.21 x | **missed**")
