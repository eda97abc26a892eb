"""Nothing leaves the machine: what commands ask the kernel for, as strace tells it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")

from crnn_deploy.models import DEFAULT

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "examples" / "images"
LABELS = ROOT / "examples" / "labels.txt"
# sockets to anywhere but this machine's own processes, and what comes before one
OUTWARDS = re.compile(r"\b(AF_INET6?|AF_NETLINK|AF_PACKET|AF_VSOCK)\b|/etc/(resolv\.conf|hosts|gai\.conf)")
CALLS = "trace=network,openat,open"


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode == 0


def traced(words: Sequence[str | Path], folder: Path) -> tuple[list[str], list[str]]:
    """The calls of a Python and its children that look outwards, and the files they leave in a fresh home.

    Of the environment they have what they need alone: ONNX Runtime does not report where CI is set, either.
    """
    if not strace_works():
        pytest.skip("needs strace, and a system that lets it trace")
    home, log = folder / "home", folder / "strace"
    home.mkdir()
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", CALLS, "-e", "signal=none", "-o", log, sys.executable, *words],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    calls = [line for line in log.read_text(errors="replace").splitlines() if OUTWARDS.search(line)]
    own = ("crnn-deploy-v1", "matplotlib")
    left = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    return calls, [str(path) for path in left if not set(own) & set(path.parts)]


@pytest.mark.parametrize(
    ("words", "library"),
    [
        (["infer", IMAGES], "onnxruntime"),  # the README's first command
        (["infer", "--backend", "openvino", IMAGES], "openvino"),
        (["infer", "--backend", "auto", IMAGES], "openvino"),
        (["infer", "--decoder", "beam", IMAGES], "numba"),
        (["evaluate", DEFAULT, LABELS], "rapidfuzz"),
        (["inspect", DEFAULT], "onnx"),
        (["doctor"], "onnxruntime"),
    ],
    ids=lambda value: (
        " ".join(word for word in value if isinstance(word, str)) if isinstance(value, list) else ""
    ),
)
def test_a_command_calls_nobody(words: list[str | Path], library: str, tmp_path: Path) -> None:
    if find_spec(library) is None:
        pytest.skip(f"no {library}")
    assert traced(["-m", "crnn_deploy", *words], tmp_path) == ([], [])


# ONNX Runtime's telemetry looks up its host every ten seconds, and not before some have passed
LONG = f"""
import time
from crnn_deploy import Recognizer
reader, until = Recognizer(), time.monotonic() + 14
while time.monotonic() < until:
    assert [text.text for text in reader.read([{str(IMAGES / "01.png")!r}])] == ["Printed"]
    time.sleep(0.2)
"""


def test_a_long_run_calls_nobody(tmp_path: Path) -> None:
    assert traced(["-c", LONG], tmp_path) == ([], [])


def test_strace_would_show_a_call(tmp_path: Path) -> None:
    """Else the tests above say nothing."""
    code = "import socket\ntry: socket.create_connection(('localhost', 9), 1)\nexcept OSError: pass"
    calls, _ = traced(["-c", code], tmp_path)
    assert any("AF_INET" in call for call in calls)


def first_lines(path: Path) -> dict[str, int]:
    """Where a file imports a package outside of functions, first."""
    found: dict[str, int] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            continue
        for name in names:
            found.setdefault(name.partition(".")[0], node.lineno)
    return found


SCRIPTS = sorted(
    path for name in ("benchmarks", "export", "training", "tests") for path in (ROOT / name).rglob("*.py")
)


def test_scripts_import_the_package_before_onnx_runtime() -> None:
    """Which reads whether it may report when it is imported. Tests are begun by their conftest.py."""
    assert "onnxruntime" not in first_lines(ROOT / "tests" / "conftest.py")
    for path in SCRIPTS:
        lines = first_lines(path)
        if "onnxruntime" in lines and ROOT / "tests" not in path.parents:
            assert lines.get("crnn_deploy", sys.maxsize) < lines["onnxruntime"], path
    lines = first_lines(ROOT / "tests" / "conftest.py")
    assert lines["crnn_deploy"] == min(
        line for name, line in lines.items() if name not in sys.stdlib_module_names
    )


def test_a_user_who_decides_otherwise_is_heard() -> None:
    code = "import crnn_deploy, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for environment, expected in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        shown = subprocess.run(
            [sys.executable, "-c", code],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
        )
        assert shown.stdout == f"{expected}\n", shown.stderr
