"""The graph with Q and DQ: against numpy, ONNX Runtime and TensorRT for RTX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper

from crnn_deploy.cli.main import main
from crnn_deploy.graph.model import backend_of, load_onnx, manifest_of, open_model
from crnn_deploy.quantization import qdq
from crnn_deploy.quantization.calibrate import read_scales
from crnn_deploy.runtime.backends.engine_file import Range, read_sidecar


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@given(hnp.arrays(np.float32, (3, 2, 2, 2), elements=st.floats(-100, 100, width=32)))
def test_weights_are_within_half_a_level(weight: Any) -> None:
    levels, scale = qdq.quantized_weight(weight, 0)
    assert np.abs(levels.astype(int)).max() <= 63  # 7 bits: products never overflow 16 bits on AVX2
    error = np.abs(levels * scale[:, None, None, None] - weight)
    assert (error <= 0.5001 * scale[:, None, None, None] + 1e-30).all()


@pytest.mark.parametrize("activations", ["int8", "uint8"])
def test_a_quantised_model(activations: Any, tiny_scales: Path, tiny_onnx: Path) -> None:
    source = load_onnx(tiny_onnx)
    ranges = read_scales(tiny_scales, open_model(tiny_onnx)).ranges
    model = qdq.insert(source, ranges, activations=activations)
    assert manifest_of(model) == manifest_of(source)
    weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    makers = {node.output[0]: node for node in model.graph.node}
    assert len(convolutions) == 7
    for node in convolutions:
        assert all(makers[name].op_type == "DequantizeLinear" for name in node.input[:2])
        scale, zero = (weights[name] for name in makers[node.input[1]].input[1:])
        assert scale.shape == (weights[makers[node.input[1]].input[0]].shape[0],) and not zero.any()
    if activations == "int8":
        assert all(not weights[name].any() for name in weights if name.endswith("_zero"))
    assert {node.op_type for node in model.graph.node} >= {"LSTM"}
    # bitwise independent of the batch, and near the float model
    batch = np.random.default_rng(0).normal(0, 0.5, (5, 1, 32, 132)).astype(np.float32)
    backend = backend_of(model)
    together = backend.run(batch).logits
    alone = [backend.run(image[None]).logits for image in batch]
    assert together is not None
    np.testing.assert_array_equal(together, np.concatenate([x for x in alone if x is not None]))
    expected = backend_of(source).run(batch).logits
    assert expected is not None and 0 < np.abs(together - expected).max() < 0.2 * np.abs(expected).max()


def test_with_every_layer_in_float_nothing_changes(tiny_scales: Path, tiny_onnx: Path) -> None:
    source = load_onnx(tiny_onnx)
    ranges = read_scales(tiny_scales, open_model(tiny_onnx)).ranges
    model = qdq.insert(source, ranges, keep_float=qdq.quantizable(source))
    assert [n.SerializeToString() for n in model.graph.node] == [
        n.SerializeToString() for n in source.graph.node
    ]


def test_tensorrt_sees_int8_at_every_quantised_convolution(tiny_scales: Path, tiny_onnx: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    from crnn_deploy.engine.network import Network

    source = load_onnx(tiny_onnx)
    ranges = read_scales(tiny_scales, open_model(tiny_onnx)).ranges
    first = qdq.quantizable(source)[0]
    for kept in ([], [first]):
        layers = Network(trt, qdq.insert(source, ranges, keep_float=kept)).layers()
        found = [layer.precision for layer in layers if layer.kind == "CONVOLUTION"]
        assert found.count("int8") == 7 - len(kept) and len(found) == 7


def test_a_quantised_model_becomes_an_engine(tmp_path: Path) -> None:
    """With the default model, whose residual sums are quantised too."""
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    from crnn_deploy.engine.network import BuildFailed, Network
    from crnn_deploy.engine.profiles import profiles_of
    from crnn_deploy.models import DEFAULT

    scales = read_scales(Path(__file__).parents[2] / "calibration" / "latin.scales.json", open_model(DEFAULT))
    model, path = qdq.insert(load_onnx(DEFAULT), scales.ranges), tmp_path / "latin.int8.onnx"
    onnx.save(model, path)
    manifest = manifest_of(model)
    with pytest.raises(BuildFailed):  # once TensorRT builds this, `drop_idle_pairs` can go
        Network(trt, model).build(profiles_of(manifest, Range(1, 4, 8), Range(104, 160, 200), 1))
    engine = tmp_path / "latin.int8.engine"
    built = run("build-engine", path, "--int8", "--width-range", "104,160,200", "--profiles", 1, "-o", engine)
    assert built.exit_code == 0, built.output
    layers = [layer.precision for layer in read_sidecar(engine).layers if layer.kind == "CONVOLUTION"]
    assert layers == ["int8"] * 16
    # what is dropped is the rounding before the LSTM alone: the file for engines is closer to the float model
    images = np.random.default_rng(0).uniform(-1, 1, (2, 1, 32, 160)).astype(np.float32)
    exact, whole, engines = (
        np.asarray(backend_of(m).run(images).logits)
        for m in (load_onnx(DEFAULT), model, qdq.drop_idle_pairs(model))
    )
    errors = [float(np.abs(one - exact).mean()) for one in (whole, engines)]
    assert 0 < errors[1] < 1.1 * errors[0]
