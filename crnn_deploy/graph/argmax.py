"""The argmax inside the graph: index and probability of each frame's best class leave it, not all logits."""

from __future__ import annotations

from dataclasses import replace

import onnx
from onnx import TensorProto, helper

from crnn_deploy.graph.model import attach_manifest, manifest_of

__all__ = ["with_argmax"]

_AXES_ARE_INPUTS = 18  # of ReduceMax, from this opset on


def with_argmax(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with outputs `indices` (N, T) int64 and `probabilities` (N, T) float32, as `export` has them.

    model: with a manifest, and logits or log-probabilities (N, T, classes) in float32; one that takes the
        argmax already is copied as it is
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    manifest = manifest_of(result)
    if manifest.output == "argmax":
        return result
    graph = result.graph
    [said] = graph.output
    frames = said.type.tensor_type.shape.dim[:2]
    largest = helper.make_node(
        "ReduceMax", ["softmax_of_frames"], ["probabilities"], "probabilities", keepdims=0
    )
    if next(entry.version for entry in result.opset_import if not entry.domain) < _AXES_ARE_INPUTS:
        largest.attribute.append(helper.make_attribute("axes", [2]))
    else:
        graph.initializer.append(helper.make_tensor("axis_of_classes", TensorProto.INT64, [1], [2]))
        largest.input.append("axis_of_classes")
    graph.node.extend(
        [
            helper.make_node("ArgMax", [said.name], ["indices"], "indices", axis=2, keepdims=0),
            # of log-probabilities it gives the probabilities too
            helper.make_node("Softmax", [said.name], ["softmax_of_frames"], "softmax_of_frames", axis=2),
            largest,
        ]
    )
    outputs = [
        helper.make_tensor_value_info("indices", TensorProto.INT64, None),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, None),
    ]
    for output in outputs:
        output.type.tensor_type.shape.dim.extend(frames)
    del graph.output[:]
    graph.output.extend(outputs)
    attach_manifest(result, replace(manifest, output="argmax"))
    return result
