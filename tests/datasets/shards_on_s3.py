"""Shards in a store, run by test_shards_on_s3.py where nobody else can reach the server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numbered import GOOD, ROWS, Listed, files_of, png, samples_of

from benchmarks.cluster.object_store import BUCKET, ObjectStore, object_store
from crnn_deploy.cli.main import main
from crnn_deploy.datasets import Dataset, DatasetInvalid, open_dataset
from crnn_deploy.datasets import shard_cache as shard_cache_module
from crnn_deploy.datasets.pack_shards import pack_tars
from crnn_deploy.datasets.shard_cache import ShardCache, ShardLost
from crnn_deploy.datasets.tar_shards import TarShards
from crnn_deploy.stores import store as stores_module
from crnn_deploy.stores.store import Store, StoreDenied, open_store

numbers = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("server"), os.environ["OBJECT_STORE"]) as server:
        os.environ.update(server.environment)
        yield server


@pytest.fixture
def address(server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new folder in the bucket; what is fetched of it goes below tmp_path."""
    monkeypatch.setattr(shard_cache_module, "default_folder", lambda: tmp_path / "cache")
    return f"s3://{BUCKET}/shards{next(numbers)}"


def store_at(address: str) -> Store:
    store, path = open_store(address)
    return store.below(path)


def texts(dataset: Dataset) -> list[str]:
    return [dataset[at].text for at in range(len(dataset))]


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["dataset", *map(str, args)])


def test_what_is_packed_is_read_again_and_equals_a_local_pack(address: str, tmp_path: Path) -> None:
    packed = pack_tars(Listed(ROWS), address, samples_per_shard=30)
    assert pack_tars(Listed(ROWS), str(tmp_path / "x"), samples_per_shard=30) == packed
    store = store_at(address)
    (tmp_path / "fetched").mkdir()
    for entry in store.list():
        (tmp_path / "fetched" / entry.path).write_bytes(store.read(entry.path))
    assert files_of(tmp_path / "fetched") == files_of(tmp_path / "x")
    for spec in (address, f"{address}/{{000000..000007}}.tar", f"{address}/*.tar"):
        dataset = open_dataset(spec)
        assert [(one.image, one.text) for one in map(dataset.__getitem__, range(len(dataset)))] == GOOD
    assert open_dataset(f"{address}/000002.tar")[0].name.startswith(f"{address}/000002.tar 000000060")
    result = run("check", address)
    assert result.exit_code == 0 and f"{len(GOOD)}\n" in result.stdout, result.output
    assert run("pack", address, "-o", tmp_path / "again", "--pack-format", "webdataset").exit_code == 0
    assert samples_of(tmp_path / "again") == GOOD


def test_to_open_a_set_takes_two_requests(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pack_tars(Listed(ROWS), address, samples_per_shard=5)
    asked: list[str] = []
    store = type(store_at(address))
    patiently = store._patiently  # type: ignore[attr-defined]

    def counted(self: Any, path: str, call: Any) -> Any:
        asked.append(path)
        return patiently(self, path, call)

    monkeypatch.setattr(store, "_patiently", counted)
    assert len(open_dataset(address)) == len(GOOD)
    assert len(asked) <= 4  # whether it is a folder and is there, what lies in it, its index
    assert not list(shard_cache_module.default_folder().glob("*"))


def test_a_set_without_an_index_is_fetched_to_be_counted(address: str, tmp_path: Path) -> None:
    pack_tars(Listed(ROWS), address, samples_per_shard=100)
    store_at(address).delete("shards.json")
    said: list[str] = []
    assert texts(open_dataset(address, told=said.append)) == [text for _, text in GOOD]
    assert len(said) == 1 and "3 shards have no index" in said[0]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_pack_that_is_killed_goes_on_where_it_was(address: str, tmp_path: Path) -> None:
    for at in (0, 45, 45, 249):
        code = "from numbered import Listed, ROWS; from crnn_deploy.datasets.pack_shards import pack_tars;"
        code += f"pack_tars(Listed(ROWS, {at}), {address!r}, "
        code += "samples_per_shard=30, resume=True)"
        run = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent)
        assert run.returncode == -signal.SIGKILL
        with pytest.raises(DatasetInvalid, match="not all of its shards are packed yet"):
            open_dataset(address)
    pack_tars(Listed(ROWS), address, samples_per_shard=30, resume=True)
    pack_tars(Listed(ROWS), f"{address}-y", samples_per_shard=30)
    one, other = store_at(address), store_at(f"{address}-y")
    assert {e.path: one.read(e.path) for e in one.list()} == {
        e.path: other.read(e.path) for e in other.list()
    }


