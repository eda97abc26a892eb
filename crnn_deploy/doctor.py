"""What of the toolkit works on this machine, what is missing, and which command installs it.

Imports nothing but the standard library until it looks, so that it runs where everything else is broken.
"""

from __future__ import annotations

import platform
import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, Literal

from crnn_deploy.commands import (
    COMMANDS,
    DRIVER,
    LIBRARIES,
    Command,
    Library,
    Need,
    extra_for,
    extras_for,
    library_of,
)
from crnn_deploy.errors import CrnnDeployError, LibraryBroken, LibraryMissing, first_line
from crnn_deploy.runtime.backends import driver
from crnn_deploy.runtime.backends.installed import onnxruntime_distributions, onnxruntime_too_old
from crnn_deploy.runtime.backends.openvino_import import without_telemetry

__all__ = ["Ability", "Diagnosis", "Finding", "Limit", "examine", "explained"]

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
class Limit:
    """What a command that works cannot do here."""

    what: str  # as it stands after the command's name
    needs: tuple[str, ...]  # what is missing for it
    install: str  # the command that brings it


@dataclass(frozen=True)
class Ability(Finding):
    """A command, and how far it works."""

    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """All that was found."""

    libraries: tuple[Finding, ...]
    commands: tuple[Ability, ...]

    @property
    def healthy(self) -> bool:
        """Whether text can be read, and what reads it unless told otherwise is not broken."""
        infer = next(found for found in self.commands if found.name == "infer")
        broken = {found.name for found in self.libraries if found.status == "broken"}
        return infer.status == "works" and "ONNX Runtime" not in broken

    def to_plain(self) -> dict[str, Any]:
        return {"healthy": self.healthy, **asdict(self)}

    def table(self) -> str:
        lines = []
        for title, findings in (("libraries", self.libraries), ("commands", self.commands)):
            lines.append(f"{title}:")
            for found in findings:
                lines.append(f"  {found.name:22}{found.status:9}{found.detail}".rstrip())
                if found.install is not None:
                    lines.append(f"{'':33}-> {found.install}")
        return "\n".join(lines)


def examine() -> Diagnosis:
    """Look at everything, import by import."""
    with redirect_stdout(sys.stderr):  # what a library says of its own import
        found = {item.name: item for item in _libraries()}
    return Diagnosis(
        tuple(found.values()), tuple(_ability(name, command, found) for name, command in COMMANDS.items())
    )


