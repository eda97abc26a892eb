"""How long one word takes, from JPEG bytes to text, one word after another.

    python -m benchmarks.speed.latency [--words 100] [--threads 1,2] [--rounds 3] [--json FILE]

The paper's network and the compact one run in fp32 and int8, and the paper's in PyTorch eager too. Times are
by the clock, so a busy machine shows. A round reads every word once. The percentiles are over all rounds. The
script needs the extras [cpu,export].
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import export_networks, measured, module, options, quantised, stacks, write
from benchmarks.speed.throughput import numbers
from crnn_deploy.evaluation.speed import draw_images
from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.images.pixels import decode_image
from crnn_deploy.runtime.images.prepare import prepare
from crnn_deploy.runtime.recognizer import Recognizer


def latencies(
    backends: dict[str, tuple[Backend, int]], files: Sequence[bytes], rounds: int
) -> dict[str, Any]:
    """Milliseconds of one word in each backend (with its number of threads), in turn.

    Each turn begins with the words once uncounted, as in `cpu_in_turn`.
    """
    readers = {name: Recognizer(backend, batch=1) for name, (backend, _) in backends.items()}
    times: dict[str, list[list[float]]] = {name: [] for name in readers}
    for _ in range(rounds):
        for name, reader in readers.items():
            torch.set_num_threads(backends[name][1])
            for data in files:
                reader.read([data])
            some = []
            for data in files:
                start = time.perf_counter()
                reader.read([data])
                some.append((time.perf_counter() - start) * 1e3)
            times[name].append(some)
    rows = {}
    for name, values in times.items():
        p50, p95, p99 = (round(float(np.percentile(values, p)), 3) for p in (50, 95, 99))
        medians = [float(np.median(some)) for some in values]
        rows[name] = {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "p50": measured(medians, "ms")}
        print(f"p50 {p50:8.2f} p95 {p95:8.2f} p99 {p99:8.2f} ms  {name}", flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument("--words", type=int, default=100, help="Read this many words in each round.")
    parser.add_argument(
        "--threads", type=numbers, default=[1, 2], help="Measure with these numbers of threads, such as 1,2."
    )
    given = parser.parse_args(arguments)
    files = draw_images("words", given.words)
    backends: dict[str, tuple[Backend, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for network, path in export_networks(["paper", "compact"]).items():
            manifest = OrtBackend(path).manifest
            some = [prepare(decode_image(data, "<word>"), manifest) for data in files[:32]]
            int8 = quantised(path, Path(folder) / f"{network}.onnx", stacks(some))
            for kind, model in (("fp32", path), ("int8", int8)):
                for threads in given.threads:
                    key = f"{network}, ONNX Runtime {kind}, {threads} threads"
                    backends[key] = OrtBackend(model, threads=threads), threads
            if network == "paper":
                for threads in given.threads:
                    reference = ReferenceBackend(module(network), manifest)
                    backends[f"{network}, PyTorch eager, {threads} threads"] = reference, threads
        rows = latencies(backends, files, given.rounds)
    write("latency", rows, given.json)


if __name__ == "__main__":
    main()
