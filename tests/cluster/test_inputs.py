"""What inputs are, and that each of their images comes once, in its order, with its bytes."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.cluster.parquet import ParquetInvalid
from crnn_deploy.cluster.plan import Chunk, part_of, write_plan
from crnn_deploy.cluster.sources import InputInvalid, Item, Planned, open_chunk, plan_of, walk
from crnn_deploy.cluster.sources.parquet_rows import slices
from crnn_deploy.cluster.sources.prefetch import ByteBudget, ahead
from crnn_deploy.datasets import DatasetInvalid
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.images import sources
from crnn_deploy.runtime.images.sources import PathNotFound
from crnn_deploy.stores.store import StoredTooLarge, StoreMissing, Stores, open_store

TREE = (
    *("b.png", "a.JPG", "c.txt", ".hidden.png", "z.tiff", "a-b.png", "a/1.png", "a/0.png", "a/x/deep.webp"),
    *("a/.git/no.png", "B/one.png", "b/two.png", "b/[3].png", "b/note", "ü/ä.png"),
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def tree(here: Path) -> Path:
    for name in TREE:
        path = here / "crops" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return here


def planned(inputs: Sequence[str], most: int = 3, **options: Any) -> list[Planned]:
    chunks = list(plan_of(inputs, most, Stores(inputs), **options))
    assert [one.chunk.number for one in chunks] == list(range(len(chunks)))
    return chunks


def listed(inputs: Sequence[str], most: int = 3, **options: Any) -> list[str]:
    """Names of inputs that are files."""
    chunks = planned(inputs, most, **options)
    assert all(one.chunk.kind == "paths" and one.chunk.count == len(one.names) <= most for one in chunks)
    assert all(len(one.names) == most for one in chunks[:-1])
    return [name for one in chunks for name in one.names]


def items(inputs: Sequence[str], output: Path, most: int = 3, **options: Any) -> list[Item]:
    """All images, by way of a plan that was written and of another process's Stores."""
    store, path = open_store(str(output))
    plan = write_plan(store.below(path), plan_of(inputs, most, Stores(inputs), **options))
    stores = pickle.loads(pickle.dumps(Stores(inputs)))
    found: list[Item] = []
    for chunk in plan:
        source = str(output / chunk.source) if chunk.listed else chunk.source
        opened = open_chunk(
            Chunk(**{**{n: getattr(chunk, n) for n in Chunk.__slots__}, "source": source}), stores
        )
        names, some = opened.names, list(opened)
        assert names == [one.name for one in some] == opened.names
        assert chunk.count in (None, len(some))
        found += some
    return found


@pytest.mark.parametrize(
    "inputs",
    [
        ["crops"],
        ["crops/"],
        ["crops/*"],
        ["crops/**"],
        ["crops/**/*.png"],
        ["crops/a*", "crops/b.png"],
        ["crops/**/x/*", "crops/[ab]*/*.png"],
        ["crops/b.png", "crops/absent.png", "crops/c.txt.png", "crops"],
    ],
)
def test_local_files_are_those_of_infer_in_its_order(tree: Path, inputs: list[str]) -> None:
    assert listed(inputs) == list(sources.find(inputs, ()))
    absolute = [str(tree / one) for one in inputs]
    assert listed(absolute) == list(sources.find(absolute, ()))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", ".c", "-", "a.png"]), min_size=1, max_size=3).map("/".join),
        min_size=1,
        max_size=8,
        unique=True,
    ),
    st.lists(
        st.sampled_from(["*", "**", "a", "b", "?", "[ab]", "*.png", "a.png", ".*"]), min_size=1, max_size=4
    ),
)
def test_a_store_is_walked_as_infer_walks_a_folder(
    tmp_path_factory: pytest.TempPathFactory, folders: list[str], pattern: list[str]
) -> None:
    root = tmp_path_factory.mktemp("walked")
    for folder in folders:
        if not (root / folder).is_file() and not any(one.is_file() for one in (root / folder).parents):
            (root / folder).mkdir(parents=True, exist_ok=True)
            for name in ("x.png", "a.png", "b.txt"):
                if not (root / folder / name).exists():
                    (root / folder / name).write_bytes(b"1")
    store, path = open_store(str(root))
    store = store.below(path)

    def images(paths: Iterable[str]) -> list[str]:
        return [one for one in paths if os.path.splitext(one)[1].lower() in sources.IMAGE_SUFFIXES]

    def shown(paths: Iterable[str]) -> list[str]:
        return [str(root / one) for one in paths]

    assert shown(images(walk.below(store, ""))) == list(sources.find([str(root)], ()))
    glob = "/".join(pattern)
    if walk.is_glob(glob):
        found = []
        for match, is_folder in walk.matches(store, glob):
            if not is_folder:
                found.append(match)
            elif "**" not in pattern:
                found += images(walk.below(store, match))
        assert shown(found) == list(sources.find([f"{root}/{glob}"], ()))


