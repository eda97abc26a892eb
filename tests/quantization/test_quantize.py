"""INT8 from calibration to a file: against numpy, ONNX Runtime and TensorRT for RTX."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, numpy_helper

from crnn_deploy.cli.main import main
from crnn_deploy.graph.model import backend_of, load_onnx, manifest_of, open_model
from crnn_deploy.quantization import calibration_set, qdq
from crnn_deploy.quantization.calibrate import read_scales
from crnn_deploy.quantization.ranges import Ranges
from crnn_deploy.runtime.backends.engine_file import Range, read_sidecar
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.synthesis.fonts import FontsMissing
from crnn_deploy.synthesis.renderer import CharactersNotCovered

LOOSE = ("--max-confident-flips", "100%", "--max-accuracy-loss", "100pt", "--max-cer-increase", "100pt")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def write_images(folder: Path, count: int = 48, width: int | None = None) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for at in range(count):
        pixels = rng.integers(0, 256, (32, width or 60 + 16 * (at % 8)), np.uint8)
        cv2.imwrite(str(folder / f"{at:03}.png"), pixels)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_images(tmp_path_factory.mktemp("images") / "crops")
    (folder / "copy.png").write_bytes((folder / "000.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def scales(tiny_onnx: Path, images: Path) -> Path:
    path = images.parent / "scales.json"
    result = run("calibrate", tiny_onnx, images, "-o", path)
    assert result.exit_code == 0, result.output
    return path


def test_the_scales_say_where_they_come_from(scales: Path, tiny_onnx: Path) -> None:
    found = read_scales(scales, open_model(tiny_onnx))
    assert set(found.ranges) == set(qdq.calibrated_tensors(load_onnx(tiny_onnx))) and not found.rendered
    assert set(found.compared) == {"minmax", "percentile", "entropy", "mse"}
    names = [one["name"] for one in found.images]
    assert len({one["sha256"] for one in found.images}) == len(names) == len(set(names))
    widths = [one["width"] for one in found.images]
    counts = [widths.count(width) for width in set(widths)]
    assert len(counts) == 6 and max(counts) - min(counts) <= 1  # an equal share of each width


def test_the_largest_value_is_that_of_the_images(tiny_onnx: Path, images: Path, tmp_path: Path) -> None:
    assert run("calibrate", tiny_onnx, images, "--method", "minmax", "-o", tmp_path / "s.json").exit_code == 0
    found = read_scales(tmp_path / "s.json", open_model(tiny_onnx))
    manifest = manifest_of(load_onnx(tiny_onnx))
    chosen, _ = calibration_set.sample(calibration_set.of_folder(str(images)), manifest, 512)
    batches = calibration_set.batched(chosen, manifest, 1)
    assert found.ranges["images"] == pytest.approx(
        max(np.abs(batch.images).max() for batch in batches), rel=1e-3
    )


def test_a_stopped_calibration_goes_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    parts = [{"x": rng.normal(0, 1 + i, 999).astype(np.float32)} for i in range(4)]
    whole, first, second = Ranges(), Ranges(), Ranges()
    for part in parts:
        whole.add(part)
    for part in parts[:2]:
        first.add(part)
    first.save(tmp_path / "part", "key", 2)
    assert Ranges().load(tmp_path / "part", "another") == 0 == Ranges().load(tmp_path / "absent", "key")
    assert second.load(tmp_path / "part", "key") == 2
    for part in parts[2:]:
        second.add(part)
    for method in ("minmax", "percentile", "mse", "entropy"):
        assert second.of(method) == whole.of(method)
    largest = max(float(np.abs(part["x"]).max()) for part in parts)
    assert whole.of("minmax")["x"] == pytest.approx(largest, rel=1e-2)
    assert 0 < whole.of("mse")["x"] <= largest * 1.01


@given(hnp.arrays(np.float32, (3, 2, 2, 2), elements=st.floats(-100, 100, width=32)))
def test_weights_are_within_half_a_level(weight: Any) -> None:
    levels, scale = qdq.quantized_weight(weight, 0)
    assert np.abs(levels.astype(int)).max() <= 63  # 7 bits: products never overflow 16 bits on AVX2
    error = np.abs(levels * scale[:, None, None, None] - weight)
    assert (error <= 0.5001 * scale[:, None, None, None] + 1e-30).all()


@pytest.mark.parametrize("activations", ["int8", "uint8"])
def test_a_quantised_model(activations: Any, scales: Path, tiny_onnx: Path) -> None:
    source = load_onnx(tiny_onnx)
    ranges = read_scales(scales, open_model(tiny_onnx)).ranges
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


def test_an_lstm_in_int8_reads_an_image_alone_as_among_others(scales: Path, tiny_onnx: Path) -> None:
    from crnn_deploy import Recognizer
    from crnn_deploy.quantization.dynamic_lstm import with_dynamic_lstm

    source = load_onnx(tiny_onnx)
    convolutions = qdq.insert(source, read_scales(scales, open_model(tiny_onnx)).ranges)
    model = with_dynamic_lstm(convolutions)
    assert {node.op_type for node in model.graph.node} >= {"DynamicQuantizeLSTM", "Conv"}
    manifest = manifest_of(model)
    assert manifest is not None and manifest.max_batch == 1
    assert replace(manifest, max_batch=None) == manifest_of(source)
    batch = np.random.default_rng(0).normal(0, 0.5, (5, 1, 32, 132)).astype(np.float32)
    batch[1:] *= 3  # in a batch, the first image's scales would be those of the others
    backend = backend_of(model)
    together = backend.run(batch).logits
    assert together is not None
    for image, logits in zip(batch, together, strict=True):
        alone = backend.run(image[None]).logits
        assert alone is not None
        np.testing.assert_array_equal(alone[0], logits)
    expected = backend_of(convolutions).run(batch).logits
    assert expected is not None and 0 < np.abs(together - expected).max() < 0.1 * np.abs(expected).max()
    pixels = list(np.random.default_rng(0).integers(0, 256, (5, 32, 132), np.uint8))
    assert Recognizer(backend, batch=8).read(pixels) == [Recognizer(backend).read([one])[0] for one in pixels]


def test_with_every_layer_in_float_nothing_changes(scales: Path, tiny_onnx: Path) -> None:
    source = load_onnx(tiny_onnx)
    ranges = read_scales(scales, open_model(tiny_onnx)).ranges
    model = qdq.insert(source, ranges, keep_float=qdq.quantizable(source))
    assert [n.SerializeToString() for n in model.graph.node] == [
        n.SerializeToString() for n in source.graph.node
    ]


def test_a_written_model_and_its_report(scales: Path, tiny_onnx: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.int8.onnx"
    files = ("--json-file", tmp_path / "r.json", "--html", tmp_path / "r.html", "-o", out)
    result = run("quantize", tiny_onnx, images, "--scales", scales, "--target-device", "gpu", *LOOSE, *files)
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
    again = run("quantize", out, images, "--scales", scales, "-o", tmp_path / "no.onnx")
    assert again.exit_code == 2 and len(again.stderr.splitlines()) == 1
    again = run("calibrate", out, images, "-o", tmp_path / "no.json")
    assert again.exit_code == 2 and "quantised already" in again.stderr
    judged = run("verify", tiny_onnx, out, "--images", images, "--text")
    assert judged.exit_code == 1 and "not enough images to tell" in judged.stdout


def test_labels_count_what_is_right(tmp_path: Path) -> None:
    """Labelled with what the model reads, every image is right, so no label went to another image."""
    from crnn_deploy import Recognizer
    from crnn_deploy.models import DEFAULT

    paths = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))
    rows = [f"{path}\t{text.text}\n" for path, text in zip(paths, Recognizer().read(paths), strict=True)]
    assert len(set(rows)) == len(paths) > 3
    labels = tmp_path / "labels.tsv"
    labels.write_text("".join(rows), encoding="utf-8")
    result = run("verify", DEFAULT, DEFAULT, "--labels", labels)
    assert result.exit_code == 0, result.output
    assert f"exact: {len(rows)} -> {len(rows)} of {len(rows)}" in result.stdout
    both = run("verify", DEFAULT, DEFAULT, "--labels", labels, "--images", tmp_path)
    assert both.exit_code == 2 and "exclude each other" in both.stderr


def test_a_refusal_writes_nothing(scales: Path, tiny_onnx: Path, images: Path, tmp_path: Path) -> None:
    out = tmp_path / "no.onnx"
    result = run("quantize", tiny_onnx, images, "--scales", scales, "--target-device", "gpu", "-o", out)
    assert result.exit_code == 1 and not out.exists()
    assert "not enough images to tell" in result.stderr and len(result.stderr.splitlines()) == 1


def test_bad_input_is_one_line(tiny_onnx: Path, scales: Path, images: Path, tmp_path: Path) -> None:
    few = write_images(tmp_path / "few", 5)
    same = write_images(tmp_path / "same", 40, width=100)
    torn = write_images(tmp_path / "torn", 40)
    for path in list(torn.iterdir())[:10]:
        path.write_bytes(b"no image")
    other = tmp_path / "other.onnx"
    model = onnx.load(tiny_onnx)
    model.graph.doc_string = "another digest"
    onnx.save(model, other)
    nan = tmp_path / "nan.json"
    plain = json.loads(scales.read_text())
    negative = tmp_path / "negative.json"
    for value, path in ((float("nan"), nan), (-1.0, negative)):
        plain["ranges"][next(iter(plain["ranges"]))] = value
        path.write_text(json.dumps(plain))
    deep, long, typed = (tmp_path / f"{name}.json" for name in ("deep", "long", "typed"))
    deep.write_text('{"schema":' * 3000 + "1" + "}" * 3000)
    long.write_text('{"schema": ' + "1" * 5000 + "}")
    typed.write_text(json.dumps({**json.loads(scales.read_text()), "method": ["auto"], "ranges": {}}))
    os.mkfifo(tmp_path / "fifo.json")
    wild = tmp_path / "wild.onnx"
    for tensor in model.graph.initializer:
        if "conv0.bias" in tensor.name or tensor.name.endswith("conv0.weight"):
            values = numpy_helper.to_array(tensor) * np.float32(np.nan)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, wild)
    out = tmp_path / "out"
    cases = [
        (("calibrate", tiny_onnx, few, "-o", out), "5 distinct images are too few"),
        (("calibrate", tiny_onnx, same, "-o", out), "all images are 100 pixels wide"),
        (("calibrate", tiny_onnx, torn, "-o", out), "10 images cannot be read"),
        (("calibrate", wild, images, "-o", out), "NaN or infinite"),
        (("quantize", other, images, "--scales", scales, "-o", out), "belongs to another model"),
        (("quantize", tiny_onnx, images, "--scales", negative, "-o", out), "the range of .* is -1"),
        *(
            (("quantize", tiny_onnx, images, "--scales", path, "-o", out), "not a file of crnn-deploy")
            for path in (images, nan, deep, long, typed, tmp_path / "fifo.json")
        ),
        (("quantize", tiny_onnx, images, "--scales", tmp_path / "absent", "-o", out), "no scales at"),
    ]
    for arguments, message in cases:
        result = run(*arguments)
        assert result.exit_code == 2 and not out.exists(), result.output
        assert len(result.stderr.splitlines()) == 1

        assert re.search(message, result.stderr), result.stderr


def test_tensorrt_sees_int8_at_every_quantised_convolution(scales: Path, tiny_onnx: Path) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    from crnn_deploy.engine.network import Network

    source = load_onnx(tiny_onnx)
    ranges = read_scales(scales, open_model(tiny_onnx)).ranges
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


def test_the_rest_in_half_precision_is_built_as_it_stands(
    scales: Path, tiny_onnx: Path, images: Path, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    path = tmp_path / "half.int8.onnx"
    command = ("quantize", tiny_onnx, images, "--scales", scales, *LOOSE, "-o", path, "--rest", "fp16")
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
    single = backend_of(qdq.insert(load_onnx(tiny_onnx), read_scales(scales, open_model(tiny_onnx)).ranges))
    expected = single.run(batch.astype(np.float32)).logits
    assert logits is not None and expected is not None
    assert 0 < np.abs(logits - expected).max() < 0.05 * np.abs(expected).max()
    engine = tmp_path / "half.engine"
    built = run("build-engine", path, "--int8", "--width-range", "100,160,200", "-o", engine)
    assert built.exit_code == 0, built.output
    layers = read_sidecar(engine).layers
    assert [layer.precision for layer in layers if layer.kind == "CONVOLUTION"] == ["int8"] * 7
    assert {layer.precision for layer in layers} == {"int8", "fp16"}


@pytest.mark.parametrize(
    ("alphabet", "drawn"),
    [
        ("0123456789", "[0-9]+"),
        ("的一是不了人我在有他", "[的一是不了人我在有他]+"),
        ("abcdefghij klmnopqrstuvwxyz", "[a-z ]+"),
    ],
)
def test_text_is_drawn_that_the_alphabet_can_write(alphabet: str, drawn: str) -> None:
    from crnn_deploy.parity.proof_images import held_out

    try:
        dataset = held_out(alphabet, 4)
        samples = [dataset[at] for at in range(4)]
    except (CharactersNotCovered, FontsMissing) as error:  # no Chinese fonts on many machines
        pytest.skip(str(error))
    assert all(re.fullmatch(drawn, sample.text) for sample in samples)


def test_fake_quantisation_computes_what_the_file_computes() -> None:
    """The default model in training for INT8 against ONNX Runtime, which runs the Q/DQ graph node by node."""
    import onnxruntime
    import torch

    from crnn_deploy.export.reference import open_reference
    from crnn_deploy.models import DEFAULT
    from crnn_deploy.quantization.qat import fake_quantize
    from crnn_deploy.recipes.settings import CheckpointSettings

    root = Path(__file__).parents[2]
    source = load_onnx(DEFAULT)
    ranges = read_scales(root / "calibration" / "latin.scales.json", open_model(DEFAULT)).ranges
    module = open_reference(root / "training" / "default.pth", CheckpointSettings()).module
    before = {name: value.clone() for name, value in module.state_dict().items()}
    images = np.random.default_rng(0).normal(0, 0.5, (2, 1, 32, 100)).astype(np.float32)
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graph = qdq.insert(source, ranges, weight_level=7).SerializeToString()
    [expected] = onnxruntime.InferenceSession(graph, plain).run(["logits"], {"images": images})
    fake_quantize(module, source, ranges, weight_level=7)
    assert module.state_dict().keys() == before.keys()
    logits = module(torch.from_numpy(images))
    # a value between two levels may be rounded the other way after sums in another order
    error = np.abs(logits.detach().numpy() - expected)
    assert np.median(error) < 1e-4 and error.max() < 0.1 * np.abs(expected).max()
    assert np.abs(backend_of(source).run(images).logits - expected).mean() > 0.1  # the rounding is felt
    module.train()(torch.from_numpy(images)).square().mean().backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in module.parameters())


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
    refused = run("infer", "--precision", "int8", "--model", DEFAULT, root / "examples" / "images")
    assert refused.exit_code == 2 and "--model names a file" in refused.stderr


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


def test_finetuning_for_int8_needs_a_float_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{out: run, steps: 1, train: [{synthetic: {kinds: {word: 1}}}]}")
    result = run("train", "--config", tmp_path / "c.yaml", "--qat")
    assert result.exit_code == 2 and "start.checkpoint" in result.stderr and not (tmp_path / "run").exists()


def test_finetuning_for_int8_writes_an_ordinary_checkpoint(tmp_path: Path) -> None:
    import torch

    from crnn_deploy.export.checkpoint import load

    start = Path(__file__).parents[2] / "training" / "default.pth"
    (tmp_path / "c.yaml").write_text(
        f"{{out: {tmp_path / 'run'}, start: {{checkpoint: {start}}}, steps: 1, batch: 2, window: 1, ema: 0,"
        " train: [{synthetic: {kinds: {word: 1}}}]}"
    )
    result = run("train", "--config", tmp_path / "c.yaml", "--qat")
    assert result.exit_code == 0, result.output
    before, after = load(start).state, load(tmp_path / "run" / "last.pth").state
    assert before.keys() == after.keys() and all(after[name].shape == before[name].shape for name in before)
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])


def test_a_resumed_finetuning_for_int8_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    """The ranges are those of the start again, not of the weights that were trained since."""
    import torch

    from crnn_deploy.export.checkpoint import load

    start = Path(__file__).parents[2] / "training" / "default.pth"
    (tmp_path / "c.yaml").write_text(
        f"{{start: {{checkpoint: {start}}}, batch: 2, window: 1, ema: 0, optimizer: {{lr: 0.01}},"
        " train: [{synthetic: {kinds: {word: 1}}}]}"
    )
    command = ("train", "--config", tmp_path / "c.yaml", "--qat")
    whole = run(*command, "--set", f"out={tmp_path / 'whole'}", "--set", "steps=3")
    assert whole.exit_code == 0, whole.output
    parts = (*command, "--set", f"out={tmp_path / 'parts'}")
    assert run(*parts, "--set", "steps=1").exit_code == 0
    went_on = run(*parts, "--set", "steps=3", "--resume")
    assert went_on.exit_code == 0, went_on.output
    expected, found = (load(tmp_path / name / "last.pth").state for name in ("whole", "parts"))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
