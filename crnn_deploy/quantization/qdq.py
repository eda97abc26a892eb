"""An ONNX model with QuantizeLinear and DequantizeLinear around what runs in int8.

Per-channel symmetric weights, activations with one scale a tensor and zero point 0: what TensorRT takes and
ONNX Runtime turns into integer kernels. Own placement, because sensitivity, search and quantisation-aware
training choose the same nodes, and onnxruntime.quantization keeps the ReLUs of symmetric activations.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from crnn_deploy.errors import CrnnDeployError

__all__ = [
    "WEIGHT_LEVEL",
    "Activations",
    "QuantizableLayer",
    "QuantizationImpossible",
    "calibrated_tensors",
    "check_float",
    "drop_idle_pairs",
    "insert",
    "layers",
    "quantizable",
    "quantized_weight",
]

Activations = Literal["int8", "uint8"]

WeightBits = Literal[7, 8]
# On x86 without VNNI, ONNX Runtime adds two products of 8-bit numbers in 16 bits, which overflows silently
# with 8-bit weights; with 7 bits a file reads the same on every CPU. Of a file with 8, its manifest says so.
LEVELS: dict[WeightBits, int] = {7: 63, 8: 127}  # largest of a weight
WEIGHT_LEVEL = LEVELS[7]
_INT8, _UINT8 = 127, 255  # largest levels of activations
_INTEGER = {"Conv", "MatMul", "Add", "Relu", "MaxPool"}  # operators that run in integers between such pairs
_POOLS = ("MaxPool",)  # give what they take, so a scale passes through them


class QuantizationImpossible(CrnnDeployError, ValueError):
    """A model that has nothing to quantise, or is quantised already."""


@dataclass(frozen=True)
class QuantizableLayer:
    """A node that is quantised, told by its output."""

    output: str
    operator: str
    weight: str
    reads: str  # the tensor whose range its input has: before poolings
    range_tensor: str | None  # the tensor whose range its result has: behind a ReLU; None if it stays float


@dataclass(frozen=True)
class _Graph:
    """Who makes and who reads each tensor."""

    makers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, list[onnx.NodeProto]]
    constants: Mapping[str, onnx.TensorProto]
    outputs: frozenset[str]

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> _Graph:
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        return cls(
            {name: node for node in graph.node for name in node.output},
            readers,
            {tensor.name: tensor for tensor in graph.initializer},
            frozenset(value.name for value in graph.output),
        )

    def range_tensor(self, node: onnx.NodeProto) -> str:
        """The tensor that holds a node's result: behind its ReLU, where that alone reads it."""
        [name] = node.output
        readers = self.readers.get(name, [])
        if len(readers) == 1 and readers[0].op_type == "Relu" and name not in self.outputs:
            return str(readers[0].output[0])
        return str(name)


def check_float(model: onnx.ModelProto) -> None:
    """Raises QuantizationImpossible for a model that is quantised already, or has nothing to quantise."""
    if any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLSTM") for node in model.graph.node):
        raise QuantizationImpossible("the model is quantised already; give the float model that it came from")
    if not quantizable(model):
        raise QuantizationImpossible("the model has no convolution or matrix product with constant weights")


