"""How far a number format alone moves a network's logits: what parity may allow an engine of that format."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn_deploy.graph.model import session_of
from crnn_deploy.graph.precision import cast, rounded, with_tf32_products
from crnn_deploy.parity.compare import LARGE, TIE, TOLERANCE
from crnn_deploy.runtime.backends.engine_file import Precision

__all__ = ["FLOATS", "FormatError", "Meter", "in_graph", "in_pytorch", "rounded_to_tf32"]

Logits = Callable[[NDArray[np.float32]], NDArray[np.float64]]

FLOATS: tuple[Precision, ...] = ("fp32", "tf32", "fp16", "bf16")  # int8 is judged by its texts
# Other images come, and GPUs sum in another order. The worst of 910 photographed words and receipts was, in
# 99 of 100 samples, at most 3.9 times the worst of 256 of them (benchmarks/accuracy/number_formats.py).
_SLACK = 4
_DROPPED = 13  # bits of a float32 mantissa that TF32 lacks
_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}  # others compute in float32


@dataclass(frozen=True)
class FormatError:
    """What a number format costs a network."""

    precision: Precision
    max_delta: float  # largest |delta| of logits
    probability_delta: float  # largest |delta| of the best class's probability
    scale: float  # largest |logit|
    images: int
    against: str  # what it was measured against

    @property
    def tolerance(self) -> float:
        """For logits up to 10, in proportion beyond: `TOLERANCE` at least, and where the format overflows."""
        measured = _SLACK * self.max_delta / max(1, self.scale / LARGE)
        return max(TOLERANCE, measured) if np.isfinite(measured) else TOLERANCE

    @property
    def probability_tolerance(self) -> float:
        """For what puts out the best class and its probability alone."""
        measured = _SLACK * self.probability_delta
        return min(1.0, max(TOLERANCE, measured)) if np.isfinite(measured) else TOLERANCE

    @property
    def tie(self) -> float:
        """Margin of a frame's two likeliest classes below which a turned argmax is put down to the format."""
        return max(TIE, self.max_delta) if np.isfinite(self.max_delta) else TIE

    def line(self) -> str:
        return (
            f"tolerance: {_SLACK} times what {self.precision} costs this network on {self.images} images, "
            f"max |delta| {self.max_delta:.1e} of {self.scale:.1f} against {self.against}"
        )


class Meter:
    """Measures what a number format costs a network, batch by batch.

    exact, coarse: images (N, C, H, W) -> logits of the network, and of the network in the format
    """

    def __init__(self, precision: Precision, exact: Logits, coarse: Logits, against: str) -> None:
        self._exact, self._coarse = exact, coarse
        self.error = FormatError(precision, 0.0, 0.0, 0.0, 0, against)

    def measure(self, images: NDArray[np.float32]) -> FormatError:
        """Add a batch; what was found so far."""
        expected, actual = self._exact(images), self._coarse(images)
        delta = np.abs(actual - expected).max()
        sure = np.abs(_best_probability(actual) - _best_probability(expected)).max()
        self.error = replace(
            self.error,
            max_delta=float(np.maximum(self.error.max_delta, delta)),  # with NaN it is NaN
            probability_delta=float(np.maximum(self.error.probability_delta, sure)),
            scale=max(self.error.scale, float(np.abs(expected).max())),
            images=self.error.images + len(images),
        )
        return self.error

    def over(self, batches: Iterable[NDArray[np.float32]]) -> FormatError:
        """Add batches; what was found in all."""
        for images in batches:
            self.measure(images)
        return self.error


def in_pytorch(module: nn.Module, precision: Precision) -> Meter:
    """The module in the format, on the CPU, against itself in float64.

    module: images (N, C, H, W) -> logits
    precision: one of `FLOATS`
    """
    kind = _TYPES.get(precision, torch.float32)
    coarse = _with_tf32(module) if precision == "tf32" else copy.deepcopy(module).to(kind)
    return Meter(
        precision,
        partial(_logits, copy.deepcopy(module).double(), torch.float64),
        partial(_logits, coarse, kind),
        "PyTorch in float64",
    )


def in_graph(model: onnx.ModelProto, precision: Precision) -> Meter:
    """The model with its tensors rounded to the format against itself, both in ONNX Runtime in float32.

    Where there is no PyTorch module: float32's own error is a hundredth of TF32's and less.
    precision: one of `FLOATS`
    """
    coarse = model
    if precision == "tf32":
        coarse = with_tf32_products(model)
    elif precision == "fp16" or precision == "bf16":
        coarse = rounded(cast(model, precision))
    return Meter(precision, _run_of(model), _run_of(coarse), "ONNX Runtime in float32")


def _best_probability(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each frame (N, T), of logits (N, T, classes)."""
    shifted = logits - logits.max(axis=2, keepdims=True)
    found: NDArray[np.float64] = np.reciprocal(np.exp(shifted).sum(axis=2))
    return found


@torch.inference_mode()
def _logits(module: nn.Module, kind: torch.dtype, images: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = module(torch.from_numpy(images).to(kind)).double().numpy()
    return found


def _run_of(model: onnx.ModelProto) -> Logits:
    session = session_of(model)
    [node] = session.get_inputs()
    return lambda images: session.run(None, {node.name: images})[0].astype(np.float64)


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
