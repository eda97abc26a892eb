"""LSTMs in int8 with scales that are taken as the network runs: for ONNX Runtime on CPUs alone.

Its kernel takes one scale of all that runs together, so the manifest lets one image run at a time.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

from crnn_deploy.graph.model import attach_manifest, manifest_of
from crnn_deploy.quantization.qdq import QuantizationImpossible, WeightBits

__all__ = ["with_dynamic_lstm"]


def with_dynamic_lstm(model: onnx.ModelProto, *, weight_bits: WeightBits = 7) -> onnx.ModelProto:
    """A copy of a model with a manifest whose LSTMs have int8 weights, one scale a gate's unit.

    weight_bits: as of `qdq.insert`
    Raises QuantizationImpossible where there is no LSTM.
    """
    if not any(node.op_type == "LSTM" for node in model.graph.node):
        raise QuantizationImpossible("the model has no LSTM to quantise; leave --lstm out")
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a preparation that the export has done
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "dynamic.onnx"
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
    attach_manifest(result, replace(manifest_of(model), max_batch=1))
    return result
