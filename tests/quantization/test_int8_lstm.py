"""The LSTM in INT8: what it computes, and that no image sees its neighbours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

onnx = pytest.importorskip("onnx")

from numpy.typing import NDArray  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from crnn_deploy import Recognizer  # noqa: E402
from crnn_deploy.cli.main import main  # noqa: E402
from crnn_deploy.graph.model import (  # noqa: E402
    backend_of,
    load_onnx,
    manifest_of,
    open_model,
    session_of,
)
from crnn_deploy.models import DEFAULT  # noqa: E402
from crnn_deploy.quantization import qdq  # noqa: E402
from crnn_deploy.quantization.calibrate import read_scales  # noqa: E402
from crnn_deploy.quantization.int8_lstm import lstm_inputs, with_int8_lstm  # noqa: E402
from crnn_deploy.quantization.qdq import QuantizationImpossible  # noqa: E402
from crnn_deploy.runtime.backends.ort import OrtBackend  # noqa: E402
from crnn_deploy.runtime.backends.run_time_scales import has_run_time_scales  # noqa: E402

UNITS, INPUTS, STEPS = 5, 7, 11


def lstm(*, rectified: bool = False, direction: str = "bidirectional", **more: Any) -> Any:
    """A graph of one LSTM, with or without a ReLU before it."""
    rng, ways = np.random.default_rng(3), 2 if direction == "bidirectional" else 1
    shapes = {"w": (ways, 4 * UNITS, INPUTS), "r": (ways, 4 * UNITS, UNITS), "b": (ways, 8 * UNITS)}
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.5, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    read = "x" if not rectified else "relu"
    nodes = [helper.make_node("Relu", ["x"], ["relu"])] if rectified else []
    given = more.pop("given", [])
    nodes.append(
        helper.make_node(
            "LSTM", [read, *shapes, *given], ["y"], hidden_size=UNITS, direction=direction, **more
        )
    )
    floats = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", *given)]
    out = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["T", ways, "N", UNITS])]
    floats[0] = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["T", "N", INPUTS])
    graph = helper.make_graph(nodes, "g", [one for one in floats if one.name], out, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def rounded(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """To 256 levels from low to high, of which 0 is one (ONNX Runtime, GetQuantizationParameter)."""
    scale = (np.float32(high) - np.float32(low)) / np.float32(255)
    zero = np.clip(np.rint(-np.float32(low) / scale), 0, 255)
    levels: NDArray[np.float64] = np.clip(np.rint(values.astype(np.float32) / scale) + zero, 0, 255) - zero
    return levels.astype(np.float64) * scale


def by_numpy(model: Any, images: NDArray[np.float32], low: float, high: float) -> NDArray[np.float64]:
    """The LSTM of a quantised graph, in float64 with its integer weights: (T, ways, N, units)."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    [node] = [one for one in model.graph.node if one.op_type == "DynamicQuantizeLSTM"]
    names = dict(zip("xwrb---p", node.input[:8], strict=True)) | dict(
        zip(("ws", "wz", "rs", "rz"), node.input[8:], strict=True)
    )
    direction = next(one.s.decode() for one in node.attribute if one.name == "direction")
    w, r = (values[names[one]].astype(np.float64) for one in "wr")  # (ways, inputs, 4 units)
    ws, rs = (values[names[one]].astype(np.float64) for one in ("ws", "rs"))
    units = r.shape[1]
    out = np.zeros((len(images), len(w), images.shape[1], units))
    given = np.clip(images.astype(np.float64), low, high)
    columns = [end for end in (low, high) if end]
    for end in columns:
        given = np.concatenate([given, np.full((*given.shape[:2], 1), end)], axis=2)
    given = rounded(given, low, high)
    for way in range(len(w)):
        backwards = direction == "reverse" or way == 1
        bias = values[names["b"]].astype(np.float64)[way].reshape(2, -1).sum(axis=0)
        h = np.zeros((images.shape[1], units))
        h[:, -2:] = 1, -1
        c = 20 * h
        for step in range(len(images))[:: -1 if backwards else 1]:
            gates = given[step] @ (w[way] * ws[way]) + rounded(h, -1, 1) @ (r[way] * rs[way]) + bias
            i, o, f, g = np.split(gates, 4, axis=1)
            i, o, f = (1 / (1 + np.exp(-one)) for one in (i, o, f))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
            out[step, way] = h
    return out[..., : units - 2]


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_the_lstm_is_that_of_its_integers(rectified: bool, direction: str) -> None:
    source = lstm(rectified=rectified, direction=direction)
    [read] = lstm_inputs(source)
    model = with_int8_lstm(source, source, {read: 2.0})
    images = np.random.default_rng(0).normal(0, 1.2, (STEPS, 3, INPUTS)).astype(np.float32)  # some beyond
    given = np.maximum(images, 0) if rectified else images
    found = session_of(model).run(None, {"x": images})[0]
    expected = by_numpy(model, given, 0.0 if rectified else -2.0, 2.0)
    # a state at the border of two levels may be rounded to the other one
    assert np.mean(np.abs(found - expected) < 1e-5) > 0.9 and np.abs(found - expected).max() < 0.01
    floating = session_of(source).run(None, {"x": np.clip(images, -2, 2)})[0]
    assert 1e-5 < np.abs(found - floating).max() < 0.05