def test_local_files_are_given_as_paths(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative ones mean the same in a process with another working folder."""
    os.rename(os.fsencode("crops/z.tiff"), b"crops/\xff.png")
    found = items(["crops"], tmp_path / "out")
    assert found == [Item(name, name) for name in sources.find(["crops"], ())]
    stores = pickle.dumps(Stores())
    [chunk] = write_plan(
        open_store(str(tmp_path / "o"))[0].below(str(tmp_path / "o")[1:]),
        plan_of(["crops/b.png"], 3, Stores()),
    )
    monkeypatch.chdir(tmp_path)
    source = str(tmp_path / "o" / chunk.source)
    [one] = open_chunk(Chunk(0, "paths", source, 0, 1, chunk.column), pickle.loads(stores))
    assert one == Item("crops/b.png", str(tree / "crops/b.png"))


def test_a_list_is_read_as_infer_reads_standard_input(tree: Path) -> None:
    lines = b"crops/b.png\n 'crops/a.JPG' \r\n\nabsent.png\n\xff\n"
    names = list(sources.find([sources.STDIN], lines.splitlines(keepends=True)))
    assert len(names) == 4
    (tree / "list.txt").write_bytes(lines)
    assert listed(["list.txt"]) == names == listed(["-"], listed=lines.splitlines(keepends=True))
    (tree / "more.txt").write_bytes(b"crops/b.png")
    assert listed(["*.txt", "crops/a"]) == [*names, "crops/b.png", *sources.find(["crops/a"], ())]


def test_inputs_that_are_none(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "notes").mkdir()
    (here / "notes" / "a.txt").write_bytes(b"1")
    (here / "x.tar.gz").write_bytes(b"1")
    for wrong, error in [
        ("absent.png", PathNotFound),
        ("", PathNotFound),
        ("absent/*.png", PathNotFound),
        ("*.parquet", PathNotFound),
        ("absent.tar", PathNotFound),
        ("empty", InputInvalid),
        ("notes", InputInvalid),
        ("x.tar.gz", InputInvalid),
        ("http://host/x.png", CrnnDeployError),
    ]:
        with pytest.raises(error):
            plan_of([wrong], 3, Stores())


@pytest.mark.parametrize("order", ["a b", "b a"])
def test_a_folder_of_several_kinds_is_refused(here: Path, order: str) -> None:
    """Whichever comes first; and in every folder that a glob gives."""
    one, other = order.split()
    for number, kinds in enumerate(permutations(["x.png", "x.parquet", "x.tar"], 2)):
        for folder, name in zip((one, other), kinds, strict=True):
            (here / f"d{number}" / "in" / folder).mkdir(parents=True)
            (here / f"d{number}" / "in" / folder / name).write_bytes(b"1")
        with pytest.raises(InputInvalid, match=r"it holds files of several kinds: .*/x.*give each kind by"):
            list(plan_of([f"d{number}/in"], 3, Stores()))
        if "x.png" in kinds:
            with pytest.raises(InputInvalid, match="it holds files of several kinds"):
                list(plan_of([f"d{number}/*"], 3, Stores()))


@pytest.mark.parametrize("others", ["x.png", "x.parquet", "x.tar", "notes"])
def test_a_compressed_tar_in_a_folder_is_no_silence(here: Path, others: str) -> None:
    (here / "d" / "z").mkdir(parents=True)
    (here / "d" / others).write_bytes(b"1")
    (here / "d" / "z" / "x.tar.gz").write_bytes(b"1")
    with pytest.raises(InputInvalid, match=r"x.tar.gz in it is a compressed tar|several kinds"):
        list(plan_of(["d"], 3, Stores()))


def test_files_that_other_programs_keep_are_passed_over_and_told(here: Path) -> None:
    parquet(here / "d" / "_tmp" / "a.parquet", img=IMAGES)
    parquet(here / "d" / "_b.parquet", img=IMAGES)
    with pytest.raises(InputInvalid, match="there are no images, Parquet files or tars in it"):
        plan_of(["d"], 3, Stores())
    parquet(here / "d" / "c.parquet", 21, img=IMAGES)
    notes: list[str] = []
    assert {one.chunk.source for one in planned(["d"], 21, told=notes.append)} == {"d/c.parquet"}
    assert "d: 2 files are passed over, as their names or folders begin with _" in notes


def test_rows_of_an_earlier_run_among_images_are_nothing_to_read(tree: Path) -> None:
    parquet(tree / "crops" / "texts" / part_of(1), path=["a.png"])
    parquet(tree / "crops" / "texts" / "_run" / "plan.parquet", path=["a.png"])
    notes: list[str] = []
    assert listed(["crops"], told=notes.append) == list(sources.find(["crops"], ()))
    assert notes == []


def parquet(file: Path, group: int = 4, schema: pa.Schema | None = None, /, **columns: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema), file, row_group_size=group)


IMAGES = [bytes([number]) * (number * 100) for number in range(1, 22)]


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
        "p.parquet: 1 rows have no path in the column path; each becomes an error",
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


def test_images_that_are_too_large(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("item", "tar_images"):
        monkeypatch.setattr(f"crnn_deploy.cluster.sources.{name}.MOST_BYTES", 1000)
    parquet(here / "a.parquet", img=[b"1" * 1000, b"1" * 1001])
    with tarfile.open("a.tar", "w") as tar:
        for name, size in (("a.png", 1000), ("b.png", 1001)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(bytes(size)))
    for source in ("a.parquet", "a.tar"):
        good, bad = items([source], tmp_path / source)
        assert isinstance(good.image, bytes) and isinstance(bad.image, StoredTooLarge)


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


def pack(path: Path, images: Sequence[bytes], labels: bool, missing: int | None = None) -> None:
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as writing:
        for number, image in enumerate(images, 1):
            if number != missing:
                writing.put(b"image-%09d" % number, image)
            if labels:
                writing.put(b"label-%09d" % number, b"text")
        writing.put(b"num-samples", b"%d" % len(images))


@pytest.mark.parametrize("labels", [False, True])
def test_an_lmdb_with_and_without_labels(here: Path, tmp_path: Path, labels: bool) -> None:
    pack(here / "packed", IMAGES, labels)
    assert [(one.chunk.first, one.chunk.count) for one in planned(["packed"], 10)] == [
        (0, 10),
        (10, 10),
        (20, 1),
    ]
    found = items(["packed"], tmp_path / "o", 10)
    assert found == [Item(f"packed#image-{at:09}", image) for at, image in enumerate(IMAGES, 1)]


def test_an_lmdb_that_is_not_whole(here: Path, tmp_path: Path) -> None:
    pack(here / "packed", IMAGES, True, missing=3)
    found = items(["packed"], tmp_path / "o", 10)
    assert len(found) == 21 and [at for at, one in enumerate(found) if not isinstance(one.image, bytes)] == [
        2
    ]
    assert "image-000000003 is missing" in str(found[2].image)
    (here / "bad.lmdb").write_bytes(b"no LMDB")
    with pytest.raises(DatasetInvalid):
        planned(["bad.lmdb"])


def tar_of(path: Path, members: dict[str, bytes], kind: int = tarfile.PAX_FORMAT) -> None:
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_tars(here: Path, tmp_path: Path) -> None:
    members = {f"{at:04}.png": image for at, image in enumerate(IMAGES)}
    others = {"0000.txt": b"t", "dir/._x.png": b"mac", "d" * 120 + "/a.input.JPG": b"long", "__key__": b""}
    (here / "shards").mkdir()
    tar_of(here / "shards" / "1.tar", members | others)
    tar_of(here / "shards" / "0.tar", {"x.png": b"1"}, tarfile.GNU_FORMAT)
    taken = members | {"d" * 120 + "/a.input.JPG": b"long"}
    expected = [Item("shards/0.tar#x.png", b"1")]
    expected += [Item(f"shards/1.tar#{name}", data) for name, data in taken.items()]
    for at, inputs in enumerate((["shards"], ["shards/*.tar"], ["shards/0.tar", "shards/1.tar"])):
        assert items(inputs, tmp_path / f"o{at}") == expected
    assert [one.chunk.count for one in planned(["shards"])] == [None, None]


def test_a_torn_tar_says_so_in_one_item_more(here: Path, tmp_path: Path) -> None:
    tar_of(here / "a.tar", {f"{at}.png": image for at, image in enumerate(IMAGES)})
    data = (here / "a.tar").read_bytes()
    (here / "a.tar").write_bytes(data[: 512 * 9 + 100])
    found = items(["a.tar"], tmp_path / "o")
    assert found[:-1] == [Item(f"a.tar#{at}.png", image) for at, image in enumerate(IMAGES[: len(found) - 1])]
    assert len(found) > 2 and found[-1].name == "a.tar" and "is torn" in str(found[-1].image)


def test_inputs_of_all_kinds_follow_one_another(tree: Path, tmp_path: Path) -> None:
    parquet(tree / "a.parquet", img=IMAGES[:2])
    tar_of(tree / "a.tar", {"x.png": b"1"})
    pack(tree / "packed", IMAGES[:2], False)
    inputs = ["crops/b.png", "a.parquet", "crops/a.JPG", "crops/b.png", "packed", "a.tar", "crops/a"]
    found = planned(inputs, 10)
    assert [one.chunk.kind for one in found] == ["paths", "bytes", "paths", "lmdb", "tar", "paths"]
    assert [one.name for one in items(inputs, tmp_path / "o")] == [
        *("crops/b.png", "a.parquet#0", "a.parquet#1", "crops/a.JPG", "crops/b.png"),
        *("packed#image-000000001", "packed#image-000000002", "a.tar#x.png"),
        *("crops/a/0.png", "crops/a/1.png", "crops/a/x/deep.webp"),
    ]


def test_what_is_fetched_ahead_is_bounded_and_in_order() -> None:
    budget, inside, most = ByteBudget(10), [0], [0]
    lock = threading.Lock()

    def fetch(numbered: tuple[int, int]) -> int:
        place, size = numbered
        budget.take(place, size)
        with lock:
            inside[0] += size
            most[0] = max(most[0], inside[0])
        time.sleep(0.001 * (size % 3))
        return size

    sizes = [3, 1, 4, 25, 9, 2, 6, 5, 3, 5] * 20
    got: list[int] = []
    for (place, size), fetched in ahead(fetch, enumerate(sizes)):
        assert place == len(got) and fetched == size
        got.append(fetched)
        with lock:
            inside[0] -= fetched
        budget.give(fetched)
    assert got == sizes and 10 <= most[0] <= 25 + 10


def test_an_error_is_raised_at_its_place() -> None:
    def fetch(number: int) -> int:
        if number == 50:
            raise StoreMissing("x")
        return number

    got: list[int] = []
    with pytest.raises(StoreMissing):
        for number, _ in ahead(fetch, range(1000)):
            got.append(number)
    assert got == list(range(50))
