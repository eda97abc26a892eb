"""What one image costs in a new process: CPU-seconds, seconds, peak memory, and the time of the imports.

    python -m benchmarks.speed.startup [--rounds 11] [--json FILE]

`crnn-deploy infer` reads one word with the default model and with the paper's network, each in fp32 and in
int8. A first run, which is not measured, fills the cache of graphs. Beside them are Python alone and the bare
imports of the libraries, the least that any program pays. The times of the imports are those of `python -X
importtime` (by the clock): the median of the rounds, by top-level package, without what a package imports in
turn. The script needs the extras [cpu,export].
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import (
    apart,
    export_networks,
    measured,
    noise,
    options,
    quantised,
    run_alone,
    word_files,
    write,
)
from crnn_deploy.evaluation.speed import peak_memory
from crnn_deploy.models import DEFAULT, DEFAULT_INT8

LIBRARIES = ("numpy", "cv2", "onnxruntime", "click")


def commands(folder: Path) -> dict[str, list[str]]:
    """What is started, by name."""
    word_files(folder / "words", 1)
    [word] = (folder / "words").glob("*/*.jpg")
    paper = export_networks(["paper"])["paper"]
    inputs = [noise((4, 1, 32, width), width) for width in (64, 128)]
    apart(quantised, paper, folder / "int8.onnx", inputs)
    models = {
        "default model, fp32": DEFAULT,
        "default model, int8": DEFAULT_INT8,
        "paper's network, fp32": paper,
        "paper's network, int8": folder / "int8.onnx",
    }
    python = sys.executable
    found = {"Python alone": [python, "-c", "pass"]}
    for name in LIBRARIES:
        found[f"import {name}"] = [python, "-c", f"import {name}"]
    found["import all of these"] = [python, "-c", f"import {', '.join(LIBRARIES)}"]
    command = [python, "-m", "crnn_deploy", "infer", "--model"]
    return found | {name: [*command, str(model), str(word)] for name, model in models.items()}


def starts(todo: Mapping[str, Sequence[str]], rounds: int) -> dict[str, Any]:
    """Each command in turn, in a process of its own."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in todo}
    for at in range(rounds + 1):  # the first one warms up
        for name, command in todo.items():
            run = run_alone(command)
            if run["exit_code"]:
                raise RuntimeError(f"{name} ended with {run['exit_code']}")
            if at:
                runs[name].append(run)
    rows: dict[str, Any] = {}
    own = peak_memory()  # the kernel counts it for a child before the child's own program begins
    for name, some in runs.items():
        rows[name] = {
            "cpu": measured([run["cpu_seconds"] * 1e3 for run in some], "CPU ms"),
            "clock": measured([run["seconds"] * 1e3 for run in some], "ms"),
        }
        peak = measured([run["peak_mb"] for run in some], "MB")
        if peak["lower"] > own + 1:
            rows[name]["peak"] = peak
        shown = f"{peak['median']:7.1f} MB" if "peak" in rows[name] else f"below {own:.0f} MB"
        cpu, clock = (rows[name][key]["median"] for key in ("cpu", "clock"))
        print(f"{cpu:7.0f} CPU ms {clock:7.0f} ms {shown}  {name}", flush=True)
    return rows


def imports(command: Sequence[str], rounds: int) -> dict[str, float]:
    """Milliseconds of the imports themselves, by top-level package."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        run = subprocess.run([command[0], "-X", "importtime", *command[1:]], capture_output=True, text=True)
        sums: dict[str, float] = defaultdict(float)
        for line in run.stderr.splitlines():
            parts = line.removeprefix("import time:").split("|")
            if len(parts) == 3 and parts[0].strip().isdigit():
                package = parts[2].strip().split(".")[0]
                known = package in ("crnn_deploy", *LIBRARIES)
                sums[package if known else "the standard library and others"] += int(parts[0]) / 1e3
        for package, value in sums.items():
            found[package].append(value)
    return {package: round(median(values), 1) for package, values in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=11)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        todo = commands(Path(name))
        rows = starts(todo, given.rounds)
        rows["imports of the default model, ms"] = imports(todo["default model, fp32"], given.rounds)
        print(rows["imports of the default model, ms"])
    write("startup", rows, given.json)


if __name__ == "__main__":
    main()
