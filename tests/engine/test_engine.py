"""Engines built for real by TensorRT for RTX, which needs no GPU to build; none is run here."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from crnn_deploy.cli.main import main
from crnn_deploy.engine.build import BuildSettings, build_engine
from crnn_deploy.engine.network import Network
from crnn_deploy.engine.profiles import profiles_of
from crnn_deploy.graph.model import load_onnx
from crnn_deploy.manifest import Manifest, StepRule, WidthRule
from crnn_deploy.runtime.backends import driver
from crnn_deploy.runtime.backends.driver import Gpu
from crnn_deploy.runtime.backends.engine_file import (
    CURRENT,
    EngineFile,
    EngineStale,
    Profile,
    Range,
    check_gpu,
    digest,
    fitness,
    read_sidecar,
    sidecar_of,
)

trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
SMALL = ("--width-range", "100,160,200", "--batch-range", "1,4,8")
NO_GPU = pytest.mark.skipif(driver.probe().problem is None, reason="there is a GPU here")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def changed(source: Path, path: Path, change: Callable[[onnx.ModelProto], object]) -> Path:
    model = onnx.load(source)
    change(model)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def engine(tiny_onnx: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engine") / "tiny fp16.engine"
    result = run("build-engine", tiny_onnx, "--fp16", *SMALL, "--profiles", 2, "-o", path)
    assert result.exit_code == 0, result.output
    assert (
        "fp16, rounded on the CPU: PASSED" in result.stdout
        and "layers: fp16 50 of 50 (100%)" in result.stdout
    )
    return path


def test_the_sidecar_says_what_was_built(engine: Path, tiny_onnx: Path) -> None:
    facts = read_sidecar(engine)
    assert facts.engine_sha256 == digest(engine.read_bytes())
    assert facts.onnx_sha256 == digest(tiny_onnx.read_bytes())
    assert (facts.builder, facts.builder_version) == ("tensorrt-rtx", trt.__version__)
    assert facts.precision == "fp16" and facts.layers_from == "network" and facts.kept_fp32 == ()
    kinds = [layer.kind for layer in facts.layers]
    assert kinds.count("CONVOLUTION") == 7 and kinds.count("MATRIX_MULTIPLY") == 6
    assert facts.profiles == tuple(
        Profile(Range(1, 4, 8), width) for width in (Range(100, 120, 140), Range(144, 160, 200))
    )
    assert (facts.manifest.width.minimum, facts.manifest.width.maximum) == (100, 200)
    shown = json.loads(run("inspect", engine, "--json").stdout)
    assert shown["layers"] == "fp16 50 of 50 (100%) (by the network's tensor types)"
    assert shown["rebuild"] == facts.command(engine) and shown["alphabet"] == "10 characters: 0123456789"


def test_the_rebuild_command_builds_the_same(engine: Path) -> None:
    before = read_sidecar(engine)
    program, command, *arguments = shlex.split(before.command(engine))
    assert (program, command) == ("crnn-deploy", "build-engine")
    target = engine.with_name("again.engine")
    arguments[arguments.index("-o") + 1] = str(target)
    assert run(command, *arguments).exit_code == 0
    after = read_sidecar(target)
    same = ("profiles", "layers", "precision", "manifest", "onnx_sha256", "targets")
    assert all(getattr(after, name) == getattr(before, name) for name in same)
    assert {path.name for path in engine.parent.iterdir()} == {
        *(engine.name, sidecar_of(engine).name, target.name, sidecar_of(target).name)
    }


def test_argmax_in_the_engine(tiny_onnx: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    assert run("build-engine", tiny_onnx, "--fp16", "--argmax", *SMALL, "-o", path).exit_code == 0
    built = read_sidecar(path)
    assert built.manifest.output == "argmax"
    assert {"TOPK", "SOFTMAX"} <= {layer.kind for layer in built.layers}


def test_precision_by_layer(tiny_onnx: Path, tmp_path: Path) -> None:
    result = run(
        "build-engine", tiny_onnx, "--bf16", "--keep-fp32", "LSTM", *SMALL, "-o", tmp_path / "x.engine"
    )
    assert result.exit_code == 0, result.output
    facts = read_sidecar(tmp_path / "x.engine")
    of = {layer.name: layer.precision for layer in facts.layers}
    assert of["node_conv2d"] == of["node_MatMul_30"] == "bf16"
    recurrent = {layer.precision for layer in facts.layers if "symbolic" in layer.name}
    assert recurrent == {"fp32"} and set(facts.counts()) == {"fp32", "bf16"}
    assert len(facts.kept_fp32) == 2 and all("symbolic" in name for name in facts.kept_fp32)


def test_int8_layers_are_those_between_dequantised_inputs(tiny_onnx: Path, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(0)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        batches: Iterator[Any] = iter([{"images": rng.normal(0, 1, (2, 1, 32, 100)).astype(np.float32)}])

        def get_next(self) -> Any:
            return next(self.batches, None)

    path = tmp_path / "int8.onnx"
    quantization.quantize_static(
        tiny_onnx,
        path,
        Reader(),
        per_channel=True,
        op_types_to_quantize=["Conv"],
        extra_options={"ActivationSymmetric": True, "QuantizeBias": False},
    )
    result = run("build-engine", path, "--int8", *SMALL, "-o", tmp_path / "x.engine")
    assert result.exit_code == 0, result.output
    facts = read_sidecar(tmp_path / "x.engine")
    int8 = [layer.kind for layer in facts.layers if layer.precision == "int8"]
    assert int8.count("CONVOLUTION") == 7
    result = run("build-engine", path, "--fp16", "-o", tmp_path / "y.engine")
    assert result.exit_code == 2 and "--int8" in result.stderr
    result = run("build-engine", tiny_onnx, "--int8", "-o", tmp_path / "y.engine")
    assert result.exit_code == 2 and "quantised" in result.stderr


def _layout(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LSTM")
    node.attribute.append(helper.make_attribute("layout", 1))


def _sequence_lens(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([20], np.int32), "lengths"))
    next(node for node in model.graph.node if node.op_type == "LSTM").input.append("lengths")


def _determinant(model: onnx.ModelProto) -> None:
    """Times 1, by a node that TensorRT does not know."""
    model.graph.initializer.append(numpy_helper.from_array(np.eye(2, dtype=np.float32), "eye"))
    model.graph.node[-1].output[0] = "plain"
    model.graph.node.append(helper.make_node("Det", ["eye"], ["one"], "the_odd_one"))
    model.graph.node.append(helper.make_node("Mul", ["plain", "one"], ["logits"]))


def _no_manifest(model: onnx.ModelProto) -> None:
    del model.metadata_props[:]


@pytest.mark.parametrize(
    ("change", "arguments", "expected"),
    [
        (_layout, ["--fp32"], "(LSTM) has layout=1"),
        (_sequence_lens, ["--fp16"], "has sequence_lens"),
        (_determinant, ["--fp32"], "does not take these nodes: the_odd_one (Det)"),
        (_no_manifest, ["--fp32"], "crnn-deploy describe"),
        (None, ["--width-range", "8,100,200"], "gives widths from 100 to 1600"),
        (None, ["--width-range", "102,104,200"], "multiples of 4"),
        (None, ["--width-range", "200,100,300"], "MIN <= OPT <= MAX"),
        (
            None,
            ["--width-range", "100,104,108", "--profiles", "4"],
            "4 profiles are too many for an engine of 3 widths",
        ),
        (None, ["--target", "sm_90"], "no target 'sm_90'; it has current, sm_75, sm_80"),
        (None, ["--target", "sm_80", "--target", "current"], "it goes with no other target"),
        (None, ["--timing-cache", "cache.bin"], "leave --timing-cache out"),
        (None, ["--keep-fp32", "LSTM"], "--keep-fp32 goes with --fp16 or --bf16"),
        (None, ["--fp16", "--keep-fp32", "nothing*"], "matches 'nothing*'"),
        (None, ["--builder", "tensorrt"], "pip install 'crnn-deploy[tensorrt]'"),
    ],
)
def test_before_a_build(
    change: Callable[[onnx.ModelProto], object] | None,
    arguments: list[str],
    expected: str,
    tiny_onnx: Path,
    tmp_path: Path,
) -> None:
    if "tensorrt" in arguments and importlib.util.find_spec("tensorrt"):
        pytest.skip("TensorRT is installed")
    path = tiny_onnx if change is None else changed(tiny_onnx, tmp_path / "x.onnx", change)
    result = run("build-engine", path, "--builder", "tensorrt-rtx", *arguments, "-o", tmp_path / "x.engine")
    assert result.exit_code == 2, result.output
    assert expected in result.stderr and "Traceback" not in result.stderr, result.stderr
    assert result.stdout == "" and not (tmp_path / "x.engine").exists()


def test_sequence_lens_in_float_builds(tiny_onnx: Path, tmp_path: Path) -> None:
    """The refusal above is about half precision alone."""
    path = changed(tiny_onnx, tmp_path / "x.onnx", _sequence_lens)
    result = run(
        "build-engine",
        path,
        "--width-range",
        "100,100,100",
        "--batch-range",
        "1,1,1",
        "-o",
        tmp_path / "x.engine",
    )
    assert result.exit_code == 0, result.output


def test_a_network_that_its_width_rule_does_not_fit(tiny_onnx: Path, tmp_path: Path) -> None:
    """TensorRT builds a profile at which pooling leaves nothing; the network is run there first."""

    def claim(model: onnx.ModelProto) -> None:
        entry = model.metadata_props[0]
        plain = json.loads(entry.value)
        plain["width"] |= {"minimum": 1, "multiple": 1}
        entry.value = json.dumps(plain)

    path = changed(tiny_onnx, tmp_path / "x.onnx", claim)
    result = run("build-engine", path, "-o", tmp_path / "x.engine")
    assert result.exit_code == 2 and "nothing is left after pooling at width 1" in result.stderr, (
        result.output
    )


def test_progress_and_stop(tiny_onnx: Path, tmp_path: Path) -> None:
    shares: list[float] = []

    def progress(share: float, phase: str) -> None:
        assert phase
        shares.append(share)

    options = BuildSettings(widths=Range(100, 100, 200), profiles=1)
    path = tmp_path / "x.engine"
    with pytest.raises(KeyboardInterrupt):
        build_engine(tiny_onnx, path, options, progress=progress, stopped=lambda: len(shares) > 30)
    assert len(shares) < 40 and list(tmp_path.iterdir()) == []
    shares.clear()
    build_engine(tiny_onnx, path, options, progress=progress)
    assert len(shares) > 100 and 0 <= min(shares) < 0.1 and shares[-1] == max(shares) == 1
    assert read_sidecar(path).command(path) == f"crnn-deploy build-engine {tiny_onnx} --fp32 -o {path}"


def test_a_failed_build_gives_tensorrts_reason(tiny_onnx: Path, tmp_path: Path) -> None:
    result = run("build-engine", tiny_onnx, *SMALL, "--target", "sm_75", "-o", tmp_path / "x.engine")
    assert result.exit_code == 1 and "SM75" in result.stderr and len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_targets_are_kept(tiny_onnx: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    targets = ("--target", "sm_80", "--target", "sm_89")
    assert run("build-engine", tiny_onnx, *SMALL, "--profiles", 1, *targets, "-o", path).exit_code == 0
    facts = read_sidecar(path)
    assert facts.targets == ("sm_80", "sm_89")
    for name, capability, why in (
        ("NVIDIA L4", "8.9", "sm_89 (NVIDIA L4) is what it was built for"),
        (
            "NVIDIA A10",
            "8.6",
            "is newer than its target sm_80: it runs where TensorRT for RTX finds it valid",
        ),
        (
            "NVIDIA H100",
            "9.0",
            "is newer than its target sm_89: it runs where TensorRT for RTX finds it valid",
        ),
    ):
        found = fitness(facts, Gpu(name, capability, 2**34))
        assert found.allowed and why in found.why
    older = Gpu("NVIDIA T4", "7.5", 2**34)
    with pytest.raises(EngineStale, match=r"sm_75 \(NVIDIA T4\) is older than .* sm_80, sm_89; build again"):
        check_gpu(facts, path, older)
    assert not fitness(replace(facts, targets=()), older).allowed  # NVIDIA: 8.0 and later by default
    assert fitness(replace(facts, targets=()), Gpu("NVIDIA H100", "9.0", 2**34)).allowed
    assert facts.built_for() == "sm_80, sm_89"
    assert replace(facts, targets=()).built_for().startswith("sm_80 and later")
    full = replace(facts, targets=(), builder="tensorrt", gpu="NVIDIA L4")
    assert full.built_for() == "NVIDIA L4"
    current = replace(facts, targets=(CURRENT,), gpu="NVIDIA L4", compute_capability="8.9")
    assert "is what it was built for" in fitness(current, Gpu("NVIDIA L40", "8.9", 2**34)).why
    assert not fitness(current, Gpu("NVIDIA A100", "8.0", 2**34)).allowed


@NO_GPU
def test_the_gpu_here_as_target_needs_one(tiny_onnx: Path, tmp_path: Path) -> None:
    result = run("build-engine", tiny_onnx, *SMALL, "--target", "current", "-o", tmp_path / "x.engine")
    assert result.exit_code == 2 and "--target current needs a GPU here: " in result.stderr
    assert list(tmp_path.iterdir()) == []


class Watched:
    """A builder that notes the flags of what it builds."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        self.flags: dict[str, bool] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.builder, name)

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        for name in ("TF32", "REQUIRE_USER_ALLOCATION"):
            self.flags[name] = config.get_flag(getattr(trt.BuilderFlag, name))
        return self.builder.build_serialized_network(network, config)


