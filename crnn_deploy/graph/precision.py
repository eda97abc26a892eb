"""An ONNX model in half precision: the types stand in the graph, as a strongly typed network wants them.

Input and output stay float32. Own code, because onnxconverter-common 1.16 knows no bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, version_converter

from crnn_deploy.errors import CrnnDeployError

__all__ = [
    "LARGEST",
    "PEAK",
    "RECURRENT",
    "CastImpossible",
    "Half",
    "cast",
    "from_first_recurrence",
    "matching",
    "rounded",
    "with_tf32_products",
]

Half = Literal["fp16", "bf16"]
LARGEST: dict[Half, float] = {"fp16": 65504.0, "bf16": (2 - 2.0**-7) * 2.0**127}  # finite number
PEAK = "largest_magnitude"  # output of a `rounded` graph

_TYPES: dict[Half, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_ARRAYS: dict[int, Any] = {TensorProto.FLOAT16: np.float16, TensorProto.BFLOAT16: ml_dtypes.bfloat16}
_BF16_OPSET = 22  # the first in which Conv, pooling and LSTM take bfloat16
_HALF_SCALES_OPSET = 19  # the first in which QuantizeLinear and DequantizeLinear have float16 scales
RECURRENT = ("LSTM", "GRU", "RNN")
# whose factors TF32 rounds, and which inputs they are; the state inside a recurrent layer is not reached
_FACTORS = {"Conv": 2, "ConvTranspose": 2, "MatMul": 2, "Gemm": 2, "LSTM": 3, "GRU": 3, "RNN": 3}
_TO_TF32 = np.float32(2**13 + 1)  # splits 23 bits of mantissa into 10 and 13
# what is asked of probabilities and of the likeliest class needs every bit that is left
_ALWAYS_FP32 = ("Softmax", "LogSoftmax", "Log", "ArgMax", "ReduceMax", "TopK")
_FP32_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}  # regions and scales are float32 whatever the data is


class CastImpossible(CrnnDeployError, ValueError):
    """A graph that does not become half precision by a cast."""


def cast(model: onnx.ModelProto, half: Half, *, keep_fp32: Sequence[str] = ()) -> onnx.ModelProto:
    """A copy whose float32 tensors are half precision, but for its inputs, its outputs and what is kept.

    keep_fp32: nodes that stay float32, as patterns (`*`, `?`) of their names or operators
    The manifest and all other metadata stay. Softmax and what takes a maximum stay float32. Of a quantised
    model it is the rest that is cast, with the scales.
    Raises CastImpossible, where a pattern matches nothing too.
    """
    quantised = any(node.op_type == "QuantizeLinear" for node in model.graph.node)
    opset = _BF16_OPSET if half == "bf16" else _HALF_SCALES_OPSET if quantised else 0
    if _opset(model) < opset:
        converted = version_converter.convert_version(model, opset)
    else:
        converted = onnx.ModelProto()
        converted.CopyFrom(model)
    _name_nodes(converted.graph)
    kept = {name for pattern in keep_fp32 for name in _matched(converted, pattern)}
    logarithms = {name for node in converted.graph.node if node.op_type == "Log" for name in node.input}
    # a floor under probabilities, which half precision would round to zero
    kept |= {node.name for node in converted.graph.node if logarithms.intersection(node.output)}
    _Cast(converted, _TYPES[half], kept).run()
    del converted.graph.value_info[:]  # they tell the old types
    onnx.checker.check_model(converted, full_check=True)
    return converted


def matching(model: onnx.ModelProto, pattern: str) -> list[str]:
    """Names of the nodes whose name or operator matches a pattern (`*`, `?`)."""
    return [
        node.name
        for node in model.graph.node
        if fnmatchcase(node.name, pattern) or fnmatchcase(node.op_type, pattern)
    ]


def from_first_recurrence(model: onnx.ModelProto) -> list[str]:
    """Names of the first recurrent node and of all that computes from it: recurrent layers and head."""
    reached: set[str] = set()
    names = []
    for node in model.graph.node:
        if node.op_type in RECURRENT or reached.intersection(node.input):
            reached.update(node.output)
            names.append(node.name)
    return names


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float32 graph that computes what a half precision one stores: each tensor rounded, overflow too.

    Its last output, the scalar `PEAK`, is the largest |value| of a half precision tensor before rounding;
    beyond `LARGEST` it has overflowed, which activations that saturate may hide from the other outputs.
    A CPU is not asked to run the half precision graph itself: ONNX Runtime has few such kernels there, takes
    float32 ones and drops the roundings between them, so that what overflows on a GPU reads as fine. Products
    are summed, and a recurrent layer's states are kept, in float32 here.
    """
    types = _types_of(model)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    del graph.node[:]
    largest_weight = np.float32(0)
    for tensor in graph.initializer:
        if tensor.data_type in _ARRAYS:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            largest_weight = max(largest_weight, np.abs(values).max(initial=0))
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    peaks = ["peak_of_weights"]
    graph.initializer.append(numpy_helper.from_array(np.asarray(largest_weight, np.float32), peaks[0]))
    for original in model.graph.node:
        node = graph.node.add()
        node.CopyFrom(original)
        rounding = []
        for at, name in enumerate(original.output):
            if (kind := types.get(name)) in _ARRAYS:
                exact, half, size, peak = (f"{name}_{part}" for part in ("exact", "half", "size", "peak"))
                node.output[at] = exact
                rounding += [
                    helper.make_node("Cast", [exact], [half], half, to=kind),
                    helper.make_node("Cast", [half], [name], f"{name}_float", to=TensorProto.FLOAT),
                    helper.make_node("Abs", [exact], [size], size),
                    helper.make_node("ReduceMax", [size], [peak], peak, keepdims=0),
                ]
                peaks.append(peak)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in _ARRAYS:
                attribute.i = TensorProto.FLOAT
        graph.node.extend(rounding)
    graph.node.append(helper.make_node("Max", peaks, [PEAK], PEAK))
    graph.output.append(helper.make_tensor_value_info(PEAK, TensorProto.FLOAT, []))
    return result


