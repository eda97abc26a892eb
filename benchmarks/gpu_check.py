"""Everything there is to know of the toolkit on a machine with an NVIDIA GPU, in one call.

    python benchmarks/gpu_check.py [--minutes 8] [--only PART ...] [--int8 FILE.onnx] [--json FILE]

Parts: which libraries load; the networks (the default model, and the paper's with random weights); engines in
fp32, fp16, bf16 and int8 (--int8: a Q/DQ form of the default model; without, made of its scales), with
their text against PyTorch's; throughput of PyTorch, with and without CUDA graphs, ONNX Runtime and TensorRT
by batch and width; copies, compute and decoding apart; an engine shared by threads; the strategies for LSTMs,
and those with our own kernel (lstm_strategies.py).

Each part is a process of its own with a share of the time. What fails or is not installed says so in one
line, and the rest goes on; the results are written after each part. Needs PyTorch for CUDA and the extras
[export] and [cpu] or [gpu]; engines need [tensorrt] or [tensorrt-rtx], and [cuda] or [pycuda].
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu.machine import gpu_header
from gpu.work import INT8, Part, Work, require_gpu, run_parts, shown, write

PARTS = {
    "runtimes": Part("gpu.machine:runtimes", 2),
    "networks": Part("gpu.networks:prepare", 2),  # for those that follow
    "engines": Part("gpu.engines:engines", 5),  # for throughput, stages and threads
    "throughput": Part("gpu.measure:throughput", 4, on_gpu=True),
    "stages": Part("gpu.measure:stages", 2, on_gpu=True),
    "threads": Part("gpu.measure:threads", 1),
    "lstm": Part("lstm_strategies:strategies", 5, on_gpu=True),
    "own kernel": Part("lstm_strategies:own_kernel", 2, on_gpu=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8, help="for all parts together")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), metavar="PART")
    parser.add_argument("--int8", type=Path, metavar="FILE.onnx")
    parser.add_argument("--json", type=Path)
    # a part in its own process: its name, when it should end, and the file it writes
    parser.add_argument("--part", nargs=3, metavar=("NAME", "UNTIL", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    found = require_gpu()
    if arguments.part is not None:
        name, until, file = arguments.part
        PARTS[name].run(Work(Path(file).parent, Path(file), float(until)))
        return
    results = gpu_header("gpu_check", found)

    def command(name: str, until: float, file: Path) -> Sequence[str]:
        return sys.executable, __file__, "--part", name, str(until), str(file)

    def changed(results: dict[str, Any]) -> None:
        if arguments.json is not None:
            write(results, arguments.json)

    with tempfile.TemporaryDirectory() as folder:
        if arguments.int8 is not None:
            shutil.copy(arguments.int8, Path(folder) / INT8)
        asked = {name: part for name, part in PARTS.items() if name in (*arguments.only, "networks")}
        run_parts(
            asked, command, results, seconds=60 * arguments.minutes, folder=Path(folder), changed=changed
        )
    if arguments.json is None:
        print(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(shown(main))
