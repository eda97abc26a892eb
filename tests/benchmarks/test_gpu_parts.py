"""benchmarks/gpu/check.py: its parts, what they cost each other, and how results come together."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import benchmarks.gpu.check
import benchmarks.gpu.work
from benchmarks.gpu.work import Different, Part, Work, merged, run_parts
from crnn_deploy.errors import BackendMissing
from crnn_deploy.runtime.backends import driver
from crnn_deploy.runtime.backends.driver import Driver, Gpu

ROOT = Path(__file__).parents[2]
NO_GPU = pytest.mark.skipif(driver.probe().problem is None, reason="there is a GPU here")
PAPER = Driver("13.0", "580.1", (Gpu("Paper", "9.0", 2**34),))


@NO_GPU
def test_without_a_gpu_it_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.check", "--json", str(tmp_path / "x.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == BackendMissing.exit_code
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: this measures an NVIDIA GPU: ") and line.endswith("run crnn-deploy doctor")
    assert not list(tmp_path.iterdir())


@NO_GPU
def test_parts_that_end_without_results_are_lines_of_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts' own processes find no GPU; the script has been told of one."""
    path = tmp_path / "x.json"
    monkeypatch.setattr(benchmarks.gpu.check, "require_gpu", lambda: PAPER)
    monkeypatch.setattr(sys, "argv", ["check.py", "--only", "runtimes", "--json", str(path)])
    benchmarks.gpu.check.main()
    results = json.loads(path.read_text(encoding="utf-8"))
    assert (results["suite"], results["device"]) == ("gpu_check", "cuda")
    assert results["gpu"] == {
        **{"name": "Paper", "compute_capability": "9.0", "memory_bytes": 2**34},
        **{"driver": "580.1", "cuda": "13.0"},
    }
    for part in ("runtimes", "networks"):
        assert results[part]["error"].startswith("Error: this measures an NVIDIA GPU")
    assert "engines" not in results


def test_every_part_is_a_function_of_its_module() -> None:
    for part in benchmarks.gpu.check.PARTS.values():
        module, name = part.target.split(":")
        assert callable(getattr(import_module(module), name))
        assert part.seconds > 0 and part.about


def test_a_part_that_crashes_hangs_or_fails_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks.gpu.work, "_GRACE", 0.5)
    keep = "import sys; open(sys.argv[1], 'w').write('{\"kept\": 1}');"
    scripts = {
        "first": keep,
        "crash": f"{keep} import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "fail": f"{keep} raise ValueError('no reason')",
        "hang": f"{keep} import time; time.sleep(60)",
        "last": keep,
    }
    seen: list[set[str]] = []
    results: dict[str, Any] = {"suite": "x"}
    # what a part leaves goes to those after it, so that the one that hangs has most of the time
    shares = {"first": 20, "crash": 20, "fail": 20, "hang": 4, "last": 20}
    run_parts(
        {name: Part("", shares[name], "") for name in scripts},
        lambda name, until, path, crash: (sys.executable, "-c", scripts[name], str(path)),
        results,
        seconds=30,
        folder=tmp_path,
        changed=lambda results: seen.append(set(results)),
    )
    assert all(results[name]["kept"] == 1 for name in scripts)
    assert results["crash"]["error"] == "ended by SIGSEGV"
    assert results["fail"]["error"] == "ValueError: no reason"
    assert results["hang"]["error"].startswith("ended after ")
    assert "error" not in results["first"] and "error" not in results["last"]
    assert [len(names) for names in seen] == [2, 3, 4, 5, 6]


