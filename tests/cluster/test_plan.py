"""A plan comes back as it was written, however many chunks it has, and a damaged one is told."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.cluster.parquet import ParquetInvalid
from crnn_deploy.cluster.plan import NAMES, PLAN, Chunk, decoded, number_of, part_of, read_plan, write_plan
from crnn_deploy.stores.local import LocalStore
from crnn_deploy.stores.store import StoreMissing

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=8)  # NUL and halves of surrogate pairs too
LISTED = st.lists(ANY_TEXT, min_size=1, max_size=5)
OTHERS = st.one_of(
    st.tuples(st.just("tar"), ANY_TEXT, st.just(0), st.none(), st.just(""), st.just("")),
    st.tuples(
        st.sampled_from(["paths", "bytes", "lmdb"]),
        ANY_TEXT.map("/data/{}".format),
        st.integers(0, 2**62),
        st.integers(1, 2**31),
        ANY_TEXT,
        ANY_TEXT,
    ),
)


@settings(deadline=None)
@given(st.lists(st.one_of(LISTED, OTHERS), max_size=12))
def test_chunks_and_names_come_back(given: list[list[str] | tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = LocalStore(folder)
        chunks = [
            (Chunk(at, "paths", "", 0, len(one)), one) if isinstance(one, list) else (Chunk(at, *one), [])  # type: ignore[arg-type]
            for at, one in enumerate(given)
        ]
        written = write_plan(store, chunks)
        plan = read_plan(store)
        assert [*plan] == [*written] == [plan[at] for at in range(len(given))]
        assert plan.counts().tolist() == [-1 if one.count is None else one.count for one, _ in chunks]
        for chunk, (told, names) in zip(plan, chunks, strict=True):
            found = plan.names(chunk)
            if names:
                assert chunk.listed and chunk.count == len(names)
                assert found is not None and [*map(decoded, found.to_pylist())] == names
                # a chunk says where its names are as it would for a file of the user's
                table = pq.read_table(Path(folder) / chunk.source, columns=[chunk.column])
                rows = table.slice(chunk.first, chunk.count).column(0).to_pylist()
                assert [*map(decoded, rows)] == names
            else:
                assert (chunk, found) == (told, None)


def test_names_fill_one_file_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn_deploy.cluster.plan._FILE", 2000)
    store = LocalStore(str(tmp_path))
    names = [[f"{chunk}/{at}-{'x' * 20}.png" for at in range(chunk + 1)] for chunk in range(100)]
    plan = write_plan(store, ((Chunk(at, "paths", "", 0, len(one)), one) for at, one in enumerate(names)))
    files = [entry.path for entry in store.list(NAMES)]
    assert len(files) > 10 and files[0].endswith("-00000.parquet")
    for chunk in [*plan, *reversed([*plan])]:
        found = plan.names(chunk)
        assert found is not None and [*map(decoded, found.to_pylist())] == names[chunk.number]
    for file in files:
        rows = [chunk.count for chunk in plan if chunk.source == file]
        footer = pq.read_metadata(tmp_path / file)
        assert [footer.row_group(at).num_rows for at in range(footer.num_row_groups)] == rows


def test_memory_is_flat_in_the_number_of_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crnn_deploy.cluster.plan._FILE", 2**16)

    def chunks(count: int) -> Iterator[tuple[Chunk, list[str]]]:
        for at in range(count):
            yield (
                Chunk(at, "paths", "", 0, 500),
                [f"{at:09}/{name:05}-{at * name}.png" for name in range(500)],
            )

    peaks = []
    for count in (10, 200):
        tracemalloc.start()
        write_plan(LocalStore(str(tmp_path / str(count))), chunks(count))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**18  # a file of names and 200 chunks


@given(st.integers(0, 2**31))
def test_parts_have_places_of_their_own(number: int) -> None:
    assert number_of(part_of(number)) == number


def test_the_place_of_a_part() -> None:
    assert part_of(0) == "00000/part-00000000.parquet"
    assert part_of(1234567) == "01234/part-01234567.parquet"
    strays = (
        "part-00000000.parquet",
        "00001/part-00000000.parquet",
        "00000/part-0.parquet",
        "",
        "00000/part-.parquet",
    )
    more = (
        "00000/part-00000000.parquet.parquet",
        "00000/part-٠٠٠٠٠٠٠٠.parquet",
        "x/00000/part-00000000.parquet",
    )
    for path in strays + more:
        assert number_of(path) is None


def test_a_plan_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing):
        read_plan(LocalStore(str(tmp_path)))


def small_plan(folder: Path) -> LocalStore:
    store = LocalStore(str(folder))
    write_plan(store, [(Chunk(0, "paths", "", 0, 2), ["a", "b"]), (Chunk(1, "tar", "/x.tar", 0, None), [])])
    return store


def test_a_torn_plan_is_told(tmp_path: Path) -> None:
    store = small_plan(tmp_path)
    data = store.read(PLAN)
    for length in {*range(0, len(data), 7), *range(len(data) - 12, len(data))}:
        store.write(PLAN, data[:length])
        with pytest.raises(ParquetInvalid, match=r"plan.parquet"):
            read_plan(store)


@pytest.mark.parametrize(
    ("column", "values", "reason"),
    [
        ("kind", [b"paths", b"pickle"], "kind 'pickle'"),
        ("first", [0, -1], "first has a -1"),
        ("count", [0, None], "count has a 0"),
        ("source", [b"/a", None], "source has gaps"),
        ("source", [b"/a", b"\xff"], "not whole"),
        ("source", [1, 2], "no column source"),
        ("other", [1, 2], "no column first"),
    ],
)
def test_a_plan_of_other_values_is_told(
    column: str, values: list[object], reason: str, tmp_path: Path
) -> None:
    store = small_plan(tmp_path)
    table = pq.read_table(tmp_path / PLAN)
    if column == "other":
        table = table.drop_columns(["first"])
    else:
        table = table.set_column(table.column_names.index(column), column, pa.array(values))
    pq.write_table(table, tmp_path / PLAN)
    with pytest.raises(ParquetInvalid, match=reason):
        read_plan(store)


def test_names_that_are_not_those_of_the_plan_are_told(tmp_path: Path) -> None:
    store = small_plan(tmp_path)
    plan = read_plan(store)
    [file] = (tmp_path / NAMES).iterdir()
    whole = file.read_bytes()
    for table in (
        pa.table({"path": [b"a"]}),
        pa.table({"path": ["a", "b"]}),
        pa.table({"path": [b"a", None]}),
    ):
        pq.write_table(table, file)
        with pytest.raises(ParquetInvalid, match=r"00000.parquet"):
            read_plan(store).names(plan[0])
    file.write_bytes(whole[:-9])
    with pytest.raises(ParquetInvalid, match="not whole"):
        plan.names(plan[0])
    file.unlink()
    with pytest.raises(StoreMissing):
        plan.names(plan[0])


def test_a_chunk_beyond_the_plan(tmp_path: Path) -> None:
    small_plan(tmp_path)
    plan = read_plan(LocalStore(str(tmp_path)))
    for number in (-1, 2):
        with pytest.raises(IndexError):
            plan[number]
    assert len(plan) == 2 and [*plan] == [plan[0], plan[1]]
