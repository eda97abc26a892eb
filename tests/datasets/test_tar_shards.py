"""The kind `webdataset`: what the webdataset library sees in a tar, and what is wrong with it."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import webdataset
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.cli.main import main
from crnn_deploy.datasets import DatasetInvalid, DatasetNotFound, RecordInvalid, Sample, open_dataset, record
from crnn_deploy.datasets.shard_cache import ShardLost
from crnn_deploy.datasets.tar_shards import TarShards


def png(value: int, width: int = 4) -> bytes:
    """A PNG that no other value gives."""
    pixels = np.full((1, width), 255, np.uint8)
    pixels[0, :4] = np.frombuffer(value.to_bytes(4), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_tar(path: Path, files: Sequence[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def pairs(first: int, last: int) -> list[tuple[str, bytes]]:
    files: list[tuple[str, bytes]] = []
    for at in range(first, last):
        files += [(f"{at:04}.png", png(at)), (f"{at:04}.txt", str(at).encode())]
    return files


def texts(spec: str | Path, **options: Any) -> list[str]:
    dataset = open_dataset(str(spec), **options)
    return [dataset[at].text for at in range(len(dataset))]


def by_the_library(path: Path) -> Iterator[Mapping[str, Any]]:
    """Samples as the webdataset library has them, undecoded."""
    dataset = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    yield from ({key: value for key, value in one.items() if key != "__url__"} for one in dataset)


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["dataset", *map(str, args)])


names = st.text(st.sampled_from("ab.é/_ 1"), min_size=1, max_size=6).filter(
    lambda name: not name.endswith("/") and not name.startswith("/")
)
suffixes = st.sampled_from([".png", ".JPG", ".txt", ".gt.txt", ".json", ".cls", ".pyd", ".x.png", ""])


@given(st.lists(st.tuples(names, suffixes), max_size=12))
@settings(deadline=None, max_examples=200)
def test_samples_are_those_of_the_webdataset_library(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("tar") / "x.tar"
    content = [
        (name + suffix, b'{"text": "%d"}' % at if suffix == ".json" else b"%d" % at)
        for at, (name, suffix) in enumerate(files)
    ]
    write_tar(path, [("good.png", png(0)), ("good.txt", b"good"), *content])
    dataset = open_dataset(str(path))
    found = [record(dataset, at) for at in range(len(dataset))]
    try:
        expected = [one for sample in by_the_library(path) if any((one := usable(sample))[1:])]
    except ValueError:  # a file of a key is there twice
        return
    assert len(found) == len(expected)
    before: set[str] = set()
    for at, (own, (key, image, text)) in enumerate(zip(found, expected, strict=True)):
        if isinstance(own, Sample):
            assert (own.name, own.image, own.text) == (f"{path} {key}", image, text)
            assert dataset.glance(at) == text and key not in before
        else:
            assert image is None or text is None or key in before or image == b"several"
        before.add(key)


def usable(sample: Mapping[str, Any]) -> tuple[str, bytes | None, str | None]:
    """Key, image and text of one of the library's samples, by docs/datasets.md."""
    plain = [sample[suffix] for suffix in ("png", "jpg") if suffix in sample]
    other = [value for suffix, value in sample.items() if suffix.endswith((".png", ".jpg"))]
    image = plain[0] if plain else b"several" if len(other) > 1 else other[0] if other else None
    text = sample.get("gt.txt", sample.get("txt"))
    if text is None and "json" in sample:
        text = json.loads(sample["json"])["text"].encode()
    return sample["__key__"], image, None if text is None else text.decode()


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ([("a.txt", b"x")], "x"),
        ([("a.txt", "\ufeffé ü\r\n".encode())], "é ü"),
        ([("a.gt.txt", b" x "), ("a.txt", b"no")], " x "),
        ([("a.json", b'{"text": "x", "id": 7}')], "x"),
        ([("a.json", b'{"Label": "x"}')], "x"),
        ([("a.txt", b"")], ""),
        ([("a.cls", b"7"), ("a.txt", b"x"), ("a.pyd", pickle.dumps(print))], "x"),
    ],
)
def test_texts_as_people_keep_them(tmp_path: Path, files: list[tuple[str, bytes]], text: str) -> None:
    path = write_tar(tmp_path / "x.tar", [("d/a.jpeg", png(1)), *((f"d/{n}", c) for n, c in files)])
    [sample] = [open_dataset(str(path))[0]]
    assert (sample.text, sample.image, sample.name) == (text, png(1), f"{path} d/a")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("a.png", b"1")], "a has no text"),
        ([("a.txt", b"x")], "a has a text, but no image"),
        ([("a.png", b"1"), ("a.txt", b"\xff")], "is not UTF-8"),
        ([("a.png", b"1"), ("a.txt", b"x\ny")], "holds 2 lines"),
        ([("a.png", b"1"), ("a.json", b"[1]")], "needs one text"),
        ([("a.png", b"1"), ("a.json", b'{"text": "x", "label": "y"}')], "needs one text"),
        ([("a.png", b"1"), ("a.json", b"[" * 10_000)], "is not JSON"),
        ([("a.png", b"1"), ("a.txt", b"x" * 2**21)], "has a text of 2,097,152 bytes"),
        ([("a.b.png", b"1"), ("a.c.png", b"2"), ("a.txt", b"x")], "has several images"),
        ([("a.png", b"1"), ("a.png", b"2"), ("a.txt", b"x")], "stands in the tar twice"),
    ],
)
def test_what_is_wrong_with_a_sample_is_told_by_check(
    tmp_path: Path, files: list[tuple[str, bytes]], said: str
) -> None:
    path = write_tar(tmp_path / "x.tar", [*pairs(0, 2), *files])
    result = run("check", path)
    assert result.exit_code == 1 and said in result.stdout, result.output
    assert texts_of_sound(path) == ["0", "1"]


