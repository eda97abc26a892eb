"""Where among the outputs of another tool's graph the scores stand, and how they lie there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import AlphabetMismatch, ModelInvalid
from crnn_deploy.export.scores import Scores, kind_of
from crnn_deploy.graph.ends import Place

__all__ = ["ForeignScores", "Sample", "find_scores"]

Sample = Mapping[str, NDArray[Any]]  # tensors by their names
Moved = Callable[[str], tuple[NDArray[Any], NDArray[Any]]]  # as of `_runs_with_the_image`

_AGREE = 0.99  # of the frames: two outputs say the same
_KINDS: tuple[Scores, ...] = ("logits", "log-probs", "probabilities")  # the most exact first


@dataclass(frozen=True)
class ForeignScores:
    """The scores of a graph."""

    place: Place
    kind: Scores
    tokens: tuple[str, ...]
    notes: tuple[str, ...]


def find_scores(
    first: Sample,
    others: Mapping[str, Sample | None],
    batch: int,
    given: Sequence[tuple[str, ...]],
    moved: Moved,
    who: str,
) -> ForeignScores:
    """The scores among the tensors that came out of a run of `batch` images.

    others: what came out of twice the width ("width") and of one image alone ("batch"), where that ran
    given: alphabets that may be the model's
    who: puts them out, for messages
    Raises AlphabetMismatch; ModelInvalid where there are none, or several that do not agree.
    """
    floats = {name: tensor for name, tensor in first.items() if tensor.dtype.kind == "f"}
    for tokens in given:
        ways = [
            place
            for name, tensor in floats.items()
            for place in _places(name, tensor, batch, len(tokens) + 1)
        ]
        # a graph may be made for one width, which is told later
        for seen in (others, {"batch": others.get("batch")}):
            if places := [place for place in ways if _follows(place, first, seen, batch)]:
                return _chosen(places, first, batch, tokens, moved, who)
    shapes = ", ".join(f"{name!r} {list(tensor.shape)}" for name, tensor in first.items()) or "nothing"
    if not floats:
        raise ModelInvalid(
            f"{who} puts out {shapes} and no scores; export it without argmax and without a decoder, so that "
            "it puts out (N, T, classes)"
        )
    classes = _classes(floats, others, batch)
    if classes is None:
        raise ModelInvalid(f"{who} puts out {shapes} for {batch} images, not (N, T, classes)")
    raise AlphabetMismatch(len(given[0]), classes)


def _places(name: str, tensor: NDArray[Any], batch: int, classes: int) -> list[Place]:
    """Ways in which a tensor may hold scores of so many classes, the usual one first."""
    if tensor.ndim == 2 and tensor.shape[1] == classes and tensor.shape[0] % batch == 0:
        flat = [Place(name, (0, 0, 1), "images"), Place(name, (0, 0, 1), "steps")]
        return flat if batch > 1 else flat[:1]
    found = [
        Place(name, axes)
        for axes in permutations(range(tensor.ndim), 3)
        if tensor.shape[axes[0]] == batch
        and tensor.shape[axes[2]] == classes
        and all(tensor.shape[axis] == 1 for axis in range(tensor.ndim) if axis not in axes)
    ]
    # (N, T, C) before (T, N, C) before others; one image alone is the first axis that may be it
    return sorted(found, key=lambda place: (place.axes[0], -place.axes[2], place.axes[1]))


def _follows(place: Place, first: Sample, others: Mapping[str, Sample | None], batch: int) -> bool:
    """Whether the tensor's other sizes, at other widths and of one image, are those of such scores."""
    shape = first[place.name].shape
    if (wider := others.get("width")) is not None and place.name in wider:
        grown = wider[place.name].shape
        if len(grown) != len(shape) or any(
            grown[axis] != shape[axis] for axis in range(len(shape)) if axis != place.axes[1]
        ):
            return False
    if (alone := others.get("batch")) is not None and place.name in alone:
        single = alone[place.name]
        if place.flat is not None:
            if len(single) * batch != len(first[place.name]):
                return False
            ways = [replace(place, flat="images"), replace(place, flat="steps")]
            away = [np.abs(way.arranged(first[place.name], batch)[0] - single).max() for way in ways]
            return bool(away[ways.index(place)] <= min(away))
        if single.ndim == len(shape) and any(
            single.shape[axis] != shape[axis] for axis in range(len(shape)) if axis != place.axes[0]
        ):
            return False
    return True


