"""ONNX Runtime's CUDA provider: which nodes it really runs, parity with and without TF32, and speed."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.measure import noise
from benchmarks.gpu.networks import Network, networks
from benchmarks.gpu.work import Work
from crnn_deploy import Recognizer
from crnn_deploy.export.pytorch import in_pytorch
from crnn_deploy.export.reference import open_reference
from crnn_deploy.parity.compare import compare
from crnn_deploy.runtime.backends.engine_file import Precision
from crnn_deploy.runtime.backends.ort import OrtBackend, nodes_by_provider, open_session
from crnn_deploy.verdict.drawn import drawn_images

__all__ = ["onnxruntime_cuda"]

_EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
_SIZES = ((1, 104), (8, 160), (64, 320))  # batch, width
_SECONDS, _LEAST = 0.6, 20  # of a speed: at least so long and so many runs


def onnxruntime_cuda(work: Work) -> None:
    """The default model and the paper's network."""
    for network in networks(work.folder):
        work.attempt(partial(_assigned, network), network.name, "nodes as assigned")
        work.attempt(partial(_profiled, network), network.name, "nodes as run")
        for precision in ("fp32", "tf32"):
            kind: Precision = "tf32" if precision == "tf32" else "fp32"
            work.attempt(partial(_parity, network, kind), network.name, "parity with PyTorch", precision)
        for search in ("EXHAUSTIVE", "HEURISTIC"):
            work.attempt(partial(_speed, network, search), network.name, "speed in tf32", search)
    work.attempt(_examples, "examples")


def _assigned(network: Network) -> dict[str, dict[str, int]]:
    session = open_session(network.onnx, threads=1, device="cuda")
    return {name: dict(nodes) for name, nodes in nodes_by_provider(session).items()}


def _session(network: Network, profile: str = "", **settings: str) -> Any:
    """One of the library itself, with settings that the toolkit does not offer."""
    import onnxruntime as ort

    open_session(network.onnx, threads=1, device="cuda")  # whether CUDA starts, and takes the heavy nodes
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(str(network.onnx), options, providers=[("CUDAExecutionProvider", settings)])


def _profiled(network: Network) -> dict[str, int]:
    """Nodes by operator and provider, of one run."""
    with tempfile.TemporaryDirectory() as folder:
        session = _session(network, f"{folder}/profile")
        session.run(None, {session.get_inputs()[0].name: noise(network.manifest(), 2, 160)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [
        event["args"] for event in events if event.get("cat") == "Node" and "op_name" in event.get("args", {})
    ]
    return dict(Counter(f"{node['op_name']} on {node.get('provider', '?')}" for node in nodes))


def _parity(network: Network, precision: Precision) -> dict[str, Any]:
    """By what the number format costs this network against float64."""
    reference, manifest = open_reference(network.checkpoint, network.settings), network.manifest()
    rng = np.random.default_rng(0)
    batches = [drawn_images(manifest, batch, width, rng) for batch, width in ((1, 104), (8, 160), (16, 320))]
    costs = in_pytorch(reference.module, precision).over(batches)
    backend = OrtBackend(network.onnx, device="cuda", tf32=precision == "tf32")
    report = compare(reference, backend, batches, tolerance=costs.tolerance)
    plain = replace(report, tie=costs.tie).to_plain()
    del plain["cases"]
    return {**plain, "format_error": asdict(costs)}


def _examples() -> dict[str, Any]:
    """What the command line reads, on both."""
    paths = sorted(map(str, _EXAMPLES.glob("*.png")))
    texts = {}
    for device in ("cpu", "cuda"):
        model = networks(Path())[0].onnx
        recognizer = Recognizer.load(model, device="cuda" if device == "cuda" else "cpu")
        texts[device] = [text.text for text in recognizer.read(paths)]
    differing = sum(one != other for one, other in zip(texts["cpu"], texts["cuda"], strict=True))
    return {"images": len(paths), "texts that differ": differing, "texts": texts["cuda"]}


def _speed(network: Network, search: str) -> dict[str, dict[str, float]]:
    """Milliseconds of a run, from memory of the host and from that of the GPU."""
    import onnxruntime as ort

    session = _session(network, cudnn_conv_algo_search=search)
    source, target = session.get_inputs()[0].name, session.get_outputs()[0].name
    rows: dict[str, dict[str, float]] = {}
    for batch, width in _SIZES:
        images = noise(network.manifest(), batch, width)
        start = time.perf_counter()
        session.run(None, {source: images})
        row = rows[f"batch {batch}, width {width}"] = {"first_ms": (time.perf_counter() - start) * 1e3}
        binding = session.io_binding()
        binding.bind_ortvalue_input(source, ort.OrtValue.ortvalue_from_numpy(images, "cuda", 0))
        binding.bind_output(target, "cuda")

        def bound(binding: Any = binding) -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        plain: Callable[[], object] = partial(session.run, None, {source: images})
        row["host to host, ms"], row["on the GPU, ms"] = _median(plain), _median(bound)
    return rows


def _median(task: Callable[[], object]) -> float:
    """Milliseconds, of the last two thirds: the clocks are up by then."""
    end = time.perf_counter() + _SECONDS
    spent: list[float] = []
    while time.perf_counter() < end or len(spent) < _LEAST:
        start = time.perf_counter()
        task()
        spent.append((time.perf_counter() - start) * 1e3)
    return statistics.median(spent[len(spent) // 3 :])
