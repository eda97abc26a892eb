"""What a sidecar may say of how its engine is built again."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from crnn_deploy.cli.build_engine import build_engine
from crnn_deploy.manifest import Manifest, StepRule, WidthRule
from crnn_deploy.runtime.backends.build_arguments import build_arguments
from crnn_deploy.runtime.backends.engine_file import (
    EngineFile,
    EngineLayer,
    Profile,
    Range,
    SidecarInvalid,
    read_sidecar,
    sidecar_of,
)

WIDTH = WidthRule(32, 640, multiple=4)
MANIFEST = Manifest(("a", "b"), 0, "gray", 32, WIDTH, (0.5,), (0.5,), "linear", StepRule(4, 0))
ENGINE = EngineFile(
    manifest=MANIFEST,
    engine_sha256="0" * 64,
    engine_bytes=4,
    onnx_sha256="0" * 64,
    builder="tensorrt-rtx",
    builder_version="1.4",
    system="Linux x86_64",
    cuda=None,
    driver=None,
    gpu=None,
    compute_capability=None,
    targets=("sm_89",),
    precision="fp16",
    kept_fp32=(),
    layers=(EngineLayer("a", "CONVOLUTION", "fp16"),),
    layers_from="network",
    profiles=(Profile(Range(1, 4, 8), Range(32, 64, 640)),),
    verified=None,
    build_seconds=1.5,
    crnn_deploy="1.0",
    arguments=("m.onnx", "--fp16"),
)
SETTINGS = [
    *("--fp16", "--keep-fp32", "node_conv2d*", "--no-ladder", "--builder", "tensorrt", "--argmax"),
    *("--width-range", "100,160,200", "--batch-range", "1,4,8", "--profiles", "2", "--target", "sm_89"),
    *("--target", "current", "--workspace", "512", "--optimization-level", "3"),
]


def test_settings_are_taken_and_what_names_files_is_not() -> None:
    arguments = ["a model.onnx", *SETTINGS, "-o", "/etc/x.engine", "--factory", "x.py:f", "--images", "y"]
    given = build_arguments([*arguments, "--timing-cache", "z", "--images", "w"])
    assert (given.model, list(given.settings)) == ("a model.onnx", SETTINGS)
    assert given.left_out == ("--factory", "--images", "--timing-cache")
    context = build_engine.make_context("build-engine", [*given.settings, "--", given.model])
    assert context.params["precision"] == "fp16" and str(context.params["width_range"]) == "100,160,200"
    assert context.params["checkpoint"] is context.params["factory"] is context.params["timing_cache"] is None


def test_names_of_before_are_taken_as_those_of_now() -> None:
    old = ("--fp16", "--widths", "100,160,200", "--batch", "1,4,8", "--model", "x.py:f", "-o", "x.engine")
    now = ("--fp16", "--width-range", "100,160,200", "--batch-range", "1,4,8")
    given = build_arguments(["m.onnx", *old])
    assert given == build_arguments(["m.onnx", *now, "--factory", "x.py:f", "--output", "x.engine"])
    assert (given.model, given.settings, given.left_out) == ("m.onnx", now, ("--factory",))
    build_engine.make_context("build-engine", [*given.settings, "--", given.model])


def test_every_option_of_build_engine_is_taken_or_left_out() -> None:
    for option in build_engine.params:
        if option.name in ("model", "debug"):
            continue
        for name in option.opts:
            value = [] if getattr(option, "is_flag", False) else ["1"]
            try:
                build_arguments(["x.onnx", name, *value])
            except ValueError as error:
                assert "with the value" in str(error), name


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.onnx", "b.onnx"],
        ["a.onnx", "--fp16", "--shell", "x"],
        ["a.onnx", "--width-range"],
        ["a.onnx", "--width-range", "1,2"],
        ["a.onnx", "--width-range=1,2,3"],
        ["a.onnx", "--width-range", "1,2,99999999"],
        ["a.onnx", "--widths", "1,2"],
        ["a.onnx", "--profiles", "100"],
        ["a.onnx", "--target", "sm_89; id"],
        ["a.onnx", "--builder", "other"],
        ["a.onnx", "--optimization-level", "6"],
        ["a.onnx", "--workspace", "１"],
        ["a.onnx", "--keep-fp32", "--factory"],
        ["a.onnx", "--keep-fp32", "a\nb"],
        ["a.onnx", "--keep-fp32", "a" * 300],
        ["a\x1b[2J.onnx"],
        ["--", "a.onnx"],
        ["a.onnx", *["--argmax"] * 300],
        ["a" * 5000],
    ],
)
def test_anything_else_is_refused(arguments: list[str]) -> None:
    with pytest.raises(ValueError):
        build_arguments(arguments)


def command(*arguments: str) -> str:
    return replace(ENGINE, arguments=arguments).command(Path("x y.engine"))


def test_the_command_names_no_code() -> None:
    assert command("m.onnx", "--fp16", "--factory", "evil.py:f", "--recipe", "$(id)", "-o", "/a") == (
        "crnn-deploy build-engine m.onnx --fp16 -o 'x y.engine'  # add the --factory, --recipe that you used"
    )
    assert command("m.onnx", "--other") == "crnn-deploy build-engine MODEL.onnx -o 'x y.engine'"
    assert shlex.split(command("$(id) `id`;.onnx", "--bf16"))[2] == "$(id) `id`;.onnx"


@pytest.mark.parametrize(
    "values",
    [
        {"build_seconds": 1e999},
        {"build_seconds": True},
        {"engine_bytes": -1},
        {"engine_bytes": True},
        {"engine_bytes": 10**30},
        {"arguments": [1]},
        {"arguments": "m.onnx"},
    ],
)
def test_a_sidecar_with_wrong_values_is_refused(values: dict[str, object]) -> None:
    assert EngineFile.from_json(ENGINE.to_json(), Path("x")) == ENGINE
    plain = {**json.loads(ENGINE.to_json()), **values}
    with pytest.raises(SidecarInvalid):
        EngineFile.from_json(json.dumps(plain), Path("x"))


def test_only_a_regular_file_is_a_sidecar(tmp_path: Path) -> None:
    (tmp_path / "x.engine").write_bytes(b"plan")
    os.mkfifo(sidecar_of(tmp_path / "x.engine"))
    with pytest.raises(SidecarInvalid, match="not a regular file"):
        read_sidecar(tmp_path / "x.engine")
