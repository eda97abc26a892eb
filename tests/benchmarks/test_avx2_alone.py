"""A command with AVX2 alone: every library finds a CPU without AVX-512, and multiplies as on one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.speed.avx2_alone import with_avx2_alone
from crnn_deploy.runtime.backends.cpu import kind_of

ROOT = Path(__file__).parents[2]
ASK = """
import json
import numpy as np, onnxruntime, torch
from onnx import TensorProto, helper
from numpy._core._multiarray_umath import __cpu_features__
from crnn_deploy.runtime.backends import cpu

wide = 64
values = [helper.make_tensor_value_info("a", TensorProto.UINT8, [1, wide])]
sums = [helper.make_tensor_value_info("y", TensorProto.INT32, [1, wide])]
weights = np.full((wide, wide), 127, np.int8)
graph = helper.make_graph(
    [helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "g", values, sums,
    [helper.make_tensor("b", TensorProto.INT8, weights.shape, weights.tobytes(), raw=True)],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
product = session.run(None, {"a": np.full((1, wide), 255, np.uint8)})[0]
print(json.dumps({
    "kind": cpu.kind(),
    "torch": torch.backends.cpu.get_cpu_capability(),
    "numpy": [name for name, there in __cpu_features__.items() if there and name.startswith("AVX512")],
    "exact": bool((product == 255 * 127 * wide).all()),
}))
"""


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "benchmarks.speed.avx2_alone", *command]
    return subprocess.run(line, capture_output=True, text=True, cwd=ROOT)


@pytest.fixture(scope="module")
def able() -> None:
    if (tried := ran("true")).returncode:
        pytest.skip(f"nothing can be hidden on this machine: {tried.stderr.strip().splitlines()[-1]}")


@pytest.mark.usefixtures("able")
def test_libraries_find_avx2_and_nothing_later() -> None:
    """ONNX Runtime does not name its kernels, but without VNNI its sums of bytes stop at 16 bits."""
    done = ran(sys.executable, "-c", ASK)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"kind": "avx2", "torch": "AVX2", "numpy": [], "exact": False}


@pytest.mark.usefixtures("able")
def test_a_program_that_was_started_by_the_command_finds_the_same() -> None:
    inner = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    assert ran("sh", "-c", f'"{sys.executable}" -c "{inner}"').stdout == "AVX2\n"


@pytest.mark.usefixtures("able")
def test_the_exit_code_and_the_faults_are_the_commands_own() -> None:
    assert ran("sh", "-c", "exit 7").returncode == 7
    fault = "import ctypes, faulthandler; faulthandler.enable(); ctypes.string_at(0)"
    assert ran(sys.executable, "-c", fault).returncode == 128 + signal.SIGSEGV


@pytest.mark.usefixtures("able")
@pytest.mark.parametrize("model", ["latin.int8", "chinese.int8"])
def test_shipped_int8_models_give_the_same_confidences(model: str) -> None:
    """Their weights have 7 bits, so no sum of bytes stops at 16 bits."""
    infer = [sys.executable, "-m", "crnn_deploy", "infer", "examples/images", "--model", model]
    infer += ["--format", "jsonl", "--device", "cpu"]
    here = subprocess.run(infer, capture_output=True, text=True, cwd=ROOT)
    assert here.stdout.count("confidence") >= 12, here.stderr
    assert ran(*infer).stdout == here.stdout


def test_no_later_instruction_is_named() -> None:
    flags = "avx avx2 avx512f avx512_vnni avx_vnni avx512_bf16 amx_tile amx_int8 amx_bf16 avx10 fma"
    told = with_avx2_alone(f"processor\t: 0\nmodel name\t: A CPU\nflags\t\t: {flags}\n\n")
    assert told == "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: avx avx2 fma\n\n"
    assert kind_of("x86_64", frozenset(flags.split())) == "avx512-vnni-bf16-amx"


def test_without_a_command_it_says_what_to_give() -> None:
    done = ran()
    assert done.returncode == 2 and "give a command" in done.stderr
