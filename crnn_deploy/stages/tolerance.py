"""How far a number format alone moves a network's logits: what parity may allow an engine of that format."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from crnn_deploy.engine_file import Precision
from crnn_deploy.stages.inspection import session_of
from crnn_deploy.stages.parity import LARGE, TOLERANCE
from crnn_deploy.stages.precision import cast, rounded, with_tf32_products

__all__ = ["FLOATS", "FormatError", "in_graph", "in_pytorch", "rounded_to_tf32"]

FLOATS: tuple[Precision, ...] = ("fp32", "tf32", "fp16", "bf16")  # int8 is judged by its texts
_SLACK = 4  # other images and other orders of summation: from batch to batch the error varied up to eightfold
_DROPPED = 13  # bits of a float32 mantissa that TF32 lacks
_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}  # others compute in float32


@dataclass(frozen=True)
class FormatError:
    """What a number format costs a network."""

    precision: Precision
    max_delta: float  # largest |delta| of logits
    scale: float  # largest |logit|
    images: int
    against: str  # what it was measured against

    @property
    def tolerance(self) -> float:
        """For logits up to 10, in proportion beyond: `TOLERANCE` at least, and where the format overflows."""
        measured = _SLACK * self.max_delta / max(1, self.scale / LARGE)
        return max(TOLERANCE, measured) if np.isfinite(measured) else TOLERANCE

    def line(self) -> str:
        return (
            f"tolerance: {_SLACK} times what {self.precision} costs this network on the first {self.images} "
            f"images, max |delta| {self.max_delta:.1e} of {self.scale:.1f} against {self.against}"
        )


@torch.inference_mode()
def in_pytorch(
    module: nn.Module, precision: Precision, batches: Sequence[NDArray[np.float32]]
) -> FormatError:
    """The module in the format, on the CPU, against itself in float64.

    module: images (N, C, H, W) -> logits
    precision: one of `FLOATS`
    """
    kind = _TYPES.get(precision, torch.float32)
    exact = copy.deepcopy(module).double()
    coarse = _with_tf32(module) if precision == "tf32" else copy.deepcopy(module).to(kind)
    delta = scale = 0.0
    for batch in batches:
        images = torch.from_numpy(batch)
        expected = exact(images.double())
        actual = coarse(images.to(kind)).double()
        delta = float(np.maximum(delta, float((actual - expected).abs().max())))  # with NaN it is NaN
        scale = max(scale, float(expected.abs().max()))
    return FormatError(precision, delta, scale, sum(map(len, batches)), "PyTorch in float64")


def in_graph(
    model: onnx.ModelProto, precision: Precision, batches: Sequence[NDArray[np.float32]]
) -> FormatError:
    """The model with its tensors rounded to the format against itself, both in ONNX Runtime in float32.

    Where there is no PyTorch module: float32's own error is a hundredth of TF32's and less.
    precision: one of `FLOATS`
    """
    coarse = model
    if precision == "tf32":
        coarse = with_tf32_products(model)
    elif precision == "fp16" or precision == "bf16":
        coarse = rounded(cast(model, precision))
    ours, theirs = session_of(model), session_of(coarse)
    [images] = ours.get_inputs()
    delta = scale = 0.0
    for batch in batches:
        expected = ours.run(None, {images.name: batch})[0]
        actual = theirs.run(None, {images.name: batch})[0]
        delta = float(np.maximum(delta, np.abs(actual - expected).max()))
        scale = max(scale, float(np.abs(expected).max()))
    return FormatError(precision, delta, scale, sum(map(len, batches)), "ONNX Runtime in float32")


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
