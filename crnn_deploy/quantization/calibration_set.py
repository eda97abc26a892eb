"""Which images an INT8 calibration sees: all widths of the runtime, nothing cropped, nothing twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.batching import Batch, batches
from crnn_deploy.runtime.images import sources
from crnn_deploy.runtime.images.pixels import Source, load_bytes, read_image
from crnn_deploy.runtime.images.prepare import prepare

__all__ = [
    "FEWEST",
    "CalibrationImage",
    "CalibrationImpossible",
    "batched",
    "of_folder",
    "rendered",
    "sample",
]

FEWEST = 32  # distinct images; the facts behind the defaults were measured with 256
_UNREADABLE = 0.1  # share of the images above which the folder is not what it is taken for
_SEED = 201  # of rendered images; validation and benchmarks have others

Found = tuple[str, Source]  # a name and the image


class CalibrationImpossible(CrnnDeployError, ValueError):
    """Images that give no ranges to trust."""


@dataclass(frozen=True)
class CalibrationImage:
    """An image of a set."""

    name: str
    sha256: str  # of the file, or of a rendered image's pixels
    width: int  # pixels, of the network's input
    source: Source


def of_folder(spec: str) -> Iterator[Found]:
    """Images of a folder, file or glob, named from the folder. Raises PathNotFound, ImagesMissing."""
    sources.check((spec,))
    for path in sources.find((spec,), ()):
        yield os.path.relpath(path, spec) if os.path.isdir(spec) else os.path.basename(path), path


def rendered(alphabet: Sequence[str], size: int) -> Iterator[Found]:
    """Images drawn with the words and fonts of training: words, numbers, lines, half of them with faults.

    For Chinese they are Chinese. Raises what `printed` raises.
    """
    from crnn_deploy.synthesis.printed import printed  # drawing needs fontTools and Pillow: nothing else here

    images = printed(alphabet, "train", {"word": 2, "number": 1, "line": 1}, _SEED, size)
    for at in range(size):
        yield f"rendered {at}", images[at].image


def sample(
    found: Iterable[Found],
    manifest: Manifest,
    samples: int,
    *,
    progress: Callable[[int], object] = lambda images: None,
) -> tuple[tuple[CalibrationImage, ...], tuple[CalibrationImage, ...]]:
    """A set of at most `samples` images and half as many that are held back to compare methods on.

    Every width gets an equal share, as far as it has images; within a width the order is that of the hashes,
    so a set depends on what the images are and not on their names. progress: called with 1 for each image
    Raises CalibrationImpossible.
    """
    by_width: dict[int, list[CalibrationImage]] = {}
    seen: set[str] = set()
    errors: list[CrnnDeployError] = []
    for name, source in found:
        try:
            pixels = read_image(source, decoded_grey=manifest.decoded_grey)
        except CrnnDeployError as error:
            errors.append(error)
            continue
        finally:
            progress(1)
        digest = hashlib.sha256(
            load_bytes(source) if isinstance(source, str) else np.ascontiguousarray(pixels).tobytes()
        ).hexdigest()
        if digest not in seen:
            seen.add(digest)
            width = manifest.width.bucket(pixels.shape[0], pixels.shape[1], manifest.height)
            by_width.setdefault(width, []).append(CalibrationImage(name, digest, width, source))
    if len(errors) > _UNREADABLE * (len(errors) + len(seen)):
        raise CalibrationImpossible(
            f"{len(errors)} images cannot be read, {len(seen)} distinct ones can; the first: {errors[0]}"
        )
    if len(seen) < FEWEST:
        raise CalibrationImpossible(
            f"{len(seen)} distinct images are too few to calibrate with; give {FEWEST} or more"
        )
    if len(by_width) == 1 and not manifest.width.fixed:
        raise CalibrationImpossible(
            f"all images are {next(iter(by_width))} pixels wide for the network, which reads from "
            f"{manifest.width.minimum} to {manifest.width.maximum}; give images of several widths"
        )
    order = _round_robin([sorted(by_width[width], key=lambda one: one.sha256) for width in sorted(by_width)])
    count = min(samples, max(FEWEST, 2 * len(order) // 3))
    return tuple(order[:count]), tuple(order[count : count + max(1, count // 2)])


def _round_robin(groups: Sequence[Sequence[CalibrationImage]]) -> list[CalibrationImage]:
    """One of each group, then the next of each, until all are taken."""
    longest = max(map(len, groups))
    return [group[at] for at in range(longest) for group in groups if at < len(group)]


def batched(images: Sequence[CalibrationImage], manifest: Manifest, size: int) -> Iterator[Batch]:
    """The batches in which the runtime would run them."""
    grey = manifest.decoded_grey
    prepared = (
        (at, prepare(read_image(one.source, decoded_grey=grey), manifest)) for at, one in enumerate(images)
    )
    return batches(prepared, size)
