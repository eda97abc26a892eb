"""The inner loops over alignments of a labelling or of an automaton's texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.runtime.decoding.compiled import NEVER, compiled, log_add

__all__ = ["align", "best_path", "log_likelihoods"]


@compiled
def _log_likelihood(log_probs: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    places = 2 * len(labels) + 1
    forward = np.full(places, NEVER)
    forward[0] = 0.0
    for t in range(len(log_probs)):
        for at in range(places - 1, 0, -1):
            value = log_add(forward[at], forward[at - 1])
            column = 0
            if at % 2:
                column = labels[at // 2]
                if at > 1 and labels[at // 2 - 1] != column:
                    value = log_add(value, forward[at - 2])
            forward[at] = value + log_probs[t, column]
        forward[0] += log_probs[t, 0]
    return log_add(forward[places - 1], forward[places - 2]) if places > 1 else forward[0]


_LARGE, _SMALL = 1e300, 1e-290  # probabilities are summed in units of 1 / _LARGE


@compiled
def log_likelihoods(
    log_probs: NDArray[np.float64], labels: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Log probabilities of labellings, summed over all alignments (Graves et al. 2006, section 4.1).

    log_probs: (T, K), the blank in column 0
    labels: columns, one labelling after the other
    ends: (N) where each labelling ends
    """
    steps = len(log_probs)
    probabilities = np.exp(log_probs)
    found = np.empty(len(ends))
    start = 0
    for n in range(len(ends)):
        end = ends[n]
        places = 2 * (end - start) + 1
        forward = np.zeros(places)
        forward[0] = _LARGE  # before the first frame, in the blank that comes before all
        for t in range(steps):
            silent = probabilities[t, 0]
            # a path of t + 1 frames has come so far at most
            for at in range(min(places - 1, 2 * t + 1), 0, -1):
                value = forward[at] + forward[at - 1]
                if at % 2:
                    label = labels[start + at // 2]
                    if at > 1 and labels[start + at // 2 - 1] != label:
                        value += forward[at - 2]
                    forward[at] = value * probabilities[t, label]
                else:
                    forward[at] = value * silent
            forward[0] *= silent
        total = forward[places - 1] + (forward[places - 2] if places > 1 else 0.0)
        # what was too small for a float is nothing beside this, or else all is summed as logarithms
        if total > _SMALL:
            found[n] = np.log(total) - np.log(_LARGE)
        else:
            found[n] = _log_likelihood(log_probs, labels[start:end])
        start = end
    return found


@compiled
def align(
    emissions: NDArray[np.float64], repeated: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The likeliest alignment of a labelling: of each label its first frame, one past its last, and
    its best frame's log probability.

    emissions: (T, L + 1), log probabilities of the blank and of each label
    repeated: (L) whether a label equals the one before it
    As `log_likelihoods` with max for sum. The probability must not be 0.
    """
    steps, length = emissions.shape[0], emissions.shape[1] - 1
    positions = 2 * length + 1
    best = np.full(positions, NEVER)
    best[0] = 0.0
    came = np.zeros((steps, positions), np.int8)
    for t in range(steps):
        for at in range(positions - 1, -1, -1):
            column = (at + 1) // 2 if at % 2 else 0
            value, step = best[at], 0
            if at and best[at - 1] > value:
                value, step = best[at - 1], 1
            if at % 2 and at > 1 and not repeated[at // 2] and best[at - 2] > value:
                value, step = best[at - 2], 2
            best[at] = value + emissions[t, column]
            came[t, at] = step
    at = positions - 1
    if length and best[at - 1] >= best[at]:
        at -= 1
    starts, ends = np.zeros(length, np.int64), np.zeros(length, np.int64)
    peaks = np.full(length, NEVER)
    for t in range(steps - 1, -1, -1):
        if at % 2:
            label = at // 2
            starts[label] = t
            if not ends[label]:
                ends[label] = t + 1
            peaks[label] = max(peaks[label], emissions[t, label + 1])
        at -= came[t, at]
    return starts, ends, peaks


@compiled
def best_path(
    log_probs: NDArray[np.float64],
    blank: int,
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    label: NDArray[np.int64],
    final: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """The likeliest path of classes, frame by frame, whose text an automaton accepts; exact.

    log_probs: (T, classes)
    source, target, label: (edges) of a deterministic automaton that starts in state 0
    final: (states) whether a text may end there
    A path is in a state's blank or on an edge. Empty where the automaton accepts nothing in T frames.
    """
    steps, edges, states = len(log_probs), len(source), len(final)
    on_edge = np.full(edges, NEVER)
    in_blank = np.full(states, NEVER)
    in_blank[0] = 0.0
    new_edge = np.empty(edges)
    new_blank = np.empty(states)
    # where a path came from: of an edge 0 the edge itself, 1 the blank of its source, 2 or 3 the best or the
    # second edge into its source; of a blank 0 the blank itself, 2 the best edge into its state
    edge_came = np.zeros((steps, edges), np.int8)
    blank_came = np.zeros((steps, states), np.int8)
    best = np.empty((steps, states), np.int32)  # of the edges into a state the likeliest
    second = np.empty((steps, states), np.int32)  # and the likeliest of another label than that
    for t in range(steps):
        for s in range(states):
            best[t, s] = second[t, s] = -1
        for e in range(edges):
            if on_edge[e] == NEVER:
                continue
            s = target[e]
            first = best[t, s]
            if first < 0 or on_edge[e] > on_edge[first]:
                if first >= 0 and label[first] != label[e]:
                    second[t, s] = first
                best[t, s] = e
            elif label[e] != label[first] and (second[t, s] < 0 or on_edge[e] > on_edge[second[t, s]]):
                second[t, s] = e
        for s in range(states):
            value, came = in_blank[s], 0
            first = best[t, s]
            if first >= 0 and on_edge[first] > value:
                value, came = on_edge[first], 2
            new_blank[s] = value + log_probs[t, blank]
            blank_came[t, s] = came
        for e in range(edges):
            s = source[e]
            value, came = on_edge[e], 0
            if in_blank[s] > value:
                value, came = in_blank[s], 1
            other, which = best[t, s], 2
            if other >= 0 and label[other] == label[e]:
                other, which = second[t, s], 3
            if other >= 0 and on_edge[other] > value:
                value, came = on_edge[other], which
            new_edge[e] = value + log_probs[t, label[e]]
            edge_came[t, e] = came
        on_edge, new_edge = new_edge, on_edge
        in_blank, new_blank = new_blank, in_blank
    at, value = -1, NEVER  # an edge, or edges + a state
    for s in range(states):
        if final[s] and in_blank[s] > value:
            at, value = edges + s, in_blank[s]
    for e in range(edges):
        if final[target[e]] and on_edge[e] > value:
            at, value = e, on_edge[e]
    if at < 0:
        return np.empty(0, np.int64)
    path = np.empty(steps, np.int64)
    for t in range(steps - 1, -1, -1):
        if at >= edges:
            path[t] = blank
            s, came = at - edges, blank_came[t, at - edges]
        else:
            path[t] = label[at]
            s, came = source[at], edge_came[t, at]
        if came == 1:
            at = edges + s
        elif came == 2:
            at = best[t, s]
        elif came == 3:
            at = second[t, s]
    return path
