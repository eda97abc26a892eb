"""The inner loops of the beam search."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.runtime.decoding.compiled import NEVER, compiled, log_add

__all__ = [
    "BEAM_FLOATS",
    "BEAM_INTS",
    "CHILDREN",
    "TREE",
    "Table",
    "advance",
    "backtrack",
    "insert",
    "strongest",
]

# an open-addressing table of a power of two of slots: keys, -1 where free, and of each a value and a weight
Table = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


@compiled
def lookup(keys: NDArray[np.int64], key: int) -> int:
    """Where a key stands in an open-addressing table of a power of two of slots, or its free slot."""
    mask = len(keys) - 1
    slot = key * 40503
    slot = (slot ^ (slot >> 16)) & mask
    while keys[slot] != -1 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot


@compiled
def insert(
    table: Table,
    keys: NDArray[np.int64],
    values: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> None:
    """Put keys that a table lacks, with a value and a weight each, into its free slots."""
    for i in range(len(keys)):
        slot = lookup(table[0], keys[i])
        table[0][slot] = keys[i]
        table[1][slot] = values[i]
        table[2][slot] = weights[i]


@compiled
def strongest(
    logits: NDArray[np.float32], margin: float, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Of each frame the classes within a margin of the strongest, `most` at most: the strongest first, of
    equals the first.

    logits: (T, classes)
    margin: 0 at most
    Where each frame's end (T), one frame after the other, and their classes and logits.
    """
    steps, classes = logits.shape
    room = min(most, classes)
    ends = np.empty(steps, np.int64)
    labels, kept = np.empty(steps * room, np.int64), np.empty(steps * room, np.float64)
    first = 0
    for t in range(steps):
        bar, end = NEVER, first
        row = logits[t]
        for label in range(classes):
            logit = row[label]
            if logit < bar:
                continue
            if end - first == room:
                if logit <= kept[end - 1]:
                    continue
                end -= 1
            at = end
            while at > first and kept[at - 1] < logit:
                kept[at], labels[at] = kept[at - 1], labels[at - 1]
                at -= 1
            kept[at], labels[at] = logit, label
            end += 1
            bar = kept[first] + margin
            if end - first == room:
                bar = max(bar, kept[end - 1])
        while end > first and kept[end - 1] < kept[first] + margin:
            end -= 1
        ends[t] = first = end
    return ends, labels[:first], kept[:first]


@compiled
def _worse(totals: NDArray[np.float64], order: NDArray[np.int64], one: int, other: int) -> bool:
    """Whether a row comes after another: a smaller total, or of equals the later one."""
    return bool(totals[one] < totals[other] or (totals[one] == totals[other] and order[one] > order[other]))


@compiled
def _sift(
    heap: NDArray[np.int64], size: int, at: int, totals: NDArray[np.float64], order: NDArray[np.int64]
) -> None:
    """Let what stands at a place of a heap sink; the worst row comes to stand on top."""
    row = heap[at]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and _worse(totals, order, heap[child + 1], heap[child]):
            child += 1
        if not _worse(totals, order, heap[child], row):
            break
        heap[at] = heap[child]
        at = child
    heap[at] = row


