"""What tracing leaves in a graph: notes of the exporter, and sizes of the input that was traced."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

__all__ = ["baked_constants", "strip_traces"]

# where a constant input is a shape, a length or a count
_SHAPE_INPUTS = {"Reshape": (1,), "Expand": (1,), "Tile": (1,), "ConstantOfShape": (0,), "Slice": (1, 2)}
_SHAPE_INPUTS |= {"Resize": (3,), "Range": (0, 1), "Split": (1,), "Pad": (1,)}


def strip_traces(model: onnx.ModelProto) -> None:
    """Take out what the exporter notes of each node: stack traces with the paths of this machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]


def baked_constants(model: onnx.ModelProto, traced: dict[str, int]) -> list[str]:
    """Where a size of the traced input stands in the graph as a constant.

    traced: names and values of the sizes that must stay dynamic; chosen so that no layer has such a size
    """
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in _integers(model)}
    found = []
    for node in model.graph.node:
        for at in _SHAPE_INPUTS.get(node.op_type, ()):
            values = constants.get(node.input[at]) if at < len(node.input) else None
            for value in [] if values is None else values.ravel().tolist():
                found += [
                    f"{node.op_type} {node.name}: {value} = {n}"
                    for n, size in traced.items()
                    if size == value
                ]
    return found


def _integers(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT64:
            yield tensor
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].t.data_type == onnx.TensorProto.INT64:
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            yield tensor
