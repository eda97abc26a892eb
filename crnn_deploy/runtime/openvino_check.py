"""Whether a model reads the same text in OpenVINO here: asked once, before its first use, and remembered.

The measure is the same file in ONNX Runtime. In fp32 OpenVINO rounds otherwise by a little, in bf16 by far
more. INT8 files it reads otherwise: OpenVINO 2026.4 changed the texts of every one that was tried.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import BackendMissing, CrnnDeployError, ModelNotFound
from crnn_deploy.files import parse_json
from crnn_deploy.runtime.backends import cache, cpu
from crnn_deploy.runtime.backends.backend import Backend, BatchSizes, FloatFormat, open_backend
from crnn_deploy.runtime.backends.weight_bits import is_quantised
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.verdict.fidelity import Proof

__all__ = ["OpenVinoRefused", "OpenVinoVerdict", "ask_openvino", "check_openvino"]


@dataclass(frozen=True)
class OpenVinoVerdict:
    """What OpenVINO does to a model on this machine."""

    passed: bool
    line: str  # the verdict's figures
    batch_sizes: BatchSizes  # in which no image's frames depend by a bit on what runs beside it


class OpenVinoRefused(CrnnDeployError, RuntimeError):
    """A model that OpenVINO reads other texts with."""

    def __init__(self, path: Path, floats: FloatFormat, line: str) -> None:
        where, instead = (
            ("bf16", "in fp32 or int8") if floats == "bf16" else ("OpenVINO", "with ONNX Runtime")
        )
        super().__init__(f"{path} reads other texts in {where}: {line}; read it {instead}")


def check_openvino(path: Path, floats: FloatFormat) -> BatchSizes:
    """Hold a model in OpenVINO to the verdict; the sizes of batches in which its images may run.

    Raises OpenVinoRefused, and what `ask_openvino` raises.
    """
    found = ask_openvino(path, floats)
    if not found.passed:
        raise OpenVinoRefused(path, floats, found.line)
    return found.batch_sizes


def ask_openvino(path: Path, floats: FloatFormat) -> OpenVinoVerdict:
    """What OpenVINO does to a model's drawn images and their texts; remembered for file, versions and CPU.

    Raises BackendMissing where there is no OpenVINO, no bf16 that is asked for, or no ONNX Runtime to hold
    bf16 and INT8 against, ModelNotFound, and what `open_backend` raises.
    """
    if not path.is_file():
        raise ModelNotFound(path)
    if floats == "bf16" and not cpu.has_bf16():
        raise BackendMissing(
            f"bf16 needs a CPU with AVX512_BF16 or AMX; this one ({cpu.kind()}) has neither, and reads in "
            "fp32 or int8"
        )
    if (remembered := _remembered(entry := _entry(path, floats))) is not None:
        return remembered
    with ExitStack() as stack:
        reference: Backend | None = None
        try:
            reference = stack.enter_context(closing(open_backend(path)))
        except BackendMissing:
            if floats != "fp32" or is_quantised(path):
                raise
            # without ONNX Runtime a float model is held against itself, which tells the sizes of batches
            if (remembered := _remembered(entry := _entry(path, "alone"))) is not None:
                return remembered
        candidate = stack.enter_context(closing(open_backend(path, backend="openvino", floats=floats)))
        found = _asked(reference or candidate, candidate)
    cache.store(entry, json.dumps(asdict(found)).encode())
    return found


def _entry(path: Path, kind: str) -> str:
    return f"{hashlib.sha256(f'openvino {kind} {cache.key(path)}'.encode()).hexdigest()}.json"


def _asked(reference: Backend, candidate: Backend) -> OpenVinoVerdict:
    proof = Proof(reference, reference.manifest)
    frames = proof.run(candidate)
    fidelity = proof.check(frames, candidate.manifest)
    return OpenVinoVerdict(fidelity.passed, fidelity.line(), _batch_sizes(candidate, proof.batches, frames))


def _batch_sizes(
    backend: Backend, batches: Sequence[NDArray[np.float32]], together: Sequence[Frames]
) -> BatchSizes:
    """The sizes of batches that change no image's frames by a bit.

    OpenVINO 2026.4 multiplies the states of LSTMs in another way where there is one image, and in the same
    way from two images on.
    """
    if _same_in_batches(backend, batches, together, copies=1):
        return "any"
    several = [at for at, images in enumerate(batches) if len(images) > 1]
    batches, together = [batches[at] for at in several], [together[at] for at in several]
    return "two or more" if _same_in_batches(backend, batches, together, copies=2) else "one"


def _same_in_batches(
    backend: Backend, batches: Sequence[NDArray[np.float32]], together: Sequence[Frames], copies: int
) -> bool:
    """Whether each image's frames are bitwise the same beside so many copies of itself, itself included."""
    for images, frames in zip(batches, together, strict=True):
        for at, image in enumerate(images):
            one = backend.run(np.repeat(image[None], copies, axis=0))
            if not np.array_equal(one.probabilities[0], frames.probabilities[at], equal_nan=True):
                return False
            if not np.array_equal(one.indices[0], frames.indices[at]):
                return False
    return True


def _remembered(entry: str) -> OpenVinoVerdict | None:
    """What was stored; None where there is nothing, or something else."""
    if (data := cache.load(entry)) is None:
        return None
    try:
        found = OpenVinoVerdict(**parse_json(data))
        kinds = (type(found.passed), type(found.line))
        return found if kinds == (bool, str) and found.batch_sizes in get_args(BatchSizes) else None
    except (ValueError, TypeError):
        return None