def with_tf32_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float32 graph that rounds the factors of products to TF32, 10 bits of mantissa, as GPUs do.

    The sums stay float32, and so do the products inside a recurrent layer with its own state. A factor x is
    rounded by c - (c - x), c = 8193 x (Veltkamp's splitting, see Dekker, Numerische Mathematik 18, 1971).
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    made: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for original in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        for at in range(min(_FACTORS.get(node.op_type, 0), len(node.input))):
            name = node.input[at]
            if name not in made:
                made[name] = f"{name}_tf32"
                if name in weights:
                    array = _split(numpy_helper.to_array(weights[name]))
                    graph.initializer.append(numpy_helper.from_array(array, made[name]))
                else:
                    nodes += _splitting(name, made[name])
            node.input[at] = made[name]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(np.asarray(_TO_TF32), "to_tf32"))
    return result


def _split(array: Any) -> Any:
    scaled = array * _TO_TF32
    return scaled - (scaled - array)


def _splitting(source: str, target: str) -> list[onnx.NodeProto]:
    scaled, low = f"{source}_scaled", f"{source}_low"
    return [
        helper.make_node("Mul", [source, "to_tf32"], [scaled], scaled),
        helper.make_node("Sub", [scaled, source], [low], low),
        helper.make_node("Sub", [scaled, low], [target], target),
    ]


def _opset(model: onnx.ModelProto) -> int:
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def _name_nodes(graph: onnx.GraphProto) -> None:
    for at, node in enumerate(graph.node):
        node.name = node.name or f"{node.op_type}_{at}"


