"""The rows of a chunk come back bit for bit, and a stranger's Parquet costs neither memory nor runs code."""

from __future__ import annotations

import io
import math
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.cluster.parquet import ParquetInvalid
from crnn_deploy.cluster.rows import (
    METADATA_KEY,
    SCHEMA,
    NamesDigest,
    Origin,
    StoredRows,
    encode,
    id_of,
    names_digest,
    shown,
    split,
    table_of,
)
from crnn_deploy.runtime.decoding.ctc import Alternative, Char, PlacedChar
from crnn_deploy.runtime.records import Jsonl, Record

TEXT = st.text(max_size=20)  # all of Unicode, NUL too; no alphabet holds half of a surrogate pair
NAME = st.one_of(TEXT, st.binary(max_size=12).map(lambda name: name.decode(errors="surrogateescape")))
FLOAT = st.floats(allow_nan=False, allow_infinity=False)
WHOLE = st.integers(0, 2**31 - 1)
CHAR = st.builds(Char, TEXT, FLOAT, WHOLE, WHOLE, FLOAT, FLOAT)
PLACED = st.builds(PlacedChar, TEXT, FLOAT, WHOLE, WHOLE, FLOAT, FLOAT, FLOAT, FLOAT)


def records(turned: bool) -> st.SearchStrategy[list[Record]]:
    read = st.builds(
        Record,
        NAME,
        st.just("ok"),
        TEXT,
        FLOAT,
        st.none(),
        st.lists(PLACED if turned else CHAR, max_size=3).map(tuple),
        st.lists(st.builds(Alternative, TEXT, FLOAT), max_size=2).map(tuple),
        st.sampled_from([0, 90, 180, 270, "column"]) if turned else st.none(),
    )
    failed = st.builds(Record, NAME, st.just("error"), error=TEXT)
    return st.lists(st.one_of(read, failed), max_size=6)


def stored(data: bytes) -> StoredRows:
    return StoredRows("x.parquet", data)


def made(names: list[str], chunk: int = 7) -> bytes:
    table = table_of(chunk, [Record(name, "ok", "t", 0.5) for name in names], model="m" * 64, version="1")
    return encode(table, chunk, len(names), names_digest(names), "run")


@settings(deadline=None)
@given(st.booleans().flatmap(lambda turned: st.tuples(st.just(turned), records(turned))), WHOLE)
def test_rows_come_back_bit_for_bit(given: tuple[bool, list[Record]], chunk: int) -> None:
    turned, rows = given
    table = table_of(chunk, rows, model="ab" * 32, version="1.2", show_chars=True, nbest=True, rotated=turned)
    data = encode(table, chunk, len(rows), names_digest(row.path for row in rows), "run")
    found = pq.read_table(io.BytesIO(data))
    assert found.column_names == [*SCHEMA.names, *["rotated"] * turned, "characters", "alternatives"]
    for at, (row, one) in enumerate(zip(rows, found.to_pylist(), strict=True)):
        assert one["id"] == id_of(chunk, at)
        assert one["path"].encode() == row.path.encode(errors="backslashreplace")
        assert (one["text"], one["error"]) == (row.text, row.error)
        assert (one["model"], one["version"]) == ("ab" * 32, "1.2")
        assert bits(one["confidence"]) == bits(row.confidence)
        values = [{**vars(char)} for char in row.chars]
        assert repr(one["characters"]) == repr(values)
        assert repr(one["alternatives"]) == repr([vars(two) for two in row.alternatives])
        assert not turned or one["rotated"] == (None if row.rotated is None else str(row.rotated))
    again = encode(table, chunk, len(rows), names_digest(row.path for row in rows), "run")
    assert again == data


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack("<d", value)


def test_a_confidence_is_that_of_the_json_of_infer() -> None:
    values = [0.1, 1 / 3, math.nextafter(1, 0), 5e-324, float(np.float32(0.7)), 0.0, -0.0]
    rows = [Record("a", "ok", "", value) for value in values]
    found = table_of(0, rows, model="", version="").column("confidence").to_pylist()
    assert [*map(repr, found)] == [repr(Jsonl().values(row)["confidence"]) for row in rows]


@settings(deadline=None)
@given(st.lists(NAME, max_size=6), st.integers(0, 2**31 - 1))
def test_ids_and_names_are_read_back(names: list[str], chunk: int) -> None:
    rows = stored(made(names, chunk))
    assert rows.origin == Origin(chunk, len(names), names_digest(names), "run")
    digest = NamesDigest()
    ids, paths, errors = [], [], 0
    for some in rows:
        digest.add(some.paths)
        ids += some.ids.tolist()
        paths += some.paths.to_pylist()
        errors += some.errors
    assert (ids, errors) == ([chunk * 2**32 + at for at in range(len(names))], 0)
    assert paths == [shown(name).encode() for name in names]
    assert digest.hexdigest() == names_digest(names)
    numbers, positions = split(np.array(ids, np.int64))
    assert numbers.tolist() == [chunk] * len(names) and positions.tolist() == [*range(len(names))]