@pytest.mark.parametrize("threads", [1, 2])
def test_an_image_is_the_same_to_the_bit_among_any_others(
    tiny_scales: Path, tiny_onnx: Path, tmp_path: Path, threads: int
) -> None:
    source, scales = load_onnx(tiny_onnx), read_scales(tiny_scales, open_model(tiny_onnx))
    model = with_int8_lstm(qdq.insert(source, scales.ranges), source, scales.ranges)
    assert {node.op_type for node in model.graph.node} >= {"DynamicQuantizeLSTM", "Conv"}
    assert manifest_of(model) == manifest_of(source)
    onnx.save(model, tmp_path / "m.onnx")
    assert not has_run_time_scales(tmp_path / "m.onnx")
    backend = OrtBackend(tmp_path / "m.onnx", threads=threads)
    assert backend.manifest.max_batch is None
    rng = np.random.default_rng(0)
    for width in (16, 132, 260):
        # images of very different contrast, some far beyond the ranges
        images = rng.normal(0, 0.5, (9, 1, 32, width)).astype(np.float32)
        images *= np.array([1, 3, 0.1, 50, 0, 2, 0.5, 1000, 1], np.float32)[:, None, None, None]
        alone = [backend.run(image[None]).logits for image in images]
        for batch in range(2, 10):
            for at in range(0, 9 - batch + 1):
                together = backend.run(images[at : at + batch]).logits
                assert together is not None
                for one, image in zip(together, alone[at : at + batch], strict=True):
                    assert image is not None
                    np.testing.assert_array_equal(one, image[0])
    pixels = list(rng.integers(0, 256, (5, 32, 132), np.uint8))
    assert Recognizer(backend, batch=8).read(pixels) == [
        Recognizer(backend, batch=1).read([one])[0] for one in pixels
    ]


def test_the_model_reads_nearly_as_in_float(tiny_scales: Path, tiny_onnx: Path) -> None:
    source, scales = load_onnx(tiny_onnx), read_scales(tiny_scales, open_model(tiny_onnx))
    convolutions = qdq.insert(source, scales.ranges)
    images = np.random.default_rng(0).normal(0, 0.5, (5, 1, 32, 132)).astype(np.float32)
    expected = backend_of(convolutions).run(images).logits
    found = backend_of(with_int8_lstm(convolutions, source, scales.ranges)).run(images).logits
    assert expected is not None and found is not None
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lstm(given=["", "h"]), "initial states"),
        (lstm(clip=3.0), "the attribute clip"),
        (helper.make_model(helper.make_graph([], "g", [], [])), "no LSTM to quantise"),
    ],
)
def test_an_lstm_that_holds_more_is_refused(model: Any, reason: str) -> None:
    with pytest.raises(QuantizationImpossible, match=reason):
        with_int8_lstm(model, model, {"x": 1.0})


def test_scales_without_the_lstms_range_are_refused(tiny_scales: Path, tiny_onnx: Path) -> None:
    source, scales = load_onnx(tiny_onnx), read_scales(tiny_scales, open_model(tiny_onnx))
    ranges = {name: value for name, value in scales.ranges.items() if name not in lstm_inputs(source)}
    with pytest.raises(QuantizationImpossible, match=r"which the LSTM .* reads; calibrate again"):
        with_int8_lstm(source, source, ranges)


def test_quantize_writes_it(tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "examples" / "images"
    scales, out = tmp_path / "scales.json", tmp_path / "out.onnx"

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [*map(str, arguments)])

    made = run("calibrate", DEFAULT, "--max-images", 64, "--method", "mse", "-o", scales)
    assert made.exit_code == 0, made.output
    options = ("--scales", scales, "--activations", "uint8", "--lstm", "int8", "--accept-undecided")
    written = run("quantize", DEFAULT, examples, *options, "--max-confident-flips", "100%", "-o", out)
    if written.exit_code == 1:
        assert "not faster" in written.output  # which the CPU decides
        return
    assert written.exit_code == 0, written.output
    ours, theirs = (manifest_of(load_onnx(path)) for path in (out, DEFAULT))
    assert replace(ours, source={}) == replace(theirs, source={})
    images = [*map(str, sorted(examples.glob("*.png")))]
    pairs = zip(Recognizer().read(images), Recognizer(out).read(images), strict=True)
    sure = [(before.text, after.text) for before, after in pairs if before.confidence > 0.7]
    assert len(sure) >= 11 and all(before == after for before, after in sure)
