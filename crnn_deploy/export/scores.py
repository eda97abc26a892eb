"""What a network puts out, told by what comes out: logits, log-probabilities or probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import ModelInvalid
from crnn_deploy.runtime.backends.outputs import are_probabilities

__all__ = ["Scores", "kind_of", "no_scores", "normalised"]

Scores = Literal["logits", "log-probs", "probabilities"]

_ROUNDING = 1e-3  # the logarithm of a probability may come out so far above zero
_BASES = (2.0, 10.0)  # of logarithms that are not the natural ones
_ZEROS = 0.1  # a sigmoid's values are hardly ever zero, those of ReLU are for the greater part


def kind_of(samples: Sequence[NDArray[Any]], who: str) -> Scores:
    """Which of the three the scores (N, T, classes) of some batches are; `who` puts them out, for messages.

    Raises ModelInvalid for a softmax over another axis than the classes, and for a sigmoid: neither gives
    the probabilities of a frame's classes.
    """
    if (kind := normalised(samples)) is not None:
        return kind
    odd = [no_scores(scores) for scores in samples]
    if odd[0] is not None and None not in odd:
        raise ModelInvalid(f"{who} puts out {odd[0]}")
    for axis, move in _MOVED.items():
        moved = [move(scores) for scores in samples]
        if all(map(are_probabilities, moved)) or all(map(_are_logarithms, moved)):
            raise ModelInvalid(
                f"{who} takes its softmax over {axis}, not over the classes, so its output is no probability "
                "of a character; give softmax the axis of the classes, or let the network put out logits"
            )
    if all(map(_are_of_sigmoid, samples)):
        raise ModelInvalid(
            f"{who} puts out values between 0 and 1 that do not sum to one over the classes, as a sigmoid "
            "does; CTC needs softmax over the classes: let the network put out what the sigmoid is given"
        )
    return "logits"


def normalised(samples: Sequence[NDArray[Any]]) -> Literal["log-probs", "probabilities"] | None:
    """Whether the scores of each frame are probabilities or their logarithms; None: neither."""
    if all(map(are_probabilities, samples)):
        return "probabilities"
    return "log-probs" if all(map(_are_logarithms, samples)) else None


def no_scores(scores: NDArray[Any]) -> str | None:
    """What is made of probabilities (N, T, classes) and read wrongly as logits, with what to do; or None."""
    if not scores.size:
        return None
    wide = scores.astype(np.float64)
    if scores.max() <= _ROUNDING:
        for base in _BASES:
            if are_probabilities(base**wide):
                return f"logarithms to the base {base:g}; let it return log_softmax, or the logits"
    if not scores.min() >= 0:
        return None
    if are_probabilities(np.exp(-wide)):
        return (
            "log-probabilities with the wrong sign, as -log_softmax; let it return log_softmax, or the logits"
        )
    if are_probabilities(wide / 100):
        return "probabilities in percent; let it return the probabilities themselves, or the logits"
    return None


# where a softmax may have run by mistake, as the last axis
_MOVED: dict[str, Any] = {
    "the time steps": lambda scores: scores.transpose(0, 2, 1),
    "the images of a batch": lambda scores: scores.transpose(1, 2, 0),
    "all frames together": lambda scores: scores.reshape(len(scores), 1, -1),
}


def _are_logarithms(scores: NDArray[Any]) -> bool:
    """Whether they are logarithms of probabilities over the last axis."""
    if not scores.size or not scores.max() <= _ROUNDING:
        return False
    return are_probabilities(np.exp(scores.astype(np.float64)))


def _are_of_sigmoid(scores: NDArray[Any]) -> bool:
    within = bool(((scores >= 0) & (scores <= 1)).all())
    return within and scores.size > 0 and float((scores == 0).mean()) < _ZEROS
