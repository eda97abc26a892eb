"""What a number format costs a graph, where there is no PyTorch module to ask."""

from __future__ import annotations

import numpy as np
import onnx

from crnn_deploy.graph.model import session_of
from crnn_deploy.graph.precision import cast, rounded, with_tf32_products
from crnn_deploy.parity.tolerance import Logits, Meter
from crnn_deploy.runtime.backends.engine_file import Precision

__all__ = ["in_graph"]


def in_graph(model: onnx.ModelProto, precision: Precision) -> Meter:
    """The model with its tensors rounded to the format against itself, both in ONNX Runtime in float32.

    float32's own error is a hundredth of TF32's and less.
    precision: one of `tolerance.FLOATS`
    """
    coarse = model
    if precision == "tf32":
        coarse = with_tf32_products(model)
    elif precision == "fp16" or precision == "bf16":
        coarse = rounded(cast(model, precision))
    return Meter(precision, _run_of(model), _run_of(coarse), "ONNX Runtime in float32")


def _run_of(model: onnx.ModelProto) -> Logits:
    session = session_of(model)
    [node] = session.get_inputs()
    return lambda images: session.run(None, {node.name: images})[0].astype(np.float64)
