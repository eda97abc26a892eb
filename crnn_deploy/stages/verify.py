"""Two models on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn_deploy import image, sources
from crnn_deploy.backends import SUFFIXES, Backend, open_backend
from crnn_deploy.backends.reference import ReferenceBackend
from crnn_deploy.batching import batches
from crnn_deploy.ctc import Frames
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.manifest import Manifest
from crnn_deploy.recipes import RECIPES
from crnn_deploy.stages.parity import ParityReport, compare, drawn_images
from crnn_deploy.stages.reference import Settings, open_reference
from crnn_deploy.stages.verdict import Reading, Verdict, judge, readings

__all__ = ["NotComparable", "Verification", "verify"]

_BATCH = 8
_CASES = 12


@dataclass(frozen=True)
class Verification:
    """Two models on the same images: number by number, and string by string."""

    parity: ParityReport
    verdict: Verdict | None  # None of drawn images, which hold no text to speak of


class NotComparable(CrnnDeployError, ValueError):
    """Two models that do not take the same input or do not have the same classes."""


def verify(
    reference: Path,
    candidate: Path,
    settings: Settings,
    *,
    images: str | None,
    tolerance: float,
) -> Verification:
    """Compare two models, each a checkpoint, an ONNX file or an engine.

    images: a folder, file or glob; None draws images
    Raises NotComparable and what opening a model raises.
    """
    # an ONNX file says how it is fed; a checkpoint beside it takes that over
    first = open_backend(reference) if reference.suffix in SUFFIXES else None
    second = open_backend(candidate) if candidate.suffix in SUFFIXES else None
    first = first or _open_checkpoint(reference, settings, second)
    second = second or _open_checkpoint(candidate, settings, first)
    ours, theirs = first.manifest, second.manifest
    for name in ("alphabet", "blank", "color", "height", "steps"):
        if getattr(ours, name) != getattr(theirs, name):
            raise NotComparable(
                f"{reference} and {candidate} differ in {name}: "
                f"{_short(getattr(ours, name))} and {_short(getattr(theirs, name))}"
            )
    if ours.output == "argmax" != theirs.output:
        raise NotComparable(f"{reference} gives no logits to compare with; name it second")
    if images is None:
        rng = np.random.default_rng(1)
        buckets = ours.width.buckets()
        widths = [buckets[i * (len(buckets) - 1) // (_CASES - 1)] for i in range(_CASES)]
        inputs = (drawn_images(ours, 1 + i % _BATCH, width, rng) for i, width in enumerate(widths))
        return Verification(compare(first, second, inputs, tolerance=tolerance), None)
    sources.check((images,))
    recorders = _Recorder(first), _Recorder(second)
    parity = compare(*recorders, _read(images, ours), tolerance=tolerance)
    return Verification(parity, judge(recorders[0].read, recorders[1].read))


class _Recorder:
    """A backend whose readings are kept, so that one run serves both comparisons."""

    def __init__(self, backend: Backend) -> None:
        self.manifest = backend.manifest
        self.read: list[Reading] = []
        self._backend = backend

    def run(self, images: NDArray[np.float32]) -> Frames:
        frames = self._backend.run(images)
        self.read += readings(frames, self.manifest)
        return frames

    def close(self) -> None:
        self._backend.close()


def _open_checkpoint(path: Path, settings: Settings, other: Backend | None) -> Backend:
    if other is None:
        return open_reference(path, settings)
    manifest = other.manifest
    built_in = manifest.source.get("recipe") in RECIPES  # others stand in a file, or in the checkpoint itself
    known = Settings(
        recipe=settings.recipe or (manifest.source["recipe"] if built_in else None),
        model=settings.model,
        alphabet=settings.alphabet or manifest.alphabet,
        blank=settings.blank or ("first" if manifest.blank == 0 else "last"),
    )
    backend = open_reference(path, known)
    return ReferenceBackend(backend.module, replace(manifest, output="logits", steps=backend.manifest.steps))


def _read(images: str, manifest: Manifest) -> Iterator[NDArray[np.float32]]:
    paths = sources.find((images,), ())
    prepared = ((i, image.prepare(image.read(path), manifest)) for i, path in enumerate(paths))
    for batch in batches(prepared, _BATCH):
        yield batch.images


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else f"{text[:57]}..."
