"""What stands before and behind another tool's graph, so that it takes prepared images and gives scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from crnn_deploy.runtime.backends.outputs import SMALLEST

__all__ = [
    "PIXELS",
    "Place",
    "fed",
    "folded",
    "inputs_of",
    "opset",
    "padded",
    "pruned",
    "questioned",
    "scored",
    "sort_nodes",
    "training_nodes",
    "with_log_softmax",
]

PIXELS = (TensorProto.UINT8, TensorProto.INT32, TensorProto.INT64)  # types of inputs that hold grey levels
_AXES_ARE_INPUTS = 13  # of Squeeze, from this opset on
_BOUNDS_ARE_INPUTS = 11  # of Clip
_LAYOUT = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")  # no number changes


@dataclass(frozen=True)
class Place:
    """Where the scores stand in a tensor, and how they lie there."""

    name: str  # of the tensor
    axes: tuple[int, int, int]  # of images, time steps and classes; others have one entry. Flat: 0, 0, 1
    flat: Literal["images", "steps"] | None = None  # (rows, classes): an image's rows together, or a step's

    def arranged(self, tensor: NDArray[Any], batch: int) -> NDArray[Any]:
        """The scores as (N, T, classes)."""
        if self.flat == "images":
            return tensor.reshape(batch, -1, tensor.shape[1])
        if self.flat == "steps":
            return tensor.reshape(-1, batch, tensor.shape[1]).transpose(1, 0, 2)
        rest = [axis for axis in range(tensor.ndim) if axis not in self.axes]
        return tensor.transpose(*self.axes, *rest).reshape([tensor.shape[axis] for axis in self.axes])


def opset(model: onnx.ModelProto) -> int:
    """The version of ONNX's own operators."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """What has to be fed: graphs of old ONNX versions list their weights as inputs too."""
    weights = {tensor.name for tensor in graph.initializer}
    weights |= {tensor.values.name for tensor in graph.sparse_initializer}
    return [value for value in graph.input if value.name not in weights]


def fed(model: onnx.ModelProto, name: str, layout: str, sizes: Sequence[int | str]) -> onnx.ModelProto:
    """A copy whose input `name` is float32 images (N, C, H, W); a cast and a transpose stand before it.

    layout: the order in which the graph wants the axes, such as NHWC; without C where it has no such axis.
        Whole numbers in it are grey levels, to which the images are rounded.
    sizes: of N, C, H and W, a name where one is free
    """
    result = _copy(model)
    graph = result.graph
    [given] = [value for value in inputs_of(graph) if value.name == name]
    kind = given.type.tensor_type.elem_type
    as_it_is = layout == "NCHW" and kind == TensorProto.FLOAT
    names = _Names(graph)
    images = name if as_it_is else names.new("images")
    kept = [value for value in inputs_of(graph) if value.name != name]
    inputs = [helper.make_tensor_value_info(images, TensorProto.FLOAT, sizes), *kept]
    del graph.input[:]
    graph.input.extend(onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs)
    result.ir_version = max(result.ir_version, 4)  # where weights are no inputs
    if as_it_is:
        return result
    before = _Chain(names, images, opset(result))
    if kind in PIXELS:
        before.add("Add", before.constant(np.float32(0.5)))
        before.add("Floor")
    if "C" not in layout:
        before.squeeze([1])
    axes = "NCHW" if "C" in layout else "NHW"
    if layout != axes:
        before.add("Transpose", perm=[axes.index(axis) for axis in layout])
    if kind != TensorProto.FLOAT:
        before.add("Cast", to=kind)
    _insert(graph, before.nodes_to(name))
    return result


def folded(model: onnx.ModelProto, values: dict[str, NDArray[Any]]) -> onnx.ModelProto:
    """A copy in which these inputs are constants."""
    result = _copy(model)
    kept = [value for value in result.graph.input if value.name not in values]
    kept = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in kept]
    del result.graph.input[:]
    result.graph.input.extend(kept)
    result.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    result.ir_version = max(result.ir_version, 4)
    return result