def test_rows_beyond_a_row_group_are_read_in_order() -> None:
    names = [f"{at}.png" for at in range(10_000)]
    data = made(names)
    found = [name for some in stored(data) for name in some.paths.to_pylist()]
    assert found == [name.encode() for name in names]
    assert pq.ParquetFile(io.BytesIO(data)).metadata.num_row_groups == 3


@given(st.lists(NAME, max_size=4), st.lists(NAME, max_size=4))
def test_a_digest_tells_names_apart(first: list[str], second: list[str]) -> None:
    same = [*map(shown, first)] == [*map(shown, second)]
    assert (names_digest(first) == names_digest(second)) == same


def test_a_digest_keeps_the_ends_of_names() -> None:
    assert len({names_digest(names) for names in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""])}) == 4


def test_a_file_that_is_cut_anywhere_is_told() -> None:
    data = made(["a", "b"])
    for length in range(len(data)):
        with pytest.raises(ParquetInvalid):
            [*stored(data[:length])]


def test_no_changed_byte_ends_the_process() -> None:
    """pyarrow aborts where a footer names a codec that it does not know."""
    data = made(["images/a.png", "images/b.png"])
    told = 0
    for at in range(len(data)):
        try:
            [*stored(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])]
        except ParquetInvalid:
            told += 1
    assert told > len(data) / 4


@given(st.binary(max_size=200), st.binary(max_size=40))
def test_a_footer_of_any_bytes_is_told(footer: bytes, before: bytes) -> None:
    with pytest.raises(ParquetInvalid):
        stored(b"PAR1" + before + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize(
    "footer",
    [
        b"\x19" * 300,  # a list in a list, and so on
        b"\x1c" * 300,  # the same of structs
        b"\x49\xfc" + b"\xff" * 9 + b"\x01",  # a list of 2**63 row groups
        b"\x18" + b"\xff" * 9 + b"\x01",  # a text of as many bytes
        b"\x46" + b"\xff" * 30,  # a number without an end
        b"\x45\x00\x05\x08\x00\x00",  # a field twice
    ],
)
def test_a_footer_that_would_take_much_is_told(footer: bytes) -> None:
    with pytest.raises(ParquetInvalid):
        stored(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def written(columns: dict[str, Any], **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue()


GOOD = {"id": [1], "path": ["a"], "error": pa.array([None], pa.string())}


@pytest.mark.parametrize(
    ("columns", "options", "reason"),
    [
        ({"id": [1], "path": ["a"]}, {}, "no column b'error'"),
        ({"path": ["a"], "error": ["b"]}, {}, "no column id"),
        (GOOD | {"id": ["1"]}, {}, "no column id of type int64"),
        (GOOD | {"id": pa.array([1], pa.timestamp("us"))}, {}, "no column id of type int64"),
        (GOOD | {"path": [b"a"]}, {}, "no column path of type string"),
        (GOOD | {"path": [["a"]]}, {}, "no column b'path'"),
        (GOOD | {"id": pa.array([None], pa.int64())}, {}, "without an id or a path"),
        (GOOD | {"path": pa.array([None], pa.string())}, {}, "without an id or a path"),
        (GOOD, {"compression": "zstd"}, "not compressed with Snappy"),
    ],
)
def test_what_is_no_file_of_rows_is_told(
    columns: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ParquetInvalid, match=reason):
        [*stored(written(columns, **options))]


@pytest.mark.parametrize(
    "origin",
    [b"", b"{", b"[]", b'{"chunk": 1}', b'{"chunk": 1, "inputs": -1, "names": "", "run": ""}', b"\xff"],
)
def test_a_file_that_does_not_say_what_made_it(origin: bytes) -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table(GOOD).replace_schema_metadata({METADATA_KEY: origin}), sink)
    rows = stored(sink.getvalue())
    assert rows.origin is None and sum(len(some.ids) for some in rows) == 1


def test_a_text_that_stands_for_many_rows_is_not_copied() -> None:
    """One name of 4 MB for each of 4,096 rows would be 16 GB."""
    count = 4096
    path = pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), ["x" * 2**22])
    data = written({"id": np.arange(count), "path": path, "error": pa.nulls(count, pa.string())})
    assert len(data) < 2**20
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    with pytest.raises(ParquetInvalid, match="too long"):
        [*stored(data)]
    assert pool.max_memory() - before < 2**28
