"""PyTorch's GPU of paper: the CPU, on which work is done at once."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from paper_gpu import PaperCuda, PaperStream
from torch import Tensor

__all__ = ["PaperGpu", "RawBlocks"]


class RawBlocks(dict[int, NDArray[np.uint8]]):
    """Device memory that others own: PyTorch's tensors, by address."""

    def __missing__(self, address: int) -> NDArray[np.uint8]:
        return np.frombuffer(memoryview((ctypes.c_uint8 * 2**24).from_address(address)), np.uint8)


class PromptStream(PaperStream):
    """PyTorch on the CPU does not wait for a stream, so work is done at once."""

    def add(self, work: Callable[[], None]) -> None:
        work()


class PaperGpu:
    """`gpu.device.TorchGpu` on the CPU."""

    device = torch.device("cpu")

    def __init__(self, cuda: PaperCuda) -> None:
        self.handle = PromptStream(cuda).handle

    def pinned(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    def milliseconds(self, task: Callable[[], object], rounds: int) -> list[float]:
        spent = []
        for _ in range(rounds):
            start = time.perf_counter()
            task()
            spent.append((time.perf_counter() - start) * 1e3)
        return spent

    def captured(self, task: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        written = task()

        def replay() -> None:
            pairs = [(written, task())] if isinstance(written, Tensor) else zip(written, task(), strict=True)
            for old, new in pairs:
                old.copy_(new)

        return replay, written

    def synchronize(self) -> None:
        pass

    def recording(self) -> bool:
        return False

    def busy(self, seconds: float) -> None:
        pass
