"""Engines are checked where they were built: on the stand-in GPU, with a builder that may build wrongly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper
from paper_gpu import PaperCuda, PaperRtx

from crnn_deploy.cli.main import main
from crnn_deploy.engine import build as stage
from crnn_deploy.graph.argmax import with_argmax
from crnn_deploy.graph.precision import PEAK, rounded
from crnn_deploy.runtime.backends.engine_file import EngineFile, EngineLayer, Profile, read_sidecar
from crnn_deploy.runtime.backends.ort import OrtBackend

SIZES = ("--width-range", "100,160,200", "--batch-range", "1,4,8", "--profiles", "1")


class Builder:
    """A network whose plan is its ONNX file, rounded as its types are; `faults` are built into some."""

    faults: tuple[int, ...] = ()  # element types whose engines put out the negative of every logit

    def __init__(self, library: Any, model: onnx.ModelProto) -> None:
        self.library, self.model = library, model

    def layers(self) -> tuple[EngineLayer, ...]:
        return (EngineLayer("all", "ALL", "fp32"),)

    def build(self, profiles: tuple[Profile, ...], **_: object) -> tuple[bytes, bytes]:
        self.library.profiles = profiles
        kinds = {tensor.data_type for tensor in self.model.graph.initializer}
        model = rounded(self.model)
        kept = [node for node in model.graph.node if PEAK not in node.output]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        del model.graph.output[-1]
        if kinds & set(self.faults):
            [said] = [node for node in model.graph.node if "logits" in node.output]
            said.output[0] = "right"
            model.graph.node.append(helper.make_node("Neg", ["right"], ["logits"]))
        return model.SerializeToString(), b""


@pytest.fixture
def build(
    cuda: PaperCuda,
    tiny_onnx: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[Result, Path]]:
    monkeypatch.setattr(stage, "import_tensorrt", lambda builder: cuda.library)
    monkeypatch.setattr(stage, "open_cuda", lambda: cuda)
    path = tmp_path / "tiny.engine"

    def run(*options: object, faults: tuple[int, ...] = ()) -> tuple[Result, Path]:
        monkeypatch.setattr(stage, "Network", type("Faulty", (Builder,), {"faults": faults}))
        arguments = ["build-engine", tiny_onnx, *SIZES, "-o", path, *options]
        return CliRunner().invoke(main, [str(argument) for argument in arguments]), path

    return run


def built(result: Result, path: Path) -> EngineFile:
    assert result.exit_code == 0, result.output
    return read_sidecar(path)


def test_what_the_gpu_reads_is_kept_with_what_its_inspector_says(build: Callable[..., Any]) -> None:
    result, path = build("--fp16")
    facts = built(result, path)
    assert result.stdout.splitlines()[1].startswith("fp16, on Paper: PASSED: 32 images")
    assert "chosen: fp16 (checked on Paper)" in result.stdout
    assert facts.verified is not None and facts.verified.endswith("; against the ONNX file, on Paper")
    assert facts.layers == (EngineLayer("all", "gemm", "fp16"),) and facts.layers_from == "engine"
    assert "by the engine's inspector" in result.stdout


def test_the_next_rung_is_built_where_the_engine_reads_otherwise(build: Callable[..., Any]) -> None:
    result, path = build("--fp16", faults=(TensorProto.FLOAT16,))
    assert built(result, path).precision == "bf16"
    failed = [line for line in result.stdout.splitlines() if "on Paper: FAILED" in line]
    assert [line.split(", on Paper")[0] for line in failed] == [
        "fp16",
        "fp16, recurrent layers and head in fp32",
    ]
    result, path = build("--fp16", faults=(TensorProto.FLOAT16, TensorProto.BFLOAT16))
    assert built(result, path).precision == "tf32"
    assert "chosen: fp32, products in TF32 (checked on Paper)" in result.stdout


@pytest.mark.parametrize(
    ("options", "faults", "says"),
    [
        (("--fp16", "--no-ladder"), (TensorProto.FLOAT16,), "leave --no-ladder out, or build with --fp32"),
        (("--fp32",), (TensorProto.FLOAT,), "no other number format is left"),
    ],
)
def test_nothing_is_written_where_no_rung_reads_as_the_model(
    build: Callable[..., Any], options: tuple[str, ...], faults: tuple[int, ...], says: str
) -> None:
    result, path = build(*options, faults=faults)
    assert result.exit_code == 1 and not path.exists()
    assert "engine does not read what the model reads (the engine on the GPU: FAILED" in result.stderr
    assert says in result.stderr


def test_an_engine_for_other_gpus_is_not_run_here(build: Callable[..., Any]) -> None:
    result, path = build(
        "--fp32", "--target", "sm_120", "--builder", "tensorrt-rtx", faults=(TensorProto.FLOAT,)
    )
    assert built(result, path).verified is None and "chosen: fp32 (not checked)" in result.stdout


@pytest.mark.parametrize("validity", ["VALID", "SUBOPTIMAL", "INVALID"])
def test_an_engine_for_an_older_gpu_is_checked_where_the_library_finds_it_valid(
    validity: str, build: Callable[..., Any], cuda: PaperCuda
) -> None:
    cuda.library = PaperRtx(cuda, validity)
    result, path = build("--fp32", "--target", "sm_80", "--builder", "tensorrt-rtx")
    facts = built(result, path)
    if validity == "INVALID":
        assert facts.verified is None and "chosen: fp32 (not checked)" in result.stdout
        assert "not checked on the GPU here: " in result.stderr and "calls it INVALID" in result.stderr
    else:
        assert facts.verified is not None
        assert f"on Paper, where TensorRT for RTX calls it {validity}" in facts.verified


def test_images_and_pytorch(build: Callable[..., Any], tmp_path: Path) -> None:
    import cv2
    import torch

    from crnn_deploy.networks.crnn import CRNN

    torch.manual_seed(0)  # as `tiny_onnx`
    torch.save(CRNN(32, 1, 11, hidden=8, widths=(4, 4, 8, 8, 8, 8, 8)).state_dict(), tmp_path / "tiny.pth")
    (tmp_path / "images").mkdir()
    for at in range(5):
        noise = np.random.default_rng(at).integers(0, 256, (32, 60 + 40 * at), np.uint8)
        cv2.imwrite(str(tmp_path / "images" / f"{at}.png"), noise)
    result, path = build("--images", tmp_path / "images", "--checkpoint", tmp_path / "tiny.pth")
    verified = built(result, path).verified
    assert verified is not None and verified.startswith("PASSED: 37 images")
    assert verified.endswith("; against PyTorch, on Paper")


def test_the_argmax_leaves_the_gpu_alone(build: Callable[..., Any], tiny_onnx: Path, tmp_path: Path) -> None:
    result, path = build("--argmax")
    facts = built(result, path)
    assert facts.manifest.output == "argmax" and facts.verified is not None
    plan = onnx.load_from_string(path.read_bytes())
    assert [output.name for output in plan.graph.output] == ["indices", "probabilities"]
    onnx.save(with_argmax(onnx.load(tiny_onnx)), tmp_path / "argmax.onnx")
    batch = np.random.default_rng(0).uniform(-1, 1, (3, 1, 32, 140)).astype(np.float32)
    found, expected = OrtBackend(tmp_path / "argmax.onnx").run(batch), OrtBackend(tiny_onnx).run(batch)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=1e-5)