def questioned(model: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    """A copy that also puts out what ArgMax and TopK choose from; and the names of these tensors."""
    result = _copy(model)
    known = {value.name for value in result.graph.output}
    inner = dict.fromkeys(
        node.input[0] for node in result.graph.node if node.op_type in ("ArgMax", "TopK") and node.input
    )
    produced = {name for node in result.graph.node for name in node.output}
    names = [name for name in inner if name in produced - known]
    result.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return result, names


def scored(model: onnx.ModelProto, place: Place, sample: NDArray[Any], *, log: bool) -> onnx.ModelProto:
    """A copy with one output, float32 scores (N, T, classes); what only other outputs needed is gone.

    sample: the tensor in which the scores stand, as it came out
    log: whether these are probabilities, of which the logarithm is put out. A Softmax becomes a LogSoftmax
        where nothing but layout follows it; else a Log is taken of what is at least 1e-30
    """
    result = _copy(model)
    graph = result.graph
    [images] = inputs_of(graph)
    classes = sample.shape[place.axes[2]]
    del graph.output[:]
    graph.output.append(helper.make_empty_tensor_value_info(place.name))
    pruned(result)
    log_is_inside = log and with_log_softmax(graph, place.name)
    after = _Chain(_Names(graph), place.name, opset(result))
    if sample.dtype != np.float32:
        after.add("Cast", to=TensorProto.FLOAT)
    if place.flat is None:
        order = [*place.axes, *(axis for axis in range(sample.ndim) if axis not in place.axes)]
    else:
        rows = [after.size_of(images.name), after.constant(np.array([-1]))]
        order = [0, 1, 2] if place.flat == "images" else [1, 0, 2]
        after.add(
            "Reshape", after.joined(rows[order[0]], rows[order[1]], after.constant(np.array([classes])))
        )
    if order != sorted(order):
        after.add("Transpose", perm=order)
    if len(order) > 3:
        after.squeeze(list(range(3, len(order))))
    if log and not log_is_inside:
        after.clip(SMALLEST)
        after.add("Log")
    name = place.name
    if after:
        name = after.names.new("log_probs" if log else "scores")
        graph.node.extend(after.nodes_to(name))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, None, classes]))
    return result


def padded(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """A copy of a graph that runs `batch` images alone, as one that runs as many or fewer.

    Images of zeros are put beside those that come, and their scores are cut off.
    model: of float32 images (N, C, H, W) and one output (N, T, classes)
    """
    result = _copy(model)
    graph = result.graph
    [value] = graph.input
    [output] = graph.output
    names = _Names(graph)
    inner, images = value.name, names.new("images")
    before = _Chain(names, images, opset(result))
    size = before.size_of(images)
    first, most = before.constant(np.array([0])), before.constant(np.array([batch]))
    rest = before.made("Gather", before.made("Shape", images), before.constant(np.array([1, 2, 3])))
    # as many as fit beside any number of images: OpenVINO takes no tensor of no images
    before.add("Concat", before.made("ConstantOfShape", before.joined(most, rest)), axis=0)
    before.add("Slice", first, most, first)
    value.name = images
    value.type.tensor_type.shape.dim[0].dim_param = "batch"
    _insert(graph, before.nodes_to(inner))
    after = _Chain(names, output.name, opset(result))
    after.add("Slice", after.constant(np.array([0])), size, after.constant(np.array([0])))
    output.name = names.new("scores")
    graph.node.extend(after.nodes_to(output.name))
    return result


def pruned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model itself, without nodes and weights that no output needs."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(_taken(node))
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(kept)]
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    weights = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in weights]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)
    return model


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put each node behind those whose outputs it takes, as ONNX asks for; some converters do not.

    Where nodes take from one another in a circle, they stay as they are.
    """
    produced = {name for node in graph.node for name in node.output}
    waiting, done, order = list(graph.node), set[str](), []
    while waiting:
        ready = [node for node in waiting if not (set(_taken(node)) & produced) - done]
        if not ready:
            return
        for node in ready:
            done.update(node.output)
        order += ready
        chosen = set(map(id, ready))
        waiting = [node for node in waiting if id(node) not in chosen]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in order]
    del graph.node[:]
    graph.node.extend(copies)


def training_nodes(model: onnx.ModelProto) -> list[str]:
    """Batch norm and dropout in training mode, as `BatchNormalization 'name'`, in subgraphs too."""
    version, found = opset(model), []
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in _all_nodes(model):
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            weights[node.output[0]] = node.attribute[0].t
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        trains = False
        if node.op_type == "BatchNormalization":
            trains = bool(attributes.get("training_mode", 0)) or (version < 14 and len(node.output) > 1)
        elif node.op_type == "Dropout" and len(node.input) > 2 and (flag := weights.get(node.input[2])):
            trains = bool(numpy_helper.to_array(flag).any())
        if version < 7 and node.op_type in ("BatchNormalization", "Dropout"):
            trains = not attributes.get("is_test", 0)
        if trains:
            found.append(f"{node.op_type} {node.name or node.output[0]!r}")
    return found


def _all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop(0)
        yield node
        waiting += [inner for graph in _graphs(node) for inner in graph.node]


def _graphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return graphs + [graph for attribute in node.attribute for graph in attribute.graphs]


def _taken(node: onnx.NodeProto) -> Iterator[str]:
    """Names of what a node takes, that of the graphs within it included."""
    yield from node.input
    for graph in _graphs(node):
        yield from (value.name for value in graph.output)
        for inner in graph.node:
            yield from _taken(inner)


def with_log_softmax(graph: onnx.GraphProto, name: str, axes: Sequence[int] | None = None) -> bool:
    """Make the Softmax that a tensor comes from, through layout alone, a LogSoftmax; False where none is.

    axes: those that it may run over; None: any
    What else takes its probabilities would take their logarithms then, so none may.
    """
    producers = {output: node for node in graph.node for output in node.output}
    takers = Counter(name for node in graph.node for name in _taken(node))
    last = name
    while (node := producers.get(name)) is not None and takers[name] == (name != last):
        if node.op_type == "Softmax" and node.domain in ("", "ai.onnx"):
            if axes is not None and not any(a.name == "axis" and a.i in axes for a in node.attribute):
                return False
            node.op_type = "LogSoftmax"
            return True
        if node.op_type not in _LAYOUT:
            return False
        name = node.input[0]
    return False


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    return result


def _insert(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Put nodes before all others."""
    others = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*nodes, *others])


