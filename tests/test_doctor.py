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
from crnn_deploy.commands import COMMANDS, LIBRARIES
from crnn_deploy.runtime.backends import driver

HEAVY = tuple(
    name
    for one in LIBRARIES.values()
    if one.module != "click"
    for name in {one.module, one.module.split(".")[0]}
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
    others = {
        name: item for name, item in libraries.items() if name not in ("Python", "click", "NVIDIA driver")
    }
    assert {item["status"] for item in others.values()} == {"missing"}
    assert all("pip install" in item["install"] for item in others.values())
    assert others.keys() == LIBRARIES.keys() - {"click"}
    assert libraries["TensorRT"]["install"] == "pip install 'crnn-deploy[tensorrt]'"
    assert commands.keys() == COMMANDS.keys()
    assert {name for name, item in commands.items() if item["status"] == "works"} == {"doctor", "recipes"}
    assert commands["infer"]["detail"] == "needs NumPy, OpenCV, ONNX Runtime"
    assert commands["infer"]["install"].endswith("; pip install 'crnn-deploy[cpu]'")
    assert commands["train"]["install"].endswith("; pip install 'crnn-deploy[train]'")


def test_a_command_says_what_it_cannot_do() -> None:
    absent = ("torch", "jinja2", "matplotlib", "openvino", "tensorrt", "tensorrt_rtx")
    code, text = doctor(f"sys.modules.update(dict.fromkeys({absent!r}))", "--json")
    commands = found(text, "commands")
    assert code == 0
    limits = {limit["what"]: limit for limit in commands["evaluate"]["limits"]}
    assert limits["of checkpoints"]["needs"] == ["PyTorch"]
    assert limits["of checkpoints"]["install"] == "pip install 'crnn-deploy[export]'"
    assert limits["of .engine files"]["needs"][0] == "TensorRT-RTX or TensorRT"
    assert "with --html: needs Jinja2" in commands["evaluate"]["detail"]
    html = next(one for one in commands["quantize"]["limits"] if one["what"] == "with --html")
    assert html["install"] == "pip install 'crnn-deploy[evaluate,train]'"
    assert commands["build-engine"]["detail"].startswith("needs TensorRT-RTX or TensorRT")
    assert commands["build-engine"]["install"] == "pip install 'crnn-deploy[tensorrt-rtx]'"
    assert commands["set-decoding"]["detail"] == "" and commands["set-decoding"]["limits"] == []


def test_openvino_alone_reads_images_and_a_broken_onnxruntime_is_not_fine() -> None:
    pytest.importorskip("openvino")
    code, text = doctor("sys.modules['onnxruntime'] = sys.modules['torch'] = None", "--json")
    infer = found(text, "commands")["infer"]
    assert code == 0 and infer["status"] == "works"
    assert "with --backend onnxruntime, the default: needs ONNX Runtime" in infer["detail"]


BROKEN = "raise ImportError('libxcb.so.1: cannot open shared object file: No such file or directory')\n"


@pytest.mark.parametrize(
    ("module", "body", "command", "expected"),
    [
        ("cv2", BROKEN, "infer data/01.png", "OpenCV cannot be imported: libxcb.so.1: cannot open shared"),
        ("cv2", BROKEN, "benchmark latin", "OpenCV cannot be imported: libxcb.so.1"),
        ("cv2", "import absent_part\n", "infer data/01.png", "OpenCV cannot be imported: No module named"),
        ("onnxruntime", BROKEN, "infer data/01.png", "ONNX Runtime cannot be imported: libxcb.so.1"),
        ("onnx", BROKEN, "set-decoding data/01.png -o x.onnx", "ONNX cannot be imported: libxcb.so.1"),
        (
            "numpy",
            "try:\n    raise OSError('libblas.so: no')\nexcept OSError as e:\n"
            "    raise ImportError('\\n\\nIMPORTANT: PLEASE READ THIS FOR ADVICE') from e\n",
            "infer data/01.png",
            "NumPy cannot be imported: libblas.so: no",
        ),
    ],
    ids=["cv2", "cv2-benchmark", "cv2-part", "onnxruntime", "onnx", "numpy"],
)
def test_a_command_says_how_a_broken_library_is_mended(
    module: str, body: str, command: str, expected: str, tmp_path: Path
) -> None:
    """The remedy is that of doctor."""
    package = tmp_path / "broken" / module
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(body)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "01.png").touch()
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path / 'broken'}{os.pathsep}{Path(__file__).parents[1]}",
    }
    run = [sys.executable, "-m", "crnn_deploy"]
    done = subprocess.run(
        [*run, *command.split()], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 2, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith(f"Error: {expected}")
    name = next(name for name, one in LIBRARIES.items() if one.module == module)
    asked = subprocess.run(
        [*run, "doctor", "--json"], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60
    )
    library = found(asked.stdout)[name]
    assert library["status"] == "broken" and line.endswith(f"; to mend it: {library['install']}")


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
    assert lines[at].split()[1] == "missing" and lines[at + 1].strip().endswith(" opencv-python-headless")


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
