"""What one file of the output holds, against what it should hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from crnn_deploy.cluster.plan import Chunk
from crnn_deploy.cluster.reconciliation import SHOWN, Example
from crnn_deploy.cluster.rows import NamesDigest, Origin, Rows, StoredRows, id_of, split
from crnn_deploy.errors import shortened

__all__ = ["Counted", "Ints", "count", "positions_in", "short"]

Ints = NDArray[np.int64]

_LONGEST = 1000  # characters of a name in an example


@dataclass
class Counted:
    """What one file holds."""

    path: str
    counts: Counter[str] = field(default_factory=Counter)  # by the fields of Reconciliation
    examples: dict[str, list[Example]] = field(default_factory=dict)
    inputs: int | None = None  # of the chunk; None where they are not counted
    held: int = 0  # of the chunk's inputs, each once
    elsewhere: list[Ints] = field(default_factory=list)  # ids with the number of another chunk of the plan

    def tell(self, fault: str, number: int, examples: Iterable[Example] = ({},)) -> None:
        """Count a fault, and keep some examples of it."""
        if number:
            self.counts[fault] += number
            told = self.examples.setdefault(fault, [])
            told += [{**one, "file": short(self.path)} for one in islice(examples, SHOWN - len(told))]

    @property
    def right(self) -> bool:
        """Whether it is as the reader of its chunk has written it."""
        return self.inputs == self.held and not self.examples and not self.elsewhere


def count(
    path: str, rows: StoredRows, chunk: Chunk | None, run: str, listed: pa.BinaryArray | None, chunks: int
) -> Counted:
    """Count the rows of a file.

    chunk: whose place the file lies in; None where that is no chunk's
    run: digest of what decides about texts
    listed: the names of the chunk's inputs as the column `path` has them, where the plan knows them
    chunks: of the whole plan
    Raises ParquetInvalid, and what a Store raises.
    """
    found, digest, here = Counted(path), NamesDigest(), [_NONE]
    own = None if chunk is None else _own(rows.origin, chunk, run)
    if chunk is not None:
        found.inputs = chunk.count if own is None else own.inputs
        found.tell("foreign", own is None)
    for some in rows:
        found.counts["rows"] += len(some.ids)
        found.counts["errors"] += some.errors
        numbers, positions = split(some.ids)
        of_chunk = numbers == (-1 if chunk is None else chunk.number)
        known = of_chunk & (positions < (found.inputs or 0))
        elsewhere = ~of_chunk & (numbers >= 0) & (numbers < chunks)
        unknown = ~known & ~elsewhere
        found.tell("unknown", int(unknown.sum()), _examples(some, unknown))
        if elsewhere.any():
            found.elsewhere.append(some.ids[elsewhere])
        here.append(positions[known])
        if listed is None:
            digest.add(some.paths)
        elif known.any():
            planned = listed.take(pa.array(positions[known]))
            other = known.copy()
            other[known] = pc.not_equal(some.paths.filter(pa.array(known)), planned).to_numpy(
                zero_copy_only=False
            )
            found.tell("renamed", int(other.sum()), _renamed(some, other, positions, listed))
    if chunk is None:
        return found
    held, times = np.unique(np.concatenate(here), return_counts=True)
    found.held = len(held)
    twice: Iterator[Example] = ({"id": id_of(chunk.number, int(at))} for at in held[times > 1])
    found.tell("duplicates", int(times.sum()) - len(held), twice)
    found.tell("misnamed", own is not None and listed is None and digest.hexdigest() != own.names)
    return found


def positions_in(rows: StoredRows, chunk: int) -> Ints:
    """The positions of a chunk's rows in a file, sorted, each once. Raises ParquetInvalid."""
    found = [_NONE]
    for some in rows:
        numbers, positions = split(some.ids)
        found.append(positions[numbers == chunk])
    return np.unique(np.concatenate(found))


def short(name: str) -> str:
    """A name in an example."""
    return shortened(name, _LONGEST)


_NONE = np.zeros(0, np.int64)


def _own(origin: Origin | None, chunk: Chunk, run: str) -> Origin | None:
    """What made a file, where it is the reader of this chunk in this run."""
    if origin is None or (origin.chunk, origin.run) != (chunk.number, run):
        return None
    return origin if chunk.count in (None, origin.inputs) else None


def _examples(rows: Rows, which: NDArray[np.bool_]) -> Iterator[Example]:
    for at in np.flatnonzero(which):
        path = rows.paths[int(at)].as_py().decode(errors="replace")
        yield {"id": int(rows.ids[at]), "path": short(path)}


def _renamed(
    rows: Rows, which: NDArray[np.bool_], positions: Ints, listed: pa.BinaryArray
) -> Iterator[Example]:
    for example, position in zip(_examples(rows, which), positions[which], strict=True):
        yield {**example, "planned": short(listed[int(position)].as_py().decode(errors="replace"))}
