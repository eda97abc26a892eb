"""The proof of a run: what lies in the output, row by row, against the plan.

Every file that a reader of the output would read is read back, ids and names. The file that an id belongs in
follows from the id, so each file is counted by itself and memory stays flat. Only ids that lie where they do
not belong are kept, until the files where they do belong are looked at again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice, pairwise

import numpy as np
import pyarrow as pa

from crnn_deploy.cluster.counted import Counted, Ints, count, positions_in, short
from crnn_deploy.cluster.parquet import ParquetInvalid
from crnn_deploy.cluster.plan import Chunk, Plan, number_of, part_of
from crnn_deploy.cluster.reconciliation import SHOWN, Example, Reconciliation
from crnn_deploy.cluster.rows import StoredRows, as_shown, id_of, split
from crnn_deploy.stores.store import Entry, Store, StoreMissing

__all__ = ["Names", "reconcile"]

_THREADS = 32  # an object store answers after a tenth of a second
_AHEAD = 2 * _THREADS  # files that are being counted or wait for it
_WHOLE = 2**23  # bytes of a file that is read in one request
_MOST_KEPT = 2**24  # ids in files where they do not belong

Names = Callable[[Chunk], pa.BinaryArray | None]


def reconcile(
    store: Store,
    plan: Plan,
    run: str,
    *,
    names: Names | None = None,
    progress: Callable[[int], None] = lambda files: None,
) -> Reconciliation:
    """Count what is in an output.

    store: OUTPUT
    run: digest of what decides about texts, as the files of rows have it
    names: the names of all inputs of a chunk as UTF-8 or as a plan has them, or None where its reader alone
        knows them; called from several threads at once. By default those that the plan has listed.
    progress: is told how many files are counted
    Where more than 16 million rows are misplaced, the others count as misplaced and as nothing else. Raises
    what a Store raises, and ParquetInvalid for the plan's own files.
    """
    return _Proof(store, plan, run, names or plan.names).made(progress)


class _Proof:
    """The counts so far. Its arrays have a value for each chunk."""

    def __init__(self, store: Store, plan: Plan, run: str, names: Names) -> None:
        self._store, self._plan, self._run, self._names = store, plan, run, names
        self._inputs = plan.counts()  # -1 where they are not counted
        self._held = np.zeros(len(plan), np.int64)  # inputs that have a row
        self._sizes = np.full(len(plan), -1)  # bytes of its file; -1 where it is absent or not whole
        self._right = np.zeros(len(plan), bool)
        self._elsewhere: list[tuple[str, Ints]] = []  # files and ids
        self._kept = 0  # such ids
        self._made = Reconciliation(len(plan))

    def made(self, progress: Callable[[int], None]) -> Reconciliation:
        made = self._made
        for at, (entry, counted) in enumerate(self._counted(), 1):
            self._add(entry, counted)
            progress(at)
        moved = self._moved()
        uncounted = np.flatnonzero(self._inputs < 0)
        made.inputs = int(self._inputs.clip(0).sum())
        made.missing = made.inputs - int(self._held.sum())
        made.uncounted = len(uncounted)
        made.to_do = np.flatnonzero(~self._right).tolist()
        self._tell("missing", self._missing(moved))
        self._tell("uncounted", ({"source": short(self._plan[int(at)].source)} for at in uncounted))
        return made

    def _counted(self) -> Iterator[tuple[Entry, Counted | None]]:
        """What the files hold, in their order."""
        entries = (entry for entry in self._store.list() if _is_read(entry.path))
        waiting: deque[Future[tuple[Entry, Counted | None]]] = deque()
        pool = ThreadPoolExecutor(_THREADS)
        try:
            while True:
                waiting += [pool.submit(self._count, one) for one in islice(entries, _AHEAD - len(waiting))]
                if not waiting:
                    return
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _count(self, entry: Entry) -> tuple[Entry, Counted | None]:
        """What a file holds, and its entry, whose size is -1 where it is not whole; called from threads."""
        chunk = self._chunk(entry.path)
        listed = None if chunk is None else self._listed(chunk)
        try:
            with self._opened(entry) as rows:
                counted = count(entry.path, rows, chunk, self._run, listed, len(self._plan))
        except StoreMissing:  # it was removed just now
            return entry, None
        except ParquetInvalid as error:
            entry, counted = entry._replace(size=-1), Counted(entry.path)
            counted.tell("torn", chunk is not None, [{"reason": error.reason}])
        counted.tell("strange", chunk is None)
        return entry, counted

    def _chunk(self, path: str) -> Chunk | None:
        """The chunk whose place a path is."""
        number = number_of(path)
        return None if number is None or number >= len(self._plan) else self._plan[number]

    def _listed(self, chunk: Chunk) -> pa.BinaryArray | None:
        names = self._names(chunk)
        return None if names is None else as_shown(names)

    @contextmanager
    def _opened(self, entry: Entry) -> Iterator[StoredRows]:
        name = self._store.name(entry.path)
        if entry.size <= _WHOLE:
            yield StoredRows(name, self._store.read(entry.path, size=entry.size))
            return
        with self._store.open(entry.path) as file:
            yield StoredRows(name, file)

    def _add(self, entry: Entry, counted: Counted | None) -> None:
        if counted is None:
            return
        made = self._made
        for name, value in counted.counts.items():
            setattr(made, name, getattr(made, name) + value)
        for fault, examples in counted.examples.items():
            self._tell(fault, examples)
        for ids in counted.elsewhere:
            taken = ids[: _MOST_KEPT - self._kept]
            self._kept += len(taken)
            made.misplaced += len(ids) - len(taken)
            self._elsewhere.append((entry.path, taken))
        chunk = self._chunk(entry.path)
        if chunk is not None:
            if counted.inputs is not None:
                self._inputs[chunk.number] = counted.inputs
            self._held[chunk.number] = counted.held
            self._right[chunk.number] = counted.right
            self._sizes[chunk.number] = entry.size

    def _moved(self) -> dict[int, Ints]:
        """Count the rows that lie where they do not belong; their positions, each once, by chunk."""
        made, ids = self._made, [np.zeros(0, np.int64)]
        for path, some in self._elsewhere:
            numbers, positions = split(some)
            known = positions < self._inputs[numbers]
            for fault, which in (("misplaced", known), ("unknown", ~known)):
                setattr(made, fault, getattr(made, fault) + int(which.sum()))
                self._tell(fault, ({"id": int(one), "file": short(path)} for one in some[which]))
            ids.append(some[known])
        self._elsewhere.clear()
        distinct, times = np.unique(np.concatenate(ids), return_counts=True)
        numbers, positions = split(distinct)
        begins = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
        moved: dict[int, Ints] = {}
        for begin, end in pairwise([*begins, len(distinct)]):
            number = int(numbers[begin])
            moved[number] = positions[begin:end]
            new = ~np.isin(moved[number], self._own(number))
            more = times[begin:end] - new
            self._held[number] += int(new.sum())
            made.duplicates += int(more.sum())
            self._tell("duplicates", ({"id": int(one)} for one in distinct[begin:end][more > 0]))
        return moved

    def _own(self, number: int) -> Ints:
        """The positions that a chunk's own file holds."""
        if self._sizes[number] < 0:
            return np.zeros(0, np.int64)
        with self._opened(Entry(part_of(number), int(self._sizes[number]))) as rows:
            return positions_in(rows, number)

    def _missing(self, moved: dict[int, Ints]) -> Iterator[Example]:
        """The inputs without a row."""
        for number in map(int, np.flatnonzero(self._inputs > self._held)):
            chunk = self._plan[number]
            there = np.union1d(self._own(number), moved.get(number, np.zeros(0, np.int64)))
            first = np.arange(min(self._inputs[number], len(there) + SHOWN))
            names = self._listed(chunk)
            for at in np.setdiff1d(first, there):
                place = (
                    {} if names is None else {"path": short(names[int(at)].as_py().decode(errors="replace"))}
                )
                yield {"id": id_of(number, int(at)), **place}

    def _tell(self, fault: str, examples: Iterable[Example]) -> None:
        told = self._made.examples.get(fault, [])
        if more := [*islice(examples, SHOWN - len(told))]:
            self._made.examples[fault] = told + more


def _is_read(path: str) -> bool:
    """Whether those who read a folder of Parquet files read this one: they pass over _names and .names."""
    return not any(part.startswith(("_", ".")) for part in path.split("/"))
