"""Signals to the command: answered soon whatever native code does, and in the same way at any moment."""

from __future__ import annotations

import gc
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import NodeProto, TensorProto, helper, numpy_helper  # noqa: E402

from crnn_deploy.manifest import METADATA_KEY, Manifest, StepRule, WidthRule  # noqa: E402
from crnn_deploy.process import without_collector  # noqa: E402

ROOT = Path(__file__).parents[1]
MOMENTS = 15
MANIFEST = Manifest(
    alphabet=("a", "b"),
    blank=0,
    color="gray",
    height=3,
    width=WidthRule(8, 64, multiple=4),
    mean=(0.5,),
    std=(0.5,),
    interpolation="linear",
    steps=StepRule(1, 0),
)


def save(path: Path, *nodes: NodeProto, **constants: object) -> Path:
    """A network whose logits are the columns of `images2`, which the nodes make of `images`."""
    ends = [
        helper.make_node("Squeeze", ["images2", "one"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["logits"], perm=[0, 2, 1]),
    ]
    graph = helper.make_graph(
        [*nodes, *ends],
        "columns",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 1, 3, "width"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "width", 3])],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in {"one": [1], **constants}.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {METADATA_KEY: MANIFEST.to_json()})
    onnx.save(model, path)
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A network that never ends on an image with a white pixel: a loop of 2^62 rounds."""
    true = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("value", "value2")]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go2"]), helper.make_node("Neg", ["value"], ["value2"])],
        "body",
        [helper.make_tensor_value_info("round", TensorProto.INT64, []), true, tensor[0]],
        [helper.make_tensor_value_info("go2", TensorProto.BOOL, []), tensor[1]],
    )
    return save(
        tmp_path / "endless.onnx",
        helper.make_node("ReduceMax", ["images"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "white"], ["is_white"]),
        helper.make_node("Cast", ["is_white"], ["times"], to=TensorProto.INT64),
        helper.make_node("Mul", ["times", "most"], ["rounds"]),
        helper.make_node("Loop", ["rounds", "always", "images"], ["images2"], body=body),
        white=np.float32(0.9),
        most=np.int64(2**62),
        always=np.array(True),
    )


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """A network of products of constants, which ONNX Runtime computes for minutes when it loads it."""
    names = [f"square{at}" for at in range(40)]
    products = [helper.make_node("MatMul", [one, names[0]], [two]) for one, two in pairwise(names)]
    return save(
        tmp_path / "slow.onnx",
        helper.make_node("ConstantOfShape", ["size"], [names[0]]),
        *products,
        helper.make_node("ReduceMax", [names[-1]], ["zero"], keepdims=0),
        helper.make_node("Add", ["images", "zero"], ["images2"]),
        size=np.array([6000, 6000]),
    )


def write(path: Path, grey: int) -> None:
    cv2.imwrite(str(path), np.full((3, 8), grey, np.uint8))


@contextmanager
def command(folder: Path, *words: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A command that is started as a shell in the foreground does."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, *map(str, words)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None and process.stderr.readline() == "up\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# A test run in the background has SIGINT ignored. Until Python itself has started, its answer is its own.
START = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("up", file=sys.stderr, flush=True)
from crnn_deploy.__main__ import run
run()
"""


def family(pid: int) -> list[list[str]]:
    """Fields of /proc/PID/stat, from the third one on, of a process and its children."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if pid in (int(path.parent.name), int(fields[1])):
                found.append(fields)
    return found


def used(fields: list[str]) -> float:
    """Seconds of the CPU."""
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def works(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait until a process and those that it has started have used so many seconds of the CPU."""
    until = time.monotonic() + 200
    while time.monotonic() < until and process.poll() is None:
        if sum(map(used, family(process.pid))) > seconds:
            return
        time.sleep(0.05)
    process.kill()
    pytest.fail(f"it has ended: {process.communicate()}")


def stop(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[int, str, str]:
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=20)
    return process.returncode, stdout, stderr


