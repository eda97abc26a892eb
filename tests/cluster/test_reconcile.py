"""The proof counts what an output holds: against a count of ids by hand, after any faults."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.cluster.plan import NAMES, Chunk, Plan, part_of, read_plan, write_plan
from crnn_deploy.cluster.reconcile import reconcile
from crnn_deploy.cluster.reconciliation import FAULTS, SHOWN, Reconciliation
from crnn_deploy.cluster.rows import Origin, as_shown, encode, id_of, names_digest, shown, table_of
from crnn_deploy.runtime.records import Record
from crnn_deploy.stores.local import LocalStore
from crnn_deploy.stores.store import StoreDenied, StoreUnreachable

RUN = "ab" * 32
NAME = st.text(st.characters(exclude_categories=()), max_size=5)


@dataclass
class Part:
    """A file of the output as a test sees it."""

    rows: list[tuple[int, str, bool]]  # id, name, whether it is an error
    origin: Origin
    cut: float | None = None  # how much of it is left
    instead: bytes | None = None  # what lies there

    def data(self) -> bytes:
        if self.instead is not None:
            return self.instead
        records = [
            Record(name, "error", error="x") if bad else Record(name, "ok", "t", 0.5)
            for _, name, bad in self.rows
        ]
        table = table_of(0, records, model="m", version="1")
        ids = pa.array([one for one, _, _ in self.rows], pa.int64())
        made = self.origin
        data = encode(table.set_column(0, "id", ids), made.chunk, made.inputs, made.names, made.run)
        return data if self.cut is None else data[: int(len(data) * self.cut)]

    @property
    def is_whole(self) -> bool:
        return self.cut is None and self.instead is None


@dataclass
class Output:
    """A run's output as a test sees it."""

    names: list[list[str]]
    known: list[bool]  # whether the plan lists the names of a chunk
    counted: list[bool]  # whether the plan says how many inputs a chunk has
    parts: dict[str, Part] = field(default_factory=dict)

    @classmethod
    def whole(cls, chunks: Sequence[tuple[list[str], str]], bad: Random) -> Output:
        made = cls(
            [names for names, _ in chunks],
            [kind == "paths" for _, kind in chunks],
            [kind != "tar" for _, kind in chunks],
        )
        for number in range(len(chunks)):
            made.parts[part_of(number)] = made.part(number, bad)
        return made

    def part(self, number: int, bad: Random) -> Part:
        names = self.names[number]
        rows = [(id_of(number, at), name, bad.random() < 0.2) for at, name in enumerate(names)]
        return Part(rows, Origin(number, len(names), names_digest(names), RUN))

    def write(self, store: LocalStore) -> Plan:
        chunks = []
        for number, names in enumerate(self.names):
            if self.known[number]:
                chunks.append((Chunk(number, "paths", "", 0, len(names)), names))
            elif self.counted[number]:
                chunks.append((Chunk(number, "lmdb", "/x", 0, len(names)), []))
            else:
                chunks.append((Chunk(number, "tar", f"/{number}.tar", 0, None), []))
        plan = write_plan(store, chunks)
        for path, part in self.parts.items():
            store.write(path, part.data())
        return plan

    def counts(self) -> dict[str, int]:
        """What the proof should find, from all rows at once."""
        inputs: dict[int, str] = {}
        to_do, uncounted, foreign, misnamed, renamed = set(), 0, 0, 0, 0
        for number, names in enumerate(self.names):
            part = self.parts.get(part_of(number))
            here = part is not None and part.is_whole
            part = part if part is not None else Part([], Origin(-1, 0, "", ""))
            own = here and (part.origin.chunk, part.origin.run) == (number, RUN)
            own = own and (not self.counted[number] or part.origin.inputs == len(names))
            foreign += here and not own
            if not self.counted[number] and not own:
                uncounted += 1
                to_do.add(number)
                continue
            expected = names if self.counted[number] else [""] * part.origin.inputs
            inputs |= {id_of(number, at): name for at, name in enumerate(expected)}
            if not own:
                to_do.add(number)
                if not here:
                    continue
            if Counter(one for one, _, _ in part.rows) != Counter(
                id_of(number, at) for at in range(len(expected))
            ):
                to_do.add(number)
            if self.known[number]:
                wrong = sum(
                    shown(name) != shown(inputs[one])
                    for one, name, _ in part.rows
                    if one >> 32 == number and one in inputs
                )
                renamed += wrong
                if wrong:
                    to_do.add(number)
            elif own and names_digest(name for _, name, _ in part.rows) != part.origin.names:
                misnamed += 1
                to_do.add(number)
        places = {part_of(number) for number in range(len(self.names))}
        there = {
            path: part
            for path, part in self.parts.items()
            if not path.rpartition("/")[2].startswith((".", "_"))
        }
        rows = [(path, *row) for path, part in there.items() if part.is_whole for row in part.rows]
        ids = Counter(one for _, one, _, _ in rows)
        return {
            "chunks": len(self.names),
            "inputs": len(inputs),
            "rows": len(rows),
            "errors": sum(bad for *_, bad in rows),
            "missing": sum(one not in ids for one in inputs),
            "duplicates": sum(max(0, ids[one] - 1) for one in inputs),
            "misplaced": sum(one in inputs and part_of(one >> 32) != path for path, one, _, _ in rows),
            "unknown": sum(one not in inputs for _, one, _, _ in rows),
            "renamed": renamed,
            "torn": sum(path in places and not part.is_whole for path, part in there.items()),
            "strange": sum(path not in places for path in there),
            "foreign": foreign,
            "misnamed": misnamed,
            "uncounted": uncounted,
            "to_do": len(to_do),
        }


