"""The TensorRT runtime on a GPU of paper (`paper_gpu`)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from paper_gpu import PROFILES, PaperContext, PaperCuda, PaperEngine, PaperRtx, PaperStream, write_engine

from crnn_deploy import Recognizer
from crnn_deploy.cli.main import main
from crnn_deploy.errors import ModelClosed, ModelUnreadable, RunFailed
from crnn_deploy.graph.argmax import with_argmax
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.backends import trt
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.runtime.backends.cuda import CudaFailed
from crnn_deploy.runtime.backends.engine_file import (
    EngineLayer,
    EngineStale,
    Profile,
    Range,
    digest,
    sidecar_of,
)
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.decoding.ctc import Frames


@pytest.fixture
def engine(tiny_onnx: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.engine"
    write_engine(tiny_onnx, path)
    return path


def images(count: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 1, 32, width)).astype(np.float32)


def same(one: Frames, other: Frames) -> None:
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=1e-5)
    if one.logits is not None and other.logits is not None:
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 11])
@pytest.mark.parametrize("width", [100, 140, 160])
def test_frames_are_those_of_the_network(
    count: int, width: int, cuda: PaperCuda, engine: Path, tiny_onnx: Path
) -> None:
    """Below the second profile's smallest batch and beyond its largest too."""
    backend, batch = open_backend(engine), images(count, width)
    for _ in range(3):  # plain, recorded, from the graph
        same(backend.run(batch), OrtBackend(tiny_onnx).run(batch))
        batch = batch[::-1].copy()
    assert "launch" in cuda.calls


def test_threads_share_an_engine(cuda: PaperCuda, engine: Path, tiny_onnx: Path) -> None:
    backend, reference = open_backend(engine), OrtBackend(tiny_onnx)
    work = [images(1 + at % 6, (100, 140, 160)[at % 3], at) for at in range(60)]
    with ThreadPoolExecutor(8) as threads:
        for batch, frames in zip(work, threads.map(backend.run, work), strict=True):
            same(frames, reference.run(batch))
    assert len(cuda.streams) <= 2 * len(PROFILES)  # workers, not threads, hold memory on the GPU


def test_a_shape_is_recorded_when_it_comes_again(cuda: PaperCuda, engine: Path) -> None:
    backend = open_backend(engine)
    backend.run(images(1, 100))
    assert "record" not in cuda.calls
    for _ in range(3):
        backend.run(images(1, 100))
    assert cuda.calls.count("record") == 1 and cuda.calls.count("launch") == 3


def test_graphs_are_bounded(cuda: PaperCuda, engine: Path, tiny_onnx: Path) -> None:
    backend, reference = open_backend(engine), OrtBackend(tiny_onnx)
    shapes = [(count, width) for width in range(100, 141, 8) for count in range(1, 5)]
    assert len(shapes) > trt._GRAPHS
    for count, width in [shape for shape in shapes for _ in range(2)]:
        same(backend.run(images(count, width)), reference.run(images(count, width)))
    before = cuda.calls.count("record")
    backend.run(images(*shapes[-1]))
    assert cuda.calls.count("record") == before
    backend.run(images(*shapes[0]))  # the oldest was dropped
    assert cuda.calls.count("record") == before + 1


def test_a_library_without_graphs_runs_all_the_same(cuda: PaperCuda, engine: Path, tiny_onnx: Path) -> None:
    cuda.graphs = False  # as PyCUDA
    backend = open_backend(engine)
    for _ in range(4):
        same(backend.run(images(2, 100)), OrtBackend(tiny_onnx).run(images(2, 100)))
    assert "launch" not in cuda.calls
    assert cuda.calls.count("context") == 2  # tried once


