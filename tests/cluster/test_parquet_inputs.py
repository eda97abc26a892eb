"""Images and paths in Parquet files: which column, which rows, and what strangers put into them."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning import IMAGES, items, listed, parquet, planned

from crnn_deploy.cluster.parquet import ParquetInvalid
from crnn_deploy.cluster.sources import InputInvalid, Item, open_chunk
from crnn_deploy.cluster.sources.parquet_rows import slices
from crnn_deploy.stores.store import StoreMissing, Stores


def test_a_column_of_bytes(here: Path, tmp_path: Path) -> None:
    names = [f"n{number}" for number in range(21)]
    parquet(here / "a.parquet", other=[1.5] * 21, img=IMAGES, file_name=names)
    notes: list[str] = []
    chunks = planned(["a.parquet"], 8, told=notes.append)
    assert [(one.chunk.first, one.chunk.count) for one in chunks] == [(0, 8), (8, 8), (16, 5)]
    assert notes == [
        "a.parquet: images are taken from the column img, their names from file_name; --column names another"
    ]
    assert items(["a.parquet"], tmp_path / "o", 8) == [*map(Item, names, IMAGES)]
    parquet(here / "d" / "b.parquet", 100, img=IMAGES)
    parquet(here / "d" / "_run" / "c.parquet", img=IMAGES)
    expected = [Item(f"d/b.parquet#{row}", image) for row, image in enumerate(IMAGES)]
    assert items(["d"], tmp_path / "o2", 8) == expected == items(["d/*.parquet"], tmp_path / "o3", 2)
    assert [one.chunk.count for one in planned(["d"], 2)] == [5, 5, 5, 6]


def test_images_as_hugging_face_writes_them(here: Path, tmp_path: Path) -> None:
    struct_type = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows: list[Any] = [{"bytes": image, "path": f"{at}.png"} for at, image in enumerate(IMAGES)]
    rows[3] = {"bytes": None, "path": "3.png"}
    rows[4] = {"bytes": b"x", "path": None}
    rows[5] = None
    metadata = {"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})}
    schema = pa.schema({"image": struct_type, "text": pa.string()}).with_metadata(metadata)
    parquet(here / "hf.parquet", 4, schema, image=rows, text=["t"] * 21)
    found = items(["hf.parquet"], tmp_path / "o", column="image")
    assert [one.name for one in found[:7]] == [
        *("0.png", "1.png", "2.png", "3.png", "hf.parquet#4", "hf.parquet#5", "6.png"),
    ]
    assert [one.image for one in found[:3] + found[6:]] == IMAGES[:3] + IMAGES[6:]
    assert found[4].image == b"x"
    for one in (found[3], found[5]):
        assert isinstance(one.image, InputInvalid) and one.name in str(one.image)


def test_a_column_of_paths(tree: Path, tmp_path: Path) -> None:
    names: list[Any] = ["crops/b.png", str(tree / "crops/a.JPG"), "absent.png", "s3://bucket/key", None]
    parquet(tree / "p.parquet", 2, text=["t"] * 5, path=names)
    notes: list[str] = []
    assert listed(["p.parquet"], told=notes.append) == [*names[:4], "p.parquet#4"]
    assert notes == [
        "p.parquet: paths of images are taken from the column path; --column names another",
        "p.parquet: 1 row has no path in the column path; each becomes an error",
    ]
    parquet(tree / "crops" / "p.parquet", 2, text=["b.png", "a/1.png"], path=names[:2])
    notes.clear()
    assert listed(["crops/p.parquet"], column="text", told=notes.append) == [
        str(tree / "crops/b.png"),
        str(tree / "crops/a/1.png"),
    ]
    assert notes == ["crops/p.parquet: relative paths in it begin in its folder"]


@pytest.mark.parametrize(
    ("columns", "column", "told"),
    [
        ({"a": [b"1"], "b": [b"2"]}, None, "name one with --column: it has the columns a, b"),
        ({"a": ["x"]}, None, "name one with --column: it has the columns a"),
        ({"a": [1]}, "a", "'a' holds neither"),
        ({"a": [b"1"]}, "b", "no column 'b'; it has the columns a"),
    ],
)
def test_columns_that_are_none(here: Path, columns: dict[str, Any], column: str | None, told: str) -> None:
    parquet(here / "a.parquet", **columns)
    with pytest.raises(ParquetInvalid, match=told):
        planned(["a.parquet"], column=column)


@given(st.lists(st.integers(0, 40), max_size=8), st.integers(1, 12))
def test_slices_cover_every_row_once(groups: list[int], most: int) -> None:
    found = list(slices(groups, most))
    assert [row for first, count in found for row in range(first, first + count)] == list(range(sum(groups)))
    assert all(count > 0 for _, count in found)
    ends = {sum(groups[:at]) for at in range(len(groups) + 1)}
    for first, count in found:
        if first in ends and first + count in ends and count > most:
            assert count in groups
    assert len(found) <= 4 * max(1, len(groups)) and all(c <= most or c * 4 >= most for _, c in found)


def test_a_damaged_row_group_costs_its_own_rows(here: Path, tmp_path: Path) -> None:
    path = here / "a.parquet"
    images = [os.urandom(1000) for _ in range(12)]
    pq.write_table(
        pa.table({"img": images}), path, row_group_size=4, compression="snappy", use_dictionary=False
    )
    begin = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    with path.open("r+b") as file:
        file.seek(begin)
        file.write(bytes(200))
    found = items(["a.parquet"], tmp_path / "o", 12)
    assert [one.name for one in found] == [f"a.parquet#{row}" for row in range(12)]
    assert [one.image for one in found[:4] + found[8:]] == images[:4] + images[8:]
    assert all(isinstance(one.image, ParquetInvalid) for one in found[4:8])
    chunk = planned(["a.parquet"], 12)[0].chunk
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ParquetInvalid):
        list(open_chunk(chunk, Stores()))
    path.unlink()
    with pytest.raises(StoreMissing):
        list(open_chunk(chunk, Stores()))


def test_a_value_that_stands_for_many_rows_is_in_memory_once(here: Path) -> None:
    image = os.urandom(2**22)
    array = pa.DictionaryArray.from_arrays(pa.array([0] * 4000), pa.array([image]))
    pq.write_table(pa.table({"img": array}), here / "a.parquet")
    assert (here / "a.parquet").stat().st_size < 2**23
    before = pa.total_allocated_bytes()
    most, count = 0, 0
    for one in open_chunk(planned(["a.parquet"], 4000)[0].chunk, Stores()):
        assert one.image == image
        count += 1
        most = max(most, pa.total_allocated_bytes() - before)
    assert count == 4000 and most < 2**26


HOSTILE = """
import sys, pyarrow as pa, pyarrow.parquet as pq, io, os
os.environ["RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA"] = "1"  # old files: Ray reads pickles then
import ray.data
from ray.data.extensions import ArrowTensorArray
from crnn_deploy.cluster.sources import open_chunk, plan_of
from crnn_deploy.stores.store import Stores
if sys.argv[1] == "theirs":
    pq.read_table("hostile.parquet")
