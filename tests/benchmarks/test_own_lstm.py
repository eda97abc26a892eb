"""The kernel for the recurrence of a BiLSTM: its arithmetic in NumPy, block by block; and it compiles."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import benchmarks.gpu.own_lstm
from benchmarks.gpu.own_lstm import BLOCKS, SOURCE, CudaKernel, OwnLSTM, tile_of, with_own_lstm
from crnn_deploy.runtime.backends import driver

LANES = 8  # threads that share a unit


def sigmoid(x: Any) -> Any:
    return np.reciprocal(1 + np.exp(-x))


def emulated(projected: Tensor, recurrent: Tensor) -> Tensor:
    """As bilstm.cu computes: flat memory, the same indices, a sum for each lane, the next state shared."""
    steps, batch, _ = projected.shape
    hidden, tile = recurrent.shape[-1], tile_of(batch, lambda tile: 16)
    units, pieces = hidden // BLOCKS, hidden // (4 * LANES)
    sources, weights = projected.numpy().ravel(), recurrent.numpy().ravel()
    output = np.full(steps * batch * 2 * hidden, np.nan, np.float32)
    thread = np.arange(hidden)
    lane = thread % LANES
    for group in range(math.ceil(batch / tile)):
        for direction in range(2):
            state = np.full((2, tile, hidden), np.nan, np.float32)
            state[0] = 0
            cell = np.zeros((BLOCKS, hidden), np.float32)  # of each thread
            for step in range(steps):
                time = steps - 1 - step if direction else step
                now = step % 2
                for block in range(BLOCKS):
                    unit = block * units + thread // LANES
                    sums = np.zeros((hidden, 4, tile), np.float32)
                    for piece in range(pieces):
                        columns = 4 * (LANES * piece + lane)[:, None] + np.arange(4)  # of a float4
                        for gate in range(4):
                            row = (direction * 4 + gate) * hidden + unit
                            own = weights[row[:, None] * hidden + columns]
                            for at in range(tile):
                                sums[:, gate, at] += (own * state[now, at, columns]).sum(axis=1)
                    totals = sums.reshape(units, LANES, 4, tile).sum(axis=1)  # the shuffles
                    for at in range(tile):  # by the lane of this number
                        image, finishing = group * tile + at, lane == at
                        mine = unit[finishing]
                        gates = totals[:, :, at].copy()
                        frame = time * batch + image
                        if image < batch:
                            for gate in range(4):
                                gates[:, gate] += sources[
                                    ((frame * 2 + direction) * 4 + gate) * hidden + mine
                                ]
                        i, f, g, o = gates.T
                        cell[block, finishing] = sigmoid(f) * cell[block, finishing] + sigmoid(i) * np.tanh(g)
                        state[1 - now, at, mine] = sigmoid(o) * np.tanh(cell[block, finishing])
                        if image < batch:
                            output[(frame * 2 + direction) * hidden + mine] = state[1 - now, at, mine]
    return torch.from_numpy(output.reshape(steps, batch, 2 * hidden))


@settings(max_examples=6, deadline=None)
@given(
    steps=st.integers(1, 4),
    batch=st.sampled_from([1, 2, 9, 17, 33]),  # tiles of 1, 1, 2, 4 and 8, the last ones not full
    hidden=st.sampled_from([32, 64]),
    inputs=st.integers(1, 5),
)
def test_the_arithmetic_is_that_of_pytorchs_lstm(steps: int, batch: int, hidden: int, inputs: int) -> None:
    torch.manual_seed(steps + batch)
    layer = nn.LSTM(inputs, hidden, bidirectional=True)
    sequence = torch.randn(steps, batch, inputs)
    with torch.no_grad():
        expected, _ = layer(sequence)
        actual, _ = OwnLSTM(layer, emulated)(sequence)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_tiles_keep_the_clusters_few() -> None:
    batches = (1, 8, 9, 16, 17, 32, 33, 64, 500)
    assert [tile_of(batch, lambda tile: 16) for batch in batches] == [1, 1, 2, 2, 4, 4, 8, 8, 8]
    # a GPU with room for fewer, and one that fits fewer of the larger ones
    assert [tile_of(batch, lambda tile: 8) for batch in batches] == [1, 2, 4, 4, 8, 8, 8, 8, 8]
    assert [tile_of(batch, lambda tile: 16 // tile) for batch in batches] == [1, 1, 8, 8, 8, 8, 8, 8, 8]


def test_the_driver_is_asked_how_many_clusters_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each kernel, with the grid that is launched; the launch has the tiles that follow from it."""
    asked: list[tuple[Any, ...]] = []
    launched: list[tuple[Any, ...]] = []

    class Code(int):
        name = "CUDA_SUCCESS"

    class Bindings:
        CUlaunchConfig = SimpleNamespace

        def cuModuleLoadData(self, code: bytes) -> tuple[Any, ...]:  # noqa: N802
            return Code(0), code

        def cuModuleGetFunction(self, module: bytes, name: bytes) -> tuple[Any, ...]:  # noqa: N802
            return Code(0), (module, name)

        def cuOccupancyMaxActiveClusters(self, function: Any, config: Any) -> tuple[Any, ...]:  # noqa: N802
            asked.append((function[0], config.gridDimX, config.gridDimY, config.blockDimX))
            return Code(0), 12

        def cuLaunchKernel(self, function: Any, *sizes: Any) -> tuple[Any, ...]:  # noqa: N802
            launched.append((function[0], *sizes[:4]))
            return (Code(0),)

    h100 = driver.Driver("13.0", "580", (driver.Gpu("H100", "9.0", 2**36),))
    monkeypatch.setattr(driver, "probe", lambda: h100)
    monkeypatch.setattr(benchmarks.gpu.own_lstm, "_bindings", lambda part: Bindings())
    monkeypatch.setattr(
        benchmarks.gpu.own_lstm, "compiled", lambda hidden, tile, target: (hidden, tile, target)
    )
    kernel = CudaKernel(SimpleNamespace(handle=0))
    for batch in (6, 7, 6):
        assert kernel(torch.zeros(3, batch, 256), torch.zeros(2, 128, 32)).shape == (3, batch, 64)
    assert asked == [((32, 1, "sm_90"), 8, 2, 32), ((32, 2, "sm_90"), 8, 2, 32)]
    assert launched == [((32, tile, "sm_90"), 8, 2, count, 32) for tile, count in ((1, 6), (2, 4), (1, 6))]