def _libraries() -> list[Finding]:
    findings = [
        Finding("Python", "works", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        *(_library(name, library) for name, library in LIBRARIES.items()),
    ]
    builders = [item.name for item in findings].index("TensorRT-RTX")
    findings.insert(builders + 1, _driver(driver.probe()))
    return findings


def _library(name: str, library: Library) -> Finding:
    install = _remedy([name])
    if name == "ONNX Runtime" and len(onnxruntime_distributions()) == 2:
        return Finding(
            name,
            "broken",
            "onnxruntime and onnxruntime-gpu overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu, then pip install 'crnn-deploy[cpu]' or [gpu]",
        )
    try:
        module = _imported(name, library)
        describe = _DESCRIBE.get(name)
        return Finding(name, "works", _version(library, module) if describe is None else describe(module))
    except ModuleNotFoundError as error:
        # its own name or one above it: not there; another: a part of it is missing
        if library.module.startswith(error.name or " "):
            return Finding(name, "missing", "not installed", install)
        return Finding(name, "broken", _reason(error), _mend(name) if not library.extras else install)
    except Exception as error:  # what a broken library raises when it is imported is its own affair
        innermost = _culprit(error) if isinstance(error, ImportError | OSError) else None
        return Finding(name, "broken", _reason(error), _mend(innermost or name))


def _imported(name: str, library: Library) -> Any:
    """The module of a library; None where it is only looked for. Raises what importing it raises."""
    if name == "OpenVINO":
        return without_telemetry()
    if name != "Ray":
        return import_module(library.module)
    if find_spec(library.module) is None:  # to import it looks this machine up in the network
        raise ModuleNotFoundError(name=library.module)
    return None


def _remedy(libraries: Collection[str]) -> str:
    """The command that installs libraries that are not there."""
    if own := [name for name in libraries if not LIBRARIES[name].extras]:
        return _mend(own[0])  # pip believes that it is installed
    return f"pip install 'crnn-deploy[{','.join(extras_for(libraries))}]'"


def _mend(name: str) -> str:
    """The command for a library that is there and cannot be imported."""
    if name in _MENDS:
        return _MENDS[name]
    requirements = LIBRARIES[name].requirements
    installed = next(filter(_installed, requirements), requirements[0])
    return f"pip install --force-reinstall --no-deps {installed}"


_NO_DRIVER = "install NVIDIA's driver; in a container, start it with --gpus all"
_MENDS = {  # where reinstalling it is not enough
    # distributions of OpenCV write over each other's files, and removing one removes those of all
    "OpenCV": "pip uninstall -y opencv-python opencv-contrib-python && "
    "pip install --force-reinstall --no-deps opencv-python-headless",
    "PyCUDA": "install NVIDIA's driver (PyCUDA loads libcuda.so.1)",
}


def _installed(requirement: str) -> str | None:
    """Its version."""
    try:
        return metadata.version(requirement)
    except metadata.PackageNotFoundError:
        return None


def _version(library: Library, module: Any) -> str:
    # another distribution may have brought it, such as opencv-contrib-python
    return next(filter(None, map(_installed, library.requirements)), None) or str(module.__version__)


def _torch(torch: Any) -> str:
    if torch.version.cuda is None:
        return f"{torch.__version__}, CPU build"
    return (
        f"{torch.__version__}, CUDA {torch.version.cuda}, GPU {'yes' if torch.cuda.is_available() else 'no'}"
    )


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


_DESCRIBE: dict[str, Callable[[Any], str]] = {"ONNX Runtime": _providers, "PyTorch": _torch}


def _driver(nvidia: driver.Driver) -> Finding:
    if nvidia.problem is not None:
        return Finding(DRIVER, "missing", nvidia.problem, _NO_DRIVER)
    gpus = ", ".join(f"{gpu.name} ({gpu.target}, {gpu.memory / 2**30:.0f} GiB)" for gpu in nvidia.gpus)
    return Finding(DRIVER, "works", f"{nvidia.version or '?'}, CUDA {nvidia.cuda}: {gpus}")


def _ability(name: str, command: Command, found: Mapping[str, Finding]) -> Ability:
    """A command, held against what was found."""

    def lacking(needs: Iterable[Need]) -> list[Need]:
        return [need for need in needs if not any(found[one].status == "works" for one in need)]

    ways = [way for way in command.ways if not lacking(way.needs)]
    needs = command.needs if ways or not command.ways else (*command.needs, *command.ways[0].needs)
    if missing := lacking(needs):
        detail = f"needs {', '.join(map(' or '.join, missing))}"
        return Ability(name, "missing", detail, _install(missing, found))
    limits = tuple(
        Limit(use.what, tuple(map(" or ".join, missing)), _install(missing, found))
        for use in (*command.ways, *command.uses)
        if (missing := lacking(use.needs))
    )
    said = "; ".join(f"{limit.what}: needs {', '.join(limit.needs)}" for limit in limits)
    return Ability(name, "works", said, limits=limits)


def _install(missing: Sequence[Need], found: Mapping[str, Finding]) -> str:
    """What brings the first library of each need, and mends those that are broken."""
    names = [need[0] for need in missing]
    absent = [
        name
        for name in names
        if name in LIBRARIES and LIBRARIES[name].extras and found[name].status == "missing"
    ]
    steps = [found[name].install for name in names if name not in absent]
    if absent:
        steps.append(_remedy(absent))
    return "; ".join(dict.fromkeys(step for step in steps if step is not None))


def explained(error: Exception, command: str) -> CrnnDeployError | None:
    """What to do about the library that an error comes from; None where it comes from none.

    command: which of the toolkit's needed it
    """
    if not isinstance(error, ImportError | OSError) or (library := _culprit(error)) is None:
        return None
    top = LIBRARIES[library].module.partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or find_spec(top) is not None:
        return LibraryBroken(library, _reason(error), _mend(library))
    if LIBRARIES[library].extras:
        return LibraryMissing("this command", library, extra_for(library, command))
    return LibraryBroken(library, "it is not installed", _mend(library))


def _culprit(error: ImportError | OSError) -> str | None:
    """The library whose import raised it: it says so itself, or the innermost of those being imported."""
    if isinstance(error, ImportError) and (named := library_of(error.name or "")) is not None:
        return named
    importing = [
        frame.f_globals.get("__name__", "")
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_name == "<module>"
    ]
    return next(filter(None, map(library_of, reversed(importing))), None)


def _reason(error: BaseException) -> str:
    """One line; of the error that began it, since libraries wrap it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