def _chosen(
    places: Sequence[Place], first: Sample, batch: int, tokens: tuple[str, ...], moved: Moved, who: str
) -> ForeignScores:
    """One of the places, by tensor the likeliest."""
    by_name: dict[str, list[Place]] = {}
    for place in places:
        by_name.setdefault(place.name, []).append(place)
    fitting: list[tuple[Place, Scores]] = []
    refused: list[ModelInvalid] = []
    for name, ways in by_name.items():
        place = ways[0] if len(ways) == 1 else _told(ways, first[name], batch, moved)
        try:
            fitting.append((place, kind_of([place.arranged(first[name], batch)], who)))
        except ModelInvalid as error:
            refused.append(error)
    if not fitting:
        raise refused[0]
    fitting.sort(key=lambda pair: _KINDS.index(pair[1]))
    place, kind = fitting[0]
    best = place.arranged(first[place.name], batch).argmax(axis=2)
    for other, _ in fitting[1:]:
        its = other.arranged(first[other.name], batch).argmax(axis=2)
        if its.shape != best.shape or (its == best).mean() < _AGREE:
            raise ModelInvalid(
                f"{who} has outputs that both look like scores and read differently, {place.name!r} and "
                f"{other.name!r}; keep one of them with onnx.utils.extract_model"
            )
    dropped = [name for name in first if name != place.name]
    notes = (f"its scores are taken from {place.name!r}, not from {', '.join(map(repr, dropped))}",)
    return ForeignScores(place, kind, tokens, notes if dropped else ())


def _told(ways: Sequence[Place], tensor: NDArray[Any], batch: int, moved: Moved) -> Place:
    """One of several layouts of the same tensor, where as many steps as classes leave it open."""
    normalised = []
    for way in ways:
        try:
            if kind_of([way.arranged(tensor, batch)], "") != "logits":
                normalised.append(way)
        except ModelInvalid:
            continue
    if len(normalised) == 1:
        return normalised[0]
    left, right = moved(ways[0].name)
    return max(ways, key=lambda way: _runs_with_the_image(way, left, right, batch))


def _runs_with_the_image(way: Place, left: NDArray[Any], right: NDArray[Any], batch: int) -> float:
    """How much farther along the axis of time steps the scores change where the image's right third does.

    left, right: |change| of the tensor by the left third of the images and by the right one
    """
    centres = []
    for change in (left, right):
        profile = way.arranged(change, batch).sum(axis=(0, 2))
        centres.append(float(np.average(np.arange(len(profile)), weights=profile + 1e-12)) / len(profile))
    return centres[1] - centres[0]


def _classes(floats: Sample, others: Mapping[str, Sample | None], batch: int) -> int | None:
    """How many classes the likeliest tensor has: its last size that follows neither width nor batch."""
    for name, tensor in floats.items():
        if tensor.ndim < 2:
            continue
        fixed = [axis for axis in range(tensor.ndim) if tensor.shape[axis] > 1]
        for sample in others.values():
            if sample is not None and name in sample and sample[name].ndim == tensor.ndim:
                fixed = [axis for axis in fixed if sample[name].shape[axis] == tensor.shape[axis]]
        if tensor.ndim > 2 and len(fixed) > 1:
            fixed = [axis for axis in fixed if tensor.shape[axis] != batch] or fixed
        if fixed:
            return int(tensor.shape[fixed[-1]])
    return None
