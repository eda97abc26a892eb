"""Two models on the same images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn_deploy import image, sources
from crnn_deploy.backends import SUFFIXES, Backend, open_backend
from crnn_deploy.backends.reference import ReferenceBackend
from crnn_deploy.batching import batches
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.manifest import Manifest
from crnn_deploy.recipes import RECIPES
from crnn_deploy.stages.parity import ParityReport, compare, drawn_images
from crnn_deploy.stages.reference import Settings, open_reference

__all__ = ["NotComparable", "verify"]

_BATCH = 8
_CASES = 12


class NotComparable(CrnnDeployError, ValueError):
    """Two models that do not take the same input or do not have the same classes."""


def verify(
    reference: Path, candidate: Path, settings: Settings, *, images: str | None, tolerance: float
) -> ParityReport:
    """Compare two models, each a checkpoint or an ONNX file.

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
        return compare(first, second, inputs, tolerance=tolerance)
    sources.check((images,))
    return compare(first, second, _read(images, ours), tolerance=tolerance)


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
