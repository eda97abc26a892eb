"""LSTMs in int8 with constant scales, for ONNX Runtime on CPUs.

ONNX Runtime's kernel (DynamicQuantizeLSTM) takes the scale of its input, and at each time step that of the
state, from the least and the largest value of all that runs together, so that an image would depend on its
neighbours. Here both are always the same: the input is clipped to its calibrated range and has one or two
columns more, which hold the ends of the range; the state has two units more, which stay at 1 and -1, the ends
of what a state can be. Weights of 0 keep both out of every product. Sums of integers are exact, so an image's
frames are the same to the bit in any batch.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from crnn_deploy.quantization.qdq import QuantizationImpossible, WeightBits

__all__ = ["lstm_inputs", "with_int8_lstm"]

_MOVES = ("Transpose", "Squeeze", "Unsqueeze", "Reshape", "MaxPool")  # what a ReLU gave stays non-negative
_SHUT, _OPEN = -30.0, 30.0  # biases of a gate, whose sigmoid is then 0 or 1 in float32
_FULL = 20.0  # of a cell, whose tanh is then 1 in float32


def lstm_inputs(model: onnx.ModelProto) -> list[str]:
    """The tensors whose ranges `with_int8_lstm` asks for."""
    return list(dict.fromkeys(node.input[0] for node in model.graph.node if node.op_type == "LSTM"))


def with_int8_lstm(
    model: onnx.ModelProto,
    source: onnx.ModelProto,
    ranges: Mapping[str, float],
    *,
    weight_bits: WeightBits = 7,
) -> onnx.ModelProto:
    """A copy of a model whose LSTMs run in int8 with constant scales, of weights one for each unit of a gate.

    source: the float model that it was quantised from; its LSTMs have the same outputs
    ranges: largest |value| of each tensor that `lstm_inputs` names in the source; what lies beyond is clipped
    weight_bits: as of `qdq.insert`
    Raises QuantizationImpossible where there is no LSTM, or one with more than weights, or without a range.
    """
    lstms = {node.output[0]: node for node in source.graph.node if node.op_type == "LSTM"}
    if not lstms:
        raise QuantizationImpossible("the model has no LSTM to quantise; leave --lstm out")
    constant = {tensor.name for tensor in source.graph.initializer}
    for node in lstms.values():
        _check(node, constant, ranges)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    positive = _non_negative(source)
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, NDArray[np.generic]] = {}
    for node in model.graph.node:
        if node.op_type != "LSTM":
            nodes.append(node)
            continue
        read = lstms[node.output[0]].input[0]
        largest = ranges[read] or 1.0
        ends = (0.0 if read in positive else -largest, largest)
        made, new = _held(node, weights, ends)
        nodes += made
        constants |= new
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del result.graph.initializer[:]
    result.graph.initializer.extend(kept)
    result.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    onnx.checker.check_model(result)
    return _with_integers(result, weight_bits)


def _check(node: onnx.NodeProto, constant: set[str], ranges: Mapping[str, float]) -> None:
    name = node.output[0]
    if not constant.issuperset(filter(None, node.input[1:4])):
        raise QuantizationImpossible(f"the weights of the LSTM {name} are no constants; leave --lstm out")
    if any(node.input[4:]) or any(node.output[1:]):
        raise QuantizationImpossible(
            f"the LSTM {name} has lengths, initial states, peepholes or last states, which --lstm int8 does "
            "not know; leave it out"
        )
    if unknown := {attribute.name for attribute in node.attribute} - {"hidden_size", "direction"}:
        raise QuantizationImpossible(
            f"the LSTM {name} has the attribute {min(unknown)}, which --lstm int8 does not know; leave it out"
        )
    if node.input[0] not in ranges:
        raise QuantizationImpossible(
            f"the scales have no range of {node.input[0]}, which the LSTM {name} reads; calibrate again"
        )


def _non_negative(model: onnx.ModelProto) -> set[str]:
    """Tensors that come from a ReLU, moved or pooled at most."""
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "Relu" or (node.op_type in _MOVES and node.input[0] in found):
            found.update(node.output)
    return found


def _held(
    node: onnx.NodeProto, weights: Mapping[str, NDArray[np.float32]], ends: tuple[float, float]
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    """An LSTM whose input and state always reach the ends of their ranges, and its constants by name."""
    gates, recurrence, bias = (weights[name] if name else None for name in [*node.input[1:4], ""][:3])
    assert gates is not None and recurrence is not None
    ways, units = recurrence.shape[0], recurrence.shape[2]
    if bias is None:
        bias = np.zeros((ways, 8 * units), np.float32)
    columns = [end for end in ends if end]  # 0 is always within what the kernel looks at
    both = bias.reshape(ways, 8, units)
    bias = np.pad(both, ((0, 0), (0, 0), (0, 2)))
    bias[:, :4, units:] = np.array([_SHUT, _OPEN, _OPEN, 0.0])[:, None]  # input, output, forget, cell
    state = np.zeros((ways, 1, units + 2), np.float32)
    state[:, :, units:] = 1.0, -1.0
    name = node.output[0]
    constants: dict[str, NDArray[np.generic]] = {
        "weights": _grown(gates, units, len(columns)),
        "recurrence": _grown(recurrence, units, 2),
        "bias": bias.reshape(ways, 8 * (units + 2)).astype(np.float32),
        "state": state,
        "cell": _FULL * state,
        "low": np.array(ends[0], np.float32),
        "high": np.array(ends[1], np.float32),
        "one_column": np.array([0, 0, 0, 0, 0, 1], np.int64),
        "batch_axis": np.array([1], np.int64),
        "ways": np.array([ways], np.int64),
        "all_units": np.array([units + 2], np.int64),
        "first": np.array([0], np.int64),
        "units": np.array([units], np.int64),
        "unit_axis": np.array([3], np.int64),
    }
    own = {key: f"{name}_{key}" for key in constants}
    made = [helper.make_node("Clip", [node.input[0], own["low"], own["high"]], [f"{name}_clipped"])]
    for end in columns:
        value = own["low"] if end == ends[0] else own["high"]
        wider = f"{made[-1].output[0]}_wider"
        made.append(helper.make_node("Pad", [made[-1].output[0], own["one_column"], value], [wider]))
    fed = made[-1].output[0]
    shape, images, states = f"{name}_shape", f"{name}_images", f"{name}_states_shape"
    made += [
        helper.make_node("Shape", [node.input[0]], [shape]),
        helper.make_node("Gather", [shape, own["batch_axis"]], [images]),
        helper.make_node("Concat", [own["ways"], images, own["all_units"]], [states], axis=0),
        helper.make_node("Expand", [own["state"], states], [f"{name}_states"]),
        helper.make_node("Expand", [own["cell"], states], [f"{name}_cells"]),
    ]
    lstm = onnx.NodeProto()
    lstm.CopyFrom(node)
    weights_of_it = [own["weights"], own["recurrence"], own["bias"], "", f"{name}_states", f"{name}_cells"]
    lstm.input[:] = [fed, *weights_of_it]
    lstm.output[:] = [f"{name}_with_ends"]
    for attribute in lstm.attribute:
        if attribute.name == "hidden_size":
            attribute.i = units + 2
    cut = [f"{name}_with_ends", own["first"], own["units"], own["unit_axis"]]
    made += [lstm, helper.make_node("Slice", cut, [name])]
    return made, {own[key]: value for key, value in constants.items()}


def _grown(weights: NDArray[np.float32], units: int, columns: int) -> NDArray[np.float32]:
    """Weights (ways, 4 units, inputs) of two units more in each gate and so many inputs more, all 0."""
    ways, _, inputs = weights.shape
    wider = np.pad(weights.reshape(ways, 4, units, inputs), ((0, 0), (0, 0), (0, 2), (0, columns)))
    return wider.reshape(ways, 4 * (units + 2), inputs + columns)


def _with_integers(model: onnx.ModelProto, weight_bits: WeightBits) -> onnx.ModelProto:
    """A copy whose LSTMs run in ONNX Runtime's kernel for int8 weights."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a preparation that the export has done
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            quantize_dynamic(
                model,
                path,
                op_types_to_quantize=["LSTM"],
                per_channel=True,
                reduce_range=weight_bits == 7,
                weight_type=QuantType.QInt8,
            )
            result = onnx.load(path)
    finally:
        logging.disable(disabled)
    del result.metadata_props[:]
    result.metadata_props.extend(model.metadata_props)
    return result