def test_what_fails_is_kept_in_one_line(tmp_path: Path) -> None:
    def fail(error: BaseException) -> Callable[[], Any]:
        def task() -> Any:
            raise error

        return task

    path = tmp_path / "part.json"
    work = Work(tmp_path, path)
    assert work.attempt(lambda: 7, "a", "b") == 7
    assert json.loads(path.read_text()) == {"a": {"b": 7}}  # there at once
    assert work.attempt(fail(ValueError("two\nlines")), "a", "c") is None
    assert work.attempt(fail(BackendMissing("no library")), "d") is None
    with pytest.raises(KeyboardInterrupt):
        work.attempt(fail(KeyboardInterrupt()), "e")
    work.until = time.time() - 1
    assert work.attempt(lambda: 7, "f") is None
    assert json.loads(path.read_text()) == {
        "a": {"b": 7, "c": {"error": "ValueError: two lines"}},
        "d": {"not installed": "no library"},
        "e": {"error": "under way"},
        "f": {"error": "not begun: the time of this part is spent"},
    }


def test_a_build_that_is_stopped_by_the_time_is_a_line(tmp_path: Path) -> None:
    work = Work(tmp_path)

    def build() -> None:
        work.until = 0
        raise KeyboardInterrupt

    work.attempt(build, "build")
    assert work.results == {"build": {"error": "stopped: the time of this part is spent"}}


ROWS = """
import os, signal, sys
from pathlib import Path
from benchmarks.gpu.work import Work

until, path, crash = sys.argv[1:]
work = Work(Path(path).parent, Path(path), float(until), crash=crash)


def crashing():
    os.kill(os.getpid(), signal.SIGSEGV)


def failing():
    raise RuntimeError("CUDA error: not supported. Compile with `X` to enable device-side assertions.")


def losing():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def told(name):
    with open(Path(path).with_suffix(".seen"), "a") as seen:
        seen.write(name)
    return name


work.attempt(lambda: told("o"), "opened", again=True)
work.attempt(crashing, "crashes when it is opened", again=True)
work.attempt(losing, "loses the context when it is opened", again=True)
for name, task in (("a", told), ("b", crashing), ("c", told), ("d", losing), ("D", failing), ("e", told)):
    work.attempt(lambda: task(name) if task is told else task(), "rows", name)
told("!")
"""


def test_a_crash_costs_one_row(tmp_path: Path) -> None:
    """A library that crashes; a wrong address, after which nothing runs on the GPU in that process."""
    results: dict[str, Any] = {}
    run_parts(
        {"part": Part("", 1, "")},
        lambda name, until, path, crash: (
            sys.executable,
            "-c",
            ROWS,
            str(until),
            str(path),
            crash,
        ),
        results,
        seconds=60,
        folder=tmp_path,
        changed=lambda results: None,
    )
    found = results["part"]
    assert found["rows"] == {
        "a": "a",
        "b": {"crashed": "ended by SIGSEGV"},
        "c": "c",
        "d": {"crashed": "RuntimeError: CUDA error: an illegal memory access was encountered"},
        "D": found["rows"]["D"],
        "e": "e",
    }
    assert "not supported" in found["rows"]["D"]["error"]  # after which the process goes on
    lost = "the GPU's context was lost"
    crashes = ["ended by SIGSEGV", lost, "ended by SIGSEGV", lost]  # each once
    assert found["crashes"] == crashes and "error" not in found
    assert found["crashes when it is opened"] == {"crashed": "ended by SIGSEGV"}
    assert "illegal memory access" in found["loses the context when it is opened"]["crashed"]
    # rows that are done are not done again; what they need is
    assert (tmp_path / "part.seen").read_text() == "o" + "o" + "oa" + "oc" + "oe!"


def test_a_row_within_which_a_part_is_ended_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks.gpu.work, "_GRACE", 0.2)
    code = ROWS.replace("def crashing():", "def crashing():\n    import time; time.sleep(60)")
    results: dict[str, Any] = {}
    run_parts(
        {"part": Part("", 1, "")},
        lambda name, until, path, crash: (sys.executable, "-c", code, str(until), str(path), crash),
        results,
        seconds=5,
        folder=tmp_path,
        changed=lambda results: None,
    )
    assert results["part"]["opened"] == "o"
    assert results["part"]["crashes when it is opened"]["error"] == results["part"]["error"]
    assert results["part"]["error"].startswith("ended after ")


