"""Other graphs of a network: two forward LSTMs for each bidirectional one, and the convolutions alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

__all__ = ["two_forward_lstms", "up_to_first_lstm"]

_X, _W, _R, _B = range(4)  # inputs of an LSTM node; those behind them are lengths, states and peepholes
_DIRECTED = ("activations", "activation_alpha", "activation_beta")  # attributes of both directions, in turn


def two_forward_lstms(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model in which each bidirectional LSTM is two forward ones and two reversals of time.

    TensorRT's parser stacks both directions of an LSTM into one loop; two loops can run beside each other. A
    reversal is a Slice with step -1: ReverseSequence would ask for the lengths.
    Raises ValueError for an LSTM with lengths, states or peepholes, or whose weights are no constants.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    nodes, constants = [], _reversal()
    for node in graph.node:
        attributes: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type != "LSTM" or attributes.get("direction", b"") != b"bidirectional":
            nodes.append(node)
            continue
        if any(node.input[_B + 1 :]) or any(node.output[1:]) or attributes.get("layout", 0):
            raise ValueError(f"{node.name}: an LSTM with lengths, states, peepholes or layout=1")
        name = node.output[0]
        weights = [
            _weights(graph, node.input[i]) if node.input[i] else None for i in range(_W, len(node.input))
        ]
        states = f"{name}_from_start", f"{name}_from_end"
        reversed_ = f"{name}_reversed"
        nodes.append(_reverse(node.input[_X], reversed_, f"{name}_to_end"))
        for direction, sequence in enumerate((node.input[_X], reversed_)):
            inputs = [sequence]
            for kind, values in zip("WRB", weights, strict=False):
                inputs.append("" if values is None else f"{name}_{kind}{direction}")
                if values is not None:
                    constants.append(numpy_helper.from_array(values[direction : direction + 1], inputs[-1]))
            own = dict(_of_direction(attributes, direction))
            nodes.append(helper.make_node("LSTM", inputs, [states[direction]], states[direction], **own))
        nodes.append(_reverse(states[1], f"{name}_in_order", f"{name}_to_order"))
        nodes.append(helper.make_node("Concat", [states[0], f"{name}_in_order"], [name], axis=1))
    if len(nodes) == len(graph.node):
        raise ValueError("no bidirectional LSTM")
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)
    _drop_unused(graph)
    onnx.checker.check_model(result, full_check=True)
    return result


def up_to_first_lstm(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that puts out the first LSTM's input (steps, batch, features). Raises ValueError without one."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    lstm = next((node for node in graph.node if node.op_type == "LSTM"), None)
    if lstm is None:
        raise ValueError("no LSTM")
    features = _weights(graph, lstm.input[_W]).shape[2]
    needed, nodes = {lstm.input[_X]}, []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed.update(node.input)
            nodes.append(node)
    shape = ["steps", "batch", features]
    output = helper.make_tensor_value_info(lstm.input[_X], onnx.TensorProto.FLOAT, shape)
    del graph.node[:], graph.output[:]
    graph.node.extend(reversed(nodes))
    graph.output.append(output)
    _drop_unused(graph)
    onnx.checker.check_model(result, full_check=True)
    return result


def _reversal() -> list[onnx.TensorProto]:
    values = {"starts": -1, "ends": np.iinfo(np.int64).min, "axes": 0, "steps": -1}
    return [numpy_helper.from_array(np.array([v], np.int64), f"time_{name}") for name, v in values.items()]


def _reverse(source: str, target: str, name: str) -> onnx.NodeProto:
    return helper.make_node(
        "Slice", [source, "time_starts", "time_ends", "time_axes", "time_steps"], [target], name
    )


def _weights(graph: onnx.GraphProto, name: str) -> NDArray[Any]:
    """A constant whose first axis are the directions."""
    for tensor in graph.initializer:
        if tensor.name == name:
            return numpy_helper.to_array(tensor)
    raise ValueError(f"{name} is computed; it must be a constant")


def _of_direction(attributes: dict[str, Any], direction: int) -> Iterator[tuple[str, Any]]:
    for name, value in attributes.items():
        if name == "direction":
            yield name, "forward"
        elif name in _DIRECTED:
            half = len(value) // 2
            yield name, value[half:] if direction else value[:half]
        else:
            yield name, value


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Constants that no node reads any more."""
    used = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
