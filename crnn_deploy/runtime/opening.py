"""How a model file is run: with which library, on which device, in which precision."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from crnn_deploy.errors import BackendMissing, CrnnDeployError, ModelNotFound
from crnn_deploy.manifest import Manifest
from crnn_deploy.models import int8_files
from crnn_deploy.runtime.backends import cpu
from crnn_deploy.runtime.backends.backend import (
    Backend,
    BackendName,
    BatchSizes,
    Device,
    FloatFormat,
    open_backend,
)
from crnn_deploy.runtime.backends.onnx_file import read_metadata
from crnn_deploy.runtime.backends.weight_bits import is_quantised

__all__ = ["Int8Missing", "NotPortable", "Opening", "Precision", "PrecisionGiven", "opening"]

Precision = Literal["fp32", "bf16", "int8"]


class PrecisionGiven(CrnnDeployError, ValueError):
    """A precision that a file does not run in."""


class Int8Missing(CrnnDeployError, FileNotFoundError):
    """A model without an INT8 file that this CPU can run."""


class NotPortable(CrnnDeployError, TypeError):
    """A recogniser that cannot be sent to another process."""

    def __init__(self) -> None:
        super().__init__(
            "this Recognizer was given a network that is open already, and an open network cannot be copied "
            "or sent to another process; make it with Recognizer.load(path), which is opened anew there"
        )


@dataclass(frozen=True)
class Opening:
    """A model file and how it is run, all decided; it can be opened again, and in another process."""

    path: Path
    backend: BackendName = "onnxruntime"
    device: Device = "cpu"
    floats: FloatFormat = "fp32"
    threads: int = 1  # inside one run
    tf32: bool = False

    @property
    def can_fork(self) -> bool:
        """Whether processes that are forked can run the network that this process has opened.

        ONNX Runtime's on the CPU has no threads of its own. Those of OpenVINO, and a GPU, stay behind.
        """
        plain = self.backend == "onnxruntime" and self.device == "cpu" and self.threads == 1
        return sys.platform == "linux" and plain and self.path.suffix == ".onnx"

    def in_any_folder(self) -> Opening:
        """The same for a process that works in another folder."""
        return replace(self, path=self.path.absolute())

    def open(self) -> Backend:
        """The network. In OpenVINO the file, as it is now, is first held to the verdict (`openvino_check`).

        Raises OpenVinoRefused, and what `open_backend` raises.
        """
        batch_sizes: BatchSizes = "any"
        if self.backend == "openvino":
            from crnn_deploy.runtime.openvino_check import check_openvino  # and with it the verdict

            batch_sizes = check_openvino(self.path, self.floats)
        return open_backend(
            self.path,
            threads=self.threads,
            backend=self.backend,
            device=self.device,
            tf32=self.tf32,
            floats=self.floats,
            batch_sizes=batch_sizes,
        )


def opening(
    path: Path,
    *,
    backend: BackendName | Literal["auto"] | None = None,
    precision: Precision | None = None,
    device: Device = "cpu",
    threads: int = 1,
    tf32: bool = False,
) -> Opening:
    """How a model is run as asked for.

    backend: the library that runs an .onnx file; None: ONNX Runtime, and for bf16 OpenVINO; auto: the fastest
        one here on the CPU
    precision: of an .onnx file. None: as the file is, and with auto bf16 where that is faster and passes the
        verdict. int8: the INT8 file beside the model
    Raises ValueError, PrecisionGiven, Int8Missing, BackendMissing, ModelNotFound, and what `choose` raises.
    """
    if precision not in (None, *get_args(Precision)):
        raise ValueError(f"precision is {precision!r}; it must be one of {', '.join(get_args(Precision))}")
    made = Opening(path, device=device, threads=threads, tf32=tf32)
    if precision is not None and path.suffix == ".engine":
        raise PrecisionGiven(f"{path} runs in the precision that it was built in; leave {precision} out")
    if precision == "fp32" and path.is_file() and is_quantised(path):
        raise PrecisionGiven(
            f"{path} is an INT8 file, which does not run in fp32; name the float model instead"
        )
    if precision == "bf16":
        if backend == "onnxruntime" or device != "cpu":
            raise BackendMissing("bf16 is run by OpenVINO on the CPU; leave the other backend or device out")
        return replace(made, backend="openvino", floats="bf16")
    if precision == "int8":
        made = replace(made, path=_int8_of(path))
    if backend != "auto":
        return replace(made, backend=backend or "onnxruntime")
    if device != "cpu":
        return made
    from crnn_deploy.runtime.choice import choose

    chosen = choose(made.path)
    if precision is not None:
        chosen = chosen.in_fp32()
    return replace(made, backend=chosen.backend, floats=chosen.floats)


def _int8_of(path: Path) -> Path:
    """The model itself where it is INT8, or the INT8 file of it that lies beside it and runs on this CPU.

    Raises ModelNotFound, PrecisionGiven, Int8Missing, ModelUnreadable, ManifestMissing, ManifestInvalid.
    """
    if not path.is_file():
        raise ModelNotFound(path, "an .onnx file")
    if is_quantised(path):
        return path
    seven, eight = int8_files(path)
    if path in (seven, eight):
        raise _not_quantised(path)
    found = eight if eight.is_file() and not cpu.saturates() else seven
    if not found.is_file():
        reason = f"there is no {seven.name} beside it"
        if eight.is_file():
            reason = f"{eight.name} has weights of 8 bits, and this CPU ({cpu.kind()}) needs weights of 7"
        raise Int8Missing(
            f"{path} has no INT8 file for this CPU: {reason}; make one with crnn-deploy quantize, or name "
            "your own as the model"
        )
    if not is_quantised(found):
        raise _not_quantised(found)
    ours, theirs = (Manifest.in_metadata(read_metadata(one), one) for one in (path, found))
    same = all(
        getattr(ours, name) == getattr(theirs, name)
        for name in ("alphabet", "blank", "color", "height", "width", "mean", "std", "steps")
    )
    if not same or not ours.source.items() <= theirs.source.items():
        raise Int8Missing(
            f"{found} was not made of {path}: their manifests differ; make it again with crnn-deploy "
            "quantize, or name it as the model"
        )
    return found


def _not_quantised(path: Path) -> PrecisionGiven:
    return PrecisionGiven(f"{path} is not quantised; make it with crnn-deploy quantize")
