"""benchmarks/gpu_check.py and lstm_strategies.py: refused without a GPU, and run on one of paper."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gpu.engines
import gpu.machine
import gpu.measure
import gpu.work
import gpu_check
import lstm_strategies
import numpy as np
import onnx
import pytest
import torch
from gpu.graphs import two_forward_lstms, up_to_first_lstm
from gpu.networks import DEFAULT_MODEL, Network, networks, prepare, split
from gpu.work import Part, Work, run_parts
from numpy.typing import NDArray
from onnx import helper
from paper_gpu import PaperCuda, PaperStream, PaperTrt, write_engine
from torch import Tensor, nn

from crnn_deploy import driver
from crnn_deploy.backends import trt
from crnn_deploy.driver import Driver, Gpu
from crnn_deploy.errors import BackendMissing
from crnn_deploy.models import DEFAULT
from crnn_deploy.networks.compact import CompactCRNN
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.stages.argmax import with_argmax
from crnn_deploy.stages.engine import EngineBuild
from crnn_deploy.stages.inspection import backend_of, load_onnx

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NO_GPU = pytest.mark.skipif(driver.probe().problem is None, reason="there is a GPU here")
PAPER = Driver("13.0", "580.1", (Gpu("Paper", "9.0", 2**34),))


@NO_GPU
def test_without_a_gpu_it_is_one_line_and_nothing_is_written(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu_check.py"), "--json", str(tmp_path / "x.json")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == BackendMissing.exit_code
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("Error: this measures an NVIDIA GPU: ") and line.endswith("run crnn-deploy doctor")
    assert not list(tmp_path.iterdir())


@NO_GPU
def test_strategies_without_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lstm_strategies.py", "--json", str(tmp_path / "x.json")])
    assert gpu.work.shown(lstm_strategies.main) == BackendMissing.exit_code
    assert capsys.readouterr().err.startswith("Error: this measures an NVIDIA GPU: ")
    assert not list(tmp_path.iterdir())


@NO_GPU
def test_parts_that_end_without_results_are_lines_of_the_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts' own processes find no GPU; the script has been told of one."""
    path = tmp_path / "x.json"
    monkeypatch.setattr(gpu_check, "require_gpu", lambda: PAPER)
    monkeypatch.setattr(sys, "argv", ["gpu_check.py", "--only", "runtimes", "--json", str(path)])
    gpu_check.main()
    results = json.loads(path.read_text(encoding="utf-8"))
    assert (results["suite"], results["device"]) == ("gpu_check", "cuda")
    assert results["gpu"] == {
        **{"name": "Paper", "compute_capability": "9.0", "memory_bytes": 2**34},
        **{"driver": "580.1", "cuda": "13.0"},
    }
    for part in ("runtimes", "networks"):
        assert results[part]["error"].startswith("Error: this measures an NVIDIA GPU")
    assert "engines" not in results


def test_every_part_is_a_function_of_its_module() -> None:
    modules = {"gpu.machine", "gpu.networks", "gpu.engines", "gpu.measure", "lstm_strategies"}
    assert {part.target.split(":")[0] for part in gpu_check.PARTS.values()} == modules
    for part in gpu_check.PARTS.values():
        module, name = part.target.split(":")
        assert callable(getattr(sys.modules[module], name))


def test_a_part_that_crashes_hangs_or_fails_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.work, "_GRACE", 0.5)
    keep = "import sys; open(sys.argv[1], 'w').write('{\"kept\": 1}');"
    scripts = {
        "first": keep,
        "crash": f"{keep} import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "fail": f"{keep} raise ValueError('no reason')",
        "hang": f"{keep} import time; time.sleep(60)",
        "last": keep,
    }
    seen: list[set[str]] = []
    results: dict[str, Any] = {"suite": "x"}
    # what a part leaves goes to those after it, so that the one that hangs has most of the time
    shares = {"first": 20, "crash": 20, "fail": 20, "hang": 4, "last": 20}
    run_parts(
        {name: Part("", shares[name]) for name in scripts},
        lambda name, until, path: (sys.executable, "-c", scripts[name], str(path)),
        results,
        seconds=30,
        folder=tmp_path,
        changed=lambda results: seen.append(set(results)),
    )
    assert all(results[name]["kept"] == 1 for name in scripts)
    assert results["crash"]["error"] == "ended by SIGSEGV"
    assert results["fail"]["error"] == "ValueError: no reason"
    assert results["hang"]["error"].startswith("ended after ")
    assert "error" not in results["first"] and "error" not in results["last"]
    assert [len(names) for names in seen] == [2, 3, 4, 5, 6]


