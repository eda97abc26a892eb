"""Which way to run a bidirectional LSTM is fastest on this GPU: measured, not assumed.

    python benchmarks/lstm_strategies.py [--minutes 5] [--json FILE]

For the default model and the paper's network, in fp32 and fp16, whole networks from images on the GPU to
logits there: PyTorch; TensorRT's loop over both directions; two forward LSTMs, one of which reads the
sequence reversed; an engine for each width; convolutions in TensorRT and LSTMs in cuDNN or in our own kernel
(gpu/bilstm.cu), on the same memory; convolutions in PyTorch and our own kernel. Milliseconds by CUDA events,
with and without a CUDA graph, medians; max_delta is against PyTorch in float64. TensorRT is TensorRT or that
for RTX. Needs PyTorch for CUDA and the extra [export]; TensorRT's rows need [tensorrt] or [tensorrt-rtx], our
kernel's [cuda] and compute capability 9.0. What is not installed says so in its row.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import onnx
import torch
from gpu.device import Device, TorchGpu
from gpu.graphs import two_forward_lstms, up_to_first_lstm
from gpu.machine import gpu_header, tensorrt
from gpu.networks import Network, networks, prepare, split
from gpu.own_lstm import CudaKernel, with_own_lstm
from gpu.plans import TorchEngine, plan_of
from gpu.work import Work, require_gpu, shown
from torch import Tensor, nn

from crnn_deploy.engine_file import Profile, Range
from crnn_deploy.manifest import Manifest
from crnn_deploy.stages.inspection import load_onnx
from crnn_deploy.stages.precision import cast

BATCHES, WIDTHS = (1, 8, 64), (104, 320)
ROUNDS = 30

Way = Callable[[Tensor], Tensor]  # images (N, C, H, W) float32 -> logits (N, T, classes) float32


@dataclass(frozen=True)
class Strategy:
    """One way to run a network, made when it is asked for."""

    name: str
    make: Callable[[], Way]
    width: int | None = None  # that it serves; None: all


def strategies(work: Work, gpu: Device) -> None:
    """Each strategy for each network and precision at each batch and width."""
    for half in (False, True):
        for network in networks(work.folder):
            place = network.name, "fp16" if half else "fp32"
            made: list[tuple[Strategy, Way]] = []
            for strategy in _strategies(work, gpu, network, half):
                work.attempt(partial(_make, made, strategy), *place, "made", _title(strategy))
            exact = network.module().to(gpu.device, torch.float64)
            for width in WIDTHS:
                for batch in BATCHES:
                    images = _noise(network.manifest(), batch, width).to(gpu.device)
                    _compare(work, gpu, exact, made, images, (*place, f"batch {batch}, width {width}"))


def _strategies(work: Work, gpu: Device, network: Network, half: bool) -> list[Strategy]:
    kind = torch.float16 if half else torch.float32
    module = network.module()
    features, labels = split(module)

    @cache
    def model() -> onnx.ModelProto:
        return load_onnx(network.onnx)

    def two_loops() -> onnx.ModelProto:
        return two_forward_lstms(model())

    @cache
    def kernel() -> CudaKernel:
        return CudaKernel(gpu)

    def own(part: nn.Module) -> Way:
        return _torch(gpu, with_own_lstm(part, kernel(), gpu.device), kind)

    def engine(graph: Callable[[], onnx.ModelProto], widths: Range) -> TorchEngine:
        trt = tensorrt()[1]
        typed = cast(graph(), "fp16") if half else graph()
        profile = Profile(Range(BATCHES[0], BATCHES[1], BATCHES[-1]), widths)
        return TorchEngine(trt, plan_of(trt, typed, profile, work.late), gpu)

    def whole(graph: Callable[[], onnx.ModelProto], widths: Range) -> Way:
        made = engine(graph, widths)
        return lambda images: made(images)[0]

    @cache
    def convolutions() -> TorchEngine:
        return engine(lambda: up_to_first_lstm(model()), everywhere)

    def joined(rest: Callable[[], Way]) -> Way:
        first, second = convolutions(), rest()
        return lambda images: second(first(images)[0])

    everywhere = Range(WIDTHS[0], WIDTHS[0], WIDTHS[-1])
    return [
        Strategy("torch", partial(_torch, gpu, copy.deepcopy(module), kind)),
        Strategy("torch convolutions, own LSTM", lambda: own(nn.Sequential(features, labels))),
        Strategy("TensorRT, looped", lambda: whole(model, everywhere)),
        Strategy("TensorRT, two forward LSTMs", lambda: whole(two_loops, everywhere)),
        *(Strategy("TensorRT, static width", partial(whole, model, Range(w, w, w)), w) for w in WIDTHS),
        Strategy(
            "TensorRT convolutions, cuDNN LSTM",
            lambda: joined(partial(_torch, gpu, copy.deepcopy(labels), kind)),
        ),
        Strategy("TensorRT convolutions, own LSTM", lambda: joined(partial(own, labels))),
    ]


def _torch(gpu: Device, module: nn.Module, kind: torch.dtype) -> Way:
    module = module.to(gpu.device, kind).eval()
    return lambda inputs: module(inputs.to(kind)).float()


def _title(strategy: Strategy) -> str:
    return strategy.name if strategy.width is None else f"{strategy.name} {strategy.width}"


def _make(made: list[tuple[Strategy, Way]], strategy: Strategy) -> bool:
    made.append((strategy, strategy.make()))
    return True


def _noise(manifest: Manifest, batch: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, manifest.channels, manifest.height, width, generator=generator)


@torch.inference_mode()
def _compare(
    work: Work,
    gpu: Device,
    exact: nn.Module,
    made: list[tuple[Strategy, Way]],
    images: Tensor,
    keys: tuple[str, ...],
) -> None:
    """Milliseconds and max_delta of each strategy at one size, and which is the fastest."""
    if work.late():
        work.keep({"error": "not begun: the time of this part is spent"}, *keys)
        return
    expected = cache(lambda: exact(images.double()))
    found: dict[str, float] = {}
    for strategy, way in made:
        if strategy.width not in (None, images.shape[3]):
            continue
        for name, measure in (("direct", _direct), ("CUDA graph", _graph)):
            task = partial(measure, gpu, partial(way, images), expected)
            if (result := work.attempt(task, *keys, strategy.name, name)) is not None:
                found[f"{strategy.name}, {name}"] = result["ms"]
    if found:
        work.keep(min(found, key=lambda name: found[name]), *keys, "fastest")


def _direct(gpu: Device, task: Callable[[], Tensor], expected: Callable[[], Tensor]) -> dict[str, float]:
    delta = _delta(task(), expected())
    return {"ms": statistics.median(gpu.milliseconds(task, ROUNDS)), "max_delta": delta}


def _graph(gpu: Device, task: Callable[[], Tensor], expected: Callable[[], Tensor]) -> dict[str, float]:
    replay, logits = gpu.captured(task)
    spent = gpu.milliseconds(replay, ROUNDS)
    return {"ms": statistics.median(spent), "max_delta": _delta(logits, expected())}


def _delta(logits: Tensor, expected: Tensor) -> float:
    return float((logits - expected).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = gpu_header("lstm_strategies", require_gpu())
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder), arguments.json, time.time() + 60 * arguments.minutes, results)
        prepare(work)
        strategies(work, TorchGpu())
    if arguments.json is None:
        print(json.dumps(results, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(shown(main))
