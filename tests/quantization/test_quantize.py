"""`quantize` from images to a file and its report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto

from crnn_deploy.cli.main import main
from crnn_deploy.graph.model import backend_of, load_onnx, open_model
from crnn_deploy.quantization import qdq
from crnn_deploy.quantization.calibrate import read_scales
from crnn_deploy.runtime.backends import cpu
from crnn_deploy.runtime.backends.engine_file import read_sidecar
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.backends.weight_bits import largest_weight

LOOSE = ("--max-confident-flips", "100%", "--max-accuracy-loss", "100pt", "--max-cer-increase", "100pt")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_written_model_and_its_report(
    tiny_scales: Path, tiny_onnx: Path, tiny_images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "t.int8.onnx"
    files = ("--json-file", tmp_path / "r.json", "--html", tmp_path / "r.html", "-o", out)
    result = run(
        "quantize", tiny_onnx, tiny_images, "--scales", tiny_scales, "--target-device", "gpu", *LOOSE, *files
    )
    assert result.exit_code == 0, result.output
    plain = json.loads((tmp_path / "r.json").read_text())
    assert len(plain["sensitivity"]) == len(qdq.quantizable(load_onnx(tiny_onnx)))
    half = plain["fp16_emulated"]["strings_changed"]
    assert (
        half["images"] > 0 and half["share"] <= plain["variants"][-1]["verdict"]["strings_changed"]["share"]
    )
    assert "OpenVINO" in str(plain["openvino_bf16"])  # what it does, or why it is not measured
    page = (tmp_path / "r.html").read_text()
    assert "<h1>PASSED" in page and "fp16, emulated" in page and page.count("data:image/png") >= 3
    again = run("quantize", out, tiny_images, "--scales", tiny_scales, "-o", tmp_path / "no.onnx")
    assert again.exit_code == 2 and len(again.stderr.splitlines()) == 1
    again = run("calibrate", out, tiny_images, "-o", tmp_path / "no.json")
    assert again.exit_code == 2 and "quantised already" in again.stderr
    judged = run("verify", tiny_onnx, out, "--images", tiny_images, "--text")
    assert judged.exit_code == 1 and "not enough images to tell" in judged.stdout


def test_a_refusal_writes_nothing(
    tiny_scales: Path, tiny_onnx: Path, tiny_images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "no.onnx"
    result = run(
        "quantize", tiny_onnx, tiny_images, "--scales", tiny_scales, "--target-device", "gpu", "-o", out
    )
    assert result.exit_code == 1 and not out.exists()
    assert "not enough images to tell" in result.stderr and len(result.stderr.splitlines()) == 1


def test_too_few_images_are_told_how_many_more_and_what_may_be_done(
    tiny_scales: Path, tiny_onnx: Path, tiny_images: Path, tmp_path: Path
) -> None:
    out, report = tmp_path / "t.int8.onnx", tmp_path / "r.json"
    command = (
        "quantize",
        tiny_onnx,
        tiny_images,
        "--scales",
        tiny_scales,
        "--target-device",
        "gpu",
        "-o",
        out,
        *("--confident-above", 0),  # every text counts
    )
    refused = run(*command, "--json-file", report)
    assert refused.exit_code == 1 and not out.exists()
    assert "images more like these would settle" in refused.stderr and "--accept-undecided" in refused.stderr
    plain = json.loads(report.read_text())
    [check] = plain["variants"][-1]["verdict"]["checks"]
    assert check["more_images"] > 1000
    offers = plain["offers"]
    layers = qdq.quantizable(load_onnx(tiny_onnx))
    by_margins = sorted(plain["sensitivity"], key=lambda one: -one["margin_change"])
    assert [offer["kept_float"] for offer in offers] == [
        [one["layer"] for one in by_margins[: len(offer["kept_float"])]] for offer in offers
    ]
    assert offers[0]["kept_float"] == [] and all(offer["layers"] == len(layers) for offer in offers)
    assert f"--float-layers {len(offers[-1]['kept_float'])} (of {len(layers)})" in refused.stdout

    accepted = run(*command, "--accept-undecided", "--float-layers", 1, "--json-file", report)
    assert accepted.exit_code == 0, accepted.output
    [variant] = json.loads(report.read_text())["variants"]
    assert variant["kept_float"] == [by_margins[0]["layer"]] and variant["name"].endswith("1 layers float")
    told = open_model(out).manifest.source["int8_verdict"]
    assert told.startswith("NOT ENOUGH IMAGES") and "images more like these would settle" in told
    assert "int8_verdict" not in open_model(tiny_onnx).manifest.source
    shown = run("inspect", out)
    assert "NOT ENOUGH IMAGES" in shown.stdout


def test_what_is_decided_needs_no_leave(
    tiny_scales: Path, tiny_onnx: Path, tiny_images: Path, tmp_path: Path
) -> None:
    """With --accept-undecided a model that fails is refused as ever, and one that passes says nothing."""
    out = tmp_path / "t.int8.onnx"
    command = (
        "quantize",
        tiny_onnx,
        tiny_images,
        "--scales",
        tiny_scales,
        "--target-device",
        "gpu",
        "-o",
        out,
    )
    assert run(*command, *LOOSE, "--accept-undecided").exit_code == 0
    assert "int8_verdict" not in open_model(out).manifest.source


def test_weights_of_8_bits_are_for_cpus_that_hold_their_products(
    tiny_scales: Path, tiny_onnx: Path, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t.int8.onnx"
    command = ("quantize", tiny_onnx, tiny_images, "--scales", tiny_scales, "--target-device", "gpu", *LOOSE)
    monkeypatch.setattr(cpu, "saturates", lambda: True)
    refused = run(*command, "-o", out, "--weight-bits", 8)
    assert refused.exit_code == 2 and "overflow on this CPU" in refused.stderr and not out.exists()
    monkeypatch.setattr(cpu, "saturates", lambda: False)
    written = run(*command, "-o", out, "--weight-bits", 8, "--json-file", tmp_path / "r.json")
    assert written.exit_code == 0, written.output
    plain = json.loads((tmp_path / "r.json").read_text())
    assert plain["weights"] == "int8, per channel, 8 bits" and plain["cpu"] == cpu.kind()
    assert largest_weight(out) == 127
    assert open_model(out).manifest.source["needs"] == "a CPU with VNNI: its INT8 weights have 8 bits"
    monkeypatch.setattr(cpu, "saturates", lambda: True)
    read = run("infer", "--model", out, tiny_images)
    assert read.exit_code == 2 and "overflow on this CPU" in read.stderr


def test_the_rest_in_half_precision_is_built_as_it_stands(
    tiny_scales: Path, tiny_onnx: Path, tiny_images: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    path = tmp_path / "half.int8.onnx"
    command = (
        "quantize",
        tiny_onnx,
        tiny_images,
        "--scales",
        tiny_scales,
        *LOOSE,
        "-o",
        path,
        "--rest",
        "fp16",
    )
    assert "add --target-device gpu" in run(*command).stderr and not path.exists()
    written = run(*command, "--target-device", "gpu")
    assert written.exit_code == 0 and "the rest fp16" in written.stdout, written.output
    model = load_onnx(path)
    assert model.opset_import[0].version >= 19
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    steps = {kinds[node.input[1]] for node in model.graph.node if node.op_type.endswith("eLinear")}
    assert steps == {TensorProto.FLOAT16}  # scales
    backend, batch = OrtBackend(path), np.random.default_rng(0).uniform(-1, 1, (2, 1, 32, 120))
    logits = backend.run(batch.astype(np.float32)).logits
    single = backend_of(
        qdq.insert(load_onnx(tiny_onnx), read_scales(tiny_scales, open_model(tiny_onnx)).ranges)
    )
    expected = single.run(batch.astype(np.float32)).logits
    assert logits is not None and expected is not None
    assert 0 < np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()
    engine = tmp_path / "half.engine"
    built = run("build-engine", path, "--int8", "--width-range", "100,160,200", "-o", engine)
    assert built.exit_code == 0, built.output
    layers = read_sidecar(engine).layers
    assert [layer.precision for layer in layers if layer.kind == "CONVOLUTION"] == ["int8"] * 7
    assert {layer.precision for layer in layers} == {"int8", "fp16"}


def test_the_models_int8_file_reads_the_examples_and_its_scales_are_its_own() -> None:
    from crnn_deploy.models import DEFAULT

    root = Path(__file__).parents[2]
    assert read_scales(root / "calibration" / "latin.scales.json", open_model(DEFAULT)).rendered
    floating, quantised = (
        run(
            "infer", "--precision", precision, "--batch", "4", "--workers", "1", root / "examples" / "images"
        ).stdout
        for precision in ("fp32", "int8")
    )
    assert floating and floating == quantised


def test_layers_that_hurt_go_back_to_float_until_the_budget_holds(tmp_path: Path) -> None:
    """One tensor's range clips nearly all of it: the layers at it cannot be quantised, the others can."""
    from crnn_deploy.models import DEFAULT

    root = Path(__file__).parents[2]
    plain = json.loads((root / "calibration" / "latin.scales.json").read_text())
    plain["ranges"]["relu_1"] *= 0.02
    (tmp_path / "clipped.json").write_text(json.dumps(plain))
    result = run(
        *("quantize", DEFAULT, root / "examples" / "images", "--scales", tmp_path / "clipped.json"),
        *("--target-device", "gpu", "--confident-above", 0, "--max-confident-flips", "35%"),
        *("--json-file", tmp_path / "r.json", "-o", tmp_path / "out.onnx"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "r.json").read_text())
    first, *_, last = found["variants"]
    assert first["verdict"]["answer"] == "FAILED" and last["verdict"]["answer"] == "PASSED"
    worst = [one["layer"] for one in found["sensitivity"]]
    assert last["kept_float"] == worst[: len(last["kept_float"])] and len(last["kept_float"]) < len(worst)
    assert {"getitem_3", "getitem_6"} <= set(last["kept_float"])  # what makes relu_1 and what reads it