def test_the_cache_keeps_its_limit_and_the_newest(address: str, tmp_path: Path) -> None:
    pack_tars(Listed(ROWS), address, samples_per_shard=20)
    size = max(entry.size for entry in store_at(address).list())
    cache = ShardCache(tmp_path / "small", 3 * size)
    dataset = open_dataset(address, cache=cache)
    order = np.random.RandomState(0).permutation(len(GOOD)).tolist()
    assert [dataset[at].text for at in order] == [GOOD[at][1] for at in order]
    held = [path.stat().st_size for path in (tmp_path / "small").glob("*.tar")]
    assert 0 < sum(held) <= 3 * size
    assert not list((tmp_path / "small").glob("*.part"))


def test_a_shard_that_is_another_one_or_gone_ends_the_reading(address: str) -> None:
    pack_tars(Listed(ROWS), address, samples_per_shard=30)
    dataset = open_dataset(address)
    store = store_at(address)
    data = bytearray(store.read("000001.tar"))
    data[700] ^= 1
    store.write("000001.tar", bytes(data))
    store.write("000002.tar", bytes(data) + bytes(512))
    store.delete("000003.tar")
    for sample, said in ((30, "SHA-256"), (60, "bytes, and had"), (90, "no file at")):
        with pytest.raises(ShardLost, match=said):
            dataset[sample]
    result = run("check", f"{address}/00000[0-1].tar")
    assert result.exit_code == 2 and "SHA-256" in result.stderr
    assert dataset[0].text == GOOD[0][1]


def test_processes_share_what_was_fetched(address: str, tmp_path: Path) -> None:
    pack_tars(Listed(ROWS), address, samples_per_shard=30)
    code = f"""if True:
        from pathlib import Path
        from numbered import GOOD
        from crnn_deploy.datasets import open_dataset
        from crnn_deploy.datasets.shard_cache import ShardCache
        dataset = open_dataset({address!r}, cache=ShardCache(Path({str(tmp_path / "cache")!r})))
        assert [dataset[at].text for at in range(len(dataset))] == [text for _, text in GOOD]
    """
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 8


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_forked_process_has_connections_of_its_own(address: str, tmp_path: Path) -> None:
    pack_tars(Listed(ROWS), address, samples_per_shard=30)
    dataset = open_dataset(address)
    assert dataset[0].text == GOOD[0][1]
    children = []
    for _ in range(3):
        if not (child := os.fork()):
            signal.alarm(60)
            os._exit(texts(dataset) != [text for _, text in GOOD])
        children.append(child)
    assert texts(dataset) == [text for _, text in GOOD]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]


def test_shards_that_are_read_ahead_are_there(address: str, tmp_path: Path) -> None:
    pack_tars(Listed(ROWS), address, samples_per_shard=30)
    dataset = open_dataset(address)
    assert isinstance(dataset, TarShards)
    dataset.fetch_ahead([3, 1])
    end = time.monotonic() + 30
    while len(list((tmp_path / "cache").glob("*.tar"))) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 2


def test_a_store_that_is_away_for_some_seconds_costs_nothing(address: str, server: ObjectStore) -> None:
    pack_tars(Listed(ROWS), address, samples_per_shard=30)
    dataset = open_dataset(address)
    server.leave()
    threading.Timer(3, server.come_back).start()
    assert texts(dataset) == [text for _, text in GOOD]


def test_a_store_that_stays_away_ends_check_and_pack(
    address: str, server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_tars(Listed(ROWS), address, samples_per_shard=30)
    dataset = open_dataset(address)
    monkeypatch.setattr(stores_module, "PATIENCE", 1)
    server.leave()
    try:
        with pytest.raises(ShardLost, match="cannot be reached"):
            pack_tars(dataset, str(tmp_path / "x"), samples_per_shard=100)
    finally:
        server.come_back()
    pack_tars(dataset, str(tmp_path / "x"), samples_per_shard=100, resume=True)
    assert samples_of(tmp_path / "x") == GOOD


def test_keys_that_are_refused_are_told(address: str, server: ObjectStore) -> None:
    if server.kind == "moto":
        pytest.skip("moto lets every key in")
    pack_tars(Listed(ROWS[:5]), address)
    result = run("check", address.replace("s3://", "s3://someone:wrong@"))
    assert result.exit_code == 2 and "access was refused" in result.stderr and "wrong" not in result.stderr
    with pytest.raises(StoreDenied):
        pack_tars(Listed([(png(1), "x")]), address.replace("s3://", "s3://someone:wrong@"))
