"""Everything that can be measured of the toolkit on a machine with an NVIDIA GPU, part by part.

    python -m benchmarks.gpu.check --plan
    python -m benchmarks.gpu.check --json gpu.json [--minutes N] [--only PART ...] [--folder DIR]
    python -m benchmarks.gpu.check --merge one.json two.json --json gpu.json

--plan lists the parts, what each needs and how long it takes. It needs no GPU.

Each part is a process of its own with a share of the time. If something fails or is not installed, the script
says so in one line and goes on. A crash costs one row. The results are written after each part. If the file
of --json holds parts of an earlier run, they stay unless this run measures them again.

The script needs PyTorch for CUDA, the extra [export], and [cpu] or [gpu]. Engines need [tensorrt] or
[tensorrt-rtx], and [cuda] or [pycuda].
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.gpu.machine import gpu_header
from benchmarks.gpu.work import INT8, Part, Work, merged, require_gpu, run_parts, shown, write

_TRT, _NETS = "tensorrt or tensorrt_rtx", ("torch", "onnx")
_EXPORT = (*_NETS, "onnxscript")
_REACH = "cuda or pycuda"
PARTS = {
    "runtimes": Part("benchmarks.gpu.machine:runtimes", 20, "which libraries load"),
    "networks": Part(
        "benchmarks.gpu.networks:prepare", 60, "the default model and the paper's, for what follows", _EXPORT
    ),
    "onnxruntime": Part(
        "benchmarks.gpu.onnxruntime_cuda:onnxruntime_cuda",
        90,
        "ONNX Runtime: nodes by provider, parity, TF32, search of convolutions",
        (*_NETS, "onnxruntime"),
    ),
    "throughput": Part(
        "benchmarks.gpu.measure:throughput",
        90,
        "PyTorch with and without CUDA graphs, ONNX Runtime: batch by width",
        (*_NETS, "onnxruntime"),
        on_gpu=True,
    ),
    "own kernel": Part(
        "benchmarks.gpu.lstm:own_kernel", 60, "LSTMs by our own kernel", (*_NETS, "cuda"), on_gpu=True
    ),
    "targets": Part(
        "benchmarks.gpu.targets:targets",
        120,
        "which target of TensorRT for RTX runs on this GPU",
        (*_NETS, "tensorrt_rtx"),
        on_gpu=True,
    ),
    "engines": Part(
        "benchmarks.gpu.engines:engines",
        170,
        "engines by precision: builds, and parity with PyTorch",
        (*_EXPORT, _TRT, _REACH),
    ),
    "engine throughput": Part(
        "benchmarks.gpu.measure:engine_throughput",
        90,
        "engines: batch by width",
        (*_NETS, _TRT, _REACH),
        on_gpu=True,
    ),
    "peak": Part(
        "benchmarks.gpu.peak:peak",
        60,
        "images a second of the paper's network, width 100, fp16, large batches",
        _NETS,
        on_gpu=True,
    ),
    "stages": Part(
        "benchmarks.gpu.measure:stages", 50, "copies, compute and decoding apart", _NETS, on_gpu=True
    ),
    "threads": Part(
        "benchmarks.gpu.measure:threads", 20, "an engine shared by threads", (*_NETS, _TRT, _REACH)
    ),
    "invariance": Part(
        "benchmarks.gpu.invariance:invariance",
        50,
        "an image alone against the same in a batch",
        (*_NETS, "onnxruntime"),
    ),
    "lstm": Part(
        "benchmarks.gpu.lstm:strategies", 120, "ways to run the BiLSTM, by the libraries", _NETS, on_gpu=True
    ),
    "training": Part(
        "benchmarks.gpu.training:training",
        160,
        "images drawn by processes, training steps, and both",
        ("torch", "pydantic", "yaml", "fontTools", "PIL"),
        on_gpu=True,
    ),
    "commands": Part(
        "benchmarks.gpu.commands:commands",
        100,
        "the command line and the tests that need a GPU",
        ("torch", "pytest"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", action="store_true", help="List the parts and end.")
    parser.add_argument(
        "--minutes",
        type=float,
        help="Spend this many minutes on all parts together. The default is what --plan says.",
    )
    parser.add_argument(
        "--only",
        choices=PARTS,
        nargs="+",
        default=list(PARTS),
        metavar="PART",
        help="Measure only these parts.",
    )
    parser.add_argument(
        "--int8", type=Path, metavar="FILE.onnx", help="Measure this Q/DQ form of the default model too."
    )
    parser.add_argument(
        "--folder", type=Path, help="Keep networks and engines in this folder for the next run."
    )
    parser.add_argument(
        "--target",
        default="",
        help="Build for this TensorRT for RTX target, such as sm_80 or current. By default targets finds it.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE.json", help="Write the results to this file.")
    parser.add_argument(
        "--merge", type=Path, nargs="+", metavar="FILE.json", help="Join these results and end."
    )
    # a part in its own process: its name, when it should end, its file, and how the process before ended
    parser.add_argument("--part", nargs=4, metavar=("NAME", "UNTIL", "FILE", "CRASH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    asked = {name: part for name, part in PARTS.items() if name in (*arguments.only, "networks")}
    if arguments.plan:
        print(plan(asked))
        return
    if arguments.merge:
        _show(
            merged([json.loads(path.read_text(encoding="utf-8")) for path in arguments.merge]), arguments.json
        )
        return
    found = require_gpu()
    if arguments.part is not None:
        name, until, file, crash = arguments.part
        work = Work(Path(file).parent, Path(file), float(until), arguments.target, crash)
        sys.exit(PARTS[name].run(work))
    results = gpu_header("gpu_check", found)
    if arguments.json is not None and arguments.json.exists():
        results = merged([*_before(arguments.json), results])

    def command(name: str, until: float, file: Path, crash: str) -> Sequence[str]:
        own = ("--part", name, str(until), str(file), crash)
        return sys.executable, "-m", "benchmarks.gpu.check", "--target", arguments.target, *own

    earlier = dict(results)

    def changed(results: dict[str, Any]) -> None:
        if arguments.json is not None:
            write(merged([earlier, results]), arguments.json)

    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.int8 is not None:
            shutil.copy(arguments.int8, folder / INT8)
        minutes = arguments.minutes
        if minutes is None:
            minutes = sum(part.seconds for part in asked.values()) / 60
        run_parts(asked, command, results, seconds=60 * minutes, folder=folder, changed=changed)
    if arguments.json is None:
        _show(results, None)


def plan(parts: dict[str, Part]) -> str:
    """The parts as a table: seconds, what each measures, and what it needs that is not here."""
    lines = [f"{'part':18}{'seconds':>8}  {'measures':72}needs"]
    for name, part in parts.items():
        needs = ", ".join(f"{each}{'' if _here(each) else ' (not here)'}" for each in part.needs)
        lines.append(f"{name:18}{part.seconds:8.0f}  {part.about:72}{needs or 'the driver alone'}")
    total = sum(part.seconds for part in parts.values())
    lines.append(f"{'in all':18}{total:8.0f}  {total / 60:.0f} minutes; networks is always among them")
    return "\n".join(lines)


def _before(path: Path) -> list[dict[str, Any]]:
    """What an earlier run measured; a file that is no JSON is put aside, for a run must not fail for it."""
    try:
        return [json.loads(path.read_text(encoding="utf-8"))]
    except ValueError:
        aside = path.with_name(f"{path.name}.broken")
        path.replace(aside)
        print(f"{path} is no JSON; it is {aside} now, and a new one is begun", file=sys.stderr)
        return []


def _here(need: str) -> bool:
    return any(find_spec(name) is not None for name in need.split(" or "))


def _show(results: dict[str, Any], path: Path | None) -> None:
    if path is None:
        print(json.dumps(results, indent=1, ensure_ascii=False))
    else:
        write(results, path)


if __name__ == "__main__":
    sys.exit(shown(main))