def test_half_precision_keeps_the_recurrence_in_float32() -> None:
    seen: list[torch.dtype] = []

    def kernel(projected: Tensor, recurrent: Tensor) -> Tensor:
        seen.extend((projected.dtype, recurrent.dtype))
        return projected.new_zeros(*projected.shape[:2], 2 * recurrent.shape[-1])

    network = with_own_lstm(nn.Sequential(nn.LSTM(4, 32, bidirectional=True)), kernel, torch.device("cpu"))
    output, _ = network.half()(torch.zeros(3, 2, 4, dtype=torch.float16))
    assert seen == [torch.float32, torch.float32]
    assert output.dtype == torch.float16 and output.shape == (3, 2, 64)


@pytest.mark.parametrize(
    "layer",
    [nn.LSTM(4, 32), nn.LSTM(4, 40, bidirectional=True), nn.LSTM(4, 32, 2, bidirectional=True)],
    ids=["one direction", "units", "layers"],
)
def test_layers_that_it_does_not_compute(layer: nn.LSTM) -> None:
    with pytest.raises(ValueError, match="one layer, both directions"):
        OwnLSTM(layer, emulated)


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_source_itself_computes_it_on_threads(tmp_path: Path) -> None:
    """All but what only a GPU has: memory of other blocks and waiting for the cluster are replaced.

    Memory starts as NaN, and ThreadSanitizer watches that no thread reads what another is writing.
    """
    text = SOURCE.read_text(encoding="utf-8")
    state = "__shared__ float4 state[2][TILE][HIDDEN / 4];"
    assert state in text
    text = text.replace(state, "State &state = shared[blockIdx.x];")
    start, end = (
        text.index("__device__ __forceinline__ void wait"),
        text.index("__device__ __forceinline__ float sig"),
    )
    (tmp_path / "kernel.inc").write_text(text[:start] + text[end:], encoding="utf-8")
    program = tmp_path / "program"
    flags = ["-std=c++20", "-O1", "-pthread", "-fsanitize=thread", "-DHIDDEN=32", "-DTILE=2"]
    source = Path(__file__).parent / "bilstm_on_threads.cpp"
    built = subprocess.run(
        ["g++", *flags, f"-I{tmp_path}", "-o", str(program), str(source)], capture_output=True, text=True
    )
    if "cannot find" in built.stderr:
        pytest.skip("no ThreadSanitizer")
    assert built.returncode == 0, built.stderr
    torch.manual_seed(0)
    layer, steps, batch = nn.LSTM(5, 32, bidirectional=True), 3, 3
    sequence = torch.randn(steps, batch, 5)

    def kernel(projected: Tensor, recurrent: Tensor) -> Tensor:
        data = np.array([steps, batch], np.int32).tobytes()
        data += projected.numpy().tobytes() + recurrent.numpy().tobytes()
        done = subprocess.run([program], input=data, capture_output=True)
        if b"unexpected memory mapping" in done.stderr:
            pytest.skip("ThreadSanitizer does not run under this system's memory layout")
        assert done.returncode == 0, done.stderr.decode()
        output = np.frombuffer(done.stdout, np.float32).reshape(steps, batch, 64)
        return torch.from_numpy(output.copy())

    with torch.no_grad():
        expected, _ = layer(sequence)
        actual, _ = OwnLSTM(layer, kernel)(sequence)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize(("hidden", "tile"), [(256, 8), (128, 1)])
def test_it_compiles_and_its_weights_stay_in_registers(hidden: int, tile: int, tmp_path: Path) -> None:
    command = ["nvcc", "-arch=sm_90", "-cubin", "-Xptxas", "-v", f"-DHIDDEN={hidden}", f"-DTILE={tile}"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "x.cubin"), str(SOURCE)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "0 bytes spill stores, 0 bytes spill loads" in done.stderr
