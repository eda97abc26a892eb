"""Two models on the same images."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.datasets import Dataset
from crnn_deploy.errors import CrnnDeployError, shortened
from crnn_deploy.manifest import Manifest
from crnn_deploy.parity.compare import TOLERANCE, InFloat64, ParityReport, compare
from crnn_deploy.parity.tolerance import FLOATS, FormatError, Meter, Metered
from crnn_deploy.runtime.backends.backend import SUFFIXES, Backend, open_backend
from crnn_deploy.runtime.backends.engine_file import read_sidecar
from crnn_deploy.runtime.batching import batches
from crnn_deploy.runtime.decoding.ctc import Frames
from crnn_deploy.runtime.images import sources
from crnn_deploy.runtime.images.pixels import Source, read_image
from crnn_deploy.runtime.images.prepare import prepare
from crnn_deploy.verdict.drawn import drawn_images
from crnn_deploy.verdict.judge import Reading, Verdict, judge, readings

__all__ = ["NotComparable", "Verification", "verify"]

_BATCH = 8
_CASES = 12
_MEASURED, _SPARSE = 128, 4  # what a number format costs: of the first images, then of one batch in so many


@dataclass(frozen=True)
class Verification:
    """Two models on the same images: number by number, and string by string."""

    parity: ParityReport
    verdict: Verdict | None  # None of drawn images, which hold no text to speak of
    format_error: FormatError | None  # what the tolerance comes from; None where it was given or is the usual
    unmeasured: str | None  # why an engine is held to the usual tolerance, where it is
    failures: tuple[str, ...] = ()  # of the images that cannot be read and are left out, each with its name


class NotComparable(CrnnDeployError, ValueError):
    """Two models that do not take the same input or do not have the same classes."""


def verify(
    reference: Path,
    candidate: Path,
    open_checkpoint: Callable[[Path, Manifest | None], Backend],
    *,
    images: str | None,
    labelled: Dataset | None = None,
    tolerance: float | None,
    failed: Callable[[str], object] = lambda reason: None,
    progress: Callable[[int], object] = lambda images: None,
) -> Verification:
    """Compare two models, each a checkpoint, an ONNX file or an engine.

    open_checkpoint: opens a checkpoint in PyTorch, fed as the other model's manifest says where it has one
    images: a folder, file or glob; without it and `labelled`, images are drawn
    labelled: images and their texts, which the verdict then counts right and wrong strings by
    tolerance: of logits; None: `compare.TOLERANCE`, and for an engine what its format costs this network,
        measured on some of the images
    failed: called with a line about each image that cannot be read; the others are compared
    progress: called with the number of images that were compared, or could not be read; `count` has all
    Raises NotComparable, also where no image can be read, and what opening a model raises.
    """
    # an ONNX file says how it is fed; a checkpoint beside it takes that over
    first = open_backend(reference) if reference.suffix in SUFFIXES else None
    second = open_backend(candidate) if candidate.suffix in SUFFIXES else None
    first = first or open_checkpoint(reference, None if second is None else second.manifest)
    second = second or open_checkpoint(candidate, first.manifest)
    ours, theirs = first.manifest, second.manifest
    for name in ("alphabet", "blank", "color", "height", "steps"):
        if getattr(ours, name) != getattr(theirs, name):
            raise NotComparable(
                f"{reference} and {candidate} differ in {name}: "
                f"{shortened(repr(getattr(ours, name)))} and {shortened(repr(getattr(theirs, name)))}"
            )
    if ours.output == "argmax" != theirs.output:
        raise NotComparable(f"{reference} gives no logits to compare with; name it second")
    fed = theirs if candidate.suffix == ".engine" else ours  # an engine serves widths of its own
    order: list[int] = []  # in which images that are read come
    failures: list[str] = []

    def told(reason: str) -> None:
        failures.append(reason)
        failed(reason)
        progress(1)

    if images is None and labelled is None:
        inputs = _drawn(fed)
    else:
        inputs = _prepared(_sources(images, labelled), fed, order, told)
    meter, unmeasured = None, None
    if tolerance is None:
        sides = (reference, first), (candidate, second)
        meter, unmeasured = _meter(sides if candidate.suffix == ".engine" else sides[::-1])
    recorders = _Recorder(first), _Recorder(second)
    given = TOLERANCE if meter is not None else tolerance
    measured = _measured(inputs, meter)
    parity = compare(*recorders, measured, tolerance=given, progress=lambda case: progress(case.batch))
    costs = None if meter is None else meter.error
    if costs is not None:
        best_alone = "argmax" in (ours.output, theirs.output)
        allowed = costs.probability_tolerance if best_alone else costs.tolerance
        parity = replace(parity, tolerance=allowed, tie=costs.tie)
    if failures and not order:
        raise NotComparable(f"none of the {len(failures)} images can be read, so there is nothing to compare")
    if not order:
        return Verification(parity, None, costs, unmeasured)
    truths = None if labelled is None else [labelled[at].text for at in order]
    verdict = judge(recorders[0].read, recorders[1].read, truths)
    return Verification(parity, verdict, costs, unmeasured, tuple(failures))


def count(images: str | None, labelled: Dataset | None = None) -> int:
    """How many images `verify` compares."""
    if labelled is not None:
        return len(labelled)
    if images is not None:
        return sum(1 for _ in sources.find((images,), ()))
    return sum(1 + at % _BATCH for at in range(_CASES))


def _meter(sides: Sequence[tuple[Path, Backend]]) -> tuple[Meter | None, str | None]:
    """Of what the format of an engine costs the network that it is compared with; or why it is not measured.

    sides: the network, and the engine, which may be none
    """
    (path, backend), (engine, _) = sides
    if engine.suffix != ".engine" or (precision := read_sidecar(engine).precision) not in FLOATS:
        return None, None
    if isinstance(backend, Metered):
        manifest = backend.manifest
        blank = np.zeros((1, manifest.channels, manifest.height, manifest.width.minimum), np.float32)
        try:
            backend.meter(precision).measure(blank)
        except RuntimeError as error:  # a module of one's own may hold to float32
            reason = " ".join(str(error).split())[:200]
            return (
                None,
                f"what {precision} costs is not measured: PyTorch does not run the network in that "
                f"format ({reason})",
            )
        return backend.meter(precision), None
    if path.suffix != ".onnx" or backend.manifest.output == "argmax":
        return None, f"what {precision} costs is not measured: {path} does not put out logits"
    from crnn_deploy.graph.model import load_onnx
    from crnn_deploy.parity.graph_formats import in_graph

    return in_graph(load_onnx(path), precision), None


def _measured(batches: Iterable[NDArray[np.float32]], meter: Meter | None) -> Iterator[NDArray[np.float32]]:
    """Batches, of which the meter measures the first ones and then one in so many."""
    for at, images in enumerate(batches):
        if meter is not None and (meter.error.images < _MEASURED or at % _SPARSE == 0):
            meter.measure(images)
        yield images


def _sources(images: str | None, labelled: Dataset | None) -> Iterable[tuple[str, Source] | CrnnDeployError]:
    """Each image with its name, or the error of a record that cannot be read."""
    if labelled is not None:
        return (_sample(labelled, at) for at in range(len(labelled)))
    assert images is not None
    sources.check((images,))
    return ((path, path) for path in sources.find((images,), ()))


def _sample(labelled: Dataset, at: int) -> tuple[str, Source] | CrnnDeployError:
    try:
        sample = labelled[at]
    except CrnnDeployError as error:
        return error
    return sample.name, sample.image


def _drawn(manifest: Manifest) -> Iterator[NDArray[np.float32]]:
    rng = np.random.default_rng(1)
    buckets = manifest.width.buckets()
    for i in range(_CASES):
        width = buckets[i * (len(buckets) - 1) // (_CASES - 1)]
        yield drawn_images(manifest, 1 + i % _BATCH, width, rng)


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

    def exact(self, images: NDArray[np.float32]) -> NDArray[np.float64] | str:
        if isinstance(self._backend, InFloat64):
            return self._backend.exact(images)
        return "the reference is no PyTorch network"

    def close(self) -> None:
        self._backend.close()


def _prepared(
    found: Iterable[tuple[str, Source] | CrnnDeployError],
    manifest: Manifest,
    order: list[int],
    failed: Callable[[str], object],
) -> Iterator[NDArray[np.float32]]:
    def ready() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for i, one in enumerate(found):
            try:
                if isinstance(one, CrnnDeployError):
                    raise one
                pixels = read_image(one[1], decoded_grey=manifest.decoded_grey)
            except CrnnDeployError as error:
                failed(str(error) if isinstance(one, CrnnDeployError) else _naming(one[0], error))
            else:
                yield i, prepare(pixels, manifest)

    for batch in batches(ready(), _BATCH):
        order.extend(batch.indices)
        yield batch.images


def _naming(name: str, error: CrnnDeployError) -> str:
    """What an error says, behind the name of its image, which bytes and arrays do not have."""
    reason = re.sub(r"^<\w+>: ", "", str(error))
    return reason if name in reason else f"{name}: {reason}"
