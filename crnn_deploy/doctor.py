"""What of the toolkit works on this machine, what is missing, and which command installs it.

Imports nothing but the standard library until it looks, so that it runs where everything else is broken.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from typing import Any, Literal

from crnn_deploy.errors import first_line
from crnn_deploy.runtime.backends import driver
from crnn_deploy.runtime.backends.installed import onnxruntime_distributions, onnxruntime_too_old

__all__ = ["Diagnosis", "Finding", "examine"]

Status = Literal["works", "missing", "broken"]

# x -> Identity -> y, ir 8, opset 13: a model to open with each of ONNX Runtime's providers
_IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a"
    "0179120a0a08080112040a02080142040a00100d"
)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for."""

    name: str
    status: Status
    detail: str  # versions where it works, else why not
    install: str | None = None  # the command that brings or mends it


@dataclass(frozen=True)
class Diagnosis:
    """All that was found."""

    libraries: tuple[Finding, ...]
    commands: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """Whether text can be read at all."""
        return all(found.status == "works" for found in self.commands if found.name == "infer")

    def to_plain(self) -> dict[str, Any]:
        return {"healthy": self.healthy, **asdict(self)}

    def table(self) -> str:
        lines = []
        for title, findings in (("libraries", self.libraries), ("commands", self.commands)):
            lines.append(f"{title}:")
            for found in findings:
                lines.append(f"  {found.name:16}{found.status:9}{found.detail}")
                if found.install is not None:
                    lines.append(f"{'':27}-> {found.install}")
        return "\n".join(lines)


def examine() -> Diagnosis:
    """Look at everything, import by import."""
    found = {item.name: item for item in _libraries()}
    return Diagnosis(tuple(found.values()), tuple(_command(found, *command) for command in _COMMANDS))


def _libraries() -> list[Finding]:
    nvidia = driver.probe()
    return [
        Finding("Python", "works", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        _library("NumPy", "numpy", "crnn-deploy"),
        _library("OpenCV", "cv2", "crnn-deploy"),
        _onnxruntime(),
        _library("PyTorch", "torch", "crnn-deploy[export]", _torch),
        _library("ONNX", "onnx", "crnn-deploy[export]"),
        _library("onnxscript", "onnxscript", "crnn-deploy[export]"),
        _library("safetensors", "safetensors", "crnn-deploy[export]"),
        _library("RapidFuzz", "rapidfuzz", "crnn-deploy[evaluate]"),
        _library("Jinja2", "jinja2", "crnn-deploy[evaluate]"),
        _library("numba", "numba", "crnn-deploy[decode]"),
        _library("KenLM", "kenlm", "crnn-deploy[kenlm]", lambda _: metadata.version("kenlm")),
        _library("Pydantic", "pydantic", "crnn-deploy[train]"),
        _library("Pillow", "PIL", "crnn-deploy[train]"),
        _library("TensorRT", "tensorrt", "crnn-deploy[tensorrt]"),
        _library("TensorRT-RTX", "tensorrt_rtx", "crnn-deploy[tensorrt-rtx]"),
        _driver(nvidia),
        _library("PyCUDA", "pycuda.driver", "crnn-deploy[pycuda]", lambda _: metadata.version("pycuda")),
        _library(
            "cuda-bindings",
            "cuda.bindings.driver",
            "crnn-deploy[cuda]",
            lambda _: metadata.version("cuda-bindings"),
        ),
    ]


def _library(
    name: str,
    module: str,
    extra: str,
    describe: Callable[[Any], str] = lambda module: str(module.__version__),
) -> Finding:
    install = f"pip install '{extra}'"
    try:
        return Finding(name, "works", describe(import_module(module)))
    except ModuleNotFoundError as error:
        # its own name or one above it: not there; another: a part of it is missing
        if module.startswith(error.name or " "):
            return Finding(name, "missing", "not installed", install)
        return Finding(name, "broken", first_line(error), install)
    except Exception as error:  # what a broken library raises when it is imported is its own affair
        return Finding(name, "broken", first_line(error), _MENDS.get(module, f"{install} --force-reinstall"))


_MENDS = {  # where reinstalling does not help
    "cv2": "apt-get install libgl1 libglib2.0-0, or pip install opencv-python-headless",
    "pycuda.driver": "install NVIDIA's driver (PyCUDA loads libcuda.so.1)",
}


def _torch(torch: Any) -> str:
    if torch.version.cuda is None:
        return f"{torch.__version__}, CPU build"
    return (
        f"{torch.__version__}, CUDA {torch.version.cuda}, GPU {'yes' if torch.cuda.is_available() else 'no'}"
    )


def _onnxruntime() -> Finding:
    if len(onnxruntime_distributions()) == 2:
        return Finding(
            "ONNX Runtime",
            "broken",
            "onnxruntime and onnxruntime-gpu overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'crnn-deploy[cpu]' or [gpu]",
        )
    return _library("ONNX Runtime", "onnxruntime", "crnn-deploy[cpu]", _providers)


def _providers(ort: Any) -> str:
    """Those that open a model: a provider whose libraries are absent is listed all the same, and not used."""
    if (reason := onnxruntime_too_old(ort.__version__)) is not None:
        raise ImportError(reason)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    real: list[str] = []
    absent: list[str] = []
    for provider in ort.get_available_providers():
        try:
            used = ort.InferenceSession(_IDENTITY, options, providers=[provider]).get_providers()
        except Exception:  # ONNX Runtime's exceptions share no base class
            used = []
        (real if provider in used else absent).append(provider.removesuffix("ExecutionProvider"))
    idle = f"; built in and not usable here: {', '.join(absent)}" if absent else ""
    return f"{ort.__version__}, runs on {', '.join(real) or 'nothing'}{idle}"


def _driver(nvidia: driver.Driver) -> Finding:
    if nvidia.problem is not None:
        install = "install NVIDIA's driver; in a container, start it with --gpus all"
        return Finding("NVIDIA driver", "missing", nvidia.problem, install)
    gpus = ", ".join(f"{gpu.name} ({gpu.target}, {gpu.memory / 2**30:.0f} GiB)" for gpu in nvidia.gpus)
    return Finding("NVIDIA driver", "works", f"{nvidia.version or '?'}, CUDA {nvidia.cuda}: {gpus}")


# what each command needs: every library of the first list, and one of the second where it is not empty
_BASE = ("NumPy", "OpenCV", "ONNX Runtime")
_EXPORT = (*_BASE, "PyTorch", "ONNX", "onnxscript", "safetensors", "RapidFuzz")
_COMMANDS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("infer", _BASE, ()),
    ("export", _EXPORT, ()),
    ("evaluate", (*_BASE, "RapidFuzz", "Jinja2"), ()),
    ("train", (*_EXPORT, "Pydantic", "Pillow"), ()),
    ("build-engine", _EXPORT, ("TensorRT", "TensorRT-RTX")),
)


def _command(found: dict[str, Finding], name: str, every: Sequence[str], one: Sequence[str]) -> Finding:
    lacking = [found[library] for library in every if found[library].status != "works"]
    if one and not any(found[library].status == "works" for library in one):
        lacking.append(found[one[-1]])
    if not lacking:
        return Finding(name, "works", "")
    return Finding(name, "missing", f"needs {', '.join(item.name for item in lacking)}", lacking[0].install)
