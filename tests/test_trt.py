"""The TensorRT runtime on a GPU of paper: streams queue, graphs record, and ONNX Runtime computes.

What a real GPU does late is done late here: copies and networks run when the stream is waited for, from the
memory as it is then. So buffers that threads share, or a graph whose context took another shape, show as
wrong text or as an error.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from crnn_deploy import Recognizer, driver
from crnn_deploy.backends import open_backend, trt
from crnn_deploy.backends.ort import OrtBackend
from crnn_deploy.cli.main import main
from crnn_deploy.ctc import Frames
from crnn_deploy.cuda import CudaFailed
from crnn_deploy.driver import Driver, Gpu
from crnn_deploy.engine_file import EngineFile, Layer, Profile, Range, digest, sidecar_of, system
from crnn_deploy.errors import ModelUnreadable, RunFailed
from crnn_deploy.models import DEFAULT
from crnn_deploy.stages.argmax import with_argmax

PROFILES = (
    Profile(Range(1, 2, 4), Range(100, 120, 140)),
    Profile(Range(2, 2, 4), Range(144, 160, 200)),
)


class PaperMemory:
    def __init__(self, cuda: PaperCuda, size: int) -> None:
        self.block = np.zeros(size, np.uint8)
        self.address = self.block.ctypes.data
        cuda.blocks[self.address] = self.block


class PaperGraph:
    def __init__(self, stream: PaperStream, work: list[Callable[[], None]]) -> None:
        self.stream, self.work = stream, work

    def launch(self) -> None:
        self.stream.cuda.calls.append("launch")
        self.stream.queue += self.work


class PaperStream:
    def __init__(self, cuda: PaperCuda) -> None:
        self.cuda, self.handle = cuda, len(cuda.streams) + 1
        self.queue: list[Callable[[], None]] = []
        cuda.streams[self.handle] = self

    def add(self, work: Callable[[], None]) -> None:
        assert self.cuda.local.depth > 0, "the context is not current"
        self.queue.append(work)

    def to_device(self, memory: PaperMemory, host: NDArray[Any]) -> None:
        bytes_ = host.reshape(-1).view(np.uint8)
        assert len(bytes_) <= len(memory.block)
        self.add(lambda: np.copyto(memory.block[: len(bytes_)], bytes_))

    def to_host(self, host: NDArray[Any], memory: PaperMemory) -> None:
        bytes_ = host.reshape(-1).view(np.uint8)
        assert bytes_.base is not None and len(bytes_) <= len(memory.block)
        self.add(lambda: np.copyto(bytes_, memory.block[: len(bytes_)]))

    def synchronize(self) -> None:
        if self.cuda.failing:
            raise CudaFailed("cuStreamSynchronize fails on the GPU: CUDA_ERROR_ILLEGAL_ADDRESS")
        work, self.queue = self.queue, []
        for one in work:
            one()

    def record(self, work: Callable[[], None]) -> PaperGraph | None:
        if not self.cuda.graphs:
            return None
        assert not self.queue
        work()
        recorded, self.queue = self.queue, []
        self.cuda.calls.append("record")
        return PaperGraph(self, recorded)


class PaperCuda:
    failures = (CudaFailed,)

    def __init__(self) -> None:
        self.blocks: dict[int, NDArray[np.uint8]] = {}
        self.streams: dict[int, PaperStream] = {}
        self.calls: list[str] = []
        self.failing, self.graphs = False, True
        self.local = threading.local()
        self.library: Any = None

    @contextmanager
    def active(self) -> Iterator[None]:
        self.local.depth = getattr(self.local, "depth", 0) + 1
        try:
            yield
        finally:
            self.local.depth -= 1

    def stream(self) -> PaperStream:
        return PaperStream(self)

    def memory(self, size: int) -> PaperMemory:
        return PaperMemory(self, size)

    def pinned(self, size: int) -> NDArray[np.uint8]:
        return np.zeros(size, np.uint8)


class PaperContext:
    def __init__(self, engine: PaperEngine) -> None:
        self.engine, self.profile = engine, -1
        self.shape: tuple[int, ...] = ()
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, handle: int) -> bool:
        self.profile = profile
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        sizes = self.engine.profiles[self.profile]
        batch, width = sizes.batch, sizes.width
        fits = batch.minimum <= shape[0] <= batch.maximum and width.minimum <= shape[3] <= width.maximum
        if fits:
            self.shape = shape
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        zeros = np.zeros(self.shape, np.float32)
        return tuple(self.engine.session.run([name], {self.engine.names[0]: zeros})[0].shape)

    def is_stream_capturable(self, handle: int) -> bool:
        return True

    def execute_async_v3(self, handle: int) -> bool:
        shape, cuda = self.shape, self.engine.cuda

        def compute() -> None:
            assert self.shape == shape, "the context took another shape before the work ran"
            first, *rest = self.engine.names
            memory = cuda.blocks[self.addresses[first]]
            images = memory[: 4 * int(np.prod(shape))].view(np.float32).reshape(shape)
            for name, output in zip(rest, self.engine.session.run(rest, {first: images}), strict=True):
                bytes_ = output.astype(self.engine.numbers[name]).reshape(-1).view(np.uint8)
                cuda.blocks[self.addresses[name]][: len(bytes_)] = bytes_

        cuda.streams[handle].add(compute)
        return not self.engine.refuses


class PaperEngine:
    def __init__(self, plan: bytes, cuda: PaperCuda, profiles: tuple[Profile, ...]) -> None:
        self.session = ort.InferenceSession(plan, providers=["CPUExecutionProvider"])
        nodes = [*self.session.get_inputs(), *self.session.get_outputs()]
        self.names = [node.name for node in nodes]
        kinds = {"tensor(int64)": np.int32}  # TensorRT's indexes are 32 bits unless asked
        self.numbers = {node.name: np.dtype(kinds.get(node.type, np.float32)) for node in nodes}
        self.cuda, self.profiles, self.refuses = cuda, profiles, False
        self.num_optimization_profiles, self.num_io_tensors = len(profiles), len(nodes)
        self.get_tensor_name, self.get_tensor_dtype = self.names.__getitem__, self.numbers.__getitem__

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name == self.names[0] else "out"

    def create_engine_inspector(self) -> PaperEngine:
        return self

    def get_engine_information(self, form: str) -> str:
        tensor = {"Name": "x", "Format/Datatype": "Half"}
        return json.dumps({"Layers": [{"Name": "all", "LayerType": "gemm", "Outputs": [tensor]}]})

    def create_execution_context(self) -> PaperContext:
        self.cuda.calls.append("context")
        return PaperContext(self)


class PaperTrt:
    """The names of the library that the runtime uses."""

    __version__ = "11.0.0"

    class ILogger:
        ERROR, INTERNAL_ERROR = "error", "internal error"

        def __init__(self) -> None:
            pass

    class TensorIOMode:
        INPUT = "in"

    class LayerInformationFormat:
        JSON = "json"

    nptype = staticmethod(lambda kind: kind)

    def __init__(self, cuda: PaperCuda) -> None:
        self.cuda, self.profiles = cuda, PROFILES
        self.engines: list[PaperEngine] = []

    def Runtime(self, log: Any) -> PaperTrt:  # noqa: N802
        self.log = log
        return self

    def deserialize_cuda_engine(self, plan: bytes) -> PaperEngine | None:
        try:
            engine = PaperEngine(plan, self.cuda, self.profiles)
        except Exception:
            self.log.log("error", "Serialization assertion magicTag failed")
            return None
        self.engines.append(engine)
        return engine


def write_engine(source: Path, path: Path, profiles: tuple[Profile, ...] = PROFILES) -> EngineFile:
    """An engine whose plan is the ONNX file, for the paper library."""
    plan = source.read_bytes()
    backend = OrtBackend(source)
    rule = replace(
        backend.manifest.width, minimum=profiles[0].width.minimum, maximum=profiles[-1].width.maximum
    )
    engine = EngineFile(
        manifest=replace(backend.manifest, width=rule),
        engine_sha256=digest(plan),
        engine_bytes=len(plan),
        onnx_sha256=digest(plan),
        builder="tensorrt",
        builder_version=PaperTrt.__version__,
        system=system(),
        cuda="13.0",
        driver=None,
        gpu="Paper",
        compute_capability="9.0",
        targets=(),
        precision="fp32",
        kept_fp32=(),
        layers=(Layer("all", "ALL", "fp32"),),
        layers_from="network",
        profiles=profiles,
        verified=None,
        build_seconds=0.0,
        crnn_deploy="0",
        arguments=("tiny.onnx", "-o", str(path)),
    )
    path.write_bytes(plan)
    sidecar_of(path).write_text(engine.to_json(), encoding="utf-8")
    return engine


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> PaperCuda:
    paper = PaperCuda()
    library = PaperTrt(paper)
    monkeypatch.setattr(driver, "probe", lambda: Driver("13.0", None, (Gpu("Paper", "9.0", 2**34),)))
    monkeypatch.setattr(trt, "import_tensorrt", lambda builder: library)
    monkeypatch.setattr(trt, "open_cuda", lambda: paper)
    paper.library = library
    return paper


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
    pictures = sorted((Path(__file__).parents[1] / "examples").rglob("*.png"))
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
        Layer("conv", "CaskConvolution", "fp16"),
        Layer("q", "gemm", "int8"),
        Layer("b", "gemm", "bf16"),
    )


@pytest.mark.gpu
@pytest.mark.skipif(driver.probe().problem is not None, reason=f"no GPU: {driver.probe().problem}")
def test_a_real_engine_reads_as_its_onnx_file_from_threads(tiny_onnx: Path, tmp_path: Path) -> None:
    path = tmp_path / "real.engine"
    built = run(
        "build-engine", tiny_onnx, "--fp32", "--widths", "100,160,200", "--batch", "1,4,8", "-o", path
    )
    assert built.exit_code == 0, built.output
    backend, reference = open_backend(path), OrtBackend(tiny_onnx)
    work = [images(1 + at % 9, (100, 140, 160)[at % 3], at) for at in range(40)]
    with ThreadPoolExecutor(4) as threads:
        for batch, frames in zip(work, threads.map(backend.run, work), strict=True):
            expected = reference.run(batch)
            assert frames.logits is not None and expected.logits is not None
            np.testing.assert_allclose(frames.logits, expected.logits, atol=1e-3)