def test_what_fails_is_kept_in_one_line(tmp_path: Path) -> None:
    def fail(error: BaseException) -> Callable[[], Any]:
        def task() -> Any:
            raise error

        return task

    path = tmp_path / "part.json"
    work = Work(tmp_path, path)
    assert work.attempt(lambda: 7, "a", "b") == 7
    assert json.loads(path.read_text()) == {"a": {"b": 7}}  # there at once
    assert work.attempt(fail(ValueError("two\nlines")), "a", "c") is None
    assert work.attempt(fail(BackendMissing("no library")), "d") is None
    with pytest.raises(KeyboardInterrupt):
        work.attempt(fail(KeyboardInterrupt()), "e")
    work.until = time.time() - 1
    assert work.attempt(lambda: 7, "f") is None
    assert json.loads(path.read_text()) == {
        "a": {"b": 7, "c": {"error": "ValueError: two lines"}},
        "d": {"not installed": "no library"},
        "f": {"error": "not begun: the time of this part is spent"},
    }


def test_a_build_that_is_stopped_by_the_time_is_a_line(tmp_path: Path) -> None:
    work = Work(tmp_path)

    def build() -> None:
        work.until = 0
        raise KeyboardInterrupt

    work.attempt(build, "build")
    assert work.results == {"build": {"error": "stopped: the time of this part is spent"}}


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


class RawBlocks(dict[int, NDArray[np.uint8]]):
    """Device memory that others own: PyTorch's tensors, by address."""

    def __missing__(self, address: int) -> NDArray[np.uint8]:
        return np.frombuffer(memoryview((ctypes.c_uint8 * 2**24).from_address(address)), np.uint8)


class PromptStream(PaperStream):
    """PyTorch on the CPU does not wait for a stream, so work is done at once."""

    def add(self, work: Callable[[], None]) -> None:
        work()


