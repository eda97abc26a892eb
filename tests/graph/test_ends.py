"""Graphs of other tools are changed at their ends alone, and say what they said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from crnn_deploy.graph.ends import Place, fed, padded, scored, sort_nodes
from crnn_deploy.graph.model import attach_manifest, backend_of, manifest_of, open_model, session_of


def graph(
    layout: str, order: tuple[int, int, int], kind: int = TensorProto.FLOAT, softmax: bool = False
) -> onnx.ModelProto:
    """Columns of pixels as scores: images of some layout to (N, T, C) in some order."""
    sizes: dict[str, int | str] = {"N": "n", "C": 1, "H": 5, "W": "w"}
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[layout.index(axis) for axis in "NCHW"]),
        helper.make_node("Squeeze", ["nchw", "one"], ["nhw"]),
        helper.make_node("Transpose", ["nhw"], ["ntc"], perm=[0, 2, 1]),
        helper.make_node("Softmax" if softmax else "Identity", ["ntc"], ["scores"]),
        helper.make_node("Transpose", ["scores"], ["out"], perm=order),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, [sizes[axis] for axis in layout])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, None, None])],
        [numpy_helper.from_array(np.array([1]), "one")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@settings(deadline=None, max_examples=40)
@given(
    layout=st.sampled_from(["NCHW", "NHWC", "NWHC", "NCWH"]),
    order=st.permutations((0, 1, 2)),
    kind=st.sampled_from([TensorProto.FLOAT, TensorProto.UINT8, TensorProto.DOUBLE]),
    softmax=st.booleans(),
    batch=st.integers(1, 4),
    count=st.integers(1, 4),
    width=st.integers(1, 9),
)
def test_images_in_scores_out(
    layout: str, order: list[int], kind: int, softmax: bool, batch: int, count: int, width: int
) -> None:
    """Whatever the graph's own layout, type and order."""
    model = graph(layout, (order[0], order[1], order[2]), kind, softmax)
    images = np.random.default_rng(width).integers(0, 256, (count, 1, 5, width)).astype(np.float32)
    model = fed(model, "x", layout, ("batch", 1, 5, "width"))
    axes = (order.index(0), order.index(1), order.index(2))
    model = scored(model, Place("out", axes), np.zeros((5, 5, 5), np.float32), log=softmax)
    expected = images[:, 0].transpose(0, 2, 1)
    if softmax:
        shifted = expected - expected.max(axis=2, keepdims=True)
        expected = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
        assert {node.op_type for node in model.graph.node} >= {"LogSoftmax"}
    noisy = images + np.float32(0.2) if kind == TensorProto.UINT8 else images  # rounded again
    for one in (model, *([padded(model, batch)] if count <= batch else [])):
        onnx.checker.check_model(one, full_check=True)
        [found] = session_of(one).run(None, {one.graph.input[0].name: noisy})
        np.testing.assert_allclose(found, expected, atol=1e-4)


@given(st.permutations(range(6)))
def test_nodes_are_put_in_order(order: list[int]) -> None:
    model = graph("NHWC", (1, 0, 2))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([nodes[at] for at in order])
    sort_nodes(model.graph)
    assert [node.op_type for node in model.graph.node] == [node.op_type for node in nodes]
    onnx.checker.check_model(model)


def test_nodes_in_a_circle_stay() -> None:
    nodes = [helper.make_node("Relu", ["a"], ["b"]), helper.make_node("Relu", ["b"], ["a"])]
    circle = helper.make_graph(nodes, "g", [], [])
    sort_nodes(circle)
    assert list(circle.node) == nodes


@pytest.mark.parametrize("axis", [2, 1])
def test_an_older_file_of_probabilities_is_opened_as_what_it_is(
    axis: int, tiny_onnx: Path, tmp_path: Path
) -> None:
    """Its manifest says logits, as `export` once wrote of a network that ends in softmax."""
    model = onnx.load(tiny_onnx)
    [output] = model.graph.output
    logits = (
        backend_of(model).run(images := np.random.default_rng(0).random((2, 1, 32, 132), np.float32)).logits
    )
    model.graph.node.append(helper.make_node("Softmax", [output.name], ["p"], axis=axis))
    output.name = "p"
    attach_manifest(model, manifest_of(onnx.load(tiny_onnx)))
    onnx.save(model, tmp_path / "old.onnx")
    opened = open_model(tmp_path / "old.onnx")
    assert opened.manifest.output == manifest_of(opened.graph).output
    assert opened.manifest.output == ("log-probs" if axis == 2 else "logits")
    assert logits is not None
    if axis == 2:
        found = opened.backend().run(images).logits
        assert found is not None
        exponentials = np.exp(logits - logits.max(axis=2, keepdims=True))
        expected = exponentials / exponentials.sum(axis=2, keepdims=True)
        np.testing.assert_allclose(np.exp(found), expected, atol=1e-6)
        assert opened.backend().manifest.output == "log-probs"
