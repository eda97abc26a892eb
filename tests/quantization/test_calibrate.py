"""Scales of activations: where they come from, and which ones are refused."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import onnx
from click.testing import CliRunner, Result
from noise_images import write_images
from onnx import numpy_helper

from crnn_deploy.cli.main import main
from crnn_deploy.graph.model import load_onnx, open_model
from crnn_deploy.quantization import qdq
from crnn_deploy.quantization.calibrate import read_scales
from crnn_deploy.quantization.int8_lstm import lstm_inputs


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_the_scales_say_where_they_come_from(tiny_scales: Path, tiny_onnx: Path) -> None:
    found = read_scales(tiny_scales, open_model(tiny_onnx))
    model = load_onnx(tiny_onnx)
    assert set(found.ranges) == {*qdq.calibrated_tensors(model), *lstm_inputs(model)} and not found.rendered
    assert set(found.compared) == {"minmax", "percentile", "entropy", "mse"}
    names = [one["name"] for one in found.images]
    assert len({one["sha256"] for one in found.images}) == len(names) == len(set(names))
    widths = [one["width"] for one in found.images]
    counts = [widths.count(width) for width in set(widths)]
    assert len(counts) == 6 and max(counts) - min(counts) <= 1  # an equal share of each width


def test_the_last_line_says_which_method_was_chosen_and_by_what(
    tiny_onnx: Path, tiny_images: Path, tmp_path: Path
) -> None:
    path = tmp_path / "s.json"
    auto = run("calibrate", tiny_onnx, tiny_images, "-o", path)
    *_, last = auto.stdout.splitlines()
    found = read_scales(path, open_model(tiny_onnx))
    figures = ("confident strings changed", "change of the margins", "strings changed")
    ranked = sorted(found.compared, key=lambda name: [found.compared[name][figure] for figure in figures])
    assert last.startswith(
        f"{path}: {len(found.ranges)} ranges by {ranked[0]}, the best by "
        f"confident strings changed, then by change of the margins, then by strings changed; "
        f"{len(found.images)} images of 6 widths, "
    )
    decides = "; crnn-deploy quantize decides whether the texts stay the same"
    assert last.endswith(f"of the images given{decides}")
    [told] = run("calibrate", tiny_onnx, tiny_images, "--method", "mse", "-o", path).stdout.splitlines()
    assert " ranges by mse, as --method says; " in told and told.endswith(decides)


def test_bad_input_is_one_line(tiny_onnx: Path, tiny_scales: Path, tiny_images: Path, tmp_path: Path) -> None:
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
    plain = json.loads(tiny_scales.read_text())
    negative = tmp_path / "negative.json"
    for value, path in ((float("nan"), nan), (-1.0, negative)):
        plain["ranges"][next(iter(plain["ranges"]))] = value
        path.write_text(json.dumps(plain))
    deep, long, typed = (tmp_path / f"{name}.json" for name in ("deep", "long", "typed"))
    deep.write_text('{"schema":' * 3000 + "1" + "}" * 3000)
    long.write_text('{"schema": ' + "1" * 5000 + "}")
    typed.write_text(json.dumps({**json.loads(tiny_scales.read_text()), "method": ["auto"], "ranges": {}}))
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
        (("calibrate", wild, tiny_images, "-o", out), "NaN or infinite"),
        (("quantize", other, tiny_images, "--scales", tiny_scales, "-o", out), "belongs to another model"),
        (("quantize", tiny_onnx, tiny_images, "--scales", negative, "-o", out), "the range of .* is -1"),
        *(
            (("quantize", tiny_onnx, tiny_images, "--scales", path, "-o", out), "not a file of crnn-deploy")
            for path in (tiny_images, nan, deep, long, typed, tmp_path / "fifo.json")
        ),
        (("quantize", tiny_onnx, tiny_images, "--scales", tmp_path / "absent", "-o", out), "no scales at"),
    ]
    for arguments, message in cases:
        result = run(*arguments)
        assert result.exit_code == 2 and not out.exists(), result.output
        assert len(result.stderr.splitlines()) == 1

        assert re.search(message, result.stderr), result.stderr
