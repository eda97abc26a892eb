"""How many images per CPU-second each backend reads, by batch and width, and the share of the peak.

    python -m benchmarks.speed.throughput [--network paper] [--batches 1,4,16] [--widths 32,100] [--json FILE]

The backends are ONNX Runtime in fp32 and int8 (static scales, float LSTM), OpenVINO in fp32, asked for bf16,
and on the int8 file, and PyTorch eager. Each has one thread. The pixels are noise. The peak is the most
operations per CPU-second that convolutions reach on this machine. The script needs the extras [cpu,export],
and [openvino] for its rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import (
    convolution_peak,
    convolution_tasks,
    cpu_in_turn,
    export_networks,
    measured,
    module,
    noise,
    options,
    quantised,
    write,
)
from crnn_deploy.errors import BackendMissing
from crnn_deploy.graph.flops import flops
from crnn_deploy.graph.model import load_onnx
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends.openvino import import_openvino, signal_stack_kept
from crnn_deploy.runtime.backends.ort import OrtBackend

Run = Callable[[NDArray[np.float32]], object]


def openvino(model: Path, precision: str) -> Run | None:
    """OpenVINO as it comes, None where it is not installed; a CPU without bf16 computes in fp32."""
    try:
        library = import_openvino()
    except BackendMissing:
        return None
    hints = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    with signal_stack_kept():
        request = library.Core().compile_model(str(model), "CPU", hints).create_infer_request()
    return lambda images: request.infer([images])


def eager(network: Any) -> Run:
    def run(images: NDArray[np.float32]) -> None:
        with torch.inference_mode():
            network(torch.from_numpy(images))

    return run


def backends(network: Any, model: Path, folder: Path) -> tuple[Manifest, dict[str, Run]]:
    """What is compared, by name."""
    torch.set_num_threads(1)
    fp32 = OrtBackend(model)
    shape = (4, fp32.manifest.channels, fp32.manifest.height)
    int8 = quantised(model, folder / "int8.onnx", [noise((*shape, width), width) for width in (64, 128)])
    found: dict[str, Run | None] = {
        "ONNX Runtime fp32": fp32.run,
        "ONNX Runtime int8": OrtBackend(int8).run,
        "OpenVINO fp32": openvino(model, "f32"),
        "OpenVINO bf16": openvino(model, "bf16"),
        "OpenVINO int8": openvino(int8, "f32"),
        "PyTorch eager": eager(network),
    }
    return fp32.manifest, {name: run for name, run in found.items() if run is not None}


def grid(
    network: Any, model: Path, batches: Sequence[int], widths: Sequence[int], rounds: int
) -> dict[str, Any]:
    """Every backend at every batch and width."""
    tasks: dict[str, Callable[[], object]] = {}
    images, keys = dict[str, int](), dict[str, tuple[str, int, int]]()
    with tempfile.TemporaryDirectory() as name:
        manifest, runs = backends(network, model, Path(name))
        for width in widths:
            for batch in batches:
                pixels = noise((batch, manifest.channels, manifest.height, width))
                for backend, run in runs.items():
                    key = f"{backend}, batch {batch}, width {width}"
                    tasks[key], images[key], keys[key] = partial(run, pixels), batch, (backend, batch, width)
        single = convolution_tasks()
    spent = cpu_in_turn(tasks | single, images | dict.fromkeys(single, 1), rounds)
    counted = flops(load_onnx(model), manifest, widths)
    peak = convolution_peak(spent)
    rows: dict[str, Any] = {"convolution peak": peak}
    for key, (backend, batch, width) in keys.items():
        values = spent[key]
        median = float(np.median(values))
        rows[key] = {
            **{"backend": backend, "batch": batch, "width": width},
            "images_per_cpu_second": round(1e3 / median, 1),
            "share_of_fp32_convolution_peak": round(counted[width] / median / 1e6 / peak["gflops"], 3),
            "cpu_per_image": measured(values, "CPU ms"),
        }
        print(f"{1e3 / median:8.1f} images/CPU-s {rows[key]['share_of_fp32_convolution_peak']:7.0%}  {key}")
    return rows


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument(
        "--network", choices=["paper", "compact", "tiny"], default="paper", help="Measure this network."
    )
    parser.add_argument(
        "--batches", type=numbers, default=[1, 4, 16], help="Measure batches of these sizes, such as 1,4,16."
    )
    parser.add_argument(
        "--widths",
        type=numbers,
        default=[32, 100, 400],
        help="Measure images of these widths in pixels, such as 32,100.",
    )
    given = parser.parse_args(arguments)
    [model] = export_networks([given.network]).values()
    rows = grid(module(given.network), model, given.batches, given.widths, given.rounds)
    write("throughput", {"network": {"name": given.network}} | rows, given.json)


if __name__ == "__main__":
    main()