@pytest.mark.parametrize("tf32", [False, True])
def test_tf32_is_off_unless_it_is_asked_for(tf32: bool, tiny_onnx: Path) -> None:
    """TensorRT allows it by itself; and without its flag for it, no CUDA graph can be recorded."""
    network = Network(trt, load_onnx(tiny_onnx))
    builder = network._builder
    watched = Watched(builder)
    network._builder = watched
    assert network.build([Profile(Range(1, 1, 1), Range(100, 100, 100))], tf32=tf32)[0]
    network._builder = builder  # TensorRT's objects end in their order: nothing else holds one of them
    assert watched.flags == {"TF32": tf32, "REQUIRE_USER_ALLOCATION": True}


def test_a_build_in_tf32_is_checked_and_kept(tiny_onnx: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    result = run("build-engine", tiny_onnx, *SMALL, "--profiles", 1, "--tf32", "-o", path)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("fp32, products in TF32, rounded on the CPU: PASSED: 32 images")
    facts = read_sidecar(path)
    assert facts.precision == "tf32" and facts.counts().keys() == {"fp32"}
    shown = run("inspect", path)
    assert "tf32" in shown.stdout


def test_an_engine_of_full_tensorrt_belongs_to_its_gpu(engine: Path) -> None:
    built = replace(read_sidecar(engine), builder="tensorrt", gpu="NVIDIA L4", compute_capability="8.9")
    check_gpu(built, engine, Gpu("NVIDIA L4", "8.9", 2**34))
    for name, capability in (("NVIDIA L40", "8.9"), ("NVIDIA H100", "9.0")):
        with pytest.raises(
            EngineStale, match=rf"built it for NVIDIA L4 .*this is sm_.. \({name}\); build ag"
        ):
            check_gpu(built, engine, Gpu(name, capability, 2**34))


def test_a_sidecar_reads_back_as_it_was(engine: Path) -> None:
    facts = read_sidecar(engine)
    assert EngineFile.from_json(facts.to_json(), engine) == facts


@pytest.fixture
def copy(engine: Path, tmp_path: Path) -> Path:
    path = tmp_path / "copy.engine"
    path.write_bytes(engine.read_bytes())
    sidecar_of(path).write_bytes(sidecar_of(engine).read_bytes())
    return path


def _edit(**values: object) -> Callable[[Path], object]:
    def edit(path: Path) -> None:
        plain = json.loads(sidecar_of(path).read_text())
        sidecar_of(path).write_text(json.dumps({**plain, **values}))

    return edit


def _tamper(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@NO_GPU
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda path: None, "needs an NVIDIA GPU"),
        (
            _tamper,
            "its bytes are not those its sidecar was written for; refused. Build again: crnn-deploy build-",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "bytes of"),
        (lambda path: sidecar_of(path).unlink(), "has no sidecar copy.engine.json beside it"),
        (lambda path: sidecar_of(path).write_text("{}"), "not the JSON object that build-engine writes"),
        (lambda path: path.unlink(), "no model file at"),
        (_edit(builder_version="1.4.0.76"), "it was built by tensorrt-rtx 1.4.0.76, and "),
        (_edit(system="Windows AMD64"), "it was built on Windows AMD64, and this is"),
        (_edit(schema=9), "schema is 9"),
        (_edit(profiles=[]), "no valid profiles"),
        (_edit(gpu=7), "no valid gpu"),
        (_edit(extra=1), "missing or unknown: extra"),
        (_edit(profiles=[{"batch": 1}]), "build again"),
    ],
)
def test_an_engine_that_does_not_load_says_why(
    change: Callable[[Path], object], expected: str, copy: Path
) -> None:
    change(copy)
    (copy.parent / "x.png").write_bytes(b"")
    result = run("infer", "--model", copy, copy.parent / "x.png")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1, result.output
    assert expected in result.stderr, result.stderr


