"""Which precision an engine is built in, told on the CPU: an overflow makes the next rung follow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from crnn_deploy.engine.ladder import PrecisionFailed, climb, table
from crnn_deploy.graph.model import backend_of, load_onnx, manifest_of
from crnn_deploy.graph.precision import from_first_recurrence
from crnn_deploy.verdict.fidelity import Proof


def scaled(model: onnx.ModelProto, **factors: float) -> onnx.ModelProto:
    """A copy with some weights multiplied; `conv0` stands for weights and bias of that layer."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        for name, factor in factors.items():
            if name in tensor.name:
                array = numpy_helper.to_array(tensor) * np.float32(factor)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return result


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


@pytest.fixture(scope="module")
def tiny(tiny_onnx: Path) -> onnx.ModelProto:
    return load_onnx(tiny_onnx)


def test_an_overflow_is_found_and_the_ladder_climbed(tiny: onnx.ModelProto) -> None:
    """Activations beyond 65504 between two layers that undo each other: the function stays the same."""
    manifest = manifest_of(tiny)
    _, tried = climb(tiny, Proof(backend_of(tiny), manifest), "fp16")
    assert [rung.name for rung in tried] == ["fp16"] and tried[0].rounded is not None
    assert tried[0].rounded.passed and 0.1 < tried[0].rounded.peak < 100

    loud = scaled(tiny, **{"conv0": 1e6, "conv1.weight": 1e-6})
    model, tried = climb(loud, Proof(backend_of(loud), manifest), "fp16")
    assert [rung.precision for rung in tried] == ["fp16", "fp16", "bf16"]
    assert [rung.rounded.overflow for rung in tried if rung.rounded] == [True, True, False]
    assert TensorProto.BFLOAT16 in kinds(model).values()
    assert "overflow" in table(tried, None)
    assert table(tried, None).endswith("chosen: bf16 (checked on the CPU)")
    with pytest.raises(PrecisionFailed, match="overflow"):
        climb(loud, Proof(backend_of(loud), manifest), "fp16", ladder=False)


def test_an_overflow_after_the_recurrence_keeps_half_precision_before_it(tiny: onnx.ModelProto) -> None:
    manifest = manifest_of(tiny)
    head = [node for node in tiny.graph.node if node.op_type == "MatMul"][-1]
    loud = scaled(tiny, **{head.input[1]: 1e6})
    model, tried = climb(loud, Proof(backend_of(loud), manifest), "fp16")
    assert [rung.precision for rung in tried] == ["fp16", "fp16"]
    assert set(tried[-1].kept_fp32) == set(from_first_recurrence(tiny))
    assert {kinds(model)[name] for name in kinds(model) if name.startswith("rnn") and "join" not in name} == {
        TensorProto.FLOAT
    }