class _Names:
    """Names that a graph has not given yet."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._taken = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
        self._taken |= {name for node in graph.node for name in (*_taken(node), *node.output, node.name)}

    def new(self, wanted: str) -> str:
        tried = (wanted if at == 0 else f"{wanted}_{at}" for at in count())
        name = next(name for name in tried if name not in self._taken)
        self._taken.add(name)
        return name


class _Chain:
    """Nodes, each of which takes what the one before it gives, and constants."""

    def __init__(self, names: _Names, start: str, version: int) -> None:
        self.names = names
        self._last, self._version = start, version
        self._nodes: list[onnx.NodeProto] = []

    def __bool__(self) -> bool:
        return bool(self._nodes)

    def made(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """What a node beside the chain gives."""
        name = self.names.new(f"crnn_deploy_{operator.lower()}")
        self._nodes.append(helper.make_node(operator, list(inputs), [name], name, **attributes))
        return name

    def add(self, operator: str, *others: str, **attributes: Any) -> None:
        self._last = self.made(operator, self._last, *others, **attributes)

    def constant(self, value: NDArray[Any] | np.float32) -> str:
        return self.made("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def joined(self, *shapes: str) -> str:
        return self.made("Concat", *shapes, axis=0)

    def size_of(self, images: str) -> str:
        """How many images there are, as a shape of one axis."""
        return self.made("Gather", self.made("Shape", images), self.constant(np.array([0])))

    def squeeze(self, axes: list[int]) -> None:
        if self._version < _AXES_ARE_INPUTS:
            self.add("Squeeze", axes=axes)
        else:
            self.add("Squeeze", self.constant(np.array(axes)))

    def clip(self, least: float) -> None:
        if self._version < _BOUNDS_ARE_INPUTS:
            self.add("Clip", min=least)
        else:
            self.add("Clip", self.constant(np.float32(least)))

    def nodes_to(self, name: str) -> list[onnx.NodeProto]:
        """All nodes, of which the chain's last gives `name`."""
        [last] = [node for node in self._nodes if node.output[0] == self._last]
        last.output[0] = name
        return self._nodes