def texts_of_sound(path: Path) -> list[str]:
    dataset = open_dataset(str(path))
    found = [record(dataset, at) for at in range(len(dataset))]
    return [one.text for one in found if isinstance(one, Sample)]


def test_images_before_all_texts_are_told_with_the_way_out(tmp_path: Path) -> None:
    apart = [("a.png", png(1)), ("b.png", png(2)), ("a.txt", b"a"), ("b.txt", b"b")]
    path = write_tar(tmp_path / "x.tar", [*pairs(0, 1), *apart])
    dataset = open_dataset(str(path))
    faults = [record(dataset, at) for at in range(1, 5)]
    assert all(isinstance(one, RecordInvalid) for one in faults)
    assert "tar --sort=name" in str(faults[2])
    with pytest.raises(DatasetInvalid, match="none of its first samples can be read"):
        open_dataset(str(write_tar(tmp_path / "y.tar", apart)))


def test_a_folder_a_glob_and_braces_are_one_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for shard in range(3):
        write_tar(tmp_path / f"t-{shard:03}.tar", pairs(10 * shard, 10 * shard + 10))
    (tmp_path / "README.txt").write_text("some tars")
    everything = [str(at) for at in range(30)]
    assert texts(tmp_path) == texts(tmp_path / "*.tar") == everything
    assert texts(tmp_path / "t-{000..002}.tar") == texts(f"file://{tmp_path}") == everything
    assert texts(tmp_path / "t-{002,000}.tar") == everything[20:] + everything[:10]
    assert texts(tmp_path / "t-00[12].tar") == everything[10:]
    monkeypatch.chdir(tmp_path)
    assert texts("t-{000..001}.tar") == everything[:20]
    with pytest.raises(DatasetInvalid, match=r"the shard .*t-003.tar and 1 more cannot"):
        open_dataset("t-{000..004}.tar")
    with pytest.raises(DatasetNotFound):
        open_dataset("u-*.tar")
    with pytest.raises(DatasetInvalid, match="stands for more than 1,048,576 shards"):
        open_dataset("t-{0..9999}{0..999}.tar")
    with pytest.raises(DatasetInvalid, match="leave folder and characters out"):
        open_dataset("t-000.tar", images="x")
    with pytest.raises(DatasetInvalid, match="a store"):
        open_dataset("s3://bucket/x", kind="lmdb")