class PaperGpu:
    """`gpu.device.TorchGpu` on the CPU."""

    device = torch.device("cpu")

    def __init__(self, cuda: PaperCuda) -> None:
        self.handle = PromptStream(cuda).handle

    def pinned(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    def milliseconds(self, task: Callable[[], object], rounds: int) -> list[float]:
        spent = []
        for _ in range(rounds):
            start = time.perf_counter()
            task()
            spent.append((time.perf_counter() - start) * 1e3)
        return spent

    def captured(self, task: Callable[[], Any]) -> tuple[Callable[[], object], Any]:
        written = task()

        def replay() -> None:
            pairs = [(written, task())] if isinstance(written, Tensor) else zip(written, task(), strict=True)
            for old, new in pairs:
                old.copy_(new)

        return replay, written

    def synchronize(self) -> None:
        pass


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Work:
    """The scripts' folder, with a paper's network that is small; our kernel takes the size of its LSTMs."""
    work = Work(tmp_path_factory.mktemp("made"))
    small = partial(CRNN, hidden=32, widths=(4, 4, 8, 8, 8, 8, 8))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpu.networks.CRNN", small)
        patch.setattr("gpu.networks._WORDS", 2)
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
    monkeypatch.setattr(driver, "probe", lambda: PAPER)
    monkeypatch.setattr(trt, "import_tensorrt", lambda builder: library)
    monkeypatch.setattr(trt, "open_cuda", lambda: paper)
    for module in (gpu.measure, lstm_strategies):
        monkeypatch.setattr(module, "tensorrt", lambda: ("tensorrt", library))
    for module in (gpu.measure, gpu.engines, lstm_strategies):
        monkeypatch.setattr(module, "networks", lambda folder: (network,))
        if module is not gpu.engines:
            monkeypatch.setattr(module, "WIDTHS", (104, 120))
            monkeypatch.setattr(module, "BATCHES", (1, 3))

    def build(model: Path, path: Path, settings: Any, stopped: Callable[[], bool]) -> EngineBuild:
        assert not stopped()
        return EngineBuild(path, write_engine(network.onnx, path), (), None)

    monkeypatch.setattr(gpu.engines, "build_engine", build)
    return paper


def errors(results: Any) -> list[str]:
    """Every line that says that something failed."""
    if not isinstance(results, dict):
        return []
    own = [results["error"]] if "error" in results else []
    return own + [line for value in results.values() for line in errors(value)]


def test_engines_are_built_and_read_the_words(cuda: PaperCuda, tmp_path: Path) -> None:
    prepare_words(tmp_path)
    work = Work(tmp_path, tmp_path / "engines.json")
    gpu.engines.engines(work)
    found = json.loads((tmp_path / "engines.json").read_text())[DEFAULT_MODEL]
    assert set(found) == {"fp32", "fp16", "bf16", "int8"} and not errors(found)
    for row in found.values():
        assert row["build"]["layers"] == {"fp32": 1} and row["build"]["bytes"] > 1000
        assert row["against PyTorch"]["parity"]["flips"] == 0
        assert row["against PyTorch"]["verdict"]["strings_changed"]["count"] == 0


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


def test_throughput_of_every_way(
    cuda: PaperCuda, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.measure, "_ROUNDS", 2)
    write_engine(network.onnx, tmp_path / "paper-fp32.engine")
    work = Work(tmp_path)
    gpu.measure.throughput(work, PaperGpu(cuda))
    found = work.results[DEFAULT_MODEL]
    opened = found.pop("opened")
    # this ONNX Runtime is the one for CPUs
    assert "not installed" in opened.pop("ONNX Runtime CUDA fp32")
    assert set(opened.values()) == {True} and "TensorRT fp32" in opened and len(opened) == 5
    assert set(found) == {f"batch {b}, width {w}" for b in (1, 3) for w in (104, 120)}
    for cell in found.values():
        assert cell.pop("rounds") == 2 and cell.keys() == opened.keys()
        for row in cell.values():
            assert row["images_per_second"] > 0 and row["cpu_ms_per_image"]["rounds"] == 2
    assert "launch" in cuda.calls


def test_without_engines_their_rows_say_so(
    cuda: PaperCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Any:
        raise BackendMissing("neither tensorrt nor tensorrt-rtx")

    for module in (gpu.measure, lstm_strategies):
        monkeypatch.setattr(module, "tensorrt", missing)
        monkeypatch.setattr(module, "ROUNDS" if module is lstm_strategies else "_ROUNDS", 1)
        monkeypatch.setattr(module, "WIDTHS", (104,))
    line = {"not installed": "neither tensorrt nor tensorrt-rtx"}
    work = Work(tmp_path)
    gpu.measure.throughput(work, PaperGpu(cuda))
    found = work.results[DEFAULT_MODEL]
    assert found.pop("opened")["TensorRT"] == line
    assert "torch fp32" in found["batch 1, width 104"]
    work = Work(tmp_path)
    gpu.measure.threads(work)
    assert work.results == {"TensorRT": line}
    work = Work(tmp_path)
    lstm_strategies.strategies(work, PaperGpu(cuda))
    for found in work.results[DEFAULT_MODEL].values():
        made = found.pop("made")
        assert made["TensorRT, looped"] == made["TensorRT convolutions, cuDNN LSTM"] == line
        assert made["torch"] is True
        assert all("torch" in row and "fastest" in row for row in found.values())


@pytest.mark.parametrize("output", ["logits", "argmax"])
def test_stages_apart(
    output: str, cuda: PaperCuda, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.measure, "_ROUNDS", 2)
    monkeypatch.setattr(gpu.measure, "_STAGED", ((2, 120), (3, 160)))
    source = network.onnx
    if output == "argmax":
        source = tmp_path / "argmax.onnx"
        onnx.save(with_argmax(onnx.load(network.onnx)), source)
    write_engine(source, tmp_path / "paper-fp16.engine")
    work = Work(tmp_path)
    gpu.measure.stages(work, PaperGpu(cuda))
    found = work.results[DEFAULT_MODEL]
    assert set(found) == {"batch 2, width 120", "batch 3, width 160"} and not errors(found)
    for rows in found.values():
        assert set(rows) == {"torch fp32", "torch fp16", "TensorRT fp16"}
    frames = 3 * network.manifest().steps(160)
    bytes_ = frames * 37 * 4 if output == "logits" else frames * (4 + 4)
    assert rows["TensorRT fp16"]["bytes to host"] == bytes_
    assert rows["torch fp32"]["bytes to host"] == frames * (8 + 4)


def test_threads_read_what_one_thread_reads(
    cuda: PaperCuda, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.measure, "_JOBS", 12)
    write_engine(network.onnx, tmp_path / "paper-bf16.engine")
    work = Work(tmp_path)
    gpu.measure.threads(work)
    found = work.results["bf16"]
    assert found.pop("opened") is True and not errors(found)
    assert set(found) == {f"{count} threads" for count in (1, 2, 4, 8)}
    assert all(row["batches read otherwise"] == 0 and row["batches"] == 12 for row in found.values())


def test_strategies_agree_and_the_fastest_is_named(
    cuda: PaperCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[onnx.ModelProto] = []

    def plan(trt: Any, model: onnx.ModelProto, profile: Any, late: Any) -> bytes:
        planned.append(model)
        return bytes(model.SerializeToString())

    monkeypatch.setattr(lstm_strategies, "plan_of", plan)
    monkeypatch.setattr(lstm_strategies, "ROUNDS", 1)
    monkeypatch.setattr(lstm_strategies, "CudaKernel", lambda gpu: recurrence)
    cuda.library = PaperTrt(cuda)
    work = Work(tmp_path)
    lstm_strategies.strategies(work, PaperGpu(cuda))
    lstm_strategies.own_kernel(work, PaperGpu(cuda))
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

    def plan(trt: Any, model: onnx.ModelProto, profile: Any, late: Any) -> bytes:
        if model.graph.output[0].name != "logits":
            raise RuntimeError("no tactic")
        return bytes(model.SerializeToString())

    monkeypatch.setattr(lstm_strategies, "plan_of", plan)
    monkeypatch.setattr(lstm_strategies, "ROUNDS", 1)
    monkeypatch.setattr(lstm_strategies, "WIDTHS", (104,))
    monkeypatch.setattr(lstm_strategies, "CudaKernel", Broken)
    work = Work(tmp_path)
    lstm_strategies.strategies(work, PaperGpu(cuda))
    lstm_strategies.own_kernel(work, PaperGpu(cuda))
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


def test_the_paper_network_is_made_and_proven(made: Work) -> None:
    assert made.results["images of drawn words"] == len(list((made.folder / "words").iterdir())) == 2
    rows = made.results["paper's, 37 classes"]
    assert rows["parameters"] > 1000 and 0 < rows["export's max_delta"] < 1e-3
    assert (made.folder / "paper.onnx").exists()


def test_libraries_are_looked_for_one_by_one(cuda: PaperCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine whose driver shows a GPU that no library can use."""

    def missing(builder: str) -> Any:
        raise BackendMissing(f"{builder} is not usable here")

    monkeypatch.setattr(gpu.machine, "import_tensorrt", missing)
    work = Work(Path())
    gpu.machine.runtimes(work)
    assert work.results["libraries"]["PyTorch"]["status"] == "works"
    assert set(work.results["TensorRT's runtime"]) == {"tensorrt", "tensorrt-rtx"}
    for row in work.results["TensorRT's runtime"].values():
        assert "is not usable here" in row["not installed"]
