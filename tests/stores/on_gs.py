"""What Google Cloud Storage sees of a store, in the place of which an emulator answers; see on_s3.py."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from crnn_deploy.stores import store as stores_module
from crnn_deploy.stores.store import Entry, Store, StoreMissing, StoreUnreachable, open_store

AT = "endpoint_override=127.0.0.1:9023&scheme=http&anonymous=true&project_id=p"


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    command = [os.environ["GCS_EMULATOR"], "start", "--host=127.0.0.1", "--port=9023", "--in-memory"]
    emulator = subprocess.Popen(
        [*command, "--default-bucket=crops"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", 9023)) == 0:
                    break
            time.sleep(0.1)
        yield open_store(f"gs://crops?{AT}")[0]
    finally:
        emulator.kill()
        emulator.wait()


def test_objects(store: Store) -> None:
    data = {"a-b": b"1", "a/b/c d?#.png": b"22", "a/x": b"", "z": os.urandom(3_000_000)}
    for path, content in data.items():
        store.write(path, content)
    assert list(store.list()) == [Entry(path, len(data[path])) for path in sorted(data)]
    assert list(store.below("a").list()) == [Entry("b/c d?#.png", 2), Entry("x", 0)]
    again = pickle.loads(pickle.dumps(store))
    assert {path: again.read(path) for path in data} == data
    assert store.read("z", 1_000_000, 10) == data["z"][1_000_000:1_000_010] and store.size("z") == 3_000_000
    assert store.name("a/x") == "gs://crops/a/x" and store.exists("a/x") and store.is_folder("a")
    store.delete("z")
    store.delete("z")
    assert not store.exists("z")


def test_what_is_missing(store: Store) -> None:
    for call in (store.read, store.open, store.size, store.folder):
        with pytest.raises(StoreMissing, match="no file at gs://crops/absent"):
            call("absent")
    other, _ = open_store(f"gs://no-such-bucket?{AT}")
    assert not other.exists("x") and list(other.list()) == []


def test_a_store_that_stays_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores_module, "PATIENCE", 1.0)
    away, path = open_store("gs://crops/x?endpoint_override=127.0.0.1:9&scheme=http&anonymous=true")
    with pytest.raises(StoreUnreachable, match="gs://crops/x cannot be reached"):
        away.read(path)
