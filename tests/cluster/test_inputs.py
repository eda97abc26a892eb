"""What inputs are, and that each of their images comes once, in its order, with its bytes."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import threading
import time
from collections.abc import Iterable, Sequence
from itertools import permutations
from pathlib import Path

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning import IMAGES, items, listed, parquet, planned

from crnn_deploy.cluster.plan import Chunk, part_of, write_plan
from crnn_deploy.cluster.sources import InputInvalid, Item, open_chunk, plan_of, walk
from crnn_deploy.cluster.sources.prefetch import ByteBudget, ahead
from crnn_deploy.datasets import DatasetInvalid
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.images import sources
from crnn_deploy.runtime.images.sources import PathNotFound
from crnn_deploy.stores.store import StoredTooLarge, StoreMissing, Stores, open_store


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
    assert "d: 2 files are passed over, since the name of the file or its folder begins with _" in notes


def test_rows_of_an_earlier_run_among_images_are_nothing_to_read(tree: Path) -> None:
    parquet(tree / "crops" / "texts" / part_of(1), path=["a.png"])
    parquet(tree / "crops" / "texts" / "_run" / "plan.parquet", path=["a.png"])
    notes: list[str] = []
    assert listed(["crops"], told=notes.append) == list(sources.find(["crops"], ()))
    assert notes == []


def test_images_that_are_too_large(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tar_images", "item"):  # the first imports the limit of the second
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
