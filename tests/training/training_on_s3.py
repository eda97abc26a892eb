"""Training from a store, run by test_training_shards.py where nobody else can reach the server."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tar_training import config_of, differences, last_of, pack_digits

from benchmarks.cluster.object_store import BUCKET, ObjectStore, object_store
from crnn_deploy.stores import store as stores_module
from crnn_deploy.stores.store import open_store
from crnn_deploy.training.config import Config
from crnn_deploy.training.loop import train

numbers = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("server"), os.environ["OBJECT_STORE"]) as server:
        os.environ.update(server.environment)
        yield server


@pytest.fixture
def address(server: ObjectStore, tmp_path: Path) -> str:
    """Shards in the bucket, and the same ones in tmp_path/shards."""
    address = f"s3://{BUCKET}/training{next(numbers)}"
    pack_digits(tmp_path, address)
    pack_digits(tmp_path, str(tmp_path / "shards"))
    return address


def from_store(folder: Path, address: str, name: str, **changes: Any) -> Config:
    source = {"path": address, "joined": 2}
    return config_of(folder, name, train=[source], cache={"folder": folder / "cache"}, **changes)


def local(folder: Path) -> dict[str, Any]:
    train(config_of(folder, "local"))
    return last_of(folder / "local")


def with_nothing_fetched(config: Config) -> Config:
    """With a folder of its own: a thread may still fetch ahead into the one before."""
    return config.model_copy(update={"cache": config.cache.model_copy(update={"folder": config.out / "new"})})


def fetched(folder: Path) -> int:
    return len(list((folder / "cache").glob("*.tar")))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("room", [1.0, 1e-6])
def test_a_training_from_a_store_is_that_from_disk(
    address: str, tmp_path: Path, workers: int, room: float
) -> None:
    whole = local(tmp_path)
    store = from_store(tmp_path, address, "store", workers=workers)
    config = store.model_copy(update={"cache": store.cache.model_copy(update={"gigabytes": room})})
    train(config.model_copy(update={"steps": 13}))
    train(config, resume=True)
    assert differences(last_of(tmp_path / "store"), whole) == []
    # without room each of five threads at most has fetched one and left it
    assert fetched(tmp_path) == 7 if room == 1.0 else fetched(tmp_path) <= 5


def test_a_store_that_is_away_for_some_seconds_costs_nothing(
    address: str, tmp_path: Path, server: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = local(tmp_path)
    config = from_store(tmp_path, address, "away")
    train(config.model_copy(update={"steps": 1}))
    config = with_nothing_fetched(config)
    server.leave()
    threading.Timer(3, server.come_back).start()
    train(config, resume=True)
    assert differences(last_of(tmp_path / "away"), whole) == []


def test_a_shard_that_is_lost_ends_the_training(address: str, tmp_path: Path) -> None:
    whole = local(tmp_path)
    config = from_store(tmp_path, address, "lost")
    train(config.model_copy(update={"steps": 1}))
    config = with_nothing_fetched(config)
    store, path = open_store(f"{address}/000003.tar")
    kept = store.read(path)
    store.write(path, kept[:700] + b"x" + kept[701:])
    for workers in (0, 1):
        with pytest.raises(ValueError, match="SHA-256"):
            train(config.model_copy(update={"workers": workers}), resume=True)
    store.write(path, kept)
    train(config, resume=True)
    assert differences(last_of(tmp_path / "lost"), whole) == []


def test_a_store_that_stays_away_ends_the_training(
    address: str, tmp_path: Path, server: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = from_store(tmp_path, address, "gone")
    monkeypatch.setattr(stores_module, "PATIENCE", 1)
    server.leave()
    try:
        with pytest.raises(ConnectionError, match="cannot be reached"):
            train(config)
    finally:
        server.come_back()
    assert not (tmp_path / "gone").exists()