def test_a_tar_without_samples_and_a_torn_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="holds no samples; a sample is"):
        open_dataset(str(write_tar(tmp_path / "x.tar", [("labels.csv", b"a,b")])))
    whole = write_tar(tmp_path / "y.tar", pairs(0, 9)).read_bytes()
    (tmp_path / "y.tar").write_bytes(whole[:3000])
    result = run("check", tmp_path / "y.tar")
    assert result.exit_code == 2 and "is torn" in result.stderr and result.stderr.count("\n") == 1


def packed(tmp_path: Path, samples: int = 25) -> Path:
    write_tar(tmp_path / "x.tar", pairs(0, samples))
    assert run("pack", tmp_path / "x.tar", "-o", tmp_path / "p", "--pack-format", "webdataset",
               "--samples-per-shard", "10").exit_code == 0  # fmt: skip
    return tmp_path / "p"


def test_the_index_spares_the_listing_of_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = packed(tmp_path)
    monkeypatch.setattr(TarShards, "_opened", None)
    dataset = open_dataset(str(folder))
    assert (
        len(dataset) == 25 and isinstance(dataset, TarShards) and dataset.starts.tolist() == [0, 10, 20, 25]
    )


def test_an_index_that_is_not_of_its_shards_is_told(tmp_path: Path) -> None:
    folder = packed(tmp_path)
    index = json.loads((folder / "shards.json").read_text())
    said: list[str] = []
    write_tar(folder / "000001.tar", pairs(50, 53))
    write_tar(folder / "000007.tar", pairs(70, 72))
    kept = [str(at) for at in (*range(10), *range(50, 53), *range(20, 25), 70, 71)]
    assert texts(folder, told=said.append) == kept
    assert len(said) == 1 and "does not list 2 shards of its folder, such as 000001.tar" in said[0]
    (folder / "000000.tar").unlink()
    with pytest.raises(DatasetInvalid, match=r"the shard .*/000000.tar cannot be found"):
        open_dataset(str(folder))
    index["shardlist"] = [{**index["shardlist"][2], "nsamples": 7}]
    (folder / "shards.json").write_text(json.dumps(index))
    dataset = open_dataset(str(folder / "000002.tar"))
    assert len(dataset) == 7
    with pytest.raises(ShardLost, match="holds 5 samples, and 7 by its index"):
        dataset[0]
    result = run("check", folder / "000002.tar")  # it is not a sample's fault
    assert result.exit_code == 2 and "by its index" in result.stderr


@pytest.mark.parametrize(
    "index",
    [
        *("{", "[]", "{}", '{"shardlist": [{"url": "../000000.tar", "nsamples": 1}]}'),
        *('{"shardlist": [{"url": "/etc/passwd", "nsamples": 1}]}', '{"shardlist": [{"url": "a.tar"}]}'),
        '{"shardlist": [{"url": "000000.tar", "nsamples": -1}]}',
    ],
)
def test_an_index_that_is_none_is_refused(tmp_path: Path, index: str) -> None:
    folder = packed(tmp_path)
    (folder / "shards.json").write_text(index)
    with pytest.raises(DatasetInvalid, match=r"shards\.json"):
        open_dataset(str(folder))


def test_a_shard_that_changes_while_it_is_read_ends_the_reading(tmp_path: Path) -> None:
    folder = packed(tmp_path)
    dataset = open_dataset(str(folder))
    assert dataset[0].text == "0"
    write_tar(folder / "000001.tar", pairs(50, 53))
    with pytest.raises(ShardLost, match=r"000001.tar: has .* bytes, and had"):
        dataset[10]


def test_threads_and_processes_read_one_dataset(tmp_path: Path) -> None:
    dataset = open_dataset(str(packed(tmp_path)))
    order = np.random.RandomState(0).randint(0, 25, 500).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert [one.text for one in pool.map(dataset.__getitem__, order)] == [str(at) for at in order]
    again = pickle.loads(pickle.dumps(dataset))
    assert [again[at].text for at in order] == [str(at) for at in order]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_process_reads_what_its_parent_has_opened(tmp_path: Path) -> None:
    dataset = open_dataset(str(packed(tmp_path)))
    assert dataset[3].text == "3"
    if not (child := os.fork()):
        os._exit(sum(dataset[at].text != str(at) for at in range(25)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
