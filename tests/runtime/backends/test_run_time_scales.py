"""Graphs whose scales depend on what runs together are found in the file, and run one image at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from numpy.typing import NDArray  # noqa: E402
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper  # noqa: E402

from crnn_deploy.errors import ModelUnreadable  # noqa: E402
from crnn_deploy.graph.model import attach_manifest, load_onnx, manifest_of  # noqa: E402
from crnn_deploy.runtime.backends.backend import BackendName, open_backend  # noqa: E402
from crnn_deploy.runtime.backends.run_time_scales import has_run_time_scales, held_to_scales  # noqa: E402
from crnn_deploy.runtime.recognizer import Recognizer  # noqa: E402


def node(operator: str, inputs: str, outputs: str, domain: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), domain=domain, **attributes)


def graph_of(*nodes: NodeProto, weights: str = "s z w", **parts: Any) -> GraphProto:
    tensors = [helper.make_tensor(name, TensorProto.FLOAT, [1], [1]) for name in weights.split()]
    return GraphProto(name="g", node=nodes, initializer=tensors, **parts)


def model_of(*nodes: NodeProto, functions: tuple[FunctionProto, ...] = ()) -> bytes:
    model: bytes = ModelProto(ir_version=8, graph=graph_of(*nodes), functions=functions).SerializeToString()
    return model


DYNAMIC = {
    "DynamicQuantizeLinear": [node("DynamicQuantizeLinear", "x", "q d e")],
    "DynamicQuantizeLSTM": [node("DynamicQuantizeLSTM", "x w", "y", "com.microsoft")],
    "DynamicQuantizeMatMul": [node("DynamicQuantizeMatMul", "x w s", "y", "com.microsoft")],
    "a computed scale": [
        *(node("ReduceMax", "x", "largest"), node("Div", "largest s", "scale")),
        *(node("QuantizeLinear", "x scale z", "q"), node("MatMulInteger", "q w", "y")),
    ],
    "quantised by hand": [
        *(node("ReduceMax", "x", "largest"), node("Div", "x largest", "d"), node("Cast", "d", "q", to=3)),
        node("ConvInteger", "q w", "y"),
    ],
}
STATIC = {
    "QDQ": [node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "y")],
    "MatMulInteger": [node("QuantizeLinear", "x s z", "q"), node("MatMulInteger", "q w z", "y")],
    "ConvInteger moved": [
        *(node("QuantizeLinear", "x s z", "q"), node("Transpose", "q", "t"), node("ConvInteger", "t w", "y")),
    ],
    "a constant scale": [
        node("Constant", "", "c", value_float=1.0),
        *(node("Mul", "c s", "scale"), node("QuantizeLinear", "x scale z", "q")),
    ],
    "QLinearConv": [node("QLinearConv", "x s z w s z s z", "y")],
    "floats": [node("MatMul", "x w", "y")],
}


@pytest.mark.parametrize("name", DYNAMIC)
@pytest.mark.parametrize("where", ["graph", "branch", "function"])
def test_scales_that_are_taken_at_run_time(name: str, where: str) -> None:
    nodes = DYNAMIC[name]
    if where == "branch":
        inner = graph_of(*nodes, weights="")
        nodes = [node("If", "yes", "y", then_branch=inner, else_branch=inner)]
    if where == "function":
        function = FunctionProto(name="f", domain="own", node=nodes, input=["x", "w", "s", "z"], output=["y"])
        assert has_run_time_scales(model_of(node("f", "x w s z", "y", "own"), functions=(function,)))
        return
    assert has_run_time_scales(model_of(*nodes))


@pytest.mark.parametrize("name", STATIC)
def test_scales_that_are_constant(name: str) -> None:
    assert not has_run_time_scales(model_of(*STATIC[name]))
    inner = graph_of(*STATIC[name], weights="")
    assert not has_run_time_scales(model_of(node("If", "yes", "y", then_branch=inner, else_branch=inner)))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"\x3a\xff\xff")
    with pytest.raises(ModelUnreadable, match="not an ONNX file"):
        has_run_time_scales(tmp_path / "x.onnx")


def dynamic(tiny_onnx: Path, path: Path, kinds: list[str]) -> Path:
    """The small network as `onnxruntime.quantization.quantize_dynamic` makes it, with its old manifest."""
    from onnxruntime.quantization import quantize_dynamic

    quantize_dynamic(tiny_onnx, path, op_types_to_quantize=kinds, reduce_range=True)
    graph = load_onnx(path)
    attach_manifest(graph, manifest_of(load_onnx(tiny_onnx)))
    onnx.save(graph, path)
    assert manifest_of(graph).max_batch is None
    return path


@pytest.mark.parametrize("kinds", [["MatMul"], ["LSTM"], ["MatMul", "LSTM", "Conv"]])
def test_a_text_depends_on_its_image_alone(tiny_onnx: Path, kinds: list[str], tmp_path: Path) -> None:
    """Run together, images of other contrasts would change the scales of all."""
    import onnxruntime

    path = dynamic(tiny_onnx, tmp_path / "d.onnx", kinds)
    batch = contrasts()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [value] = session.get_inputs()
    joined = session.run(None, {value.name: batch})[0]
    backend = open_backend(path)
    assert backend.manifest.max_batch == 1
    frames = backend.run(batch)
    assert frames.logits is not None and np.abs(frames.logits - joined).max() > 1e-4  # it matters here
    for image, logits in zip(batch, frames.logits, strict=True):
        np.testing.assert_array_equal(session.run(None, {value.name: image[None]})[0][0], logits)


def contrasts() -> NDArray[np.float32]:
    batch = np.random.default_rng(0).normal(0, 0.3, (5, 1, 32, 132)).astype(np.float32)
    return batch * np.array([1, 3, 0.2, 2, 0.5], np.float32)[:, None, None, None]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_recognizer_reads_the_same_in_any_batch(
    tiny_onnx: Path, backend: BackendName, tmp_path: Path
) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    path = dynamic(tiny_onnx, tmp_path / "d.onnx", ["MatMul"])
    rng = np.random.default_rng(3)
    pixels = [rng.integers(0, most, (32, 132), np.uint8) for most in (256, 60, 120, 200, 30, 256)]
    together = Recognizer.load(path, batch=8, backend=backend)
    alone = Recognizer.load(path, batch=1, backend=backend)
    assert together.manifest.max_batch == 1
    assert together.read(pixels) == [alone.read([one])[0] for one in pixels]


@pytest.mark.parametrize("given", [None, 1, 8])
def test_the_manifest_is_held_to_the_graph(given: int | None, tiny_onnx: Path) -> None:
    manifest = replace(manifest_of(load_onnx(tiny_onnx)), max_batch=given)
    assert held_to_scales(manifest, tiny_onnx) == manifest
    assert held_to_scales(manifest, model_of(*DYNAMIC["DynamicQuantizeLinear"])).max_batch == 1


def test_infer_says_once_that_images_run_one_at_a_time(
    tiny_onnx: Path, tiny_images: Path, tmp_path: Path
) -> None:
    from click.testing import CliRunner

    from crnn_deploy.cli.main import main

    path = dynamic(tiny_onnx, tmp_path / "d.onnx", ["MatMul"])
    result = CliRunner().invoke(main, ["infer", "--model", str(path), str(tiny_images)])
    assert result.exit_code == 0 and result.stderr.count("runs one image at a time") == 1
    alone = CliRunner().invoke(main, ["infer", "--batch", "1", "--model", str(path), str(tiny_images)])
    assert alone.stdout == result.stdout and "at a time" not in alone.stderr
