"""Whether a graph takes scales of what runs together, so that an image's text depends on its neighbours.

ONNX Runtime's dynamic quantisation takes one scale of a whole tensor, the batch's. Found in the file's bytes,
without the onnx package, wherever a node stands: in subgraphs and functions too. An LSTM does not count whose
input is clipped and then widened by constant columns, and whose first states are constants: so
`quantization.int8_lstm` makes the kernel find the same scales in every batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from crnn_deploy.errors import ModelUnreadable
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends.onnx_file import mapped, messages

__all__ = ["has_run_time_scales", "held_to_scales"]

# of onnx.proto: numbers of fields
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_GRAPH_NODE, _GRAPH_WEIGHT, _TENSOR_NAME = 1, 5, 8
_FUNCTION_NODE = 7
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_GRAPHS = (6, 11)
_DEEPEST = 64  # graphs within graphs, as `onnx_file` allows

_TAKE_SCALES = {b"DynamicQuantizeLinear", b"DynamicQuantizeMatMul"}
_LSTM, _LSTM_STATES = b"DynamicQuantizeLSTM", slice(5, 7)  # inputs with the first states
_PRODUCTS = {b"MatMulInteger", b"ConvInteger", b"MatMulIntegerToFloat"}
# what hands on quantised values as they are
_MOVES = {
    *(b"Transpose", b"Reshape", b"Squeeze", b"Unsqueeze", b"Flatten", b"Identity", b"MaxPool", b"Slice"),
    *(b"Gather", b"Pad"),
}


@dataclass
class _Node:
    """An operator with the names of what it takes and gives."""

    operator: bytes = b""
    inputs: list[bytes] = field(default_factory=list)
    outputs: list[bytes] = field(default_factory=list)
    graphs: list[memoryview] = field(default_factory=list)


def held_to_scales(manifest: Manifest, model: Path | bytes) -> Manifest:
    """The manifest of a model, with one image at a time where the graph takes scales as it runs."""
    if manifest.max_batch == 1 or not has_run_time_scales(model):
        return manifest
    return replace(manifest, max_batch=1)


def has_run_time_scales(model: Path | bytes) -> bool:
    """Whether quantised values anywhere in an ONNX file have scales that are computed from the data.

    An integer product counts too unless it is seen to have quantised with a constant scale.
    Raises ModelUnreadable.
    """
    try:
        fields = list(messages(mapped(model) if isinstance(model, Path) else memoryview(model)))
        graphs = [value for number, value in fields if number == _MODEL_GRAPH]
        functions = [value for number, value in fields if number == _MODEL_FUNCTION]
        return any(_computes(graph, _GRAPH_NODE, frozenset(), 0) for graph in graphs) or any(
            _computes(function, _FUNCTION_NODE, frozenset(), 0) for function in functions
        )
    except (IndexError, ValueError, OSError) as error:
        where = model if isinstance(model, Path) else Path("<graph>")
        raise ModelUnreadable(where, "not an ONNX file, or a truncated one") from error


def _computes(graph: memoryview, node_field: int, outer: frozenset[bytes], depth: int) -> bool:
    """As `has_run_time_scales`, of one graph or function within constants of the graphs around it."""
    if depth > _DEEPEST:
        raise ValueError("graphs nested too deeply")
    constants = set(outer)
    steady: set[bytes] = set()  # quantised with a constant scale
    clipped: set[bytes] = set()
    widened: set[bytes] = set()  # clipped, with columns of constants
    repeated: set[bytes] = set()  # constants, for each image
    nodes = []
    for number, value in messages(graph):
        if number == node_field:
            nodes.append(_node(value))
        elif number == _GRAPH_WEIGHT and node_field == _GRAPH_NODE:
            constants.update(bytes(name) for at, name in messages(value) if at == _TENSOR_NAME)
    for node in nodes:
        given = [name for name in node.inputs if name]
        if node.operator in _TAKE_SCALES:
            return True
        if any(_computes(inner, _GRAPH_NODE, frozenset(constants), depth + 1) for inner in node.graphs):
            return True
        if node.operator == _LSTM and not (
            node.inputs[0] in widened and repeated.issuperset(node.inputs[_LSTM_STATES] or [b""])
        ):
            return True
        held = all(name in constants for name in given[1:])
        if all(name in constants for name in given):
            constants.update(node.outputs)
        elif node.operator == b"Clip" and held and len(given) == 3:
            clipped.update(node.outputs)
        elif node.operator == b"Pad" and held and len(given) == 3 and given[0] in clipped | widened:
            widened.update(node.outputs)
        elif node.operator == b"Expand" and given[0] in constants:
            repeated.update(node.outputs)
        elif node.operator == b"QuantizeLinear":
            if any(name not in constants for name in given[1:]):
                return True
            steady.update(node.outputs)
        elif node.operator in _MOVES and given[0] in steady:
            steady.update(node.outputs)
        elif node.operator in _PRODUCTS and any(
            name not in constants and name not in steady for name in given[:2]
        ):
            return True
    return False


def _node(message: memoryview) -> _Node:
    node = _Node()
    for number, value in messages(message):
        if number == _NODE_INPUT:
            node.inputs.append(bytes(value))
        elif number == _NODE_OUTPUT:
            node.outputs.append(bytes(value))
        elif number == _NODE_OPERATOR:
            node.operator = bytes(value)
        elif number == _NODE_ATTRIBUTE:
            node.graphs.extend(_graphs(value))
    return node


def _graphs(attribute: memoryview) -> Iterator[memoryview]:
    return (value for number, value in messages(attribute) if number in _ATTRIBUTE_GRAPHS)
