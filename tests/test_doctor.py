"""`doctor` in environments good and bad, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crnn_deploy.cli.main import main
from crnn_deploy.runtime.backends import driver

HEAVY = (
    *("numpy", "cv2", "torch", "onnx", "onnxruntime", "onnxscript", "safetensors", "rapidfuzz", "jinja2"),
    *("PIL", "pydantic", "tensorrt", "tensorrt_rtx", "pycuda", "cuda", "numba", "kenlm"),
)


def doctor(setup: str, *arguments: str) -> tuple[int, str]:
    code = (
        f"import sys\n{setup}\nfrom crnn_deploy.cli.main import main; main(['doctor', *{list(arguments)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def found(text: str, kind: str = "libraries") -> dict[str, Any]:
    return {item["name"]: item for item in json.loads(text)[kind]}


def test_in_a_bare_environment_it_names_every_install() -> None:
    code, text = doctor(f"sys.modules.update(dict.fromkeys({HEAVY!r}))", "--json")
    libraries, commands = found(text), found(text, "commands")
    assert code == 1 and json.loads(text)["healthy"] is False
    assert libraries["Python"]["status"] == "works"
    others = {name: item for name, item in libraries.items() if name not in ("Python", "NVIDIA driver")}
    assert {item["status"] for item in others.values()} == {"missing"}
    assert all("pip install" in item["install"] for item in others.values())
    assert libraries["TensorRT"]["install"] == "pip install 'crnn-deploy[tensorrt]'"
    assert {item["status"] for item in commands.values()} == {"missing"}
    assert "needs NumPy, OpenCV, ONNX Runtime" in commands["infer"]["detail"]


@pytest.mark.parametrize("suffix", ["onnx", "engine", "pth"])
@pytest.mark.parametrize("kind", ["empty", "text", "fifo", "folder", "link to itself", "kernel", "no UTF-8"])
def test_a_file_that_is_no_model_is_one_line(kind: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"odd.{suffix}"
    if kind in ("empty", "text"):
        path.write_text("" if kind == "empty" else "text\n")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "no UTF-8":
        path = Path(os.fsdecode(bytes(tmp_path) + b"/\xff\x1b." + suffix.encode()))
        path.touch()
    else:
        path.symlink_to(path if kind == "link to itself" else "/proc/kmsg")
    done = CliRunner().invoke(main, ["doctor", "--model", str(path)])
    assert done.exit_code == 2 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_here() -> None:
    """Against what the package metadata and the driver say; and the table names the same."""
    code, text = doctor("", "--json")
    libraries = found(text)
    assert code == 0 and found(text, "commands")["infer"]["status"] == "works"
    version = metadata.version("onnxruntime")
    runtime = libraries["ONNX Runtime"]["detail"]
    assert runtime.startswith(f"{version}, runs on ") and "CPU" in runtime.partition(";")[0]
    assert libraries["NumPy"]["detail"] == metadata.version("numpy")
    assert (libraries["NVIDIA driver"]["status"] == "works") == (driver.probe().problem is None)


@pytest.mark.parametrize(
    ("setup", "library", "status", "expected"),
    [
        (  # a provider that is built in but whose libraries are absent
            "import onnxruntime as o; o.get_available_providers = lambda:"
            " ['CUDAExecutionProvider', 'CPUExecutionProvider']",
            "ONNX Runtime",
            "works",
            "runs on CPU; built in and not usable here: CUDA",
        ),
        (
            "import onnxruntime; onnxruntime.__version__ = '1.20.1'",
            "ONNX Runtime",
            "broken",
            "ONNX Runtime 1.20.1 is too old",
        ),
        (
            "import pathlib, tempfile, onnxruntime\n"
            "site = pathlib.Path(tempfile.mkdtemp()); sys.path.insert(0, str(site))\n"
            "(site / 'onnxruntime').symlink_to(pathlib.Path(onnxruntime.__file__).parent)\n"
            "for name in ('onnxruntime', 'onnxruntime_gpu'): (site / f'{name}-1.dist-info').mkdir()",
            "ONNX Runtime",
            "broken",
            "onnxruntime and onnxruntime-gpu overwrite each other's files",
        ),
        (
            "import types, importlib.abc, importlib.machinery\n"
            "class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):\n"
            "    def find_spec(self, name, path, target=None):\n"
            "        if name == 'cv2': return importlib.machinery.ModuleSpec(name, self)\n"
            "    def exec_module(self, module): raise ImportError('libGL.so.1: cannot open it')\n"
            "sys.meta_path.insert(0, Broken())",
            "OpenCV",
            "broken",
            "libGL.so.1: cannot open it",
        ),
    ],
)
def test_what_is_broken(setup: str, library: str, status: str, expected: str) -> None:
    light = "sys.modules['torch'] = None\n"  # quicker
    code, text = doctor(light + setup, "--json")
    item = found(text)[library]
    assert item["status"] == status and expected in item["detail"], item
    assert (code == 0) == (status == "works")
    assert (item["install"] is None) == (status == "works")


def test_the_table() -> None:
    code, text = doctor(f"sys.modules.update(dict.fromkeys({HEAVY!r}))")
    lines = text.splitlines()
    assert code == 1 and lines[0] == "libraries:" and "commands:" in lines
    at = next(i for i, line in enumerate(lines) if line.startswith("  OpenCV"))
    assert lines[at].split()[1] == "missing" and lines[at + 1].strip() == "-> pip install 'crnn-deploy'"


@pytest.mark.parametrize(("code", "expected"), [(100, "no CUDA-capable GPU"), (34, "stub"), (7, "error 7")])
def test_a_driver_that_does_not_start(code: int, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Library:
        def __init__(self, name: str) -> None:
            pass

        def cuInit(self, flags: int) -> int:  # noqa: N802
            return code

    monkeypatch.setattr("ctypes.CDLL", Library)
    probed = driver.probe()
    assert probed.gpus == () and probed.problem is not None and expected in probed.problem
