"""What a number format costs a network, and what parity allows for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from paper_gpu import PaperCuda, write_engine
from torch import nn

from crnn_deploy.cli.main import main
from crnn_deploy.export.pytorch import ReferenceBackend, in_pytorch, rounded_to_tf32
from crnn_deploy.export.reference import reference_of
from crnn_deploy.graph.argmax import with_argmax
from crnn_deploy.graph.model import load_onnx, session_of
from crnn_deploy.graph.precision import with_tf32_products
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.parity.compare import TIE, TOLERANCE, compare
from crnn_deploy.parity.graph_formats import in_graph
from crnn_deploy.parity.tolerance import FLOATS, FormatError
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.runtime.backends.engine_file import Precision, sidecar_of
from crnn_deploy.verdict.drawn import drawn_images


def nearest(values: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """float64 values with so many bits of mantissa behind the leading one, ties rounded to even."""
    mantissa, exponent = np.frexp(values)
    rounded: NDArray[np.float64] = np.ldexp(np.rint(np.ldexp(mantissa, bits + 1)), exponent - bits - 1)
    return rounded


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32).filter(lambda x: not 0 < abs(x) < 1e-30)))
def test_tf32_keeps_ten_bits_of_mantissa(values: list[float]) -> None:
    array = np.array(values, np.float32)
    expected = nearest(array.astype(np.float64), 10)
    np.testing.assert_array_equal(rounded_to_tf32(torch.from_numpy(array)).numpy(), expected)


def test_factors_of_products_are_rounded_in_the_graph_and_sums_are_not() -> None:
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=shape).astype(np.float32) for shape in ((5, 40), (40, 7), (7,)))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 40])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 7])],
        [numpy_helper.from_array(w, "w"), numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    [actual] = session_of(with_tf32_products(model)).run(None, {"x": x})
    expected = nearest(x.astype(np.float64), 10) @ nearest(w.astype(np.float64), 10) + b
    np.testing.assert_allclose(actual, expected, atol=5e-6)
    assert np.abs(x.astype(np.float64) @ w + b - expected).max() > 1e-4


def tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)  # with 0 as `tiny_onnx`
    return CRNN(32, 1, 11, hidden=8, widths=(4, 4, 8, 8, 8, 8, 8)).eval()


def reference() -> ReferenceBackend:
    return reference_of(tiny(), RECIPES["paper"], tuple("0123456789"), {"recipe": "paper", "family": "crnn"})


@pytest.mark.parametrize(("precision", "bits"), [("tf32", 10), ("fp16", 10), ("bf16", 7)])
def test_a_format_costs_about_its_last_bit_by_both_ways(
    precision: Precision, bits: int, tiny_onnx: Path
) -> None:
    """PyTorch computes in the format, ONNX Runtime in float32 with rounded tensors."""
    batches = [drawn_images(reference().manifest, 4, width, np.random.default_rng(0)) for width in (100, 160)]
    one = in_pytorch(reference().module, precision).over(batches)
    other = in_graph(load_onnx(tiny_onnx), precision).over(batches)
    assert one.scale == pytest.approx(other.scale, rel=1e-3) and one.images == other.images == 8
    for found in (one, other):
        assert 0.05 < found.max_delta / (found.scale * 2.0**-bits) < 8
    assert 1 / 3 < one.max_delta / other.max_delta < 3
    assert "float64" in one.line() and "float32" in other.line() and precision in one.line()


def test_the_tolerance_grows_with_large_logits_and_never_falls_below_that_of_fp32() -> None:
    def tolerance(max_delta: float, scale: float) -> float:
        return FormatError("fp16", max_delta, 0.0, scale, 32, "PyTorch in float64").tolerance

    assert tolerance(0.1, 5.0) == pytest.approx(0.6)
    assert tolerance(0.1, 20.0) == pytest.approx(0.3)  # `ParityReport` allows twice that at 20
    assert tolerance(1e-6, 5.0) == tolerance(float("inf"), 5.0) == tolerance(float("nan"), 5.0) == TOLERANCE
    assert FormatError("fp16", 0.1, 0.0, 5.0, 32, "").tie == 0.1
    assert FormatError("fp16", float("nan"), 0.0, 5.0, 32, "").tie == TIE


def test_frames_that_the_format_may_turn_are_ties(tiny_onnx: Path) -> None:
    """A network whose two classes are nearly alike in every frame, against one that prefers the other."""
    ours, theirs = reference(), reference()
    batches = [drawn_images(ours.manifest, 2, 120, np.random.default_rng(0))]
    for backend, sign in ((ours, 1), (theirs, -1)):
        head = [layer for layer in backend.module.modules() if isinstance(layer, nn.Linear)][-1]
        with torch.no_grad():
            head.weight.zero_()
            head.bias.zero_()
            head.bias[1] = sign * 1e-3
    report = compare(ours, theirs, batches, tolerance=1e-2)
    assert not report.passed and report.flips > 0 and report.text_changes > 0
    report = replace(report, tie=0.9e-3)
    assert not report.passed and report.flips > 0
    report = replace(report, tie=1.1e-3)
    assert report.passed and report.flips == 0 and sum(case.ties(report.tie) for case in report.cases) > 0


@pytest.mark.parametrize("first", ["checkpoint", "onnx"])
@pytest.mark.parametrize("precision", FLOATS[1:])
def test_verify_measures_what_the_format_of_an_engine_costs(
    precision: Precision, first: str, cuda: PaperCuda, tiny_onnx: Path, tmp_path: Path
) -> None:
    """The engine of paper computes in float32 what a graph says, which is wrong by less than the format."""
    model = load_onnx(tiny_onnx)
    [said] = [node for node in model.graph.node if "logits" in node.output]
    said.output[0] = "right"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(2e-4, np.float32), "wrong"))
    model.graph.node.append(helper.make_node("Add", ["right", "wrong"], ["logits"]))
    onnx.save(model, tmp_path / "wrong.onnx")
    engine, checkpoint = tmp_path / "tiny.engine", tmp_path / "tiny.pth"
    built = write_engine(tmp_path / "wrong.onnx", engine)
    torch.save(tiny().state_dict(), checkpoint)
    arguments = ["verify", str(checkpoint if first == "checkpoint" else tiny_onnx), str(engine)]
    runner = CliRunner()
    failed = runner.invoke(main, arguments)
    assert failed.exit_code == 1 and "allowed 1e-04" in failed.stdout and "what fp32 costs" in failed.stdout
    plain = built.to_json().replace('"precision": "fp32",\n "kept', f'"precision": "{precision}",\n "kept')
    sidecar_of(engine).write_text(plain, encoding="utf-8")
    passed = runner.invoke(main, arguments)
    assert passed.exit_code == 0, passed.output
    [line] = [line for line in passed.stdout.splitlines() if line.startswith("tolerance: ")]
    assert f"6 times what {precision} costs" in line
    assert ("float64" in line) == (first == "checkpoint")
    assert runner.invoke(main, [*arguments, "--tolerance", "1e-4"]).exit_code == 1


def engine_of(model: onnx.ModelProto, folder: Path, precision: Precision) -> Path:
    """An engine of paper that says it computes in the format; it computes what the model says in float32."""
    onnx.save(model, folder / "source.onnx")
    built = write_engine(folder / "source.onnx", folder / "tiny.engine")
    text = built.to_json().replace('"precision": "fp32",\n "kept', f'"precision": "{precision}",\n "kept')
    sidecar_of(folder / "tiny.engine").write_text(text, encoding="utf-8")
    return folder / "tiny.engine"


def checkpoint_of(module: nn.Module, folder: Path) -> Path:
    torch.save(module.state_dict(), folder / "tiny.pth")
    return folder / "tiny.pth"


def test_no_tolerance_is_none(cuda: PaperCuda, tiny_onnx: Path, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(tiny(), tmp_path)
    found = CliRunner().invoke(main, ["verify", str(checkpoint), str(tiny_onnx), "--tolerance", "0"])
    assert found.exit_code == 1 and "allowed 0e+00" in found.stdout


def test_an_engine_may_stand_first(cuda: PaperCuda, tiny_onnx: Path, tmp_path: Path) -> None:
    engine = engine_of(load_onnx(tiny_onnx), tmp_path, "fp16")
    found = CliRunner().invoke(main, ["verify", str(engine), str(checkpoint_of(tiny(), tmp_path))])
    assert found.exit_code == 0 and "what fp16 costs" in found.stdout, found.output
    other = CliRunner().invoke(main, ["verify", str(engine), str(engine)])
    assert "is not measured" in other.stdout


@pytest.mark.parametrize(("fallen", "code"), [(0.0, 0), (0.5, 1)])
def test_probabilities_are_held_to_what_the_format_costs_them(
    fallen: float, code: int, cuda: PaperCuda, tiny_onnx: Path, tmp_path: Path
) -> None:
    """Not to what it costs logits, which may be more than a probability can be."""
    model = with_argmax(load_onnx(tiny_onnx))
    [said] = [node for node in model.graph.node if "probabilities" in node.output]
    said.output[list(said.output).index("probabilities")] = "right"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(1 - fallen, np.float32), "rest"))
    model.graph.node.append(helper.make_node("Mul", ["right", "rest"], ["probabilities"]))
    engine = engine_of(model, tmp_path, "bf16")
    found = CliRunner().invoke(main, ["verify", str(checkpoint_of(tiny(), tmp_path)), str(engine)])
    assert found.exit_code == code, found.output


def test_a_network_that_holds_to_float32_keeps_the_usual_tolerance(
    cuda: PaperCuda, tiny_onnx: Path, tmp_path: Path
) -> None:
    source = tmp_path / "own.py"
    source.write_text(
        "import torch\nfrom crnn_deploy.networks.crnn import CRNN\n"
        "class Own(CRNN):\n"
        "    def forward(self, images):\n"
        "        return super().forward(images.float())\n"
        "def make():\n    return Own(32, 1, 11, hidden=8, widths=(4, 4, 8, 8, 8, 8, 8))\n"
    )
    engine = engine_of(load_onnx(tiny_onnx), tmp_path, "fp16")
    arguments = ["verify", str(checkpoint_of(tiny(), tmp_path)), str(engine), "--factory", f"{source}:make"]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    assert "what fp16 costs is not measured: PyTorch does not run the network in that format" in found.stdout
    assert "allowed 1e-04" in found.stdout


def test_the_cost_is_measured_throughout_the_images(cuda: PaperCuda, tiny_onnx: Path, tmp_path: Path) -> None:
    """All of the first 128, then one batch in four: 8 images each, of one width."""
    for at in range(240):
        pixels = np.random.default_rng(at).integers(0, 256, (32, 120), np.uint8)
        cv2.imwrite(str(tmp_path / f"{at:03}.png"), pixels)
    engine = engine_of(load_onnx(tiny_onnx), tmp_path, "fp16")
    arguments = ["verify", str(tiny_onnx), str(engine), "--images", str(tmp_path / "*.png")]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0, found.output
    measured = 128 + 8 * len([batch for batch in range(16, 30) if batch % 4 == 0])
    assert f"costs this network on {measured} images" in found.stdout


def test_bfloat16_of_ml_dtypes_is_that_of_pytorch() -> None:
    """Both ways round to it with libraries of their own."""
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    ours = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(ours, values.astype(ml_dtypes.bfloat16).astype(np.float32))