@pytest.mark.parametrize("kind", ["capture", "TensorRT"])
def test_a_run_that_cannot_be_recorded_runs_all_the_same(
    kind: str, cuda: PaperCuda, engine: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A capture may be invalid at its end, and TensorRT may refuse to run while it is recorded."""

    def invalid(stream: PaperStream, work: Callable[[], None]) -> None:
        if kind == "TensorRT":
            cuda.library.engines[0].refuses = True
            try:
                work()
            finally:
                cuda.library.engines[0].refuses = False
                stream.queue.clear()
        raise CudaFailed("cuStreamEndCapture fails on the GPU: CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")

    monkeypatch.setattr(PaperStream, "record", invalid)
    backend = trt.open_engine(engine)
    assert backend.not_recorded is None
    for _ in range(4):
        same(backend.run(images(2, 100)), OrtBackend(tiny_onnx).run(images(2, 100)))
    assert cuda.calls.count("context") == 2  # tried once
    expected = "CAPTURE_INVALIDATED" if kind == "capture" else "TensorRT gives no reason"
    assert backend.not_recorded is not None and expected in backend.not_recorded


def test_a_stream_that_tensorrt_for_rtx_cannot_record_is_not_recorded(
    cuda: PaperCuda, engine: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PaperContext, "is_stream_capturable", lambda context, handle: False)
    backend = trt.open_engine(engine)
    for _ in range(3):
        same(backend.run(images(2, 100)), OrtBackend(tiny_onnx).run(images(2, 100)))
    assert "record" not in cuda.calls
    assert backend.not_recorded == "TensorRT for RTX says that this stream cannot be recorded"


@pytest.mark.parametrize("kernels", ["lazy", "eager", "none"])
def test_contexts_of_tensorrt_for_rtx_share_kernels_of_the_kind_asked_for(
    kernels: trt.Kernels, cuda: PaperCuda, engine: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = PaperRtx(cuda)
    monkeypatch.setattr(trt, "import_tensorrt", lambda builder: library)
    backend = trt.open_engine(engine, kernels=kernels)
    for _ in range(3):
        same(backend.run(images(2, 100)), OrtBackend(tiny_onnx).run(images(2, 100)))
    assert backend.validity == "VALID"
    assert (
        cuda.calls.count(f"context, {kernels}") == 2 and "context" not in cuda.calls
    )  # plain, and a graph's
    backend.close()
    with pytest.raises(ModelClosed):
        backend.run(images(1, 100))
    backend.close()


def test_a_plan_that_tensorrt_for_rtx_finds_invalid_is_refused(
    cuda: PaperCuda, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trt, "import_tensorrt", lambda builder: PaperRtx(cuda, "INVALID"))
    with pytest.raises(
        EngineStale, match=r"calls it INVALID \(UNSUPPORTED_CC\) on this GPU.*build again: crnn-"
    ):
        open_backend(engine)
    monkeypatch.setattr(trt, "import_tensorrt", lambda builder: PaperRtx(cuda, "SUBOPTIMAL"))
    assert trt.open_engine(engine).validity == "SUBOPTIMAL (UNSUPPORTED_CC)"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"Layers": ["names only"]}'])
def test_an_inspector_that_tells_nothing_costs_no_engine(
    text: str, cuda: PaperCuda, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PaperEngine, "get_engine_information", lambda engine, form: text)
    backend = trt.open_engine(engine)
    assert backend.layers() == () and len(backend.run(images(1, 100)).indices) == 1


@pytest.mark.parametrize(
    "batch",
    [images(1, 142), images(1, 96), images(1, 204), images(0, 100), np.zeros((1, 3, 32, 100), np.float32)],
    ids=["between", "narrow", "wide", "empty", "channels"],
)
def test_shapes_that_no_profile_takes(batch: NDArray[np.float32], cuda: PaperCuda, engine: Path) -> None:
    with pytest.raises(RunFailed, match=r"the engine takes \(N, 1, 32, W\), N from 1 and W in 100-140, 144-"):
        open_backend(engine).run(batch)


def test_a_driver_that_fails_is_one_line_and_the_next_run_is_clean(
    cuda: PaperCuda, engine: Path, tiny_onnx: Path
) -> None:
    backend = open_backend(engine)
    backend.run(images(1, 100))
    cuda.failing = True
    with pytest.raises(RunFailed, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
        backend.run(images(1, 100))
    cuda.failing = False
    same(backend.run(images(1, 100)), OrtBackend(tiny_onnx).run(images(1, 100)))


def test_a_run_that_tensorrt_refuses(cuda: PaperCuda, engine: Path) -> None:
    backend = open_backend(engine)
    cuda.library.engines[0].refuses = True
    with pytest.raises(RunFailed, match="TensorRT gives no reason"):
        backend.run(images(1, 100))


def test_argmax_outputs(cuda: PaperCuda, tiny_onnx: Path, tmp_path: Path) -> None:
    source, path = tmp_path / "argmax.onnx", tmp_path / "argmax.engine"
    onnx.save(with_argmax(onnx.load(tiny_onnx)), source)
    write_engine(source, path)
    frames, expected = open_backend(path).run(images(3, 120)), OrtBackend(tiny_onnx).run(images(3, 120))
    same(frames, expected)
    assert frames.logits is None and frames.indices.dtype == np.int64


def test_a_plan_that_does_not_load_gives_tensorrts_reason(
    cuda: PaperCuda, tiny_onnx: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.engine"
    built = replace(write_engine(tiny_onnx, path), engine_bytes=4, engine_sha256=digest(b"junk"))
    path.write_bytes(b"junk")
    sidecar_of(path).write_text(built.to_json(), encoding="utf-8")
    with pytest.raises(ModelUnreadable, match=r"magicTag failed; build again: crnn-deploy build-engine"):
        open_backend(path)


def test_the_default_model_reads_its_examples(cuda: PaperCuda, tmp_path: Path) -> None:
    path = tmp_path / "latin.engine"
    cuda.library.profiles = (Profile(Range(1, 2, 4), Range(32, 128, 1600)),)
    write_engine(DEFAULT, path, cuda.library.profiles)
    pictures = sorted((Path(__file__).parents[3] / "examples").rglob("*.png"))
    recognizer, expected = Recognizer.load(path), [text.text for text in Recognizer().read(pictures)]
    for _ in range(3):
        assert [text.text for text in recognizer.read(pictures)] == expected
    assert len(set(expected)) > 3 and "launch" in cuda.calls


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_commands_take_engines(cuda: PaperCuda, engine: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (32, 120), np.uint8))
    (tmp_path / "labels.csv").write_text("filename,words\na.png,1\n")
    read = run("infer", "--model", engine, tmp_path / "a.png")
    assert (read.exit_code, read.stdout) == (0, run("infer", "--model", tiny_onnx, tmp_path / "a.png").stdout)
    compared = run("verify", engine, tiny_onnx)
    assert compared.exit_code == 0, compared.output
    scored = run("evaluate", engine, tmp_path / "labels.csv")
    assert scored.exit_code == 0, scored.output
    assert run("inspect", engine).exit_code == 0


def test_the_inspectors_layers() -> None:
    """Names of types as TensorRT 10 and 11 write them."""
    layers = [
        {"Name": "conv", "LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": "Half NHWC8"}]},
        {"Name": "copy", "LayerType": "Reformat", "Outputs": [{"Format/Datatype": "FP32"}]},
        {
            "Name": "q",
            "LayerType": "gemm",
            "Inputs": [{"Datatype": "Int8"}],
            "Outputs": [{"Datatype": "FP16"}],
        },
        {"Name": "b", "LayerType": "gemm", "Outputs": [{"Datatype": "BF16"}]},
        "names only",
    ]
    assert trt.inspected(layers) == (
        EngineLayer("conv", "CaskConvolution", "fp16"),
        EngineLayer("q", "gemm", "int8"),
        EngineLayer("b", "gemm", "bf16"),
    )