@NO_GPU
def test_a_stale_engine_is_built_again_where_that_is_asked_for(
    copy: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    """Built again in its place; that no GPU is here to run it is said after that."""
    examples = Path(__file__).parents[2] / "examples"
    before = read_sidecar(copy)
    _edit(builder_version="1.4.0.76")(copy)
    command = ("infer", "--model", copy, "--rebuild", "auto", examples)
    result = run(*command)
    assert result.exit_code == 2, result.stderr
    assert "needs an NVIDIA GPU" in result.stderr and not result.stdout
    assert "it was built by tensorrt-rtx 1.4.0.76" in result.stderr
    assert "building it again" in result.stderr
    after = read_sidecar(copy)
    assert (after.builder_version, after.precision) == (before.builder_version, "fp16")
    assert after.profiles == before.profiles and str(copy) in after.arguments

    _tamper(copy)
    assert run(*command[:4], "never", examples).stderr.count("refused. Build again") == 1
    assert "building it again" in run(*command).stderr
    assert digest(copy.read_bytes()) == read_sidecar(copy).engine_sha256

    other = tmp_path / tiny_onnx.name
    _edit(onnx_sha256="0" * 64, builder_version="1.4.0.76")(copy)
    assert f"{tiny_onnx} is not the file" in run(*command).stderr
    arguments = [str(other.with_name("gone.onnx")) if a == str(tiny_onnx) else a for a in after.arguments]
    _edit(arguments=arguments)(copy)
    assert "gone.onnx is not the file" in run(*command).stderr


@NO_GPU
def test_a_sidecar_names_neither_code_nor_files_to_write(
    copy: Path, tiny_onnx: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "helper.py").write_text("print('this must never be printed')")
    evil = [
        *(tiny_onnx, "--fp16", *SMALL, "--factory", tmp_path / "helper.py:make", "--checkpoint", "x.pth"),
        *("--timing-cache", tmp_path / "cache", "--images", "/", "-o", tmp_path / "other.engine"),
    ]
    _edit(arguments=[str(word) for word in evil], builder_version="1.4.0.76")(copy)
    command = ("infer", "--model", copy, "--rebuild", "auto", tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes(b"")
    result = run(*command)
    assert (
        "without --factory, --checkpoint, --timing-cache, --images: files that a sidecar names"
        in result.stderr
    )
    assert "needs an NVIDIA GPU" in result.stderr
    assert "never" not in result.output and "never" not in capfd.readouterr().out
    assert not (tmp_path / "cache").exists() and not (tmp_path / "other.engine").exists()
    assert "--factory" not in read_sidecar(copy).arguments
    _edit(arguments=[str(tiny_onnx), "--callback", "x"], builder_version="1.4.0.76")(copy)
    assert "is not built again: its sidecar names '--callback'; build it yourself" in run(*command).stderr


def test_the_driver_is_asked_before_any_runtime(copy: Path) -> None:
    """In a process of its own: a TensorRT runtime without a driver takes the process with it."""
    code = (
        "import sys, tensorrt_rtx\n"
        "def crash(*_): raise SystemExit(99)\n"
        "tensorrt_rtx.Runtime = crash\n"
        "from crnn_deploy.cli.main import main; main(sys.argv[1:])"
    )
    for command in (["infer", "--model", copy, "x.png"], ["verify", copy, copy], ["evaluate", copy, "x.csv"]):
        (copy.parent / "x.csv").write_text("filename,words\nx.png,a\n")
        (copy.parent / "x.png").write_bytes(b"")
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, command)],
            capture_output=True,
            text=True,
            cwd=copy.parent,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert done.returncode == 2, done.stderr
        assert "needs an NVIDIA GPU: " in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_profiles_cover_every_width_once(data: st.DataObject) -> None:
    multiple = data.draw(st.integers(1, 16))
    low = data.draw(st.integers(1, 40))
    high = data.draw(st.integers(low, 200))
    rule = WidthRule(low * multiple, high * multiple, multiple)
    manifest = Manifest(("a",), 0, "gray", 32, rule, (0.5,), (0.5,), "linear", StepRule(1, 0))
    count = data.draw(st.none() | st.integers(1, high - low + 1))
    middle = data.draw(st.integers(low, high)) * multiple
    widths = data.draw(st.sampled_from([None, Range(rule.minimum, middle, rule.maximum)]))
    profiles = profiles_of(manifest, Range(1, 2, 3), widths, count)
    served = [w for p in profiles for w in range(p.width.minimum, p.width.maximum + 1, multiple)]
    assert served == list(rule.buckets())
    assert count is None or len(profiles) == count
    assert all(p.width.optimum in rule.buckets() for p in profiles)
    assert widths is None or middle in [p.width.optimum for p in profiles]