def _matched(model: onnx.ModelProto, pattern: str) -> list[str]:
    names = matching(model, pattern)
    if not names:
        operators = ", ".join(sorted({node.op_type for node in model.graph.node}))
        raise CastImpossible(f"no node's name or operator matches {pattern!r}; there are {operators}")
    return names


def _types_of(model: onnx.ModelProto) -> dict[str, int]:
    """Element type of every tensor. Raises CastImpossible."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    except Exception as error:  # onnx raises errors of its own, without a common base
        reason = " ".join(str(error).split())[:200]
        raise CastImpossible(f"the types of its tensors are not known: {reason}") from error
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in inferred.initializer
    }


class _Cast:
    """One walk through a graph, in its order."""

    def __init__(self, model: onnx.ModelProto, half: int, kept: set[str]) -> None:
        self.graph = model.graph
        self.half = half
        self.kept = kept
        self._constants_to_initializers()
        self.types = _types_of(model)
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.halves: set[str] = set()  # float tensors that are computed in half precision
        self.made: dict[tuple[str, int], str] = {}  # what was cast already
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> None:
        original = list(self.graph.node)
        outputs = {value.name for value in self.graph.output}
        for node in original:
            self._check(node)
            slots = [
                at
                for at, name in enumerate(node.input)
                if self.types.get(name) == TensorProto.FLOAT and at not in _FP32_INPUTS.get(node.op_type, ())
            ]
            low = bool(slots) and node.name not in self.kept and node.op_type not in _ALWAYS_FP32
            for at in slots:
                node.input[at] = self._as(node.input[at], self.half if low else TensorProto.FLOAT)
            self.nodes.append(node)
            if not low or node.op_type == "Cast":  # a Cast says its output's type itself
                continue
            for at, name in enumerate(node.output):
                if self.types.get(name) != TensorProto.FLOAT:
                    continue
                if name in outputs:
                    node.output[at] = f"{name}_half"
                    self.made[name, self.half] = node.output[at]
                    self._add_cast(node.output[at], name, TensorProto.FLOAT)
                else:
                    self.halves.add(name)
        self._replace(self.nodes)

    def _check(self, node: onnx.NodeProto) -> None:
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise CastImpossible(f"{node.name} ({node.op_type}) holds a graph of its own; build with --fp32")

    def _as(self, name: str, wanted: int) -> str:
        """The tensor of this name in the wanted type."""
        stored = self.half if name in self.halves else TensorProto.FLOAT
        if stored == wanted:
            return name
        if (name, wanted) not in self.made:
            other = f"{name}_{'float' if wanted == TensorProto.FLOAT else 'half'}"
            self.made[name, wanted] = other
            if name in self.weights:
                with np.errstate(over="ignore"):  # `rounded` tells of it
                    array = numpy_helper.to_array(self.weights[name]).astype(_ARRAYS[wanted])
                self.graph.initializer.append(numpy_helper.from_array(array, other))
            else:
                self._add_cast(name, other, wanted)
        return self.made[name, wanted]

    def _add_cast(self, source: str, target: str, kind: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], f"cast_{target}", to=kind))

    def _constants_to_initializers(self) -> None:
        """Float constants as weights, which are cast here and not while the network runs."""
        rest = []
        for node in self.graph.node:
            if node.op_type == "Constant" and node.attribute[0].t.data_type == TensorProto.FLOAT:
                tensor = self.graph.initializer.add()
                tensor.CopyFrom(node.attribute[0].t)
                tensor.name = node.output[0]
            else:
                rest.append(node)
        self._replace(rest)

    def _replace(self, nodes: list[onnx.NodeProto]) -> None:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.graph.node[:]
        self.graph.node.extend(copies)
        used = {name for node in copies for name in node.input} | {v.name for v in self.graph.output}
        weights = [t for t in self.graph.initializer if t.name in used]
        weights = [onnx.TensorProto.FromString(t.SerializeToString()) for t in weights]
        del self.graph.initializer[:]
        self.graph.initializer.extend(weights)
