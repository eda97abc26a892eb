"""Whether a model reads the same text in bf16 here: asked once, before its first use, and remembered.

OpenVINO runs it, where the CPU has products of bfloat16; the model in fp32, in ONNX Runtime, is what it is
held against.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import BackendMissing, CrnnDeployError, ModelNotFound
from crnn_deploy.files import parse_json
from crnn_deploy.runtime.backends import cache, cpu
from crnn_deploy.runtime.backends.backend import Backend, BatchSizes, open_backend
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.verdict.fidelity import Proof

__all__ = ["Bf16", "Bf16Refused", "ask_bf16", "check_bf16"]


@dataclass(frozen=True)
class Bf16:
    """What bf16 does to a model on this machine."""

    passed: bool
    line: str  # the verdict's figures
    batch_sizes: BatchSizes  # in which no image's frames depend by a bit on what runs beside it


class Bf16Refused(CrnnDeployError, RuntimeError):
    """A model that reads other texts in bf16."""

    def __init__(self, path: Path, line: str) -> None:
        super().__init__(f"{path} reads other texts in bf16: {line}; read it in fp32 or int8")


def check_bf16(path: Path) -> BatchSizes:
    """Hold a model in bf16 to the verdict; the sizes of batches in which its images may run.

    Raises Bf16Refused, and what `ask_bf16` raises.
    """
    found = ask_bf16(path)
    if not found.passed:
        raise Bf16Refused(path, found.line)
    return found.batch_sizes


def ask_bf16(path: Path) -> Bf16:
    """What bf16 does to an ONNX file's drawn images and their texts; remembered for file, versions and CPU.

    Raises BackendMissing where CPU or OpenVINO have no bf16, ModelNotFound, and what `open_backend` raises.
    """
    if not path.is_file():
        raise ModelNotFound(path)
    if not cpu.has_bf16():
        raise BackendMissing(
            f"bf16 needs a CPU with AVX512_BF16 or AMX; this one ({cpu.kind()}) has neither, and reads in "
            "fp32 or int8"
        )
    entry = f"{hashlib.sha256(f'bf16 {cache.key(path)}'.encode()).hexdigest()}.json"
    if (known := cache.load(entry)) is not None and (remembered := _remembered(known)) is not None:
        return remembered
    with (
        closing(open_backend(path)) as reference,
        closing(open_backend(path, backend="openvino", floats="bf16")) as candidate,
    ):
        found = _asked(reference, candidate)
    cache.store(entry, json.dumps(asdict(found)).encode())
    return found


def _asked(reference: Backend, candidate: Backend) -> Bf16:
    proof = Proof(reference, reference.manifest)
    frames = proof.run(candidate)
    fidelity = proof.check(frames, candidate.manifest)
    return Bf16(fidelity.passed, fidelity.line(), _batch_sizes(candidate, proof.batches, frames))


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


def _remembered(data: bytes) -> Bf16 | None:
    """What was stored; None where the file holds something else."""
    try:
        found = Bf16(**parse_json(data))
        kinds = (type(found.passed), type(found.line))
        return found if kinds == (bool, str) and found.batch_sizes in get_args(BatchSizes) else None
    except (ValueError, TypeError):
        return None
