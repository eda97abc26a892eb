"""What a graph costs: operations for one image, and parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from crnn_deploy.graph.model import session_of
from crnn_deploy.manifest import Manifest

__all__ = ["flops", "parameters"]


def parameters(model: onnx.ModelProto) -> int:
    """Numbers in the graph but for whole ones, which are shapes; some exporters make weights constants."""
    constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    whole = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
    return sum(math.prod(t.dims) for t in (*model.graph.initializer, *constants) if t.data_type not in whole)


def flops(model: onnx.ModelProto, manifest: Manifest, widths: Sequence[int]) -> dict[int, int]:
    """For each width: operations of convolutions, matrix products and recurrent layers for one image.

    The graph is run, since shape inference stops at a shape that the graph computes.
    """
    nodes = [n for n in model.graph.node if n.op_type in ("Conv", "MatMul", "Gemm", "LSTM", "GRU")]
    if not nodes:
        return dict.fromkeys(widths, 0)
    names = sorted({name for n in nodes for name in (*n.input[:3], n.output[0]) if name})
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    del probed.graph.output[:]
    probed.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = session_of(probed)
    [images] = session.get_inputs()
    counts = {}
    for width in widths:
        zeros = np.zeros((1, manifest.channels, manifest.height, width), np.float32)
        outputs = session.run(None, {images.name: zeros})
        shapes = {name: array.shape for name, array in zip(names, outputs, strict=True)}
        counts[width] = sum(_node_flops(node, shapes) for node in nodes)
    return counts


def _node_flops(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    first, second, output = shapes[node.input[0]], shapes[node.input[1]], shapes[node.output[0]]
    if node.op_type == "Conv":
        return 2 * math.prod(output) * math.prod(second[1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return 2 * math.prod(output) * first[-2 if transposed else -1]
    return 2 * first[0] * (math.prod(second) + math.prod(shapes[node.input[2]]))
