"""INT8 weights that overflow on a CPU without VNNI are refused there, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from crnn_deploy.errors import ModelUnreadable  # noqa: E402
from crnn_deploy.graph.model import (  # noqa: E402
    open_model,
    session_of,
)
from crnn_deploy.models import DEFAULT  # noqa: E402
from crnn_deploy.quantization import qdq  # noqa: E402
from crnn_deploy.quantization.calibrate import read_scales  # noqa: E402
from crnn_deploy.runtime.backends import cpu  # noqa: E402
from crnn_deploy.runtime.backends.backend import BackendName, open_backend  # noqa: E402
from crnn_deploy.runtime.backends.weight_bits import (  # noqa: E402
    LARGEST,
    CpuUnfit,
    check_weights,
    is_quantised,
    largest_weight,
)


def file_of(path: Path, *tensors: TensorProto) -> Path:
    graph = helper.make_graph([], "g", [], [], list(tensors))
    onnx.save(helper.make_model(graph), path)
    return path


def test_the_largest_weight_however_it_is_stored(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(-100, 100, (7, 5), np.int8)
    raw[2, 3] = -128
    assert largest_weight(file_of(tmp_path / "a", numpy_helper.from_array(raw, "raw"))) == 128
    plain = helper.make_tensor("plain", TensorProto.INT8, [4], [3, -99, 7, 98])
    assert largest_weight(file_of(tmp_path / "b", plain)) == 99
    others = numpy_helper.from_array(np.full(9, 200, np.uint8), "u"), numpy_helper.from_array(raw * 1.0, "f")
    assert largest_weight(file_of(tmp_path / "c", *others)) == 0
    (tmp_path / "d").write_bytes(b"no model")
    with pytest.raises(ModelUnreadable):
        largest_weight(tmp_path / "d")


@pytest.mark.parametrize(
    ("operator", "quantises"),
    [
        *(("DequantizeLinear", True), ("QLinearConv", True), ("MatMulInteger", True)),
        *(("DynamicQuantizeLSTM", True), ("Conv", False), ("Softmax", False)),
    ],
)
def test_operators_tell_a_quantised_graph(tmp_path: Path, operator: str, quantises: bool) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], "Quantize"), helper.make_node(operator, ["y"], ["z"])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "QLinear", [], [])), tmp_path / "m.onnx")
    assert is_quantised(tmp_path / "m.onnx") == quantises
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ModelUnreadable):
        is_quantised(tmp_path / "m.onnx")


@pytest.fixture(params=[7, 8])
def quantised(
    request: pytest.FixtureRequest, tiny_onnx: Path, tiny_scales: Path, tmp_path: Path
) -> tuple[qdq.WeightBits, Path]:
    """A model with weights of so many bits."""
    model = open_model(tiny_onnx)
    ranges = read_scales(tiny_scales, model).ranges
    graph = qdq.insert(model.graph, ranges, weight_level=qdq.LEVELS[request.param])
    onnx.save(graph, tmp_path / "q.onnx")
    return request.param, tmp_path / "q.onnx"


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("saturates", [True, False])
def test_what_overflows_is_refused_where_it_does(
    quantised: tuple[qdq.WeightBits, Path],
    backend: BackendName,
    saturates: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bits, path = quantised
    assert largest_weight(path) == {7: 63, 8: 127}[bits]
    monkeypatch.setattr(cpu, "saturates", lambda: saturates)
    if backend == "openvino":
        pytest.importorskip("openvino")
    if bits == 8 and saturates:
        with pytest.raises(CpuUnfit, match=r"whose products overflow on this CPU .* --weight-bits 7"):
            open_backend(path, backend=backend)
    else:
        open_backend(path, backend=backend).close()


def test_a_float_model_has_no_such_weights(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "saturates", lambda: True)
    assert largest_weight(tiny_onnx) == 0
    check_weights(tiny_onnx)


@pytest.mark.parametrize("level", [LARGEST, 127])
def test_products_overflow_on_this_cpu_as_it_says(level: int, tmp_path: Path) -> None:
    """ONNX Runtime's product of unsigned activations and signed weights, beside NumPy's in 64 bits."""
    activations = np.full((4, 64), 255, np.uint8)
    weights = np.full((64, 8), level, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, [4, 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [4, 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    [found] = session_of(model).run(None, {"a": activations})
    exact = activations.astype(np.int64) @ weights.astype(np.int64)
    assert np.array_equal(found, exact) == (level <= LARGEST or not cpu.saturates())


def test_what_this_project_ships_runs_everywhere() -> None:
    shipped = sorted(DEFAULT.parent.glob("*.onnx"))
    assert len(shipped) >= 2 and all(largest_weight(path) <= LARGEST for path in shipped)
