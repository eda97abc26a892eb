"""The inner loops of decoding, for numba where it is installed and plain Python where it is not.

One source for both, so both give the same results: float64 throughout, no fast-math, and ties broken by
order. Without numba (the extra `decode`) everything works, some hundred times slower.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["COMPILED", "advance", "align", "backtrack", "best_path", "log_likelihood", "lookup"]

_Function = TypeVar("_Function", bound=Callable[..., Any])

try:
    from numba import njit

    COMPILED = True
except ImportError:
    COMPILED = False


def _compiled(function: _Function) -> _Function:
    """The function compiled; cached on disk, since compiling takes seconds. Keeps the GIL: see `Memo`."""
    return cast(_Function, njit(cache=True)(function)) if COMPILED else function


_NEVER = -math.inf


@_compiled
def _log_add(one: float, other: float) -> float:
    if one < other:
        one, other = other, one
    if other == _NEVER:
        return one
    return one + math.log1p(math.exp(other - one))


@_compiled
def lookup(keys: NDArray[np.int64], key: int) -> int:
    """Where a key stands in an open-addressing table of a power of two of slots, or its free slot."""
    mask = len(keys) - 1
    slot = ((key * 40503) ^ (key >> 15)) & mask
    while keys[slot] != -1 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


# A beam is rows of: node of the prefix tree, log probability of all alignments that end in a blank, of those
# that end in the prefix's last label, state of the scorer, the scorer's weights so far.
# The tree has one node for each prefix ever held: its parent, its label, and its place in the beam or -1;
# a table
# (keys node * classes + label) finds the children.


@_compiled
def advance(
    first: int,
    frame_ends: NDArray[np.int64],
    labels: NDArray[np.int64],
    log_probs: NDArray[np.float64],
    blank: int,
    width: int,
    classes: int,
    keys: NDArray[np.int64],
    next_states: NDArray[np.int64],
    weights: NDArray[np.float64],
    parents: NDArray[np.int64],
    tree_labels: NDArray[np.int64],
    child_keys: NDArray[np.int64],
    children: NDArray[np.int64],
    place: NDArray[np.int64],
    size: NDArray[np.int64],
    nodes: NDArray[np.int64],
    in_blank: NDArray[np.float64],
    in_label: NDArray[np.float64],
    states: NDArray[np.int64],
    scores: NDArray[np.float64],
    missing: NDArray[np.int64],
) -> int:
    """Take the beam through frames from `first` on; the frame at which it stopped.

    labels, log_probs: candidates of all frames, one frame after the other; frame t's end at frame_ends[t]
    keys, next_states, weights: known steps of the scorer, state * classes + label -> state, weight; -1 is
    free
    size: [nodes of the tree, hypotheses in the beam, missing steps]
    It stops before a frame that needs steps of the scorer that are not known, and lists them in `missing`.
    """
    frames = len(frame_ends)
    capacity = len(nodes)
    new_node = np.empty(capacity, np.int64)
    new_parent = np.empty(capacity, np.int64)
    new_label = np.empty(capacity, np.int64)
    new_blank = np.empty(capacity, np.float64)
    new_in_label = np.empty(capacity, np.float64)
    new_state = np.empty(capacity, np.int64)
    new_score = np.empty(capacity, np.float64)
    total = np.empty(capacity, np.float64)
    taken = np.empty(capacity, np.bool_)
    for t in range(first, frames):
        start = frame_ends[t - 1] if t else 0
        end = frame_ends[t]
        beam = size[1]
        # what stays: a blank, or the last label once more
        blank_at = -1
        for c in range(start, end):
            if labels[c] == blank:
                blank_at = c
        missed = 0
        for b in range(beam):
            for c in range(start, end):
                if labels[c] != blank:
                    key = states[b] * classes + labels[c]
                    slot = lookup(keys, key)
                    if keys[slot] == -1:
                        missing[missed] = key
                        missed += 1
        if missed:
            size[2] = missed
            return t
        count = beam
        for b in range(beam):
            node = nodes[b]
            last = tree_labels[node]
            both = _log_add(in_blank[b], in_label[b])
            new_node[b] = node
            new_parent[b] = parents[node]
            new_label[b] = last
            new_blank[b] = both + log_probs[blank_at] if blank_at >= 0 else _NEVER
            new_in_label[b] = _NEVER
            for c in range(start, end):
                if labels[c] == last:
                    new_in_label[b] = in_label[b] + log_probs[c]
            new_state[b] = states[b]
            new_score[b] = scores[b]
        # what grows by a label; it may be a prefix that the beam holds already
        for b in range(beam):
            node = nodes[b]
            both = _log_add(in_blank[b], in_label[b])
            for c in range(start, end):
                label = labels[c]
                if label == blank:
                    continue
                slot = lookup(keys, states[b] * classes + label)
                weight = weights[slot]
                if weight == _NEVER:
                    continue
                gain = (in_blank[b] if label == tree_labels[node] else both) + log_probs[c]
                if gain == _NEVER:
                    continue
                edge = lookup(child_keys, node * classes + label)
                child = children[edge] if child_keys[edge] != -1 else -1
                if child >= 0 and place[child] >= 0:
                    held = place[child]
                    new_in_label[held] = _log_add(new_in_label[held], gain)
                else:
                    new_node[count] = child
                    new_parent[count] = node
                    new_label[count] = label
                    new_blank[count] = _NEVER
                    new_in_label[count] = gain
                    new_state[count] = next_states[slot]
                    new_score[count] = scores[b] + weight
                    count += 1
        for i in range(count):
            total[i] = _log_add(new_blank[i], new_in_label[i]) + new_score[i]
            taken[i] = False
        for b in range(beam):
            place[nodes[b]] = -1
        kept = 0
        while kept < width and kept < count:
            best = -1
            for i in range(count):
                if not taken[i] and total[i] > _NEVER and (best < 0 or total[i] > total[best]):
                    best = i
            if best < 0:
                break
            taken[best] = True
            node = new_node[best]
            if node < 0:
                node = size[0]
                size[0] += 1
                parents[node] = new_parent[best]
                tree_labels[node] = new_label[best]
                key = new_parent[best] * classes + new_label[best]
                edge = lookup(child_keys, key)
                child_keys[edge] = key
                children[edge] = node
            nodes[kept] = node
            place[node] = kept
            in_blank[kept] = new_blank[best]
            in_label[kept] = new_in_label[best]
            states[kept] = new_state[best]
            scores[kept] = new_score[best]
            kept += 1
        size[1] = kept
        if not kept:
            return frames
    return frames


@_compiled
def backtrack(node: int, parents: NDArray[np.int64], tree_labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels from the root to a node of the prefix tree."""
    length, at = 0, node
    while parents[at] >= 0:
        length += 1
        at = parents[at]
    found = np.empty(length, np.int64)
    for i in range(length - 1, -1, -1):
        found[i] = tree_labels[node]
        node = parents[node]
    return found