Fault = Callable[[Output, Random], None]


def pick(output: Output, random: Random) -> str:
    return random.choice(sorted(output.parts)) if output.parts else ""


def some_row(output: Output, random: Random) -> tuple[Part, int] | None:
    full = [part for _, part in sorted(output.parts.items()) if part.rows]
    if not full:
        return None
    part = random.choice(full)
    return part, random.randrange(len(part.rows))


def drop(output: Output, random: Random) -> None:
    if found := some_row(output, random):
        del found[0].rows[found[1]]


def double(output: Output, random: Random) -> None:
    if found := some_row(output, random):
        found[0].rows.insert(random.randrange(len(found[0].rows) + 1), found[0].rows[found[1]])


def move(output: Output, random: Random) -> None:
    if found := some_row(output, random):
        row = found[0].rows.pop(found[1])
        output.parts[pick(output, random)].rows.append(row)


def copy(output: Output, random: Random) -> None:
    if found := some_row(output, random):
        output.parts[pick(output, random)].rows.append(found[0].rows[found[1]])


def rename(output: Output, random: Random) -> None:
    if found := some_row(output, random):
        one, _, bad = found[0].rows[found[1]]
        found[0].rows[found[1]] = (one, random.choice(["", "other", "\udcff", "\\udcff"]), bad)


def number_anew(output: Output, random: Random) -> None:
    if found := some_row(output, random):
        _, name, bad = found[0].rows[found[1]]
        any_id = random.choice(
            [-1, -(2**63), 2**63 - 1, id_of(99, 0), id_of(0, 99), id_of(1, 2**32 - 1), id_of(1, 0)]
        )
        found[0].rows[found[1]] = (any_id, name, bad)


def shuffle(output: Output, random: Random) -> None:
    if path := pick(output, random):
        random.shuffle(output.parts[path].rows)


def remove(output: Output, random: Random) -> None:
    if path := pick(output, random):
        del output.parts[path]


def copy_file(output: Output, random: Random) -> None:
    if path := pick(output, random):
        places = [
            part_of(random.randrange(8)),
            "00000/copy.parquet",
            "part-00000000.parquet",
            ".copy",
            "_x.parquet",
        ]
        output.parts[random.choice(places)] = deepcopy(output.parts[path])


def tear(output: Output, random: Random) -> None:
    if path := pick(output, random):
        output.parts[path].cut = random.random()


def replace_file(output: Output, random: Random) -> None:
    if path := pick(output, random):
        output.parts[path].instead = random.choice(
            [b"", b"PAR1", b"PAR1\0\0\0\0PAR1", b"hello", random.randbytes(99)]
        )


def of_another_run(output: Output, random: Random) -> None:
    if path := pick(output, random):
        part = output.parts[path]
        change = random.choice(
            [{"run": "cd" * 32}, {"chunk": 5}, {"inputs": 3}, {"inputs": 99}, {"names": "other"}]
        )
        part.origin = replace(part.origin, **change)  # type: ignore[arg-type]


FAULT = st.sampled_from(
    [
        drop,
        double,
        move,
        copy,
        rename,
        number_anew,
        shuffle,
        remove,
        copy_file,
        tear,
        replace_file,
        of_another_run,
    ]
)
CHUNK = st.tuples(st.lists(NAME, min_size=1, max_size=5), st.sampled_from(["paths", "lmdb", "tar"]))


def told(found: Reconciliation) -> dict[str, int]:
    counts = {name: value for name, value in vars(found).items() if isinstance(value, int)}
    return {**counts, "to_do": len(found.to_do)}


