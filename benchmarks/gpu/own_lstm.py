"""Our own kernel for the recurrence of a bidirectional LSTM (bilstm.cu), on PyTorch's memory.

One matrix product (cuBLAS) multiplies the inputs of all time steps. One launch of the kernel does the part
that must go step by step.
"""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from benchmarks.gpu.device import Device
from crnn_deploy.errors import BackendMissing
from crnn_deploy.runtime.backends import driver
from crnn_deploy.runtime.backends.cuda import CudaFailed

__all__ = ["CudaKernel", "Kernel", "OwnLSTM", "compiled", "tile_of", "with_own_lstm"]

SOURCE = Path(__file__).parent / "bilstm.cu"
BLOCKS, DIRECTIONS = 8, 2
_TILES = (1, 2, 4, 8)
_SMALLEST = (9, 0)  # compute capability with clusters


class Kernel(Protocol):
    """The recurrence of one layer."""

    def __call__(self, projected: Tensor, recurrent: Tensor) -> Tensor:
        """projected (T, N, 8 x hidden), recurrent (2, 4 x hidden, hidden) -> (T, N, 2 x hidden), float32."""
        ...


class OwnLSTM(nn.Module):
    """A bidirectional `nn.LSTM` of one layer, whose recurrence a kernel computes in float32.

    Raises ValueError for another kind of layer.

    Shape: as the layer's with time first; the final states are not given.
    """

    def __init__(self, layer: nn.LSTM, kernel: Kernel) -> None:
        super().__init__()
        hidden = layer.hidden_size
        plain = layer.num_layers == 1 and layer.bidirectional and layer.bias and not layer.proj_size
        if not plain or layer.batch_first or hidden % 32 or hidden > 256:
            raise ValueError(f"{layer}: one layer, both directions, 32 to 256 units in multiples of 32")
        self._kernel = kernel

        def both(name: str) -> list[Tensor]:
            return [getattr(layer, f"{name}_l0{suffix}").detach() for suffix in ("", "_reverse")]

        self.weight: Tensor
        self.bias: Tensor
        self.register_buffer("weight", torch.cat(both("weight_ih")))
        biases = [one + other for one, other in zip(both("bias_ih"), both("bias_hh"), strict=True)]
        self.register_buffer("bias", torch.cat(biases))
        self._recurrent = torch.stack(both("weight_hh")).float().contiguous()  # half precision too

    def forward(self, sequence: Tensor) -> tuple[Tensor, None]:
        projected = nn.functional.linear(sequence, self.weight, self.bias).float().contiguous()
        return self._kernel(projected, self._recurrent).to(sequence.dtype), None


def with_own_lstm(module: nn.Module, kernel: Kernel, device: torch.device) -> nn.Module:
    """A copy on the device whose LSTMs run by the kernel. Raises ValueError."""
    module = copy.deepcopy(module).to(device)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.LSTM):
                setattr(parent, name, OwnLSTM(child, kernel))
    return module


def tile_of(batch: int, clusters: Callable[[int], int]) -> int:
    """Images of one cluster: the fewest with which all clusters run at once, as far as there are tiles.

    clusters: how many clusters with tiles of that many images run at once
    """
    return next((t for t in _TILES if DIRECTIONS * math.ceil(batch / t) <= clusters(t)), _TILES[-1])


class CudaKernel:
    """The kernel on a GPU with clusters. Raises BackendMissing."""

    def __init__(self, gpu: Device) -> None:
        found = driver.probe().gpus[0]
        if tuple(map(int, found.compute_capability.split("."))) < _SMALLEST:
            raise BackendMissing(f"the kernel needs clusters, compute capability 9.0; {found.name} has none")
        self._driver, self._target, self._gpu = _bindings("driver"), found.target, gpu
        self._functions: dict[tuple[int, int], tuple[Any, Any]] = {}  # module and function
        self._clusters: dict[tuple[int, int], int] = {}

    def __call__(self, projected: Tensor, recurrent: Tensor) -> Tensor:
        steps, batch, _ = projected.shape
        hidden = recurrent.shape[-1]
        tile = tile_of(batch, partial(self.clusters, hidden))
        output = projected.new_empty(steps, batch, DIRECTIONS * hidden)
        values = projected.data_ptr(), recurrent.data_ptr(), output.data_ptr(), steps, batch
        kinds = (*(ctypes.c_void_p,) * 3, ctypes.c_int, ctypes.c_int)
        _call(
            self._driver.cuLaunchKernel,
            *(self._function(hidden, tile), BLOCKS, DIRECTIONS, math.ceil(batch / tile), hidden, 1, 1),
            *(0, self._gpu.handle, (values, kinds), 0),
        )
        return output

    def clusters(self, hidden: int, tile: int) -> int:
        """How many clusters run at once, as the driver says: not all parts of a GPU have room for as many."""
        if (hidden, tile) not in self._clusters:
            config = self._driver.CUlaunchConfig()  # the cluster's size is the kernel's own
            config.gridDimX, config.gridDimY, config.gridDimZ = BLOCKS, DIRECTIONS, 1
            config.blockDimX, config.blockDimY, config.blockDimZ = hidden, 1, 1
            found = _call(self._driver.cuOccupancyMaxActiveClusters, self._function(hidden, tile), config)
            self._clusters[hidden, tile] = int(found)
        return self._clusters[hidden, tile]

    def _function(self, hidden: int, tile: int) -> Any:
        if (hidden, tile) not in self._functions:
            module = _call(self._driver.cuModuleLoadData, compiled(hidden, tile, self._target))
            self._functions[hidden, tile] = module, _call(self._driver.cuModuleGetFunction, module, b"bilstm")
        return self._functions[hidden, tile][1]


@cache
def compiled(hidden: int, tile: int, target: str) -> bytes:
    """The kernel for a GPU as sm_90, by NVRTC. Raises BackendMissing; CudaFailed with the compiler's log."""
    nvrtc = _bindings("nvrtc")
    program = _call(nvrtc.nvrtcCreateProgram, SOURCE.read_bytes(), SOURCE.name.encode(), 0, [], [])
    options = [f"-arch={target}", f"-DHIDDEN={hidden}", f"-DTILE={tile}", "-std=c++17"]
    [code] = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if int(code):
        log = bytearray(_call(nvrtc.nvrtcGetProgramLogSize, program))
        _call(nvrtc.nvrtcGetProgramLog, program, log)
        raise CudaFailed(f"NVRTC does not compile {SOURCE.name}: {log.decode(errors='replace').strip()}")
    cubin = bytearray(_call(nvrtc.nvrtcGetCUBINSize, program))
    _call(nvrtc.nvrtcGetCUBIN, program, cubin)
    return bytes(cubin)


def _bindings(part: str) -> Any:
    try:
        return import_module(f"cuda.bindings.{part}")
    except ImportError as error:
        raise BackendMissing(f"cuda-bindings ({error}); run pip install 'crnn-deploy[cuda]'") from error


def _call(function: Any, *arguments: Any) -> Any:
    """The value that a function of cuda-bindings gives with its result code. Raises CudaFailed."""
    code, *values = function(*arguments)
    if int(code):
        raise CudaFailed(f"{function.__name__} fails: {code.name}")
    return values[0] if values else None
