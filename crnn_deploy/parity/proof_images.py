"""Images on which a verdict is passed: somebody's own, labelled or not, or drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.datasets import Dataset, Sample, record
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.batching import Batch, batches
from crnn_deploy.runtime.images import sources
from crnn_deploy.runtime.images.pixels import Source, read_image
from crnn_deploy.runtime.images.prepare import prepare
from crnn_deploy.verdict.judge import Reading, readings

__all__ = ["BATCH", "ProofImages", "held_out", "proof_images", "read"]

BATCH = 8  # as `infer` has it
_SEED = 301  # of drawn images; calibration and the benchmark of the default model have others


@dataclass(frozen=True)
class ProofImages:
    """Prepared images in the runtime's batches."""

    batches: tuple[Batch, ...]
    truths: tuple[str, ...] | None  # by index; None without labels
    sources: tuple[Source, ...]  # by index


def held_out(alphabet: Sequence[str], size: int) -> Dataset:
    """Words, numbers and lines in words and fonts that no training saw, half of them with faults.

    For Chinese they are Chinese. Raises what `printed` raises.
    """
    from crnn_deploy.synthesis.printed import printed  # drawing needs fontTools and Pillow: nothing else here

    return printed(alphabet, "held-out", {"word": 3, "number": 1, "line": 1}, _SEED, size)


def proof_images(
    manifest: Manifest,
    spec: str | None,
    labelled: Dataset | None,
    samples: int,
    *,
    progress: Callable[[int], object] = lambda images: None,
) -> ProofImages:
    """Images of a dataset; or of a folder, file or glob; or, without either, `samples` drawn ones.

    manifest: how they are prepared
    progress: called with 1 for each image
    Raises PathNotFound, ImagesMissing.
    """
    if labelled is None and spec is None:
        labelled = held_out(manifest.alphabet, samples)
    truths: list[str] | None = None if labelled is None else []
    kept: list[Source] = []

    def found() -> Iterator[tuple[Source, str]]:
        if labelled is not None:
            records = (record(labelled, at) for at in range(len(labelled)))
            yield from ((one.image, one.text) for one in records if isinstance(one, Sample))
            return
        assert spec is not None
        sources.check((spec,))
        yield from ((path, "") for path in sources.find((spec,), ()))

    def prepared() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for source, text in found():
            progress(1)
            try:
                ready = prepare(read_image(source, decoded_grey=manifest.decoded_grey), manifest)
            except CrnnDeployError:
                continue  # what neither model can read changes no text
            if truths is not None:
                truths.append(text)
            kept.append(source)
            yield len(kept) - 1, ready

    made = tuple(batches(prepared(), BATCH))
    return ProofImages(made, None if truths is None else tuple(truths), tuple(kept))


def read(
    backend: Backend, batches: Iterable[Batch], *, progress: Callable[[int], object] = lambda images: None
) -> list[Reading]:
    """Readings of all images in the order of their indices, which are 0, 1, 2 and so on.

    progress: called with the number of images of each batch
    """
    found: dict[int, Reading] = {}
    for batch in batches:
        found.update(zip(batch.indices, readings(backend.run(batch.images), backend.manifest), strict=True))
        progress(len(batch.indices))
    return [found[at] for at in range(len(found))]