def quantizable(model: onnx.ModelProto) -> list[str]:
    """Outputs of the convolutions and matrix products whose weights are constants, in the graph's order.

    A tensor's name tells a node, since names of nodes may be absent.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "MatMul") and node.input[1] in constants:
            weight = constants[node.input[1]]
            if weight.data_type == TensorProto.FLOAT and (node.op_type == "Conv" or len(weight.dims) == 2):
                found.append(node.output[0])
    return found


def layers(model: onnx.ModelProto) -> list[QuantizableLayer]:
    """The `quantizable` nodes and which ranges each needs."""
    graph = _Graph.of(model.graph)
    found = []
    for output in quantizable(model):
        node = graph.makers[output]
        range_tensor = graph.range_tensor(node) if node.op_type == "Conv" else None
        found.append(
            QuantizableLayer(
                output,
                node.op_type,
                node.input[1],
                _source(graph, node.input[0]),
                None if range_tensor in graph.outputs else range_tensor,
            )
        )
    return found


def calibrated_tensors(model: onnx.ModelProto) -> list[str]:
    """The tensors whose ranges `insert` asks for."""
    graph = _Graph.of(model.graph)
    names: dict[str, None] = {}
    for layer in layers(model):
        names[layer.reads] = None
        if layer.range_tensor is not None:
            names[layer.range_tensor] = None
    for node in model.graph.node:
        if _is_sum(node, graph):
            names[graph.range_tensor(node)] = None
    return list(names)


def insert(
    model: onnx.ModelProto,
    ranges: Mapping[str, float],
    *,
    keep_float: Collection[str] = (),
    activations: Activations = "int8",
    weight_level: int = WEIGHT_LEVEL,
) -> onnx.ModelProto:
    """A quantised copy; metadata stays.

    ranges: largest |value| of each tensor that `calibrated_tensors` names; what lies beyond is clipped
    keep_float: outputs of the `quantizable` nodes that stay float
    activations: uint8 is for CPUs alone: tensors without negative values get all 255 levels, and their ReLU
        goes into the convolution. TensorRT takes int8 alone.
    weight_level: largest level of a weight; above 63 a CPU without VNNI overflows
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph.of(result.graph)
    chosen = [name for name in quantizable(model) if name not in keep_float]
    scaled = _scaled_tensors(result, graph, chosen)
    _quantize(result, graph, chosen, scaled, ranges, activations, weight_level)
    onnx.checker.check_model(result, full_check=True)
    return result


def drop_idle_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the quantisations whose results no quantised layer reads, as before the LSTM.

    ONNX Runtime needs them to run the layer before in integers. TensorRT moves them behind the Squeeze that
    follows and then fails to build for dynamic widths (seen with TensorRT for RTX 1.7.1).
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = _Graph.of(result.graph)
    idle: dict[str, str] = {}
    for node in result.graph.node:
        readers = {reader.op_type for reader in graph.readers.get(node.output[0], [])}
        if node.op_type == "DequantizeLinear" and node.input[0] in graph.makers and not readers & _INTEGER:
            idle[node.output[0]] = graph.makers[node.input[0]].input[0]
    levels = {graph.makers[name].input[0] for name in idle}
    kept = [node for node in result.graph.node if not {*node.output} & (idle.keys() | levels)]
    for node in kept:
        node.input[:] = [idle.get(name, name) for name in node.input]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del result.graph.node[:]
    result.graph.node.extend(copies)
    return result


