"""How long each kind of operator takes for one word, in ONNX Runtime and in PyTorch eager.

    python -m benchmarks.speed.operators [--words 256] [--rounds 5] [--json FILE]

Measured is the paper's network with 37 classes and random weights, one thread, on the words of
`benchmarks.speed.peers`. ONNX Runtime runs as in `infer` (width buckets in batches of at most 8) and at batch
1. PyTorch eager runs at batch 1. CPU time is taken without a profiler, in turn. The share of each kind of
operator comes from the profilers of both libraries. The script needs the extras [cpu,export].
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import crnn_deploy  # noqa: F401  # before ONNX Runtime, which reports to its maker otherwise

# isort: split
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import (
    cpu_in_turn,
    export_networks,
    measured,
    module,
    options,
    prepared_words,
    stacks,
    write,
)
from crnn_deploy.graph.flops import flops
from crnn_deploy.graph.model import load_onnx
from crnn_deploy.runtime.backends.ort import OrtBackend

Batches = Sequence[NDArray[np.float32]]
KINDS = {
    "Conv": "convolutions",
    "FusedConv": "convolutions",
    "aten::conv2d": "convolutions",
    "LSTM": "LSTMs",
    "aten::lstm": "LSTMs",
    "MatMul": "products",
    "Gemm": "products",
    "FusedMatMul": "products",
    "aten::linear": "products",
    "MaxPool": "pooling",
    "aten::max_pool2d": "pooling",
}  # what is left: activations, batch norm, copies


def ort_shares(model: Path, batches: Batches) -> dict[str, float]:
    """The share of each kind in the time of all operators."""
    with tempfile.TemporaryDirectory() as folder:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        settings.log_severity_level = 3
        settings.enable_profiling = True
        settings.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        for batch in batches:
            session.run(None, {name: batch})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    spent: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[KINDS.get(event["args"]["op_name"], "the rest")] += event["dur"]
    return shares(spent)


def torch_shares(run: Callable[[], object]) -> dict[str, float]:
    """The same of PyTorch: operators that no other one called."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        run()
    spent: Counter[str] = Counter()
    for event in found.events() or ():
        if event.cpu_parent is None:
            spent[KINDS.get(event.name, "the rest")] += event.cpu_time_total
    return shares(spent)


def shares(spent: Counter[str]) -> dict[str, float]:
    return {kind: time / spent.total() for kind, time in spent.most_common()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument("--words", type=int, default=256, help="Read this many words.")
    given = parser.parse_args(arguments)
    model = export_networks(["paper"])["paper"]
    backend = OrtBackend(model)
    words = prepared_words(given.words, backend.manifest)
    buckets, single = stacks(words), [word[None] for word in words]
    torch.set_num_threads(1)
    network: Any = module("paper")

    def eager() -> None:
        with torch.inference_mode():
            for word in single:
                network(torch.from_numpy(word))

    def infer(batches: Batches) -> Callable[[], object]:
        return lambda: [backend.run(batch) for batch in batches]

    tasks = {
        "ONNX Runtime, width buckets": infer(buckets),
        "ONNX Runtime, batch 1": infer(single),
        "PyTorch eager, batch 1": eager,
    }
    spent = cpu_in_turn(tasks, dict.fromkeys(tasks, len(words)), given.rounds)
    counted = flops(load_onnx(model), backend.manifest, sorted({word.shape[2] for word in words}))
    work = float(np.mean([counted[word.shape[2]] for word in words]))
    parts = {
        "ONNX Runtime, width buckets": ort_shares(model, buckets),
        "ONNX Runtime, batch 1": ort_shares(model, single),
        "PyTorch eager, batch 1": torch_shares(eager),
    }
    rows: dict[str, Any] = {"words": {"count": len(words), "gflop_per_image": round(work / 1e9, 4)}}
    for name, values in spent.items():
        median = float(np.median(values))
        split = {kind: round(share * median, 3) for kind, share in parts[name].items()}
        rows[name] = {"cpu_per_image": measured(values, "CPU ms"), "cpu_ms_by_kind": split}
        print(f"{name}: {median:.2f} CPU ms a word; " + ", ".join(f"{k} {v:.2f}" for k, v in split.items()))
    write("operators", rows, given.json)


if __name__ == "__main__":
    main()