def test_a_network_that_never_ends_is_left(endless: Path, tmp_path: Path) -> None:
    """What is done by then is kept, and --resume goes on."""
    (tmp_path / "images").mkdir()
    for number in range(40):
        write(tmp_path / "images" / f"{number:02}.png", 255 if number == 20 else 0)
    run: list[str | Path] = [
        "infer",
        "--model",
        endless,
        "--batch",
        "1",
        "--format",
        "jsonl",
        "-o",
        "out",
        "images",
    ]
    with command(tmp_path, *run) as process:
        works(process, 4)
        before = sorted(os.listdir(tmp_path))
        code, _, stderr = stop(process)
    assert (code, stderr) == (130, "stopped after 20 images; --resume goes on\n")
    assert (tmp_path / "out").read_bytes().count(b"\n") == 20
    assert sorted(os.listdir(tmp_path)) == before
    write(tmp_path / "images" / "20.png", 0)
    with command(tmp_path, *run, "--resume") as process:
        assert process.communicate(timeout=100) == ("", "") and process.returncode == 0
    assert (tmp_path / "out").read_bytes().count(b"\n") == 40


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (["infer", "--model", "slow.onnx", "white.png"], signal.SIGINT),
        (["evaluate", "endless.onnx", "labels.txt"], signal.SIGTERM),
        (["verify", "slow.onnx", "slow.onnx"], signal.SIGINT),
    ],
    ids=["infer", "evaluate", "verify"],
)
def test_native_code_that_never_ends(
    words: Sequence[str], number: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """While a model is loaded and while it runs, in commands that watch for signals and in others."""
    if words[0] != "infer":
        pytest.importorskip("rapidfuzz")
    request.getfixturevalue(Path(next(word for word in words if word.endswith(".onnx"))).stem)
    write(tmp_path / "white.png", 255)
    (tmp_path / "labels.txt").write_text("white.png a\n")
    cache = Path(os.environ["CRNN_DEPLOY_CACHE"])
    before = sorted(path for folder in (tmp_path, cache) for path in folder.rglob("*"))
    with command(tmp_path, *words) as process:
        works(process, 5)
        code, stdout, stderr = stop(process, number)
    assert (code, stdout, stderr) == (130, "", "\nstopped\n")
    assert [path for path in before if not path.exists()] == []
    assert [path for path in tmp_path.rglob("*") if path not in before] == []
    assert not list(cache.rglob(".*.tmp"))


@pytest.mark.parametrize("command_line", [["infer", str(ROOT / "examples" / "images")], ["--version"]])
def test_a_signal_at_any_moment(command_line: list[str], tmp_path: Path) -> None:
    """Also while Python and the libraries are being imported: never an error, never a traceback."""
    with command(tmp_path, *command_line) as process:
        begun = time.monotonic()
        whole, _ = process.communicate(timeout=100)
        took = time.monotonic() - begun
    for at in range(MOMENTS):
        with command(tmp_path, *command_line) as process:
            time.sleep(at * took / MOMENTS)
            if process.poll() is None:
                code, stdout, stderr = stop(process)
                assert code in (0, 130, -signal.SIGINT), stderr
                assert whole.startswith(stdout) if code else stdout == whole
                assert stderr in ("", "\nstopped\n") or stderr.startswith("stopped after"), stderr


def ran(code: str, folder: Path, *signals: float) -> tuple[int, str, str]:
    """A program that answers signals, stopped so many seconds after it has begun."""
    program = (
        "import os, signal, time; from pathlib import Path\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "from crnn_deploy.files import replacing; from crnn_deploy.process import Stop, answer_signals\n"
        f"{code}"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    for seconds in signals:
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


SAVING = """
with answer_signals(), Stop(finishes="when this step is saved") as stop:
    print("begun", flush=True)
    while not stop(): time.sleep(0.01)
    time.sleep(4)
    Path("saved").touch()
"""


def test_what_saves_is_let_go_on(tmp_path: Path) -> None:
    code, _, stderr = ran(SAVING, tmp_path, 0)
    assert (code, stderr) == (0, "\nstopping when this step is saved; Ctrl-C again ends at once\n")
    assert (tmp_path / "saved").exists()


def test_a_second_signal_ends_what_saves(tmp_path: Path) -> None:
    code, _, _ = ran(SAVING, tmp_path, 0, 0.5)
    assert code == -signal.SIGINT and not (tmp_path / "saved").exists()


def test_a_file_that_is_being_written_is_gone(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("before")
    code, _, stderr = ran(
        "with answer_signals(), Stop(), replacing(Path('out')) as path:\n"
        "    path.write_text('after')\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(60)",
        tmp_path,
        0,
    )
    assert (code, stderr) == (130, "\nstopped\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_signal_in_a_finalizer(tmp_path: Path) -> None:
    """Python ignores the KeyboardInterrupt there. The command ends all the same, without a traceback."""
    code, _, stderr = ran(
        "class Last:\n"
        "    def __del__(self): print('begun', flush=True); time.sleep(60)\n"
        "with answer_signals():\n"
        "    Last()\n"
        "    time.sleep(60)",
        tmp_path,
        0,
    )
    assert (code, stderr) == (130, "\nstopped\n")


def test_threads_in_native_code_are_not_waited_for(tmp_path: Path) -> None:
    code, _, stderr = ran(
        "import threading\n"
        "with answer_signals():\n"
        "    threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "    with Stop() as stop:\n"
        "        print('begun', flush=True)\n"
        "        while not stop(): time.sleep(0.01)",
        tmp_path,
        0,
    )
    assert (code, stderr) == (130, "")


def test_a_signal_to_a_forked_process_is_none_to_its_parent(tmp_path: Path) -> None:
    code, stdout, stderr = ran(
        "with answer_signals():\n"
        "    if (child := os.fork()) == 0: time.sleep(60); os._exit(1)\n"
        "    print('begun', flush=True)\n"
        "    time.sleep(2)\n"  # until the child has gone on from its fork
        "    os.kill(child, signal.SIGTERM)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)\n"
        "    time.sleep(3)",
        tmp_path,
    )
    assert (code, stdout, stderr) == (0, f"{-signal.SIGTERM}\n", "")


@pytest.mark.parametrize("stdout", [">&-", "> /dev/full"])
@pytest.mark.parametrize(
    "words",
    [["infer", str(ROOT / "examples" / "images")], ["doctor"], ["--version"]],
    ids=lambda words: words[0],
)
def test_a_stdout_that_takes_nothing_is_one_line(words: list[str], stdout: str) -> None:
    line = shlex.join([sys.executable, "-m", "crnn_deploy", *words])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", f"exec {line} {stdout}"], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode in (1, 2) and re.fullmatch(r"Error: [^\n]+\n", done.stderr), done.stderr


def test_a_file_does_not_take_the_place_of_a_closed_stdout(tmp_path: Path) -> None:
    image = ROOT / "examples" / "images" / "01.png"
    line = shlex.join([sys.executable, "-m", "crnn_deploy", "infer", "-o", "out", str(image)])
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["sh", "-c", f"exec {line} <&- >&- 2>&-"], cwd=tmp_path, env=environment, timeout=200
    )
    assert (done.returncode, (tmp_path / "out").read_text()) == (0, f"{image}\tPrinted\n")


def test_the_collector_is_as_before_behind_its_pause() -> None:
    with pytest.raises(ValueError), without_collector():
        assert not gc.isenabled()
        raise ValueError
    assert gc.isenabled()
    gc.disable()
    try:
        with without_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "99900000 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_a_quota_of_the_container_bounds_the_cpus(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    """expected: None where the CPUs of the affinity count"""
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    printed = "from crnn_deploy.process import cpus; print(cpus())"
    script = 'mount --bind "$1" /sys/fs/cgroup && exec "$2" -c "$3"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable, printed]
    if shutil.which("unshare") is None:
        pytest.skip("needs util-linux")
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip(f"needs the right to mount: {run.stderr}")
    assert int(run.stdout) == (expected or len(os.sched_getaffinity(0)))
