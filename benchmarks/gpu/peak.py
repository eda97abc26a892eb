"""How many prepared images a second the paper's network reads in large batches: width 100, fp16.

Prepared images lie in the host's memory, and the GPU copies them by itself. Copies, network and argmax follow
each other on one stream. Indices and probabilities come back.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.device import Device, best
from benchmarks.gpu.machine import tensorrt
from benchmarks.gpu.measure import noise
from benchmarks.gpu.networks import PAPER, Network, networks
from benchmarks.gpu.own_lstm import CudaKernel, with_own_lstm
from benchmarks.gpu.plans import TorchEngine, plan_of
from benchmarks.gpu.work import Work
from crnn_deploy.errors import BackendMissing
from crnn_deploy.graph.argmax import with_argmax
from crnn_deploy.graph.model import load_onnx
from crnn_deploy.graph.precision import cast
from crnn_deploy.runtime.backends.engine_file import Profile, Range

__all__ = ["peak"]

_WIDTH = 100  # pixels
_BATCHES = (64, 256, 1024)
_ROUNDS = 30
_BUSY = 0.5  # seconds of work before a batch is measured, so that the clocks are up

Way = Callable[[Tensor], Any]  # images (N, C, H, W) float32 on the GPU -> indices and probabilities (N, T)


def peak(work: Work, gpu: Device) -> None:
    """PyTorch, PyTorch's convolutions with our own LSTM kernel, and an engine for each batch."""
    network = next((one for one in networks(work.folder) if one.name == PAPER), None)
    if network is None or not network.onnx.exists():
        raise BackendMissing("the paper's network was not made; the part networks says why")
    for batch in _BATCHES:
        gpu.busy(_BUSY)
        ways: dict[str, Callable[[], Way]] = {
            "torch": lambda: _torch(network.module(), gpu),
            "torch convolutions, own LSTM": lambda: _torch(
                with_own_lstm(network.module(), CudaKernel(gpu), gpu.device), gpu
            ),
            "TensorRT": partial(_engine, work, network, gpu, batch),
        }
        for name, way in ways.items():
            work.attempt(partial(_measured, gpu, way, network, batch), f"batch {batch}", name)


def _torch(module: nn.Module, gpu: Device) -> Way:
    module = module.to(gpu.device, torch.float16, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    return lambda images: best(module(images.half()))


def _engine(work: Work, network: Network, gpu: Device, batch: int) -> Way:
    library = tensorrt()[1]
    model = with_argmax(cast(load_onnx(network.onnx), "fp16"))
    profile = Profile(Range(batch, batch, batch), Range(_WIDTH, _WIDTH, _WIDTH))
    return TorchEngine(library, plan_of(work, library, model, profile), gpu)


@torch.inference_mode()
def _measured(gpu: Device, way: Callable[[], Way], network: Network, batch: int) -> dict[str, Any]:
    compute, images = way(), torch.from_numpy(noise(network.manifest(), batch, _WIDTH))
    staged, inputs = gpu.pinned(*images.shape), torch.zeros(images.shape, device=gpu.device)
    staged.copy_(images)
    rows: dict[str, Any] = {}
    replay, outputs = gpu.captured(partial(compute, inputs))
    hosts = [gpu.pinned(*output.shape, dtype=output.dtype) for output in outputs]

    def whole() -> None:
        inputs.copy_(staged, non_blocking=True)
        replay()
        for host, output in zip(hosts, outputs, strict=True):
            host.copy_(output, non_blocking=True)

    for name, task in (
        ("compute", partial(compute, inputs)),
        ("compute, CUDA graph", replay),
        ("host to host, CUDA graph", whole),
    ):
        milliseconds = statistics.median(gpu.milliseconds(task, _ROUNDS))
        rows[name] = {"ms": milliseconds, "images_per_second": batch / milliseconds * 1e3}
    return rows
