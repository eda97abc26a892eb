"""Local stores, and addresses."""

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crnn_deploy.errors import CrnnDeployError, LibraryMissing
from crnn_deploy.files import OutputUnwritable
from crnn_deploy.stores.address import StoreAddressInvalid, address_of, without_keys
from crnn_deploy.stores.local import StoreUnreadable
from crnn_deploy.stores.store import (
    Entry,
    Store,
    StoreDenied,
    StoredTooLarge,
    StoreMissing,
    Stores,
    open_store,
)

NAMES = st.text("ab.-/_ü?*", min_size=1, max_size=12).filter(
    lambda path: all(part not in ("", ".", "..") for part in path.split("/"))
)


def store_at(folder: Path) -> Store:
    store, path = open_store(str(folder))
    return store.below(path)


@given(st.sets(NAMES, max_size=12))
def test_list_gives_every_file_in_the_order_of_the_paths(
    tmp_path_factory: pytest.TempPathFactory, paths: set[str]
) -> None:
    folder = tmp_path_factory.mktemp("listed")
    store = store_at(folder)
    written = {}
    for number, path in enumerate(sorted(paths)):
        if not any(other.startswith(f"{path}/") for other in paths):
            store.write(path, bytes(number))
            written[path] = number
    assert list(store.list()) == [Entry(path, written[path]) for path in sorted(written)]
    assert {path: len(store.read(path)) for path in written} == written


def test_a_file_is_read_in_parts(tmp_path: Path) -> None:
    store, data = store_at(tmp_path), bytes(range(200))
    store.write("a/b", data)
    assert store.read("a/b", 10, 5) == data[10:15] and store.read("a/b", 190) == data[190:]
    assert store.read("a/b", 300) == b"" and store.size("a/b") == 200
    assert store.read("a/b", 10, 5, limit=5) == data[10:15]
    with pytest.raises(StoredTooLarge, match="more than the limit of 199 bytes"):
        store.read("a/b", limit=199)
    with store.open("a/b") as file:
        file.seek(-3, os.SEEK_END)
        assert file.read() == data[-3:]


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    for call in (store.read, store.open, store.size, store.folder):
        with pytest.raises(StoreMissing, match=str(tmp_path / "absent")):
            call("absent")
    assert not store.exists("absent") and not store.is_folder("absent") and list(store.list("absent")) == []
    store.delete("absent")
    store.write("there", b"1")
    assert store.exists("there") and not store.is_folder("there")
    store.delete("there")
    assert not store.exists("there")
    with pytest.raises(StoreMissing):
        store.read("a\0b")


def test_a_fifo_is_not_waited_for_and_not_listed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    store = store_at(tmp_path)
    with pytest.raises(StoreUnreadable, match="not a regular file"):
        store.read("fifo")
    with pytest.raises(StoreUnreadable, match="it is a folder"):
        store_at(tmp_path.parent).read(tmp_path.name)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list(store.list()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_denied(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"1")
    (tmp_path / "secret").chmod(0)
    with pytest.raises(StoreDenied):
        store_at(tmp_path).read("secret")


def test_a_full_disk_is_told_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(tmp_path)
    store.write("part", b"before")

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputUnwritable, match="No space left on device"):
        store.write("part", b"after")
    assert [entry.path for entry in store.list()] == ["part"] and store.read("part") == b"before"


def test_addresses() -> None:
    address = address_of("s3://KEY:a%2Fb@bucket/dir/what?.png?region=x&endpoint_override=h:1")
    assert (address.place, address.path) == ("bucket", "dir/what?.png")
    assert (address.user, address.secret) == ("KEY", "a/b")
    assert address.options == {"region": "x", "endpoint_override": "h:1"}
    assert address.shown() == "s3://bucket/dir/what?.png" and "a/b" not in repr(address)
    assert address_of("s3://bucket/a?x=1&region=y").path == "a?x=1&region=y"
    assert address_of("s3://bucket?region=y").place == "bucket"
    assert address_of("gs://bucket/a%20b#c").path == "a%20b#c"
    assert address_of("file:///a/b%20c").path == address_of("/a/b c").path == "a/b c"
    assert address_of("x/../y").shown() == str(Path.cwd() / "y")
    for wrong in ("http://host/a", "s3://", "s3:///a", "file://host/a", "s3://KEY:SECRET@"):
        with pytest.raises(StoreAddressInvalid) as told:
            address_of(wrong)
        assert "SECRET" not in str(told.value)


def test_the_environment_names_the_server_of_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one:1/")
    assert address_of("s3://bucket/a").options == {"endpoint_override": "one:1", "scheme": "http"}
    assert address_of("s3://bucket/a?endpoint_override=two").options["endpoint_override"] == "two"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://three")
    assert address_of("s3://bucket/a").options == {"endpoint_override": "three", "scheme": "https"}
    assert address_of("gs://bucket/a").options == {}


def test_stores_are_sent_with_the_folder_that_paths_begin_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a").write_bytes(b"1")
    monkeypatch.chdir(tmp_path / "here")
    stores = Stores(["a"])
    assert stores.local("a") == "a"
    sent = pickle.dumps(stores)
    monkeypatch.chdir(tmp_path)
    there = pickle.loads(sent)
    store, path = there.open("a")
    assert store.read(path) == b"1" and there.local("a") == str(tmp_path / "here" / "a")
    store, path = pickle.loads(pickle.dumps(store_at(tmp_path))), "here/a"
    assert store.read(path) == b"1" and store.name(path) == str(tmp_path / "here" / "a")


def test_without_pyarrow_only_object_stores_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(LibraryMissing, match=r"crnn-deploy\[ray\]"):
        open_store("s3://bucket/a")
    assert open_store("/tmp")[0].uri == "/"


def test_errors_are_those_of_the_toolkit_and_the_builtin_ones() -> None:
    for kind, builtin in ((StoreMissing, FileNotFoundError), (StoreDenied, PermissionError)):
        assert issubclass(kind, builtin) and issubclass(kind, CrnnDeployError)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("s3://KEY:SE%2FCRET@bucket/a/b", "s3://bucket/a/b"),
        ("s3://KEY:SECRET@bucket/a?region=x&scheme=http", "s3://bucket/a"),
        ("gs://bucket/a", "gs://bucket/a"),
        ("a@b/c", "a@b/c"),
        ("-", "-"),
    ],
)
def test_an_address_that_is_kept_has_no_keys(given: str, kept: str) -> None:
    assert without_keys(given) == kept