def test_a_process_that_goes_on_too_late_takes_nothing_away(tmp_path: Path) -> None:
    path = tmp_path / "part.json"
    path.write_text(json.dumps({"opened": True, "row": 1, "failed": {"error": "x"}}), encoding="utf-8")
    work = Work(tmp_path, path, time.time() - 1, crash="ended by SIGSEGV")
    assert work.attempt(lambda: 2, "opened", again=True) is None and work.kept("opened") is True
    assert work.attempt(lambda: 2, "row") == 1
    work.attempt(lambda: 2, "failed", again=True)
    assert work.kept("failed") == {"error": "not begun: the time of this part is spent"}


def test_results_are_json_whatever_was_measured(tmp_path: Path) -> None:
    work = Work(tmp_path, tmp_path / "part.json")
    work.keep({"ms": float("nan"), "delta": float("inf")}, "row")
    text = (tmp_path / "part.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"row": {"ms": None, "delta": None}}


@pytest.mark.parametrize(("reason", "code"), [("no such file", 1), ("an illegal memory access was met", 75)])
def test_what_fails_outside_of_rows_is_the_last_line(
    reason: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(work: Work) -> None:
        raise RuntimeError(f"CUDA error: {reason}\nCompile with `X` to enable assertions.")

    monkeypatch.setattr(benchmarks.gpu.work, "failing", fail, raising=False)
    assert Part("benchmarks.gpu.work:failing", 1, "").run(Work(Path())) == code
    assert reason in capsys.readouterr().err.splitlines()[-1]


@NO_GPU
def test_a_result_that_is_no_json_is_put_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"runtimes": {"a"', encoding="utf-8")
    monkeypatch.setattr(benchmarks.gpu.check, "require_gpu", lambda: PAPER)
    monkeypatch.setattr(sys, "argv", ["check.py", "--only", "runtimes", "--json", str(path)])
    benchmarks.gpu.check.main()
    assert "runtimes" in json.loads(path.read_text(encoding="utf-8"))
    assert (tmp_path / "x.json.broken").exists() and "is no JSON" in capsys.readouterr().err


@pytest.fixture(autouse=True)
def benchmarks_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the parts' own processes."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def test_the_plan_needs_no_gpu() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu.check", "--plan"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows, total = done.stdout.splitlines()
    assert head.split() == ["part", "seconds", "measures", "needs"]
    assert [row[:18].strip() for row in rows] == list(benchmarks.gpu.check.PARTS)
    seconds = [float(row[18:26]) for row in rows]
    assert f"{sum(seconds):.0f}  {sum(seconds) / 60:.0f} minutes" in total
    page = (ROOT / "docs" / "engines.md").read_text(encoding="utf-8")
    for row in rows:
        assert f"| `{row[:18].strip()}` | {float(row[18:26]):.0f} | {row[28:100].strip()} |" in page
    only = subprocess.run([*command, "--only", "peak"], capture_output=True, text=True).stdout.splitlines()
    assert [row.split()[0] for row in only[1:-1]] == ["networks", "peak"]


def result(name: str = "H100", /, **parts: Any) -> dict[str, Any]:
    return {"suite": "gpu_check", "gpu": {"name": name}, "versions": {"torch": "2.11"}, **parts}


def test_partial_results_become_one() -> None:
    failed = {"seconds": 3.0, "error": "ended by SIGSEGV", "opened": {"x": {"not installed": "no TensorRT"}}}
    one = result(runtimes={"a": 1}, engines={"fp16": {"ms": 2.0}}, lstm=failed)
    two = result(engines=failed, lstm={"fp32": {"ms": 1.0}}, stages=failed)
    two["versions"] = {"tensorrt-rtx": "1.7"}
    whole = merged([one, two])
    assert whole["runtimes"] == {"a": 1}
    assert whole["engines"] == {"fp16": {"ms": 2.0}}  # a later one that measured nothing takes nothing away
    assert whole["lstm"] == {"fp32": {"ms": 1.0}} and whole["stages"] == failed
    assert whole["versions"] == {"torch": "2.11", "tensorrt-rtx": "1.7"}
    rows = {"opened": {"x": True}, "batch 1": {"x": {"ms": 1.0}, "y": {"ms": 2.0}}, "seconds": 80.0}
    opened = {"opened": {"x": True}, "batch 1": {"x": "it runs, not measured"}, "error": "ended by SIGSEGV"}
    assert merged([result(throughput=rows), result(throughput=opened)])["throughput"] == rows
    later = {"opened": {"x": True}, "batch 1": {"x": {"ms": 5.0}, "y": {"error": "lost"}}, "seconds": 7.0}
    found = merged([result(throughput=rows), result(throughput=later)])["throughput"]
    assert found["batch 1"] == {"x": {"ms": 5.0}, "y": {"ms": 2.0}} and found["seconds"] == 7.0
    again = merged([whole, result(runtimes={"a": 5})])
    assert again["runtimes"] == {"a": 5} and again["lstm"] == whole["lstm"]
    with pytest.raises(Different, match="two machines"):
        merged([one, result("H200")])


def test_merge_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / name for name in ("one.json", "two.json")]
    for path, part in zip(paths, ("engines", "lstm"), strict=True):
        path.write_text(json.dumps(result(**{part: {"ms": 1.0}})), encoding="utf-8")
    arguments = ["check.py", "--merge", *map(str, paths)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--json", str(tmp_path / "all.json")])
    benchmarks.gpu.check.main()
    assert json.loads((tmp_path / "all.json").read_text()).keys() >= {"engines", "lstm", "gpu"}
    monkeypatch.setattr(sys, "argv", arguments)
    benchmarks.gpu.check.main()
    assert json.loads(capsys.readouterr().out).keys() >= {"engines", "lstm", "gpu"}
    paths[1].write_text(json.dumps(result("H200")), encoding="utf-8")
    assert benchmarks.gpu.work.shown(benchmarks.gpu.check.main) == Different.exit_code
    assert "two machines" in capsys.readouterr().err


@NO_GPU
def test_what_was_measured_before_stays_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run again after mending: parts that measure nothing now, or are not asked for, keep what they had."""
    path = tmp_path / "x.json"
    gpu_of_paper = {
        **{"name": "Paper", "compute_capability": "9.0", "memory_bytes": 2**34},
        **{"driver": "580.1", "cuda": "13.0"},
    }
    earlier = {"suite": "gpu_check", "gpu": gpu_of_paper, "runtimes": {"a": 1}, "lstm": {"ms": 1.0}}
    path.write_text(json.dumps(earlier), encoding="utf-8")
    monkeypatch.setattr(benchmarks.gpu.check, "require_gpu", lambda: PAPER)
    folder = tmp_path / "folder"
    arguments = ["check.py", "--only", "runtimes", "--json", str(path), "--folder", str(folder)]
    monkeypatch.setattr(sys, "argv", arguments)
    benchmarks.gpu.check.main()
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["runtimes"] == {"a": 1} and found["lstm"] == {"ms": 1.0}
    assert found["networks"]["error"].startswith("Error: this measures an NVIDIA GPU")
    assert (folder / "networks.log").exists()  # what a part printed stays with its engines


def test_the_target_that_was_found_is_what_follows_builds_for(tmp_path: Path) -> None:
    assert Work(tmp_path).targets() == ()
    (tmp_path / "target.txt").write_text("sm_80")
    assert Work(tmp_path).targets() == ("sm_80",)
    assert Work(tmp_path, target="current").targets() == ("current",)
    (tmp_path / "target.txt").write_text("")  # the builder's own
    assert Work(tmp_path).targets() == ()
