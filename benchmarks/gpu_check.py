"""Everything there is to know of the toolkit on a machine with an NVIDIA GPU, in one call.

    python benchmarks/gpu_check.py [--minutes 8] [--only PART ...] [--int8 FILE.onnx] [--json FILE]

Parts: which libraries load; the networks (the default model, and the paper's with random weights); engines in
fp32, fp16, bf16 and int8 (--int8: a Q/DQ form of the default model; that of the package otherwise), with
their text against PyTorch's; throughput of PyTorch, with and without CUDA graphs, ONNX Runtime and TensorRT
by batch and width; copies, compute and decoding apart; an engine shared by threads; the strategies for LSTMs
(lstm_strategies.py).

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

import lstm_strategies
from gpu import engines, machine, measure, networks
from gpu.device import TorchGpu
from gpu.work import Part, Work, require_gpu, run_parts, shown, write

PARTS = {
    "runtimes": Part(machine.runtimes, 1),
    "networks": Part(networks.prepare, 2),  # the parts that follow need it
    "engines": Part(engines.engines, 5),
    "throughput": Part(lambda work: measure.throughput(work, TorchGpu()), 4),
    "stages": Part(lambda work: measure.stages(work, TorchGpu()), 2),
    "threads": Part(measure.threads, 1),
    "lstm": Part(lambda work: lstm_strategies.strategies(work, TorchGpu()), 5),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8, help="for all parts together")
    parser.add_argument("--only", choices=PARTS, nargs="+", default=list(PARTS), metavar="PART")
    parser.add_argument("--int8", type=Path, metavar="FILE.onnx")
    parser.add_argument("--json", type=Path)
    # a part in its own process: its name, the seconds it has, and the file it writes
    parser.add_argument("--part", nargs=3, metavar=("NAME", "SECONDS", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    found = require_gpu()
    if arguments.part is not None:
        name, seconds, file = arguments.part
        PARTS[name].run(Work(Path(file).parent, Path(file), float(seconds)))
        return
    results = machine.gpu_header("gpu_check", found)

    def command(name: str, seconds: float, file: Path) -> Sequence[str]:
        return sys.executable, __file__, "--part", name, str(seconds), str(file)

    def changed(results: dict[str, Any]) -> None:
        if arguments.json is not None:
            write(results, arguments.json)

    with tempfile.TemporaryDirectory() as folder:
        if arguments.int8 is not None:
            shutil.copy(arguments.int8, Path(folder) / engines.INT8)
        asked = {name: part for name, part in PARTS.items() if name in (*arguments.only, "networks")}
        run_parts(
            asked, command, results, seconds=60 * arguments.minutes, folder=Path(folder), changed=changed
        )
    if arguments.json is None:
        print(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(shown(main))
