"""What benchmarks/gpu/check.py measures, on a GPU of paper."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper
from paper_gpu import PaperContext, PaperCuda, PaperRtx, PaperTrt, write_engine
from paper_torch import PaperGpu, RawBlocks
from torch import Tensor, nn

import benchmarks.gpu.commands
import benchmarks.gpu.engines
import benchmarks.gpu.invariance
import benchmarks.gpu.lstm
import benchmarks.gpu.machine
import benchmarks.gpu.measure
import benchmarks.gpu.onnxruntime_cuda
import benchmarks.gpu.peak
import benchmarks.gpu.targets
from benchmarks.gpu.device import TorchBackend
from benchmarks.gpu.graphs import two_forward_lstms, up_to_first_lstm
from benchmarks.gpu.networks import DEFAULT_MODEL, PAPER, Network, engines_of, networks, prepare, split
from benchmarks.gpu.plans import TorchEngine
from benchmarks.gpu.work import Work
from crnn_deploy import Recognizer
from crnn_deploy.engine.build import EngineBuild
from crnn_deploy.errors import BackendMissing
from crnn_deploy.graph.argmax import with_argmax
from crnn_deploy.graph.model import backend_of, load_onnx
from crnn_deploy.models import DEFAULT
from crnn_deploy.networks.compact import CompactCRNN
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.runtime.backends import driver, trt
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.runtime.backends.driver import Driver, Gpu
from crnn_deploy.runtime.backends.engine_file import sidecar_of
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.decoding.ctc import Frames

HERE = Driver("13.0", "580.1", (Gpu("Paper", "9.0", 2**34),))


@pytest.mark.parametrize("source", ["default", "two layers"])
def test_two_forward_lstms_say_what_the_bidirectional_one_says(source: str, network: Network) -> None:
    model = load_onnx(DEFAULT if source == "default" else network.onnx)
    rewritten = two_forward_lstms(model)
    directions = [
        helper.get_attribute_value(attribute)
        for node in rewritten.graph.node
        if node.op_type == "LSTM"
        for attribute in node.attribute
        if attribute.name == "direction"
    ]
    assert directions and set(directions) == {b"forward"}
    one, other = backend_of(model), backend_of(rewritten)
    for batch, width in ((1, 104), (3, 100), (5, 240), (2, 640)):
        images = noise(one.manifest.channels, batch, width)
        expected, actual = one.run(images).logits, other.run(images).logits
        assert expected is not None and actual is not None
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


def test_lstms_that_cannot_be_cut_in_two(network: Network) -> None:
    model = load_onnx(network.onnx)
    [first, *_] = [node for node in model.graph.node if node.op_type == "LSTM"]
    first.attribute.append(helper.make_attribute("layout", 1))
    with pytest.raises(ValueError, match="layout=1"):
        two_forward_lstms(model)
    with pytest.raises(ValueError, match="no bidirectional LSTM"):
        two_forward_lstms(up_to_first_lstm(load_onnx(network.onnx)))


def test_both_halves_of_a_network_are_the_network() -> None:
    for module in (CompactCRNN(32, 1, 11, 32), CRNN(32, 1, 11, 32, widths=(4, 4, 8, 8, 8, 8, 8))):
        features, labels = split(module.eval())
        images = torch.from_numpy(noise(1, 2, 120))
        with torch.inference_mode():
            torch.testing.assert_close(labels(features(images)), module(images))
    with pytest.raises(TypeError):
        split(nn.Linear(2, 2))


def noise(channels: int, batch: int, width: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal((batch, channels, 32, width), np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The scripts' folder, with a paper's network that is small; our kernel takes the size of its LSTMs."""
    work = Work(tmp_path_factory.mktemp("made"))
    small = partial(CRNN, hidden=32, widths=(4, 4, 8, 8, 8, 8, 8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.gpu.networks.CRNN", small)
        patch.setattr("benchmarks.gpu.networks._WORDS", 2)
        prepare(work)
    return work


@pytest.fixture(scope="module")
def network(made: Work) -> Network:
    [_, paper] = networks(made.folder)
    return replace(paper, name=DEFAULT_MODEL)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch, network: Network) -> PaperCuda:
    """A GPU and a TensorRT of paper, for the scripts' modules and the backends below them."""
    paper = PaperCuda()
    paper.blocks = RawBlocks()
    library = PaperTrt(paper)
    monkeypatch.setattr(driver, "probe", lambda: HERE)
    monkeypatch.setattr(trt, "import_tensorrt", lambda builder: library)
    monkeypatch.setattr(trt, "open_cuda", lambda: paper)
    for module in (benchmarks.gpu.measure, benchmarks.gpu.engines, benchmarks.gpu.lstm, benchmarks.gpu.peak):
        monkeypatch.setattr(module, "tensorrt", lambda: ("tensorrt", library))
    for module in (
        benchmarks.gpu.measure,
        benchmarks.gpu.engines,
        benchmarks.gpu.lstm,
        benchmarks.gpu.invariance,
        benchmarks.gpu.onnxruntime_cuda,
    ):
        monkeypatch.setattr(module, "networks", lambda folder: (network,))
    for module in (benchmarks.gpu.measure, benchmarks.gpu.lstm):
        monkeypatch.setattr(module, "WIDTHS", (104, 120))
        monkeypatch.setattr(module, "BATCHES", (1, 3))
    monkeypatch.setattr(benchmarks.gpu.measure, "_BUSY", 0.0)

    def build(model: Path, path: Path, settings: Any, stopped: Callable[[], bool]) -> EngineBuild:
        assert not stopped()
        engine = replace(write_engine(network.onnx, path), precision=settings.precision)
        sidecar_of(path).write_text(engine.to_json(), encoding="utf-8")
        return EngineBuild(path, engine, (), None, None)

    class Plan:
        """A plan is the ONNX file, in float32: the CPU has no half precision to speak of."""

        def __init__(self, trt: Any, model: onnx.ModelProto) -> None:
            assert [output.name for output in model.graph.output] == ["indices", "probabilities"]

        def build(self, profiles: Any, tf32: bool, **_: Any) -> tuple[bytes, bytes]:
            paper.calls.append(f"tf32 {tf32}")
            return with_argmax(load_onnx(network.onnx)).SerializeToString(), b""

    monkeypatch.setattr(benchmarks.gpu.engines, "build_engine", build)
    monkeypatch.setattr(benchmarks.gpu.engines, "Plan", Plan)
    return paper


def errors(results: Any) -> list[str]:
    """Every line that says that something failed."""
    if not isinstance(results, dict):
        return []
    own = [results["error"]] if "error" in results else []
    return own + [line for value in results.values() for line in errors(value)]


def test_engines_are_built_and_read_the_words(cuda: PaperCuda, network: Network, tmp_path: Path) -> None:
    prepare_words(tmp_path)
    work = Work(tmp_path, tmp_path / "engines.json")
    benchmarks.gpu.engines.engines(work)
    found = json.loads((tmp_path / "engines.json").read_text())[DEFAULT_MODEL]
    assert set(found) == {"fp32", "tf32", "fp16", "bf16", "int8"} and not errors(found)
    for precision, row in found.items():
        assert row["build"]["layers"] == {"fp32": 1} and row["build"]["bytes"] > 1000
        assert row["against PyTorch"]["parity"]["flips"] == 0 and row["against PyTorch"]["parity"]["passed"]
        assert row["against PyTorch"]["verdict"]["strings_changed"]["count"] == 0
        costs = row["against PyTorch"]["format_error"]
        assert costs is None if precision == "int8" else costs["against"] == "PyTorch in float64"
        assert row["build with argmax, bytes"] > 1000
    # what takes the likeliest class on the GPU has the same precision: TF32 in one of five
    assert cuda.calls.count("tf32 True") == 1 and cuda.calls.count("tf32 False") == 4
    built = engines_of(network, tmp_path)
    assert built.keys() == found.keys()  # what is measured takes the likeliest class on the GPU
    for path in built.values():
        images = noise(1, 2, 120)
        frames, expected = open_backend(path).run(images), OrtBackend(network.onnx).run(images)
        assert frames.logits is None
        np.testing.assert_array_equal(frames.indices, expected.indices)


def recurrence(projected: Tensor, recurrent: Tensor) -> Tensor:
    """What the kernel computes, step by step in PyTorch."""
    steps, batch, hidden = *projected.shape[:2], recurrent.shape[-1]
    output = torch.empty(steps, batch, 2, hidden)
    for direction in range(2):
        state = cell = torch.zeros(batch, hidden)
        for step in range(steps):
            time = steps - 1 - step if direction else step
            gates = projected[time].view(batch, 2, -1)[:, direction] + state @ recurrent[direction].T
            i, f, g, o = gates.chunk(4, dim=1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = output[time, :, direction] = o.sigmoid() * cell.tanh()
    return output.view(steps, batch, 2 * hidden)


def prepare_words(folder: Path) -> None:
    """Three of the drawn words, narrow enough for the engines of paper."""
    import cv2

    (folder / "words").mkdir()
    for at in range(3):
        pixels = np.random.default_rng(at).integers(0, 256, (32, 100 + 10 * at), np.uint8)
        cv2.imwrite(str(folder / "words" / f"{at}.png"), pixels)


@pytest.fixture
def engine(network: Network, tmp_path: Path) -> Path:
    """One that takes the likeliest class on the GPU."""
    source, path = tmp_path / "argmax.onnx", tmp_path / "paper-fp16-argmax.engine"
    onnx.save(with_argmax(load_onnx(network.onnx)), source)
    write_engine(source, path)
    return path


def test_throughput_of_every_way(
    cuda: PaperCuda, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks.gpu.measure, "_ROUNDS", 2)
    for part, names in (
        (benchmarks.gpu.measure.throughput, 6),
        (benchmarks.gpu.measure.engine_throughput, 2),
    ):
        work = Work(tmp_path)
        part(work, PaperGpu(cuda))
        found = work.results[DEFAULT_MODEL]
        opened = found.pop("opened")
        if part is benchmarks.gpu.measure.throughput:  # this ONNX Runtime is the one for CPUs
            for kind in ("fp32", "tf32"):
                assert "not installed" in opened.pop(f"ONNX Runtime CUDA {kind}")
        else:
            assert found.pop("CUDA graphs") == {"TensorRT fp16": "recorded"}
        assert set(opened.values()) == {True} and len(opened) == names
        assert set(found) == {f"batch {b}, width {w}" for b in (1, 3) for w in (104, 120)}
        for cell in found.values():
            assert cell.pop("rounds") == 2 and cell.keys() == opened.keys()
            for row in cell.values():
                assert row["images_per_second"] > 0 and row["cpu_ms_per_image"]["rounds"] == 2
    assert "TensorRT fp16" in opened and "launch" in cuda.calls


@pytest.mark.parametrize("kind", ["fp32", "tf32", "fp16"])
@pytest.mark.parametrize("graphs", [False, True])
def test_a_row_of_pytorch_computes_what_its_name_says(
    kind: str, graphs: bool, cuda: PaperCuda, network: Network, tmp_path: Path
) -> None:
    stand_in = PaperGpu(cuda)
    seen: list[Any] = []
    captured = stand_in.captured
    stand_in.captured = lambda task: (seen.append("graph"), captured(task))[1]  # type: ignore[method-assign,func-returns-value]
    name = f"torch {kind}{', CUDA graphs' * graphs}"
    backend = benchmarks.gpu.measure._libraries(stand_in, network, tmp_path)[name]()
    assert isinstance(backend, TorchBackend)
    layer = next(layer for layer in backend._module.modules() if isinstance(layer, nn.Conv2d))
    layer.register_forward_pre_hook(
        lambda layer, inputs: seen.append((inputs[0].dtype, torch.backends.cudnn.allow_tf32))
    )
    frames = backend.run(noise(1, 2, 104))
    dtype = torch.float16 if kind == "fp16" else torch.float32
    assert set(seen) - {"graph"} == {(dtype, kind == "tf32")} and ("graph" in seen) == graphs
    assert not torch.backends.cudnn.allow_tf32
    expected = OrtBackend(network.onnx).run(noise(1, 2, 104))
    assert (frames.indices == expected.indices).mean() > 0.95


def test_a_size_is_warmed_up_by_time(cuda: PaperCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that idles runs at a fraction of its clock, so a number of short runs says little."""
    runs: list[int] = []

    class Counted:
        def run(self, images: NDArray[np.float32]) -> None:
            runs.append(len(images))

    images = noise(1, 2, 104)
    benchmarks.gpu.measure._warm(Counted(), images)  # type: ignore[arg-type]
    assert len(runs) == benchmarks.gpu.measure._WARM  # without time
    runs.clear()
    monkeypatch.setattr(benchmarks.gpu.measure, "_BUSY", 5.0)
    benchmarks.gpu.measure._warm(Counted(), images)  # type: ignore[arg-type]
    assert len(runs) == benchmarks.gpu.measure._MOST


def test_without_engines_their_rows_say_so(
    cuda: PaperCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Any:
        raise BackendMissing("neither tensorrt nor tensorrt-rtx")

    for module in (benchmarks.gpu.measure, benchmarks.gpu.lstm):
        monkeypatch.setattr(module, "tensorrt", missing)
        monkeypatch.setattr(module, "ROUNDS" if module is benchmarks.gpu.lstm else "_ROUNDS", 1)
        monkeypatch.setattr(module, "WIDTHS", (104,))
    line = {"not installed": "neither tensorrt nor tensorrt-rtx"}
    work = Work(tmp_path)
    benchmarks.gpu.measure.engine_throughput(work, PaperGpu(cuda))
    assert work.results[DEFAULT_MODEL]["opened"] == {"TensorRT": line}
    benchmarks.gpu.measure.throughput(work, PaperGpu(cuda))
    assert "torch fp32" in work.results[DEFAULT_MODEL]["opened"]
    work = Work(tmp_path)
    benchmarks.gpu.measure.threads(work)
    assert work.results == {"TensorRT": line}
    work = Work(tmp_path)
    benchmarks.gpu.lstm.strategies(work, PaperGpu(cuda))
    for found in work.results[DEFAULT_MODEL].values():
        made = found.pop("made")
        assert made["TensorRT, looped"] == made["TensorRT convolutions, cuDNN LSTM"] == line
        assert made["torch"] is True
        assert all("torch" in row and "fastest" in row for row in found.values())


def test_stages_apart(
    cuda: PaperCuda, engine: Path, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks.gpu.measure, "_ROUNDS", 2)
    monkeypatch.setattr(benchmarks.gpu.measure, "_STAGED", ((2, 120), (3, 160)))
    work = Work(tmp_path)
    benchmarks.gpu.measure.stages(work, PaperGpu(cuda))
    found = work.results[DEFAULT_MODEL]
    assert set(found) == {"batch 2, width 120", "batch 3, width 160"} and not errors(found)
    for rows in found.values():
        assert set(rows) == {"torch fp32", "torch tf32", "torch fp16", "TensorRT fp16"}
    frames = 3 * network.manifest().steps(160)
    assert rows["TensorRT fp16"]["bytes to host"] == frames * (4 + 4)
    assert rows["torch fp32"]["bytes to host"] == frames * (8 + 4)


def test_threads_read_what_one_thread_reads(
    cuda: PaperCuda, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks.gpu.measure, "_JOBS", 12)
    work = Work(tmp_path)
    benchmarks.gpu.measure.threads(work)
    found = work.results["fp16"]
    assert found.pop("opened") is True and not errors(found)
    assert set(found) == {f"{count} threads" for count in (1, 2, 4, 8)}
    assert all(row["batches read otherwise"] == 0 and row["batches"] == 12 for row in found.values())


def test_strategies_agree_and_the_fastest_is_named(
    cuda: PaperCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[onnx.ModelProto] = []

    def plan(work: Work, trt: Any, model: onnx.ModelProto, profile: Any) -> bytes:
        planned.append(model)
        return bytes(model.SerializeToString())

    monkeypatch.setattr(benchmarks.gpu.lstm, "plan_of", plan)
    monkeypatch.setattr(benchmarks.gpu.lstm, "ROUNDS", 1)
    monkeypatch.setattr(benchmarks.gpu.lstm, "CudaKernel", lambda gpu: recurrence)
    cuda.library = PaperTrt(cuda)
    work = Work(tmp_path)
    benchmarks.gpu.lstm.strategies(work, PaperGpu(cuda))
    benchmarks.gpu.lstm.own_kernel(work, PaperGpu(cuda))
    assert not errors(work.results)
    libraries = {
        *("torch", "TensorRT, looped", "TensorRT, two forward LSTMs", "TensorRT, static width"),
        "TensorRT convolutions, cuDNN LSTM",
    }
    own = {"torch", "torch convolutions, own LSTM", "TensorRT convolutions, own LSTM"}
    for precision, names, allowed in (
        *(("fp32", libraries, 1e-4), ("fp16", libraries, 2e-2)),
        *(("fp32, own kernel", own, 1e-4), ("fp16, own kernel", own, 2e-2)),
    ):
        found = work.results[DEFAULT_MODEL][precision]
        assert set(found.pop("made").values()) == {True}
        assert len(found) == 4  # two batches at two widths
        for rows in found.values():
            fastest = rows.pop("fastest")
            assert set(rows) == names
            for row in rows.values():
                assert set(row) == {"direct", "CUDA graph"}
                assert all(0 <= way["max_delta"] < allowed for way in row.values())
            name, _, way = fastest.rpartition(", ")
            assert rows[name][way]["ms"] == min(w["ms"] for row in rows.values() for w in row.values())
    assert len(planned) == 2 * 6  # looped, two loops, two static ones, convolutions twice


def test_a_strategy_that_fails_costs_no_other(
    cuda: PaperCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        def __init__(self, device: Any) -> None:
            raise BackendMissing("no compiler")

    def plan(work: Work, trt: Any, model: onnx.ModelProto, profile: Any) -> bytes:
        if model.graph.output[0].name != "logits":
            raise RuntimeError("no tactic")
        return bytes(model.SerializeToString())

    monkeypatch.setattr(benchmarks.gpu.lstm, "plan_of", plan)
    monkeypatch.setattr(benchmarks.gpu.lstm, "ROUNDS", 1)
    monkeypatch.setattr(benchmarks.gpu.lstm, "WIDTHS", (104,))
    monkeypatch.setattr(benchmarks.gpu.lstm, "CudaKernel", Broken)
    work = Work(tmp_path)
    benchmarks.gpu.lstm.strategies(work, PaperGpu(cuda))
    benchmarks.gpu.lstm.own_kernel(work, PaperGpu(cuda))
    found = work.results[DEFAULT_MODEL]
    assert found["fp32"].pop("made")["TensorRT convolutions, cuDNN LSTM"] == {
        "error": "RuntimeError: no tactic"
    }
    made = found["fp32, own kernel"].pop("made")
    assert made["torch convolutions, own LSTM"] == {"not installed": "no compiler"}
    for rows in found["fp32"].values():
        assert {"torch", "TensorRT, looped", "TensorRT, static width", "fastest"} <= rows.keys()
    for rows in found["fp32, own kernel"].values():
        assert rows.keys() == {"torch", "fastest"}


def test_an_image_alone_against_the_same_in_a_batch(
    cuda: PaperCuda, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks.gpu.invariance, "_WIDTHS", (104,))
    monkeypatch.setattr(benchmarks.gpu.invariance, "_IMAGES", 4)
    monkeypatch.setattr(benchmarks.gpu.invariance, "_BATCHES", (2, 4))
    work = Work(tmp_path)
    benchmarks.gpu.invariance.invariance(work)
    assert set(work.results) == {
        *("ONNX Runtime CUDA fp32", "ONNX Runtime CUDA tf32"),
        *("TensorRT fp16, kernels none", "TensorRT fp16, kernels eager"),
    }
    found = work.results["TensorRT fp16, kernels eager"]
    assert found["readings in batches"] == 8 and found["frames of another class"] == 0
    # ONNX Runtime, which computes for the engine of paper, is invariant on the CPU
    assert found["not equal in every bit"] == 0 and found["largest difference"] == 0
    run = OrtBackend.run

    def leaning(backend: OrtBackend, images: NDArray[np.float32]) -> Frames:
        frames = run(backend, images)
        assert frames.logits is not None
        return Frames.from_logits(frames.logits + np.float32(1e-3 * (len(images) - 1)))

    monkeypatch.setattr(OrtBackend, "run", leaning)
    monkeypatch.setattr(benchmarks.gpu.invariance, "OrtBackend", lambda path, device, tf32: OrtBackend(path))
    work = Work(tmp_path)
    benchmarks.gpu.invariance.invariance(work)
    found = work.results["ONNX Runtime CUDA fp32"]
    assert found["not equal in every bit"] == 8 and 2e-3 < found["largest difference"] < 4e-3
    assert found["frames of another class"] == 0

    def turning(backend: OrtBackend, images: NDArray[np.float32]) -> Frames:
        frames = run(backend, images)
        assert frames.logits is not None
        return frames if len(images) == 1 else Frames.from_logits(-frames.logits)

    monkeypatch.setattr(OrtBackend, "run", turning)
    work = Work(tmp_path)
    benchmarks.gpu.invariance.invariance(work)
    found = work.results["ONNX Runtime CUDA fp32"]
    assert found["frames of another class"] > 0.5 * found["frames"]


def test_an_engine_that_cannot_be_recorded_says_so(
    cuda: PaperCuda, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT for RTX was asked in the run before: in a recording it may not be asked."""
    stand_in = PaperGpu(cuda)
    monkeypatch.setattr(PaperContext, "is_stream_capturable", lambda context, handle: False)
    made = TorchEngine(PaperTrt(cuda), engine.read_bytes(), stand_in)
    images = torch.from_numpy(noise(1, 2, 104))
    assert len(made(images)) == 2
    monkeypatch.setattr(stand_in, "recording", lambda: True)
    with pytest.raises(RuntimeError, match="this stream cannot be recorded"):
        made(images)


def test_the_peak_of_large_batches(
    cuda: PaperCuda, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmarks.gpu.peak, "networks", lambda folder: (replace(network, name=PAPER),))
    monkeypatch.setattr(benchmarks.gpu.peak, "_BATCHES", (2, 3))
    monkeypatch.setattr(benchmarks.gpu.peak, "_ROUNDS", 1)
    monkeypatch.setattr(benchmarks.gpu.peak, "CudaKernel", lambda gpu: recurrence)
    monkeypatch.setattr(
        benchmarks.gpu.peak, "plan_of", lambda work, trt, model, profile: model.SerializeToString()
    )
    monkeypatch.setattr(benchmarks.gpu.peak, "cast", lambda model, kind: model)
    work = Work(tmp_path)
    benchmarks.gpu.peak.peak(work, PaperGpu(cuda))
    assert not errors(work.results) and set(work.results) == {"batch 2", "batch 3"}
    monkeypatch.setattr(benchmarks.gpu.peak, "networks", lambda folder: ())
    with pytest.raises(BackendMissing, match="the paper's network was not made"):
        benchmarks.gpu.peak.peak(work, PaperGpu(cuda))
    for rows in work.results.values():
        assert set(rows) == {"torch", "torch convolutions, own LSTM", "TensorRT"}
        for ways in rows.values():
            assert set(ways) == {"compute", "compute, CUDA graph", "host to host, CUDA graph"}
            assert all(way["images_per_second"] > 0 for way in ways.values())


def test_the_first_target_that_runs_is_kept(
    cuda: PaperCuda, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default does not build, the GPU here is not valid, sm_80 reads wrongly, and sm_89 runs."""
    reading, wrong = load_onnx(network.onnx), load_onnx(network.onnx)
    [said] = [node for node in wrong.graph.node if "logits" in node.output]
    said.output[0] = "right"
    wrong.graph.node.append(helper.make_node("Neg", ["right"], ["logits"]))
    library = PaperRtx(cuda)

    class Plan:
        def __init__(self, trt: Any, model: onnx.ModelProto) -> None:
            pass

        def build(self, profiles: Any, targets: tuple[str, ...]) -> tuple[bytes, bytes]:
            if not targets:
                raise RuntimeError("no tactic")
            if targets == ("current",):
                return b"junk", b""
            return (wrong if targets == ("sm_80",) else reading).SerializeToString(), b""

    monkeypatch.setattr(benchmarks.gpu.targets, "import_tensorrt", lambda builder: library)
    monkeypatch.setattr(benchmarks.gpu.targets, "Network", Plan)
    monkeypatch.setattr(benchmarks.gpu.targets, "DEFAULT", network.onnx)
    monkeypatch.setattr(benchmarks.gpu.targets, "_SIZES", ((1, 104), (3, 120)))
    monkeypatch.setattr(benchmarks.gpu.targets, "_LATER", 0.01)
    monkeypatch.setattr(benchmarks.gpu.targets, "_ROUNDS", 1)
    work = Work(tmp_path)
    benchmarks.gpu.targets.targets(work, PaperGpu(cuda))
    found = work.results
    assert found["runs"] == "sm_89" and (tmp_path / "target.txt").read_text() == "sm_89"
    assert found["default"] == {"build": {"error": "RuntimeError: no tactic"}}
    assert "does not load the plan" in found["current"]["eager kernels"]["error"]
    assert found["sm_80"]["eager kernels"]["batch 1, width 104"]["max_delta"] > 0.1
    assert "sm_86" not in found and "sm_120" not in found  # nothing more is tried
    for kernels in ("lazy", "eager", "none"):
        row = found["sm_89"][f"{kernels} kernels"]["batch 3, width 120"]
        assert row["max_delta"] < 1e-4 and row["CUDA graph, max_delta"] < 1e-4 and row["ms"] > 0
        assert ("ms after 0 s" in row) == (kernels == "lazy")
    assert Work(tmp_path).targets() == ("sm_89",)


def test_onnx_runtime_on_cuda_step_by_step(
    cuda: PaperCuda, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider is that for the CPU here; what is measured and how is the same."""
    opened: list[str] = []
    session = ort.InferenceSession

    def on_cpu(path: str, options: Any, providers: Any) -> Any:
        opened.extend(provider[0] for provider in providers if isinstance(provider, tuple))
        return session(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(
        benchmarks.gpu.onnxruntime_cuda, "open_session", lambda path, threads, device: _assigned(path)
    )
    monkeypatch.setattr(
        benchmarks.gpu.onnxruntime_cuda, "OrtBackend", lambda path, device, tf32: OrtBackend(path)
    )
    monkeypatch.setattr(ort, "InferenceSession", on_cpu)
    monkeypatch.setattr(ort.OrtValue, "ortvalue_from_numpy", _on_cpu(ort.OrtValue.ortvalue_from_numpy))
    monkeypatch.setattr(benchmarks.gpu.onnxruntime_cuda, "_SIZES", ((1, 104),))
    monkeypatch.setattr(benchmarks.gpu.onnxruntime_cuda, "_SECONDS", 0.01)
    load = Recognizer.load
    monkeypatch.setattr(Recognizer, "load", lambda path, device: load(DEFAULT))
    work = Work(tmp_path)
    benchmarks.gpu.onnxruntime_cuda.onnxruntime_cuda(work)
    found = work.results[DEFAULT_MODEL]
    [assigned] = found["nodes as assigned"].values()
    assert assigned["LSTM"] == 2 and found["nodes as run"]["LSTM on CPUExecutionProvider"] == 2
    for precision in ("fp32", "tf32"):
        parity = found["parity with PyTorch"][precision]
        assert parity["passed"] and parity["format_error"]["precision"] == precision
    examples = work.results["examples"]
    assert examples["images"] == 12 and examples["texts that differ"] == 0
    assert set(opened) == {"CUDAExecutionProvider"}


def _assigned(path: Path) -> Any:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return ort.InferenceSession(str(path), options, providers=[("CUDAExecutionProvider", {})])


def _on_cpu(made: Any) -> Any:
    return staticmethod(lambda images, device, number: made(images))


def test_commands_are_run_and_what_they_say_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def run(command: list[str], stdout: Any, timeout: float, **_: Any) -> Any:
        seen.append(command)
        stdout.write(b"one\ntwo\n")
        if "verify" in command:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, len(seen))

    monkeypatch.setattr(subprocess, "run", run)
    work = Work(tmp_path, target="sm_80")
    benchmarks.gpu.commands.commands(work)
    assert len(work.results) == len(seen) == 8
    row = work.results["build-engine --fp16"]
    assert row["last lines"] == ["one", "two"] and row["exit code"] == 4
    ended = work.results["verify FILE.pth FILE.engine"]
    assert ended["last lines"] == ["one", "two"] and ended["exit code"].startswith("ended after ")
    [build] = [command for command in seen if "build-engine" in command]
    assert build[build.index("--target") + 1] == "sm_80"


def test_the_paper_network_is_made_and_proven(made: Work) -> None:
    assert made.results["images of drawn words"] == len(list((made.folder / "words").iterdir())) == 2
    rows = made.results["paper's, 37 classes"]
    assert rows["parameters"] > 1000 and 0 < rows["export's max_delta"] < 1e-3
    assert (made.folder / "paper.onnx").exists()
    again = Work(made.folder)
    prepare(again)  # the next run in the same folder
    assert again.results == {}


def test_libraries_are_looked_for_one_by_one(cuda: PaperCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine whose driver shows a GPU that no library can use."""

    def missing(builder: str) -> Any:
        raise BackendMissing(f"{builder} is not usable here")

    monkeypatch.setattr(benchmarks.gpu.machine, "import_tensorrt", missing)
    work = Work(Path())
    benchmarks.gpu.machine.runtimes(work)
    assert work.results["libraries"]["PyTorch"]["status"] == "works"
    assert set(work.results["TensorRT's runtime"]) == {"tensorrt", "tensorrt-rtx"}
    for row in work.results["TensorRT's runtime"].values():
        assert "is not usable here" in row["not installed"]