else:
    [one] = plan_of(["hostile.parquet"], 10, Stores(), column="img")
    print([item.image for item in open_chunk(one.chunk, Stores())])
"""


def test_no_code_of_a_parquet_file_runs_where_ray_is_imported(here: Path) -> None:
    """Ray registers types whose description in a file's schema may be a pickle."""
    pytest.importorskip("ray.data")

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(here / "ran"),)

    field = pa.field(
        "tensor",
        pa.list_(pa.int64()),
        metadata={
            "ARROW:extension:name": "ray.data.arrow_tensor_v2",
            "ARROW:extension:metadata": pickle.dumps(Evil(), 0),
        },
    )
    schema = pa.schema([pa.field("img", pa.binary()), field])
    pq.write_table(pa.table({"img": [b"1"], "tensor": [[1, 2]]}, schema), here / "hostile.parquet")

    def run(who: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", HOSTILE, who], capture_output=True, text=True, check=False
        )

    ours = run("ours")
    assert ours.stdout == "[b'1']\n", ours.stderr
    assert not (here / "ran").exists()
    run("theirs")
    assert (here / "ran").exists(), "the file is harmless, so this test proves nothing"


def test_a_codec_that_pyarrow_does_not_know(here: Path) -> None:
    parquet(here / "a.parquet", img=[b"1" * 50])
    data = (here / "a.parquet").read_bytes()
    length = struct.unpack("<I", data[-8:-4])[0]
    footer = data[-8 - length : -8]
    at = (
        footer.index(b"\x03img") if b"\x03img\x15\x02" not in footer else footer.index(b"\x03img\x15\x02") + 4
    )
    assert footer[at : at + 2] == b"\x15\x02"  # the codec, SNAPPY
    changed = footer[: at + 1] + b"\x28" + footer[at + 2 :]
    (here / "a.parquet").write_bytes(data[: -8 - length] + changed + data[-8:])
    with pytest.raises(ParquetInvalid, match="compressed in an unknown way"):
        planned(["a.parquet"])
