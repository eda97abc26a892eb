"""Lines wider than a network is meant for: cut with overlap, read part by part, merged frame by frame.

A part's frames near a cut lack what lies beyond it, so each half of an overlap comes from the part whose cut
is farther away. Parts change over in a frame where both are sure of the blank, between two characters,
which therefore are neither doubled nor lost. The merged frames equal those of the uncut line but for what a
recurrent layer remembers from beyond the overlap.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.decoding.ctc import Frames

__all__ = ["OVERLAP", "run", "starts", "uncut"]

OVERLAP = 12  # times the network's height; benchmarks/accuracy/long_lines.py has what others give
_FEWEST = 4  # places to cut within the network's largest width, or it is not cut

Run = Callable[[NDArray[np.float32]], Frames]


def uncut(manifest: Manifest) -> Manifest:
    """The manifest by which a line is prepared that `run` cuts.

    It is the same where nothing can be cut: fixed widths mean to shrink, and a few frames leave no overlap.
    """
    rule, grid = manifest.width, _grid(manifest)
    if rule.maximum < max(rule.minimum + grid, _FEWEST * grid):
        return manifest
    widest = manifest.room // rule.multiple * rule.multiple  # a wider line is shrunk to it
    return replace(manifest, width=replace(rule, maximum=widest))


def _grid(manifest: Manifest) -> int:
    """Pixels between places where a line may be cut: whole time steps and multiples of the width rule."""
    return math.lcm(manifest.width.multiple, manifest.steps.stride)


def starts(width: int, manifest: Manifest, overlap: int = OVERLAP) -> list[int]:
    """Where the parts of a line begin, in pixels; each ends `maximum` later or with the line.

    overlap: of neighbouring parts, times the network's height; never more than half of a part
    """
    rule, grid = manifest.width, _grid(manifest)
    shared = min(overlap * manifest.height, rule.maximum // 2)
    hop = (rule.maximum - shared) // grid * grid
    count = 1 + max(0, math.ceil((width - rule.maximum) / hop))
    # the last part is as wide as the others where the grid allows
    last = max(0, math.ceil((width - rule.maximum) / grid) * grid)
    return [min(at * hop, last) for at in range(count)]


def run(
    network: Run,
    images: NDArray[np.float32],
    manifest: Manifest,
    batch: int,
    overlap: int = OVERLAP,
) -> Frames:
    """What a network says of images (N, C, H, W) beyond its largest width.

    batch: most parts that run together
    overlap: as of `starts`
    Raises what the network raises.
    """
    width, largest, stride = images.shape[3], manifest.width.maximum, manifest.steps.stride
    begins = starts(width, manifest, overlap)
    by_width: dict[int, list[tuple[int, int]]] = {}  # of the parts: image and place in the line
    for image in range(len(images)):
        for place, begin in enumerate(begins):
            by_width.setdefault(min(largest, width - begin), []).append((image, place))
    parts: dict[tuple[int, int], Frames] = {}
    for size, keys in by_width.items():
        for at in range(0, len(keys), batch):
            some = keys[at : at + batch]
            cut = [images[image, :, :, begins[place] : begins[place] + size] for image, place in some]
            frames = network(np.stack(cut))
            parts.update({key: frames.row(row) for row, key in enumerate(some)})
    merged = [
        _merged(
            [parts[image, place] for place in range(len(begins))],
            [begin // stride for begin in begins],
            manifest,
        )
        for image in range(len(images))
    ]
    logits = [frames.logits for frames in merged if frames.logits is not None]
    return Frames(
        np.concatenate([frames.indices for frames in merged]),
        np.concatenate([frames.probabilities for frames in merged]),
        np.concatenate(logits) if logits else None,
    )


def _merged(parts: Sequence[Frames], begins: Sequence[int], manifest: Manifest) -> Frames:
    """Frames of one line from those of its parts; begins: each part's first frame in the line."""
    pieces: list[tuple[Frames, slice]] = []
    begin = 0  # in the line, of the frames that are taken from a part
    for part, following, at, next_at in zip(parts, parts[1:], begins, begins[1:], strict=False):
        overlap = part.indices.shape[1] - (next_at - at)
        end = next_at + _change(part, following, overlap, manifest.blank)
        pieces.append((part, slice(begin - at, end - at)))
        begin = end
    pieces.append((parts[-1], slice(begin - begins[-1], None)))
    logits = [part.logits[:, frames] for part, frames in pieces if part.logits is not None]
    return Frames(
        np.concatenate([part.indices[:, frames] for part, frames in pieces], axis=1),
        np.concatenate([part.probabilities[:, frames] for part, frames in pieces], axis=1),
        np.concatenate(logits, axis=1) if logits else None,
    )


def _change(before: Frames, after: Frames, overlap: int, blank: int) -> int:
    """The frame of `after`, within the overlap, from which on it takes over."""
    middle = overlap // 2
    candidates = np.arange(overlap // 4, overlap - overlap // 4)  # where neither cut is near
    if not len(candidates):
        return middle
    shared = before.indices.shape[1] - overlap
    both = (before.indices[0, shared:] == after.indices[0, :overlap])[candidates]
    quiet = (after.indices[0, candidates] == blank) & both
    for usable in (quiet, both):
        if usable.any():
            found = candidates[usable]
            return int(found[np.abs(found - middle).argmin()])
    return middle