@settings(deadline=None, max_examples=150)
@given(st.lists(CHUNK, max_size=5), st.lists(FAULT, max_size=4), st.randoms(use_true_random=False))
def test_the_proof_counts_what_is_there(
    chunks: list[tuple[list[str], str]], faults: list[Fault], random: Random
) -> None:
    output = Output.whole(chunks, random)
    for fault in faults:
        fault(output, random)
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)
        plan = output.write(store)
        found = reconcile(store, plan, RUN)
        expected = output.counts()
        assert told(found) == expected
        assert found.whole == (
            expected["rows"] == expected["inputs"] and not any(expected[name] for name in [*FAULTS, "to_do"])
        )
        for name in FAULTS:
            number = getattr(found, name)
            shown_of_it = found.examples.get(name, [])
            assert bool(number) == bool(shown_of_it) and len(shown_of_it) <= number, name
        assert json.loads(json.dumps(found.to_plain()))["rows"] == expected["rows"]

        # what it says is to be done makes the output whole, once the files of no chunk are away
        for path in [*output.parts]:
            if path not in {part_of(number) for number in range(len(chunks))}:
                store.delete(path)
        for number in found.to_do:
            store.write(part_of(number), output.part(number, random).data())
        mended = reconcile(store, plan, RUN)
        assert mended.whole and mended.rows == sum(len(names) for names, _ in chunks)


def small(folder: Path) -> tuple[LocalStore, Plan, Output]:
    """Two chunks of listed names and a tar."""
    output = Output.whole([(["a", "b"], "paths"), (["c", "d\udcff"], "paths"), (["e"], "tar")], Random(1))
    store = LocalStore(str(folder))
    return store, output.write(store), output


def test_examples_name_what_is_wrong(tmp_path: Path) -> None:
    store, plan, output = small(tmp_path)
    first, second, third = (output.parts[part_of(number)] for number in range(3))
    first.rows = [
        (0, "z", False),
        (0, "a", False),
        (id_of(1, 1), "d", False),
        (id_of(7, 0), "x" * 2000, False),
    ]
    second.cut = 0.5
    third.origin = replace(third.origin, run="other")
    output.parts["00000/copy.parquet"] = Part([], first.origin)
    output.write(store)
    found = reconcile(store, plan, RUN)
    file = part_of(0)
    assert found.examples["renamed"] == [{"id": 0, "path": "z", "planned": "a", "file": file}]
    assert found.examples["duplicates"] == [{"id": 0, "file": file}]
    assert found.examples["misplaced"] == [{"id": id_of(1, 1), "file": file}]
    assert found.examples["missing"] == [{"id": 1, "path": "b"}, {"id": id_of(1, 0), "path": "c"}]
    assert found.examples["strange"] == [{"file": "00000/copy.parquet"}]
    assert found.examples["foreign"] == [{"file": part_of(2)}]
    assert found.examples["uncounted"] == [{"source": "/2.tar"}]
    [torn] = found.examples["torn"]
    assert torn["file"] == part_of(1) and "not whole" in str(torn["reason"])
    longest = {one["id"]: one["path"] for one in found.examples["unknown"]}[id_of(7, 0)]
    assert len(str(longest)) < 1100
    assert found.to_do == [0, 1, 2]
    assert found.verdict == (
        "4 inputs, 5 rows, 0 of them errors: 2 images without a row, 1 row that repeats an image, "
        "1 row in the wrong file, 2 rows of images that were not given, 1 row with the wrong path, "
        "1 file that is not whole, 1 file that is not of this output, 1 file of another run or another "
        "place, 1 tar that was not read, 3 of 3 files to write"
    )


def test_the_verdict_of_a_whole_output(tmp_path: Path) -> None:
    store, plan, _ = small(tmp_path)
    files: list[int] = []
    found = reconcile(store, plan, RUN, progress=files.append)
    assert found.verdict == "5 inputs, 5 rows, 1 of them errors: none is missing, none is there twice"
    assert files == [1, 2, 3] and found.to_plain()["examples"] == {"to_do": []}
    assert pq.read_table(tmp_path).num_rows == 5  # a reader passes over the plan, as the proof does


def test_no_more_examples_than_can_be_looked_at(tmp_path: Path) -> None:
    names = [[f"{chunk}-{at}" for at in range(60)] for chunk in range(5)]
    output = Output.whole([(one, "paths") for one in names], Random(0))
    for number in (0, 1, 2):
        output.parts[part_of(number)].rows = [(id_of(9, at), "x", False) for at in range(150)]
    store = LocalStore(str(tmp_path))
    found = reconcile(store, output.write(store), RUN)
    assert (found.missing, found.unknown) == (180, 450)
    assert [one["path"] for one in found.examples["missing"]] == [*names[0], *names[1][:40]]
    assert len(found.examples["unknown"]) == SHOWN