def quantized_weight(
    weight: NDArray[np.float32], axis: int, level: int = WEIGHT_LEVEL
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Levels of a weight and its scale by channel; a channel of zeros has scale 1."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight).max(axis=others)
    scale = (largest / level).astype(np.float32)
    scale[scale == 0] = 1  # weights too small for a scale are zeros too
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    levels = np.clip(np.rint(weight / scale.reshape(shape)), -level, level)
    return levels.astype(np.int8), scale


def _source(graph: _Graph, name: str) -> str:
    """The tensor whose range is that of `name`: before the poolings."""
    while name in graph.makers and graph.makers[name].op_type in _POOLS:
        name = graph.makers[name].input[0]
    return name


def _is_sum(node: onnx.NodeProto, graph: _Graph) -> bool:
    """A residual addition: of two activations, before the recurrence."""
    if node.op_type != "Add" or any(name in graph.constants for name in node.input):
        return False
    return all(name in graph.makers for name in node.input)


def _scaled_tensors(model: onnx.ModelProto, graph: _Graph, chosen: Collection[str]) -> dict[str, str]:
    """Every tensor that is quantised, and the one whose range it has."""
    scaled: dict[str, str] = {}

    def add_result(node: onnx.NodeProto) -> None:
        range_tensor = graph.range_tensor(node)
        if range_tensor not in graph.outputs:  # an output is left as it is computed
            # before a ReLU too, where ONNX Runtime wants a quantisation
            scaled[node.output[0]] = range_tensor
            scaled[range_tensor] = range_tensor

    for node in model.graph.node:
        if node.output and node.output[0] in chosen:
            name = str(node.input[0])
            scaled.setdefault(name, _source(graph, name))
            if node.op_type == "Conv":
                add_result(node)
        elif _is_sum(node, graph) and all(name in scaled for name in node.input):
            add_result(node)
        elif node.op_type in _POOLS and node.input[0] in scaled and node.output[0] not in graph.outputs:
            scaled[node.output[0]] = _source(graph, node.output[0])
    return scaled


def _quantize(
    model: onnx.ModelProto,
    graph: _Graph,
    chosen: Collection[str],
    scaled: Mapping[str, str],
    ranges: Mapping[str, float],
    activations: Activations,
    weight_level: int,
) -> None:
    positive = {name for name, node in graph.makers.items() if node.op_type == "Relu"}
    new: list[onnx.TensorProto] = []
    pairs: dict[str, list[onnx.NodeProto]] = {}
    read = {name: f"{name}_dequantized" for name in scaled}
    dropped: set[str] = set()  # results of ReLUs that a quantisation to levels from 0 makes needless
    for name, source in scaled.items():
        relu = graph.makers.get(name)
        if activations == "uint8" and relu is not None and relu.op_type == "Relu" and relu.input[0] in scaled:
            dropped.add(name)
            read[name] = read[relu.input[0]]
            continue
        levels: int = _INT8
        zero: NDArray[Any] = np.array(0, np.int8)
        if activations == "uint8":
            levels = _UINT8 if source in positive else _INT8
            zero = np.array(0 if source in positive else _INT8 + 1, np.uint8)
        scale = np.float32((ranges[source] or 1.0) / levels)
        new += [
            numpy_helper.from_array(np.asarray(scale), f"{name}_scale"),
            numpy_helper.from_array(zero, f"{name}_zero"),
        ]
        pairs[name] = _pair(name, read[name])
    nodes = [node for value in model.graph.input for node in pairs.get(value.name, [])]
    for original in model.graph.node:
        if original.output[0] in dropped:
            continue
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for at, name in enumerate(node.input):
            node.input[at] = read.get(name, name)
        if node.output[0] in chosen:
            nodes.append(_quantize_weight(node, graph, new, weight_level))
        nodes.append(node)
        for name in node.output:
            nodes += pairs.get(name, [])
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *new])
    del model.graph.value_info[:]


def _quantize_weight(
    node: onnx.NodeProto, graph: _Graph, new: list[onnx.TensorProto], weight_level: int
) -> onnx.NodeProto:
    """Let a node read its weight from a DequantizeLinear, which is returned."""
    axis = 0 if node.op_type == "Conv" else 1
    name = f"{node.output[0]}_weight"
    levels, scale = quantized_weight(
        numpy_helper.to_array(graph.constants[node.input[1]]), axis, weight_level
    )
    parts: dict[str, NDArray[Any]] = {
        "quantized": levels,
        "scale": scale,
        "zero": np.zeros(scale.shape, np.int8),
    }
    new += [numpy_helper.from_array(array, f"{name}_{part}") for part, array in parts.items()]
    node.input[1] = f"{name}_dequantized"
    inputs = [f"{name}_{part}" for part in parts]
    return helper.make_node(
        "DequantizeLinear", inputs, [node.input[1]], f"{name}_DequantizeLinear", axis=axis
    )


def _pair(name: str, values: str) -> list[onnx.NodeProto]:
    """Q and DQ of a tensor; what is dequantised is called `values`."""
    levels, parameters = f"{name}_quantized", [f"{name}_scale", f"{name}_zero"]
    return [
        helper.make_node("QuantizeLinear", [name, *parameters], [levels], f"{name}_QuantizeLinear"),
        helper.make_node("DequantizeLinear", [levels, *parameters], [values], f"{name}_DequantizeLinear"),
    ]
