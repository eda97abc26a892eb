"""Half precision in the graph, and the check on the CPU that decides on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from crnn_deploy.graph.model import load_onnx, manifest_of, session_of
from crnn_deploy.graph.precision import CastImpossible, Half, cast, from_first_recurrence, rounded

HALVES: dict[Half, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}
ELEMENTS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[Any]],
    outputs: Mapping[str, tuple[int, int]],
    **weights: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(n, kind, ["?"] * rank) for n, (kind, rank) in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def kinds(model: onnx.ModelProto) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


@pytest.fixture(scope="module")
def tiny(tiny_onnx: Path) -> onnx.ModelProto:
    return load_onnx(tiny_onnx)


@pytest.mark.parametrize("half", HALVES)
def test_a_cast_leaves_input_output_and_manifest(half: Half, tiny: onnx.ModelProto) -> None:
    result = cast(tiny, half)
    for value in (*result.graph.input, *result.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [v.name for v in result.graph.output] == ["logits"]
    assert manifest_of(result) == manifest_of(tiny)
    floats = {kind for kind in kinds(result).values() if kind != TensorProto.INT64}
    assert floats == {ELEMENTS[half]}
    assert sum(node.op_type == "Cast" for node in result.graph.node) == 2
    # bfloat16 came to Conv and LSTM with opset 22
    assert result.opset_import[0].version == (20 if half == "fp16" else 22)


def test_what_is_kept_stays_in_float(tiny: onnx.ModelProto) -> None:
    weights = kinds(cast(tiny, "fp16", keep_fp32=["LSTM"]))
    assert weights["rnn.0.rnn.input_0"] == weights["rnn.1.rnn.bias_0"] == TensorProto.FLOAT
    assert TensorProto.FLOAT16 in weights.values()
    late = from_first_recurrence(tiny)
    of = {node.name: node.op_type for node in tiny.graph.node}
    assert {of[name] for name in late} == {"LSTM", "Transpose", "Reshape", "MatMul", "Add"}
    weights = kinds(cast(tiny, "fp16", keep_fp32=late))
    halved = {name.removesuffix("_half") for name, kind in weights.items() if kind == TensorProto.FLOAT16}
    assert halved == {name for name in kinds(tiny) if name.startswith("cnn.")}


@pytest.mark.parametrize(("half", "relative"), [("fp16", 2.0**-11), ("bf16", 2.0**-8)])
@pytest.mark.parametrize("keep", [(), ("LSTM",), ("node_conv2d*", "MaxPool")])
def test_a_cast_computes_the_same_but_for_rounding(
    half: Half, relative: float, keep: tuple[str, ...], tiny: onnx.ModelProto
) -> None:
    images = np.random.default_rng(0).normal(0, 1, (3, 1, 32, 132)).astype(np.float32)
    [expected] = session_of(tiny).run(None, {"images": images})
    converted = cast(tiny, half, keep_fp32=keep)
    actual, peak = session_of(rounded(converted)).run(None, {"images": images})
    assert 0.1 < peak < 10
    delta = np.abs(actual - expected).max()
    assert 0 < delta < 8 * relative * np.abs(expected).max()
    if half == "fp16":  # nothing overflows here, so ONNX Runtime's own half precision says much the same
        [direct] = session_of(converted).run(None, {"images": images})
        np.testing.assert_allclose(direct, expected, atol=8 * relative * np.abs(expected).max())


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    magnitude=st.sampled_from([1e-6, 1.0, 300.0]),
    half=st.sampled_from(["fp16", "bf16"]),
)
def test_every_tensor_is_rounded(seed: int, magnitude: float, half: Half) -> None:
    """Against the same arithmetic in numpy, rounded after each step."""
    rng = np.random.default_rng(seed)
    x, w, b = (rng.normal(0, magnitude, shape).astype(np.float32) for shape in ((2, 3), (3, 4), (4,)))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    model = model_of(nodes, {"x": [2, 3]}, {"y": (TensorProto.FLOAT, 2)}, w=w, b=b)

    def to_half(array: Any) -> Any:
        with np.errstate(over="ignore"):
            return np.asarray(array, np.float32).astype(HALVES[half]).astype(np.float32)

    with np.errstate(invalid="ignore"):
        product = to_half(to_half(x).astype(np.float64) @ to_half(w).astype(np.float64))
        expected = to_half(np.maximum(to_half(product + to_half(b)), 0))
    actual, _ = session_of(rounded(cast(model, half))).run(None, {"x": x})
    # a sum that lies between two halves may go either way in float32
    spacing = {"fp16": 2.0**-10, "bf16": 2.0**-7}[half]
    np.testing.assert_allclose(
        actual, expected, rtol=spacing, atol=spacing * np.abs(product[np.isfinite(product)]).max(initial=1e-7)
    )


def test_an_argmax_is_taken_in_float() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["chances"], axis=1),
        helper.make_node("ArgMax", ["chances"], ["indices"], axis=1),
        helper.make_node("ReduceMax", ["chances"], ["probabilities"]),
    ]
    outputs = {"indices": (TensorProto.INT64, 2), "probabilities": (TensorProto.FLOAT, 2)}
    model = model_of(nodes, {"x": [2, 3]}, outputs, w=np.eye(3, dtype=np.float32))
    inferred = onnx.shape_inference.infer_shapes(cast(model, "fp16")).graph
    types = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.output)}
    assert types["scores"] == TensorProto.FLOAT16
    assert types["chances"] == types["probabilities"] == TensorProto.FLOAT


def test_scales_of_a_resize_and_constants_in_nodes() -> None:
    two = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32))
    nodes = [
        helper.make_node("Constant", [], ["scales"], value=two),
        helper.make_node("Constant", [], ["gain"], value=numpy_helper.from_array(np.array([3], np.float32))),
        helper.make_node("Mul", ["x", "gain"], ["louder"]),
        helper.make_node("Resize", ["louder", "", "scales"], ["y"], mode="nearest"),
    ]
    model = model_of(nodes, {"x": [1, 1, 2, 2]}, {"y": (TensorProto.FLOAT, 4)})
    result = cast(model, "fp16")
    assert kinds(result) == {"scales": TensorProto.FLOAT, "gain_half": TensorProto.FLOAT16}
    y, _ = session_of(rounded(result)).run(None, {"x": np.ones((1, 1, 2, 2), np.float32)})
    assert y.shape == (1, 1, 4, 4) and (y == 3).all()


def test_what_cannot_be_cast_says_why(tiny: onnx.ModelProto) -> None:
    with pytest.raises(CastImpossible, match=r"'GRU\*'.*LSTM"):
        cast(tiny, "fp16", keep_fp32=["GRU*"])