@compiled
def _heapify(heap: NDArray[np.int64], totals: NDArray[np.float64], order: NDArray[np.int64]) -> None:
    for at in range(len(heap) // 2 - 1, -1, -1):
        _sift(heap, len(heap), at, totals, order)


# A beam has a row for each prefix, the likeliest first. BEAM_INTS: node of the prefix tree, state of the
# scorer. BEAM_FLOATS: log probability of all alignments that end in a blank, of those that end in the
# prefix's last label, and the scorer's weights so far. The tree has a node for each prefix ever held. TREE:
# its parent, its label, and its row in the beam or -1. CHILDREN: a table of keys node * classes + label, and
# nodes.
BEAM_INTS, BEAM_FLOATS, TREE, CHILDREN = 2, 3, 3, 2


@compiled
def advance(
    first: int,
    ends: NDArray[np.int64],
    labels: NDArray[np.int64],
    log_probs: NDArray[np.float64],
    blank: int,
    classes: int,
    ceiling: float,
    known: Table,
    tree: NDArray[np.int64],
    children: NDArray[np.int64],
    size: NDArray[np.int64],
    ints: NDArray[np.int64],
    floats: NDArray[np.float64],
    missing: NDArray[np.int64],
) -> int:
    """Take the beam through frames from `first` on; the frame at which it stopped.

    ends, labels, log_probs: candidates of all frames as `strongest` orders them
    ceiling: no step of the scorer has a greater weight
    known: steps of the scorer: keys state * classes + label, -1 where free, states, weights; no slots: there
        is no scorer
    size: [nodes of the tree, rows of the beam, missing steps]
    ints, floats: the beam, as many columns as it may have rows
    It stops before a frame that needs steps of the scorer that are not known, and lists them in `missing`.
    """
    parents, tree_labels, place = tree[0], tree[1], tree[2]
    nodes, states = ints[0], ints[1]
    in_blank, in_label, scores = floats[0], floats[1], floats[2]
    keys, next_states, weights = known
    scored = len(keys) > 0
    width = len(nodes)
    both, totals, order = np.empty(width), np.empty(width), np.empty(width, np.int64)
    new_node, new_parent = np.empty(width, np.int64), np.empty(width, np.int64)
    new_label, new_state = np.empty(width, np.int64), np.empty(width, np.int64)
    new_blank, new_in_label, new_score = np.empty(width), np.empty(width), np.empty(width)
    heap = np.empty(width, np.int64)
    said = np.full(classes, NEVER)  # log probability of each candidate of a frame
    for t in range(first, len(ends)):
        start, end = (ends[t - 1] if t else 0), ends[t]
        beam = size[1]
        for c in range(start, end):
            said[labels[c]] = log_probs[c]
        for b in range(beam):
            both[b] = log_add(in_blank[b], in_label[b])
        # what stays: a blank, the last label once more, or that label after a shorter prefix of the beam
        for b in range(beam):
            node = nodes[b]
            label, parent = tree_labels[node], parents[node]
            stay = NEVER
            if parent >= 0:
                stay = in_label[b] + said[label]
                shorter = place[parent]
                if shorter >= 0:
                    grown = in_blank[shorter] if tree_labels[parent] == label else both[shorter]
                    stay = log_add(stay, grown + said[label])
            new_node[b], new_parent[b], new_label[b] = node, parent, label
            new_blank[b], new_in_label[b] = both[b] + said[blank], stay
            new_state[b], new_score[b] = states[b], scores[b]
            totals[b] = log_add(new_blank[b], stay) + scores[b]
            order[b] = heap[b] = b
        count, turn, missed = beam, beam, 0
        if count == width:
            _heapify(heap, totals, order)
        # what grows by a label to a prefix that the beam does not hold
        for b in range(beam):
            node = nodes[b]
            for c in range(start, end):
                bar = totals[heap[0]] if count == width else NEVER
                if both[b] + log_probs[c] + scores[b] + ceiling <= bar:
                    break  # the next candidates are weaker still
                label = labels[c]
                if label == blank:
                    continue
                gain = (in_blank[b] if label == tree_labels[node] else both[b]) + log_probs[c]
                if gain == NEVER or gain + scores[b] + ceiling <= bar:
                    continue
                key = node * classes + label
                edge = lookup(children[0], key)
                child = children[1, edge] if children[0, edge] == key else -1
                if child >= 0 and place[child] >= 0:
                    continue
                state, weight = 0, 0.0
                if scored:
                    key = states[b] * classes + label
                    slot = lookup(keys, key)
                    if keys[slot] != key:
                        missing[missed] = key
                        missed += 1
                        continue
                    state, weight = next_states[slot], weights[slot]
                total = gain + scores[b] + weight
                if total <= bar:
                    continue
                row = count if count < width else heap[0]
                new_node[row], new_parent[row], new_label[row] = child, node, label
                new_blank[row], new_in_label[row] = NEVER, gain
                new_state[row], new_score[row] = state, scores[b] + weight
                totals[row], order[row] = total, turn
                turn += 1
                if count == width:
                    _sift(heap, width, 0, totals, order)
                else:
                    heap[count] = count
                    count += 1
                    if count == width:
                        _heapify(heap, totals, order)
        for c in range(start, end):
            said[labels[c]] = NEVER
        if missed:
            size[2] = missed
            return t
        for b in range(beam):
            place[nodes[b]] = -1
        if count < width:
            _heapify(heap[:count], totals, order)
        for left in range(count - 1, -1, -1):  # the worst goes last
            row = heap[0]
            heap[0] = heap[left]
            _sift(heap, left, 0, totals, order)
            heap[left] = row
        kept = 0
        while kept < count and totals[heap[kept]] > NEVER:
            row = heap[kept]
            node = new_node[row]
            if node < 0:
                node = size[0]
                size[0] += 1
                parents[node], tree_labels[node] = new_parent[row], new_label[row]
                key = new_parent[row] * classes + new_label[row]
                edge = lookup(children[0], key)
                children[0, edge], children[1, edge] = key, node
            nodes[kept], states[kept] = node, new_state[row]
            place[node] = kept
            in_blank[kept], in_label[kept] = new_blank[row], new_in_label[row]
            scores[kept] = new_score[row]
            kept += 1
        size[1] = kept
        if not kept:
            break
    return len(ends)


@compiled
def backtrack(node: int, tree: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels from the root to a node of the prefix tree."""
    parents, tree_labels = tree[0], tree[1]
    length, at = 0, node
    while parents[at] >= 0:
        length += 1
        at = parents[at]
    found = np.empty(length, np.int64)
    for i in range(length - 1, -1, -1):
        found[i] = tree_labels[node]
        node = parents[node]
    return found
