"""The PyTorch reference: the module itself, run the slow and certain way, and in other number formats."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn_deploy.errors import first_line
from crnn_deploy.manifest import Manifest
from crnn_deploy.parity.tolerance import Meter
from crnn_deploy.runtime.backends.engine_file import Precision
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = ["ReferenceBackend", "flops", "in_pytorch", "one_thread", "rounded_to_tf32"]

_DROPPED = 13  # bits of a float32 mantissa that TF32 lacks
_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}  # others compute in float32


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it PyTorch computes in one thread.

    What runs image by image gains little by a second one, and where other processes have the CPUs the threads
    wait for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ReferenceBackend:
    """A module (N, C, H, W) -> logits (N, T, classes), run in fp32 on the CPU.

    Images run one at a time: PyTorch picks other kernels for other batch sizes, and a reference must not
    depend on the batch.
    """

    def __init__(self, module: nn.Module, manifest: Manifest) -> None:
        self.module = module.eval().float()
        self.manifest = manifest

    def run(self, images: NDArray[np.float32]) -> Frames:
        with torch.inference_mode():
            rows = [self.module(torch.from_numpy(image[None])) for image in images]
        return Frames.from_logits(torch.cat(rows).numpy())

    def exact(self, images: NDArray[np.float32]) -> NDArray[np.float64] | str:
        """Logits (N, T, classes) in float64; or why the network does not run so."""
        try:
            double = copy.deepcopy(self.module).double()
            with torch.inference_mode():
                rows = [double(torch.from_numpy(image[None]).double()) for image in images]
        except Exception as error:  # a module of one's own may raise anything
            return f"the network does not run in it ({first_line(error)[:200]})"
        if any(row.dtype != torch.float64 for row in rows):
            return f"the network puts out {rows[0].dtype} there"
        logits: NDArray[np.float64] = torch.cat(rows).numpy()
        return logits

    def meter(self, precision: Precision) -> Meter:
        """What a number format costs the network, as of `in_pytorch`."""
        return in_pytorch(self.module, precision)

    def close(self) -> None:
        del self.module


def flops(reference: ReferenceBackend, width: int) -> int:
    """Operations of convolutions, matrix products and recurrent layers for one image of this width.

    As `graph.flops` counts them, while the module runs.
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += 2 * output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += 2 * output.numel() * layer.in_features
        elif isinstance(layer, nn.LSTM | nn.GRU):
            steps = inputs[0].shape[1 if layer.batch_first else 0]
            total += 2 * steps * sum(p.numel() for n, p in layer.named_parameters() if "weight" in n)

    layers = [
        m for m in reference.module.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.LSTM | nn.GRU)
    ]
    handles = [layer.register_forward_hook(count) for layer in layers]
    manifest = reference.manifest
    with torch.inference_mode():
        reference.module(torch.zeros(1, manifest.channels, manifest.height, width))
    for handle in handles:
        handle.remove()
    return total


def in_pytorch(module: nn.Module, precision: Precision) -> Meter:
    """The module in the format, on the CPU, against itself in float64.

    module: images (N, C, H, W) -> logits
    precision: one of `tolerance.FLOATS`
    """
    kind = _TYPES.get(precision, torch.float32)
    coarse = _with_tf32(module) if precision == "tf32" else copy.deepcopy(module).to(kind)
    return Meter(
        precision,
        partial(_logits, copy.deepcopy(module).double(), torch.float64),
        partial(_logits, coarse, kind),
        "PyTorch in float64",
    )


@torch.inference_mode()
def _logits(module: nn.Module, kind: torch.dtype, images: NDArray[np.float32]) -> NDArray[np.float64]:
    default = torch.get_default_dtype()
    torch.set_default_dtype(kind)  # of what a network makes itself, such as the first state of an LSTM
    try:
        found: NDArray[np.float64] = module(torch.from_numpy(images).to(kind)).double().numpy()
    finally:
        torch.set_default_dtype(default)
    return found


def rounded_to_tf32(values: Tensor) -> Tensor:
    """float32 values with the 10 bits of mantissa that TF32 keeps, rounded to the nearest, ties to even."""
    bits = values.contiguous().view(torch.int32)
    even = (bits >> _DROPPED) & 1
    kept = (bits + (1 << (_DROPPED - 1)) - 1 + even) & -(1 << _DROPPED)
    return kept.view(torch.float32)


def _with_tf32(module: nn.Module) -> nn.Module:
    """A copy whose products have rounded factors; the state inside a recurrent layer is not reached."""
    module = copy.deepcopy(module)

    def round_inputs(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return rounded_to_tf32(inputs[0]), *inputs[1:]

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.RNNBase):
            for name, parameter in layer.named_parameters(recurse=False):
                if "weight" in name:
                    parameter.data = rounded_to_tf32(parameter.data)
            layer.register_forward_pre_hook(round_inputs)
    return module
