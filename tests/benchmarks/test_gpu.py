"""On a real NVIDIA GPU: the driver, engines, threads, graphs, and the kernel for the BiLSTM.

TensorRT or that for RTX, and PyTorch for CUDA, are each asked for where they are needed; a test says what it
lacks. Run with `python -m pytest -m gpu`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.gpu.device import TorchBackend, TorchGpu
from benchmarks.gpu.graphs import two_forward_lstms, up_to_first_lstm
from benchmarks.gpu.machine import BUILDERS, tensorrt
from benchmarks.gpu.measure import BATCHES
from benchmarks.gpu.networks import DEFAULT_MODEL, networks, split
from benchmarks.gpu.own_lstm import CudaKernel, OwnLSTM
from benchmarks.gpu.plans import TorchEngine, plan_of
from benchmarks.gpu.work import Work
from crnn_deploy import Recognizer
from crnn_deploy.engine.build import BuildSettings, build_engine
from crnn_deploy.errors import BackendMissing, RunFailed
from crnn_deploy.export.pytorch import ReferenceBackend, in_pytorch
from crnn_deploy.graph.model import load_onnx
from crnn_deploy.models import DEFAULT
from crnn_deploy.parity.compare import compare
from crnn_deploy.parity.tolerance import FLOATS
from crnn_deploy.runtime.backends import driver
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.runtime.backends.cuda import open_cuda
from crnn_deploy.runtime.backends.engine_file import Precision, Profile, Range, read_sidecar
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.backends.trt import import_tensorrt

PROBLEM = driver.probe().problem
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(PROBLEM is not None, reason=f"no GPU: {PROBLEM}"),
]
SIZES = {"widths": Range(104, 160, 320), "batch": Range(1, 8, 16)}
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").rglob("*.png"))

needs_cuda = pytest.mark.skipif(
    find_spec("pycuda") is None and find_spec("cuda") is None, reason="neither PyCUDA nor cuda-bindings"
)
needs_torch = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU")


def noise(batch: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((batch, 1, 32, width), np.float32)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Precision], Path]:
    """Engines of the default model, built when they are asked for."""
    if all(_missing(name) for name in BUILDERS):
        pytest.skip("no TensorRT")
    folder = tmp_path_factory.mktemp("engines")

    def built(precision: Precision) -> Path:
        path = folder / f"{precision}.engine"
        if not path.exists():
            build_engine(DEFAULT, path, BuildSettings(precision, profiles=1, **SIZES))  # type: ignore[arg-type]
        return path

    return built


def _missing(name: Any) -> bool:
    try:
        import_tensorrt(name)
    except BackendMissing:
        return True
    return False


@pytest.fixture
def torch_gpu() -> TorchGpu:
    return TorchGpu()


@needs_cuda
def test_what_goes_to_the_device_comes_back() -> None:
    cuda = open_cuda()
    with cuda.active():
        stream, sent, received = cuda.stream(), cuda.pinned(4096), cuda.pinned(4096)
        memory = cuda.memory(4096)
        sent[:] = np.random.default_rng(0).integers(0, 256, 4096, np.uint8)
        received[:] = 0
        stream.to_device(memory, sent)
        stream.to_host(received, memory)
        stream.synchronize()
        np.testing.assert_array_equal(received, sent)


@needs_cuda
def test_a_recorded_copy_is_made_when_it_is_launched() -> None:
    cuda = open_cuda()
    with cuda.active():
        stream, host, back, memory = cuda.stream(), cuda.pinned(64), cuda.pinned(64), cuda.memory(64)
        back[:] = 0

        def work() -> None:
            stream.to_device(memory, host)
            stream.to_host(back, memory)

        graph = stream.record(work)
        if graph is None:
            pytest.skip("this library has no graphs")
        stream.synchronize()
        assert not back.any()
        for value in (3, 5):  # a graph reads what the memory holds when it runs
            host[:] = value
            graph.launch()
            stream.synchronize()
            assert (back == value).all()


@needs_cuda
@pytest.mark.parametrize("precision", FLOATS)
def test_an_engine_reads_as_its_network(precision: Precision, engine: Callable[[Precision], Path]) -> None:
    """Within what the number format costs this network against float64."""
    path = engine(precision)
    facts = read_sidecar(path)
    assert facts.gpu is not None and facts.precision == precision
    [network] = [network for network in networks(Path("/nowhere")) if network.name == DEFAULT_MODEL]
    sizes = ((1, 104), (8, 160), (16, 320), (19, 200))
    # plain, recorded, from the graph
    batches = [noise(batch, width, seed) for batch, width in sizes for seed in range(3)]
    costs = in_pytorch(network.module(), precision).over(batches)
    report = compare(
        ReferenceBackend(network.module(), network.manifest()),
        open_backend(path),
        batches,
        tolerance=costs.tolerance,
    )
    report = replace(report, tie=costs.tie)
    assert report.passed, report.table()
    if EXAMPLES:
        ours, theirs = Recognizer.load(path).read(EXAMPLES), Recognizer().read(EXAMPLES)
        assert [text.text for text in ours] == [text.text for text in theirs]


@needs_cuda
def test_a_graph_reads_as_a_plain_run(engine: Callable[[Precision], Path]) -> None:
    """Not to the bit: TensorRT for RTX makes better kernels while it runs."""
    backend, images = open_backend(engine("fp32")), noise(4, 160)
    plain, *later = [backend.run(images) for _ in range(4)]
    for frames in later:
        assert (frames.indices != plain.indices).mean() < 0.01
        np.testing.assert_allclose(frames.probabilities, plain.probabilities, atol=1e-2)


@needs_cuda
def test_threads_read_what_one_thread_reads(engine: Callable[[Precision], Path]) -> None:
    backend = open_backend(engine("fp32"))
    jobs = [noise(1 + at % 16, (104, 160, 200, 320)[at % 4], at) for at in range(64)]
    expected = [backend.run(images) for images in jobs]
    with ThreadPoolExecutor(8) as threads:
        for one, other in zip(threads.map(backend.run, jobs), expected, strict=True):
            assert (one.indices != other.indices).mean() < 0.01  # another worker's kernels round otherwise
            np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-2)


@needs_cuda
def test_a_width_that_no_profile_takes_costs_no_later_run(engine: Callable[[Precision], Path]) -> None:
    backend = open_backend(engine("fp32"))
    expected = backend.run(noise(2, 160))
    with pytest.raises(RunFailed, match="the engine takes"):
        backend.run(noise(2, 640))
    assert (backend.run(noise(2, 160)).indices != expected.indices).mean() < 0.01


@needs_torch
def test_two_forward_lstms_and_convolutions_alone_on_pytorchs_memory(
    engine: Callable[[Precision], Path], torch_gpu: TorchGpu
) -> None:
    trt, model = tensorrt()[1], load_onnx(DEFAULT)
    [network] = [network for network in networks(Path("/nowhere")) if network.name == DEFAULT_MODEL]
    labels = split(network.module())[1].to(torch_gpu.device)
    profile = Profile(Range(1, 8, 16), Range(104, 160, 320))

    def loaded(graph: Any) -> TorchEngine:
        return TorchEngine(trt, plan_of(Work(Path()), trt, graph, profile), torch_gpu)

    whole, convolutions = loaded(two_forward_lstms(model)), loaded(up_to_first_lstm(model))
    for batch, width in ((1, 104), (8, 320)):
        images = noise(batch, width)
        expected = OrtBackend(DEFAULT).run(images).logits
        assert expected is not None
        with torch.inference_mode():
            inputs = torch.from_numpy(images).to(torch_gpu.device)
            for logits in (whole(inputs)[0], labels(convolutions(inputs)[0])):
                np.testing.assert_allclose(logits.cpu().numpy(), expected, atol=0.05)


@needs_torch
@pytest.mark.parametrize("graphs", [False, True])
def test_pytorch_on_the_gpu_reads_as_the_onnx_file(graphs: bool, torch_gpu: TorchGpu) -> None:
    [network] = [network for network in networks(Path("/nowhere")) if network.name == DEFAULT_MODEL]
    backend = TorchBackend(torch_gpu, network.module(), network.manifest(), kind="fp32", graphs=graphs)
    for batch in BATCHES[:3]:
        for seed in range(2):
            images = noise(batch, 160, seed)
            frames, expected = backend.run(images), OrtBackend(DEFAULT).run(images)
            assert (frames.indices != expected.indices).mean() < 0.01
            np.testing.assert_allclose(frames.probabilities, expected.probabilities, atol=0.05)


@needs_torch
@pytest.mark.skipif(find_spec("cuda") is None, reason="no cuda-bindings")
@pytest.mark.parametrize("hidden", [32, 128, 256])
@pytest.mark.parametrize("batch", [1, 9, 17, 33, 200])
def test_our_kernel_computes_pytorchs_lstm(hidden: int, batch: int, torch_gpu: TorchGpu) -> None:
    try:
        kernel = CudaKernel(torch_gpu)
    except BackendMissing as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    layer = nn.LSTM(24, hidden, bidirectional=True)
    sequence = torch.randn(50, batch, 24)
    ours = OwnLSTM(copy.deepcopy(layer).to(torch_gpu.device), kernel)
    with torch.inference_mode():
        expected, _ = layer(sequence)
        inputs = sequence.to(torch_gpu.device)
        actual, _ = ours(inputs)
        torch.testing.assert_close(actual.cpu(), expected, atol=1e-4, rtol=0)
        replay, written = torch_gpu.captured(lambda: ours(inputs)[0])
        written.zero_()
        replay()
        torch_gpu.synchronize()
        torch.testing.assert_close(written.cpu(), expected, atol=1e-4, rtol=0)