@_compiled
def log_likelihood(emissions: NDArray[np.float64], repeated: NDArray[np.bool_]) -> float:
    """Log probability of a labelling, summed over all alignments (Graves et al. 2006, section 4.1).

    emissions: (T, L + 1), log probabilities of the blank and of each label
    repeated: (L) whether a label equals the one before it
    """
    steps, length = emissions.shape[0], emissions.shape[1] - 1
    forward = np.full(2 * length + 1, _NEVER)
    forward[0] = 0.0  # before the first frame, in the blank that comes before all
    for t in range(steps):
        for at in range(2 * length, -1, -1):
            column = (at + 1) // 2 if at % 2 else 0
            value = forward[at]
            if at:
                value = _log_add(value, forward[at - 1])
            if at % 2 and at > 1 and not repeated[at // 2]:
                value = _log_add(value, forward[at - 2])
            forward[at] = value + emissions[t, column]
    return _log_add(forward[2 * length], forward[2 * length - 1]) if length else forward[0]


@_compiled
def align(
    emissions: NDArray[np.float64], repeated: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The likeliest alignment of a labelling: of each label its first frame, one past its last, and
    its best frame's log probability.

    As `log_likelihood` with max for sum. The probability must not be 0.
    """
    steps, length = emissions.shape[0], emissions.shape[1] - 1
    positions = 2 * length + 1
    best = np.full(positions, _NEVER)
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
    peaks = np.full(length, _NEVER)
    for t in range(steps - 1, -1, -1):
        if at % 2:
            label = at // 2
            starts[label] = t
            if not ends[label]:
                ends[label] = t + 1
            peaks[label] = max(peaks[label], emissions[t, label + 1])
        at -= came[t, at]
    return starts, ends, peaks


@_compiled
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
    on_edge = np.full(edges, _NEVER)
    in_blank = np.full(states, _NEVER)
    in_blank[0] = 0.0
    new_edge = np.empty(edges)
    new_blank = np.empty(states)
    came = np.empty((steps, edges + states), np.int32)  # an edge, or edges + a state
    best = np.empty(states, np.int64)  # of the edges into a state the likeliest
    second = np.empty(states, np.int64)  # and the likeliest of another label than that
    for t in range(steps):
        best[:] = -1
        second[:] = -1
        for e in range(edges):
            if on_edge[e] == _NEVER:
                continue
            s = target[e]
            if best[s] < 0 or on_edge[e] > on_edge[best[s]]:
                if best[s] >= 0 and label[best[s]] != label[e]:
                    second[s] = best[s]
                best[s] = e
            elif label[e] != label[best[s]] and (second[s] < 0 or on_edge[e] > on_edge[second[s]]):
                second[s] = e
        for s in range(states):
            value, step = in_blank[s], edges + s
            if best[s] >= 0 and on_edge[best[s]] > value:
                value, step = on_edge[best[s]], best[s]
            new_blank[s] = value + log_probs[t, blank]
            came[t, edges + s] = step
        for e in range(edges):
            s = source[e]
            value, step = on_edge[e], e
            if in_blank[s] > value:
                value, step = in_blank[s], edges + s
            other = best[s]
            if other >= 0 and label[other] == label[e]:
                other = second[s]
            if other >= 0 and on_edge[other] > value:
                value, step = on_edge[other], other
            new_edge[e] = value + log_probs[t, label[e]]
            came[t, e] = step
        on_edge[:] = new_edge
        in_blank[:] = new_blank
    at, value = -1, _NEVER
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
        path[t] = blank if at >= edges else label[at]
        at = came[t, at]
    return path