def test_names_that_only_the_caller_knows(tmp_path: Path) -> None:
    store, plan, output = small(tmp_path)
    output.parts[part_of(2)].rows = [(id_of(2, 0), "other", False)]
    output.parts[part_of(2)].origin = Origin(2, 1, names_digest(["other"]), RUN)
    output.write(store)
    assert reconcile(store, plan, RUN).whole  # whoever wrote it says that it is so

    def names(chunk: Chunk) -> pa.BinaryArray | None:
        return pa.array([b"e"]) if chunk.kind == "tar" else plan.names(chunk)

    found = reconcile(store, plan, RUN, names=names)
    assert (found.renamed, found.to_do) == (1, [2])


def test_misplaced_rows_beyond_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn_deploy.cluster.reconcile._MOST_KEPT", 5)
    output = Output.whole([([f"{at}" for at in range(8)], "lmdb"), (["a"], "lmdb")], Random(0))
    output.parts["00000/copy.parquet"] = deepcopy(output.parts[part_of(0)])
    store = LocalStore(str(tmp_path))
    found = reconcile(store, output.write(store), RUN)
    assert (found.misplaced, found.duplicates, found.missing, found.whole) == (8, 5, 0, False)


def test_a_large_file_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn_deploy.cluster.reconcile._WHOLE", 100)
    store, plan, output = small(tmp_path)
    assert reconcile(store, plan, RUN).whole
    output.parts[part_of(0)].rows.pop()
    output.parts[part_of(1)].cut = 0.9
    output.write(store)
    assert told(reconcile(store, plan, RUN)) == output.counts()


def test_any_changed_byte_costs_no_row_in_silence(tmp_path: Path) -> None:
    """Where the proof calls an output whole, a reader finds the ids and names that were written."""
    output = Output.whole([(["images/a.png", "images/b.png"], "paths")], Random(0))
    store = LocalStore(str(tmp_path))
    plan = output.write(store)
    path = tmp_path / part_of(0)
    data = path.read_bytes()
    before = pq.read_table(path, columns=["id", "path"])
    whole = 0
    for at in range(0, len(data), 5):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        if reconcile(store, plan, RUN).whole:
            whole += 1
            assert pq.read_table(path, columns=["id", "path"]).equals(before), at
    assert 0 < whole < len(data) / 5 * 0.9


class Trap:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.write_text, (Path(self.path), "code ran")


def test_no_code_of_a_file_runs(tmp_path: Path) -> None:
    """Types of Ray's and of older pyarrow's unpickled what a file says of them."""
    import pickle

    data = pytest.importorskip("ray.data", reason="Ray is not installed")
    assert data.DataContext  # its types are registered with pyarrow
    trace = tmp_path / "trace"
    payload = pickle.dumps(Trap(str(trace)))
    store, plan, _ = small(tmp_path / "out")
    names = ["ray.data.arrow_tensor", "ray.data.arrow_tensor_v2", "ray.data.arrow_variable_shaped_tensor"]
    for name in [*names, "ray.data.arrow_pickled_object", "arrow.py_extension_type"]:
        for column in ("id", "path", "other"):
            plain = pa.table(
                {"id": [0, 1], "path": ["a", "b"], "error": pa.nulls(2, pa.string()), "other": [[1], [2]]}
            )
            at = plain.column_names.index(column)
            metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": payload}
            schema = plain.schema.set(at, plain.schema.field(at).with_metadata(metadata))
            pq.write_table(plain.cast(schema), tmp_path / "out" / part_of(0))
            found = reconcile(store, plan, RUN)
            assert found.torn == 1 and found.to_do == [0]
            assert "types of other libraries" in str(found.examples["torn"])
    assert not trace.exists()


@pytest.mark.parametrize("error", [StoreUnreachable("s3://x", "gone"), StoreDenied("s3://x", "no")])
def test_a_store_that_fails_is_no_fault_of_a_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, plan, _ = small(tmp_path)

    def read(*arguments: object, **named: object) -> bytes:
        raise error

    monkeypatch.setattr(LocalStore, "read", read)
    with pytest.raises(type(error)):
        reconcile(store, plan, RUN)


def test_an_output_of_which_nothing_is_done(tmp_path: Path) -> None:
    store, plan, output = small(tmp_path)
    for path in output.parts:
        store.delete(path)
    found = reconcile(store, plan, RUN)
    assert (found.inputs, found.missing, found.rows, found.uncounted) == (4, 4, 0, 1)
    assert found.to_do == [0, 1, 2] and not found.whole
    (tmp_path / NAMES / "00000.parquet").touch()
    assert read_plan(store).counts().tolist() == [2, 2, -1]
    assert np.array_equal(pc.equal(as_shown(pa.array([b"\xed\xb3\xbf"])), b"\\udcff").to_numpy(False), [True])
