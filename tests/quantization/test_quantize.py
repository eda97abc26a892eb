"""`quantize` from images to a file and its report."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto

from crnn_deploy.cli.main import main
from crnn_deploy.errors import BackendMissing
from crnn_deploy.graph.model import backend_of, load_onnx, open_model
from crnn_deploy.quantization import qdq, quantize
from crnn_deploy.quantization.calibrate import read_scales
from crnn_deploy.runtime.backends import cpu
from crnn_deploy.runtime.backends.engine_file import read_sidecar
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.backends.weight_bits import largest_weight
from crnn_deploy.runtime.batching import Batch

LOOSE = ("--max-confident-flips", "100%", "--max-accuracy-loss", "100pt", "--max-cer-increase", "100pt")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def no_openvino(*arguments: Any, **options: Any) -> Any:
    """Where speeds are counted: that of OpenVINO's bf16 is asked for on some CPUs alone."""
    raise BackendMissing("no OpenVINO")


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
    assert judged.exit_code == 1 and judged.stdout.count("\nNOT ENOUGH IMAGES: ") == 1
    assert "\n  NOT ENOUGH IMAGES: confident strings changed 0" in judged.stdout


def test_missing_scales_say_what_writes_them_and_a_missing_model_is_told_first(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    missing = run("quantize", tiny_onnx, "-o", tmp_path / "x.onnx")
    assert missing.exit_code == 2
    assert missing.stderr.splitlines()[-1] == (
        f"Error: Missing option '--scales'. Write them with: crnn-deploy calibrate {tiny_onnx} -o scales.json"
    )
    wrong = run("quantize", tmp_path / "no.onnx", "-o", tmp_path / "x.onnx")
    assert wrong.exit_code == 2 and wrong.stderr == f"Error: no model file at {tmp_path / 'no.onnx'}\n"


def test_a_refusal_writes_nothing(
    tiny_scales: Path, tiny_onnx: Path, tiny_images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "no.onnx"
    result = run(
        "quantize", tiny_onnx, tiny_images, "--scales", tiny_scales, "--target-device", "gpu", "-o", out
    )
    assert result.exit_code == 1 and not out.exists()
    assert "NOT ENOUGH IMAGES" in result.stderr and len(result.stderr.splitlines()) == 1


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
    plain = json.loads(report.read_text())
    verdict = plain["variants"][-1]["verdict"]
    [check] = verdict["checks"]
    assert check["more_images"] > 1000
    line = (
        f"NOT ENOUGH IMAGES: {verdict['images']} images; about {check['more_images']:,} more would settle it"
    )
    assert f"no INT8 model was written: {line}; give more images" in refused.stderr
    assert "--accept-undecided" in refused.stderr
    assert refused.stdout.count(line) == refused.stdout.splitlines().count(line) == 1
    assert refused.stdout.count(" further images like these would settle it as PASSED") == 1
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
    assert told.startswith("NOT ENOUGH IMAGES: ") and told.endswith(" more would settle it")
    assert "int8_verdict" not in open_model(tiny_onnx).manifest.source
    assert accepted.stdout.endswith("too few images to tell whether its text stays the same\n")
    shown = run("inspect", out)
    assert "NOT ENOUGH IMAGES" in shown.stdout


def test_a_model_that_is_slower_is_offered_no_leave_but_what_may_be_faster(
    tiny_scales: Path, tiny_onnx: Path, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too few images, and slower: --accept-undecided would not write it."""
    monkeypatch.setattr(quantize, "speed_ratio", lambda *models: 0.9)
    monkeypatch.setattr(cpu, "saturates", lambda: True)
    command = ("quantize", tiny_onnx, tiny_images, "--scales", tiny_scales, "-o", tmp_path / "no.onnx")
    for more in ((), ("--accept-undecided",)):
        refused = run(*command, *more)
        assert refused.exit_code == 1 and "at 0.90 x the float model it is not faster" in refused.stderr
        assert "--activations uint8" in refused.stderr and "--accept-undecided" not in refused.output
    refused = run(*command, "--activations", "uint8")
    assert "not faster" in refused.stderr and "--activations uint8" not in refused.stderr
    assert not (tmp_path / "no.onnx").exists()


def test_layers_in_float_that_make_a_model_slower_are_not_offered(
    tiny_scales: Path, tiny_onnx: Path, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = iter([1.5, 1.5, 0.9, 1.2, 1.1])  # of the model, and of its offers
    monkeypatch.setattr(quantize, "OpenVinoBackend", no_openvino)
    monkeypatch.setattr(quantize, "speed_ratio", lambda *models: next(speeds))
    report = tmp_path / "r.json"
    command = ("quantize", tiny_onnx, tiny_images, "--scales", tiny_scales, "-o", tmp_path / "no.onnx")
    refused = run(*command, "--json-file", report)
    assert refused.exit_code == 1, refused.output
    offers = json.loads(report.read_text())["offers"]
    assert [(len(offer["kept_float"]), offer["speed"]) for offer in offers] == [(0, 1.5), (2, 1.2), (4, 1.1)]


def test_the_speed_of_a_slow_model_is_measured_in_fewer_rounds(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock on which every run takes as long as the test says."""
    backend = open_model(tiny_onnx).backend()
    batches = [Batch(np.zeros((1, 1, 32, 40), np.float32), (at,)) for at in range(40)]
    now, runs = 0.0, 0

    def ran(seconds: float) -> Any:
        def run(images: Any) -> None:
            nonlocal now, runs
            now, runs = now + seconds, runs + 1

        return run

    class Timed:
        def __init__(self, seconds: float) -> None:
            self.manifest, self.run, self.close = backend.manifest, ran(seconds), lambda: None

    monkeypatch.setattr(time, "process_time", lambda: now)
    for seconds, rounds in ((0.001, 9), (1.0, 3)):
        now, runs = 0.0, 0
        ratio = quantize.speed_ratio(Timed(seconds), Timed(seconds / 4), batches)
        assert ratio == pytest.approx(4) and runs == 2 * rounds * 14  # every third of 40 batches


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
        [
            json.loads(line)
            for line in run(
                *("infer", "--precision", precision, "--format", "jsonl", "--batch", "4", "--workers", "1"),
                root / "examples" / "images",
            ).stdout.splitlines()
        ]
        for precision in ("fp32", "int8")
    )
    changed = [one for one, other in zip(floating, quantised, strict=True) if one["text"] != other["text"]]
    assert len(floating) == 12 and len(changed) <= 1
    assert all(
        one["confidence"] < 0.8 for one in changed
    )  # as the verdict has it: no text that it is sure of


def test_one_string_of_too_few_sends_no_layer_back_to_float(tmp_path: Path) -> None:
    """12 texts cannot show that 5 % change at most, so 1 that changes is chance; margins order the layers."""
    from crnn_deploy.models import DEFAULT

    root = Path(__file__).parents[2]
    plain = json.loads((root / "calibration" / "latin.scales.json").read_text())
    plain["ranges"]["relu_2"] *= 0.2
    (tmp_path / "clipped.json").write_text(json.dumps(plain))
    refused = run(
        *("quantize", DEFAULT, root / "examples" / "images", "--scales", tmp_path / "clipped.json"),
        *("--target-device", "gpu", "--confident-above", 0, "--max-confident-flips", "5%"),
        *("--json-file", tmp_path / "r.json", "-o", tmp_path / "out.onnx"),
    )
    assert refused.exit_code == 1 and "--accept-undecided" in refused.stderr
    found = json.loads((tmp_path / "r.json").read_text())
    [variant] = found["variants"]
    assert variant["verdict"]["confident_strings_changed"]["count"] == 1 and not variant["kept_float"]
    assert [len(offer["kept_float"]) for offer in found["offers"]] == [0, 1, 2, 4, 8]


def test_an_undecided_model_is_offered_where_layers_in_float_only_make_it_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 texts can show that 30 % change at most, but not if 1 changes, and no layer in float mends that."""
    from crnn_deploy.models import DEFAULT

    root = Path(__file__).parents[2]
    plain = json.loads((root / "calibration" / "latin.scales.json").read_text())
    plain["ranges"]["relu_2"] *= 0.2
    (tmp_path / "clipped.json").write_text(json.dumps(plain))
    speeds = iter([1.5, 0.9])  # of the model, and with a layer in float
    monkeypatch.setattr(quantize, "OpenVinoBackend", no_openvino)
    monkeypatch.setattr(quantize, "speed_ratio", lambda *models: next(speeds, 1.2))
    refused = run(
        *("quantize", DEFAULT, root / "examples" / "images", "--scales", tmp_path / "clipped.json"),
        *("--confident-above", 0, "--max-confident-flips", "30%"),
        *("--json-file", tmp_path / "r.json", "-o", tmp_path / "out.onnx"),
    )
    assert refused.exit_code == 1 and "--accept-undecided" in refused.stderr, refused.output
    found = json.loads((tmp_path / "r.json").read_text())
    assert [(len(one["kept_float"]), one["speed"]) for one in found["variants"]] == [(1, 0.9), (0, 1.5)]
    assert found["variants"][-1]["verdict"]["answer"] == "NOT ENOUGH IMAGES" and found["offers"]


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
