"""The GPU through PyTorch: its stream, events and graphs, and a network that runs there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn_deploy.errors import BackendMissing
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = ["KINDS", "Device", "TorchBackend", "TorchGpu", "best", "products_in_tf32"]

KINDS = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

_WARM = 3  # runs before a graph is recorded: libraries choose kernels and take memory then


class Device(Protocol):
    """Where tensors are, and how long work on them takes."""

    @property
    def device(self) -> torch.device: ...

    @property
    def handle(self) -> int:
        """The stream of this thread, which PyTorch's work goes to as well."""
        ...

    def pinned(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory of the host that the device copies by itself."""
        ...

    def milliseconds(self, task: Callable[[], object], rounds: int) -> list[float]:
        """How long each of the rounds took on the device; `task` queues its work on the stream."""
        ...

    def captured(self, task: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        """The work that `task` queues as a graph: what replays it, and the memory that it writes to."""
        ...

    def synchronize(self) -> None: ...

    def recording(self) -> bool:
        """Whether `captured` records now."""
        ...

    def busy(self, seconds: float) -> None:
        """Work for a while, so that the clocks are up: an idle GPU runs at a fraction of its clock."""
        ...


class TorchGpu:
    """The first GPU; fp32 is without TF32 there. Raises BackendMissing where PyTorch cannot use it."""

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise BackendMissing(f"PyTorch {torch.__version__} finds no GPU; install its build for CUDA")
        self.device = torch.device("cuda", 0)
        _set_tf32(False)
        # not the default stream, which waits for all others
        self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        torch.cuda.set_stream(self._stream)
        self.handle = int(self._stream.cuda_stream)

    def pinned(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def milliseconds(self, task: Callable[[], object], rounds: int) -> list[float]:
        # PyTorch's annotations lack those of events
        event: Callable[[], Any] = partial(torch.cuda.Event, enable_timing=True)
        marks = [(event(), event()) for _ in range(rounds)]
        for start, end in marks:
            start.record()
            task()
            end.record()
        self.synchronize()
        return [start.elapsed_time(end) for start, end in marks]

    def captured(self, task: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        for _ in range(_WARM):
            task()
        self.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            written = task()
        return graph.replay, written

    def synchronize(self) -> None:
        self._stream.synchronize()

    def recording(self) -> bool:
        return torch.cuda.is_current_stream_capturing()

    def busy(self, seconds: float) -> None:
        matrix = torch.ones(4096, 4096, device=self.device, dtype=torch.float16)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for _ in range(20):
                matrix @ matrix
            self.synchronize()


@contextmanager
def products_in_tf32(allowed: bool) -> Iterator[None]:
    """Inside, whether PyTorch may run fp32 convolutions, LSTMs and products in TF32; afterwards not."""
    _set_tf32(allowed)
    try:
        yield
    finally:
        _set_tf32(False)


def _set_tf32(allowed: bool) -> None:
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def best(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Index and probability of each frame's likeliest class (N, T), of logits (N, T, classes)."""
    probabilities, indices = logits.float().softmax(2).max(2)
    return indices, probabilities


class TorchBackend:
    """A network in PyTorch on the GPU, from images to the likeliest classes, taken there. Of one thread.

    kind: of `KINDS`
    graphs: whether each shape is recorded as a CUDA graph when it first comes
    """

    def __init__(
        self, gpu: Device, module: nn.Module, manifest: Manifest, *, kind: str, graphs: bool
    ) -> None:
        self.manifest = replace(manifest, output="argmax")
        self._kind, self._tf32 = KINDS[kind], kind == "tf32"
        self._module = module.to(gpu.device, self._kind, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._gpu, self._graphs = gpu, graphs
        self._shapes: dict[tuple[int, ...], tuple[Tensor, Tensor, Callable[[], Any], Any]] = {}

    @torch.inference_mode()
    def run(self, images: NDArray[np.float32]) -> Frames:
        with products_in_tf32(self._tf32):
            if images.shape not in self._shapes:
                self._shapes[images.shape] = self._prepared(images.shape)
            staged, inputs, compute, written = self._shapes[images.shape]
            staged.copy_(torch.from_numpy(images))
            inputs.copy_(staged, non_blocking=True)
            indices, probabilities = compute() or written
            return Frames(indices.cpu().numpy(), probabilities.cpu().numpy())

    def _prepared(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Callable[[], Any], Any]:
        staged, inputs = self._gpu.pinned(*shape), torch.zeros(shape, device=self._gpu.device)

        def compute() -> tuple[Tensor, Tensor]:
            return best(self._module(inputs.to(self._kind)))

        return (staged, inputs, *(self._gpu.captured(compute) if self._graphs else (compute, None)))

    def close(self) -> None:
        self._shapes.clear()
        del self._module
