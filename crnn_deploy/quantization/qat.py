"""Training with the rounding of INT8 in the forward pass: that of the Q/DQ graph which `quantize` writes.

The float graph is exported and measured as calibration does, and the nodes that `qdq` quantises are found
again among the modules, so weights, inputs and results are rounded at the same places with the same
fixed scales. Gradients pass through the rounding and stop where it clips (Jacob and others, arXiv
1712.05877). Batch norm is folded into the weights by the export: it scales a channel's weights and their
rounding alike, so the weights are rounded before it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.functional import linear

from crnn_deploy.export.exporter import export
from crnn_deploy.export.pytorch import ReferenceBackend
from crnn_deploy.graph.model import load_onnx, manifest_of
from crnn_deploy.quantization import qdq
from crnn_deploy.quantization.calibrate import probe
from crnn_deploy.quantization.ranges import Ranges

__all__ = ["fake_quantize", "quantization_aware"]

_LOWEST, _HIGHEST = -128, 127  # levels of activations


def quantization_aware(reference: ReferenceBackend, images: Iterable[Tensor], weight_level: int) -> None:
    """Let a float network round as its INT8 file will, in place; its state keeps its names.

    reference: the network, on the CPU
    images: batches (N, C, H, W) that the ranges of the activations are measured on, once
    weight_level: largest level of a weight
    Raises ExportFailed, ExportImpossible, QuantizationImpossible.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        export(reference, path)
        source = load_onnx(path)
    ranges, values = Ranges(), probe(source)
    for batch in images:
        ranges.add(values(batch.contiguous().numpy()))
    fake_quantize(reference.module, source, ranges.of("mse"), weight_level=weight_level)


def fake_quantize(
    module: nn.Module,
    source: onnx.ModelProto,
    ranges: Mapping[str, float],
    *,
    weight_level: int = qdq.WEIGHT_LEVEL,
) -> None:
    """Let a module compute what `qdq.insert` makes of its exported float graph, in place.

    An activation is rounded where a module puts it out, for all that read it; a sum that no module puts out,
    at the convolution that reads it.
    Raises QuantizationImpossible where the graph's nodes are not found among the modules.
    """
    manifest = manifest_of(source)
    calls = _calls(module, torch.zeros(1, manifest.channels, manifest.height, manifest.width.maximum))
    layers = qdq.layers(source)
    convolutions = [call for call in calls if isinstance(call.layer, nn.Conv2d)]
    if len(convolutions) != sum(layer.operator == "Conv" for layer in layers):
        raise qdq.QuantizationImpossible(
            "the exported graph has other convolutions than the network, so it cannot be finetuned for INT8"
        )
    in_order = iter(convolutions)
    weights = {tensor.name: tensor for tensor in source.graph.initializer}
    scales: dict[nn.Module, float] = {}  # of what a layer puts out
    for layer in layers:
        if layer.operator == "Conv":
            call = next(in_order)
        else:
            call = _product(calls, numpy_helper.to_array(weights[layer.weight]), layer.output)
        call.layer.__class__ = _RoundedConv2d if layer.operator == "Conv" else _RoundedLinear
        call.layer.weight_level = weight_level  # type: ignore[assignment]
        maker = _maker(calls, call)
        if maker is None:
            call.layer.register_forward_pre_hook(_of_input(_scale(ranges[layer.reads])))
        else:
            scales[maker] = _scale(ranges[layer.reads])
        if layer.range_tensor is not None:
            last = _reader(calls, call, nn.BatchNorm2d)
            last = _reader(calls, last, nn.ReLU) if layer.range_tensor != layer.output else last
            scales[last.layer] = _scale(ranges[layer.range_tensor])
    for rounded, scale in scales.items():
        rounded.register_forward_hook(_of_output(scale))


@dataclass(frozen=True)
class _Call:
    layer: nn.Module
    read: Tensor
    made: Tensor


class _RoundedConv2d(nn.Conv2d):
    """A convolution with the weights of INT8; the names of its state are a Conv2d's."""

    weight_level: int

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = self._conv_forward(input, _rounded_weight(self.weight, self.weight_level), self.bias)
        return result


class _RoundedLinear(nn.Linear):
    """A linear layer with the weights of INT8; the names of its state are a Linear's."""

    weight_level: int

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, _rounded_weight(self.weight, self.weight_level), self.bias)


def _calls(module: nn.Module, images: Tensor) -> list[_Call]:
    """The calls of the innermost modules in their order."""
    calls: list[_Call] = []

    def note(layer: nn.Module, read: tuple[Any, ...], made: Any) -> None:
        if read and isinstance(read[0], Tensor) and isinstance(made, Tensor):
            calls.append(_Call(layer, read[0], made))

    handles = [layer.register_forward_hook(note) for layer in module.modules() if not list(layer.children())]
    training = module.training
    with torch.no_grad():
        module.eval()(images)
    module.train(training)
    for handle in handles:
        handle.remove()
    return calls


def _maker(calls: Sequence[_Call], reader: _Call) -> nn.Module | None:
    """The layer that puts out what a call reads; None where it does so more than once in a run."""
    made = [call.layer for call in calls[: calls.index(reader)] if call.made is reader.read]
    if not made or sum(call.layer is made[-1] for call in calls) > 1:
        return None
    return made[-1]


def _reader(calls: Sequence[_Call], maker: _Call, kind: type[nn.Module]) -> _Call:
    """The next call of this kind of layer on what a call makes; without one, the call itself."""
    later = calls[calls.index(maker) + 1 :]
    return next((c for c in later if c.read is maker.made and isinstance(c.layer, kind)), maker)


def _product(calls: Sequence[_Call], weight: NDArray[np.float32], output: str) -> _Call:
    for call in calls:
        if isinstance(call.layer, nn.Linear) and np.array_equal(call.layer.weight.detach().numpy().T, weight):
            return call
    raise qdq.QuantizationImpossible(f"no linear layer of the network makes {output} of the exported graph")


def _scale(largest: float) -> float:
    return (largest or 1.0) / _HIGHEST


def _of_input(scale: float) -> Callable[[nn.Module, tuple[Any, ...]], Tensor]:
    return lambda _, read: _rounded(read[0], scale)


def _of_output(scale: float) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    return lambda _, read, made: _rounded(made, scale)


def _rounded(values: Tensor, scale: float) -> Tensor:
    return torch.fake_quantize_per_tensor_affine(values, scale, 0, _LOWEST, _HIGHEST)


def _rounded_weight(weight: Tensor, level: int) -> Tensor:
    """Rounded by output channel."""
    largest = weight.detach().flatten(1).abs().amax(1)
    scale = torch.where(largest > 0, largest / level, torch.ones_like(largest))
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -level, level)
