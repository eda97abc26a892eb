"""Which way to run a bidirectional LSTM is fastest on this GPU.

Measured are the default model and the paper's network, in fp32 (without TF32) and fp16: whole networks, from
images on the GPU to logits on the GPU. The ways are:

- PyTorch
- TensorRT's loop over both directions
- two forward LSTMs, one of which reads the sequence reversed
- an engine for each width
- convolutions in TensorRT, and LSTMs in cuDNN or in our own kernel (bilstm.cu), on the same memory
- convolutions in PyTorch, and our own kernel

Times are medians in milliseconds by CUDA events, with and without a CUDA graph. max_delta is the difference
from PyTorch in float64. Our kernel needs [cuda] and compute capability 9.0.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import onnx
import torch
from torch import Tensor, nn

from benchmarks.gpu.device import Device
from benchmarks.gpu.graphs import two_forward_lstms, up_to_first_lstm
from benchmarks.gpu.machine import tensorrt
from benchmarks.gpu.networks import Network, networks, split
from benchmarks.gpu.own_lstm import CudaKernel, with_own_lstm
from benchmarks.gpu.plans import TorchEngine, plan_of
from benchmarks.gpu.work import Work
from crnn_deploy.graph.model import load_onnx
from crnn_deploy.graph.precision import cast
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends.engine_file import Profile, Range

__all__ = ["own_kernel", "strategies"]

BATCHES, WIDTHS = (1, 8, 64), (104, 320)
ROUNDS = 30
_BUSY = 0.2  # seconds of work before a size is measured, so that the clocks are up

Way = Callable[[Tensor], Tensor]  # images (N, C, H, W) float32 -> logits (N, T, classes) float32


@dataclass(frozen=True)
class Strategy:
    """One way to run a network, made when it is asked for."""

    name: str
    make: Callable[[], Way]
    width: int | None = None  # that it serves; None: all


def strategies(work: Work, gpu: Device) -> None:
    """Each strategy for each network and precision at each batch and width, by the libraries alone."""
    _measure(work, gpu, _by_libraries, "")


def own_kernel(work: Work, gpu: Device) -> None:
    """The same with our own kernel, apart: a wrong address in it would cost those that follow the GPU."""
    _measure(work, gpu, _by_own_kernel, ", own kernel")


def _measure(
    work: Work, gpu: Device, ways: Callable[[Work, Device, Network, bool], list[Strategy]], suffix: str
) -> None:
    for half in (False, True):
        for network in networks(work.folder):
            place = network.name, f"{'fp16' if half else 'fp32'}{suffix}"
            made: list[tuple[Strategy, Way]] = []
            for strategy in ways(work, gpu, network, half):
                task = partial(_make, made, strategy)
                work.attempt(task, *place, "made", _title(strategy), again=True)
            exact = cache(lambda network=network: network.module().to(gpu.device, torch.float64))
            for width in WIDTHS:
                for batch in BATCHES:
                    images = _noise(network.manifest(), batch, width).to(gpu.device)
                    _compare(work, gpu, exact, made, images, (*place, f"batch {batch}, width {width}"))


def _by_libraries(work: Work, gpu: Device, network: Network, half: bool) -> list[Strategy]:
    kind = _kind(half)

    def whole(change: Callable[[onnx.ModelProto], onnx.ModelProto], widths: Range) -> Way:
        made = _engine(work, gpu, network, change, half, widths)
        return lambda images: made(images)[0]

    return [
        Strategy("torch", lambda: _torch(gpu, network.module(), kind)),
        Strategy("TensorRT, looped", lambda: whole(_unchanged, _every_width())),
        Strategy("TensorRT, two forward LSTMs", lambda: whole(two_forward_lstms, _every_width())),
        *(Strategy("TensorRT, static width", partial(whole, _unchanged, Range(w, w, w)), w) for w in WIDTHS),
        Strategy(
            "TensorRT convolutions, cuDNN LSTM",
            lambda: _joined(work, gpu, network, half, _torch(gpu, split(network.module())[1], kind)),
        ),
    ]


def _by_own_kernel(work: Work, gpu: Device, network: Network, half: bool) -> list[Strategy]:
    @cache
    def kernel() -> CudaKernel:
        return CudaKernel(gpu)

    def own(module: nn.Module) -> Way:
        return _torch(gpu, with_own_lstm(module, kernel(), gpu.device), _kind(half))

    return [
        Strategy("torch", lambda: _torch(gpu, network.module(), _kind(half))),
        Strategy("torch convolutions, own LSTM", lambda: own(network.module())),
        Strategy(
            "TensorRT convolutions, own LSTM",
            lambda: _joined(work, gpu, network, half, own(split(network.module())[1])),
        ),
    ]


def _kind(half: bool) -> torch.dtype:
    return torch.float16 if half else torch.float32


def _unchanged(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


def _every_width() -> Range:
    return Range(WIDTHS[0], WIDTHS[0], WIDTHS[-1])


def _engine(
    work: Work,
    gpu: Device,
    network: Network,
    change: Callable[[onnx.ModelProto], onnx.ModelProto],
    half: bool,
    widths: Range,
) -> TorchEngine:
    trt, model = tensorrt()[1], change(load_onnx(network.onnx))
    typed = cast(model, "fp16") if half else model
    profile = Profile(Range(BATCHES[0], BATCHES[len(BATCHES) // 2], BATCHES[-1]), widths)
    return TorchEngine(trt, plan_of(work, trt, typed, profile), gpu)


def _joined(work: Work, gpu: Device, network: Network, half: bool, rest: Way) -> Way:
    """Convolutions in TensorRT, then the rest in PyTorch, on the same memory and stream."""
    convolutions = _engine(work, gpu, network, up_to_first_lstm, half, _every_width())
    return lambda images: rest(convolutions(images)[0])


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
    exact: Callable[[], nn.Module],
    made: list[tuple[Strategy, Way]],
    images: Tensor,
    keys: tuple[str, ...],
) -> None:
    """Milliseconds and max_delta of each strategy at one size, and which is the fastest."""
    if work.kept(*keys, "fastest") is not None:
        return
    if work.late():
        if work.kept(*keys) is not None:
            return
        work.keep({"error": "not begun: the time of this part is spent"}, *keys)
        return
    expected = cache(lambda: exact()(images.double()))
    gpu.busy(_BUSY)
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
