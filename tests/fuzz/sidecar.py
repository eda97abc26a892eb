"""Sidecars of engines, and what `--rebuild auto` takes from them."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import click
from harness import fuzz, guided

with guided():
    from crnn_deploy.manifest import Manifest, StepRule, WidthRule
    from crnn_deploy.runtime.backends.build_arguments import build_arguments
    from crnn_deploy.runtime.backends.engine_file import EngineFile, EngineLayer, Profile, Range

from crnn_deploy.cli.build_engine import build_engine

WIDTH = WidthRule(32, 640, multiple=4)
SEED = EngineFile(
    manifest=Manifest(("a", "b"), 0, "gray", 32, WIDTH, (0.5,), (0.5,), "linear", StepRule(4, 0)),
    engine_sha256="0" * 64,
    engine_bytes=4,
    onnx_sha256="0" * 64,
    builder="tensorrt-rtx",
    builder_version="1.4",
    system="Linux x86_64",
    cuda=None,
    driver="570.1",
    gpu="NVIDIA L4",
    compute_capability="8.9",
    targets=("sm_89", "current"),
    precision="fp16",
    kept_fp32=("LSTM",),
    layers=(EngineLayer("a", "CONVOLUTION", "fp16"),),
    layers_from="network",
    profiles=(Profile(Range(1, 4, 8), Range(32, 64, 640)),),
    verified="as PyTorch",
    build_seconds=1.5,
    crnn_deploy="1.0",
    arguments=("m.onnx", "--fp16", "--width-range", "32,64,640", "--target", "sm_89", "--keep-fp32", "LSTM"),
)
UNSAFE = ("factory", "checkpoint", "recipe", "alphabet", "alphabet_string", "images", "timing_cache")


def target(data: bytes) -> None:
    """Read it; what is read is written and read to the same, and names no code and no file to write.

    Lines after a line feed are arguments alone.
    """
    text = data.decode("utf-8", "replace")
    if text.startswith("\n"):
        text = replace(SEED, arguments=tuple(text.split("\n")[1:])).to_json()
    engine = EngineFile.from_json(text, Path("x.engine.json"))
    assert EngineFile.from_json(engine.to_json(), Path("x.engine.json")) == engine
    assert shlex.split(engine.command(Path("x.engine")), comments=True)[-2:] == ["-o", "x.engine"]
    try:
        given = build_arguments(engine.arguments)
    except ValueError:
        return
    try:
        context = build_engine.make_context("build-engine", [*given.settings, "--", given.model])
    except click.UsageError:
        return
    assert not any(context.params[name] for name in UNSAFE)
    assert str(context.params["model"]) == str(Path(given.model))


WORDS = [
    *SEED.arguments,
    "--factory",
    "x.py:f",
    "--timing-cache",
    "x",
    "--images",
    "x",
    "-o",
    "x",
    "--argmax",
]
fuzz(target, [SEED.to_json().encode(), "\n".join(["", *WORDS]).encode()])
