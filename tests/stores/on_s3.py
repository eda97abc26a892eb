"""What an S3 server sees of a store; run by test_object_store.py where nobody else can reach the server."""

from __future__ import annotations

import io
import os
import pickle
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.session import get_session

from benchmarks.cluster.object_store import BUCKET, KEY, SECRET, ObjectStore, object_store
from crnn_deploy.cluster.plan import write_plan
from crnn_deploy.cluster.sources import Item, open_chunk, plan_of
from crnn_deploy.runtime.images import sources
from crnn_deploy.stores import store as stores_module
from crnn_deploy.stores.store import (
    Entry,
    Store,
    StoreDenied,
    StoredTooLarge,
    StoreMissing,
    Stores,
    StoreUnreachable,
    open_store,
)

numbers = count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    with object_store(tmp_path_factory.mktemp("server"), os.environ["OBJECT_STORE"]) as server:
        os.environ.update(server.environment)
        yield server


@pytest.fixture(scope="module")
def client(server: ObjectStore) -> Any:
    """Another implementation of S3."""
    os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
    return get_session().create_client("s3", "us-east-1", endpoint_url=server.environment["AWS_ENDPOINT_URL"])


@pytest.fixture
def store(server: ObjectStore) -> Store:
    """A folder of its own in the bucket."""
    store, path = open_store(f"s3://{BUCKET}/test{next(numbers)}")
    return store.below(path)


def within(store: Store) -> str:
    """The key that those of a store begin with."""
    return store.uri.removeprefix(f"s3://{BUCKET}/")


def test_objects_are_those_that_another_client_sees(store: Store, client: Any) -> None:
    keys = ["a-b", "a.png", "a/b/c d.png", "a/b?#%20+.png", "z", "ü/n&m=1.png"]
    for number, key in enumerate(keys):
        store.write(key, bytes(number))
    client.put_object(Bucket=BUCKET, Key=f"{within(store)}/theirs/x", Body=b"123")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{within(store)}/")
    found = [one for page in pages for one in page["Contents"]]
    seen = [(one["Key"].removeprefix(f"{within(store)}/"), one["Size"]) for one in found]
    assert [tuple(entry) for entry in store.list()] == seen
    assert dict(seen) == {"theirs/x": 3} | {key: number for number, key in enumerate(keys)}
    assert store.read("theirs/x") == b"123" and store.size("theirs/x") == 3
    assert store.exists("theirs") and store.is_folder("theirs") and not store.is_folder("theirs/x")
    assert [*store.below("a").list()] == [Entry("b/c d.png", 2), Entry("b?#%20+.png", 3)]
    store.delete("theirs/x")
    store.delete("theirs/x")
    assert not store.exists("theirs/x")


def test_a_folder_of_several_pages(store: Store, client: Any, server: ObjectStore) -> None:
    if server.kind == "moto":
        pytest.skip("moto takes a minute for so many objects")
    names = [f"{number:04}.png" for number in range(1234)]
    for name in names:
        client.put_object(Bucket=BUCKET, Key=f"{within(store)}/many/{name}", Body=b"1")
    assert [entry.path for entry in store.list("many")] == [f"many/{name}" for name in names]


def test_parts_of_an_object(store: Store) -> None:
    data = os.urandom(9_000_000)
    store.write("x", data)
    assert store.read("x", 5_000_000, 10) == data[5_000_000:5_000_010]
    assert store.read("x", 8_999_999) == data[-1:] and store.read("x", 9_000_000) == b""
    with pytest.raises(StoredTooLarge):
        store.read("x", limit=8_999_999)
    for buffer in (0, 2**20):
        with store.open("x", buffer) as file:
            plain = io.BytesIO(data)
            for begin, whence, size in ((0, 0, 100), (-50, 2, 100), (4_000_000, 0, 3_000_000), (-10, 1, 20)):
                assert file.seek(begin, whence) == plain.seek(begin, whence)
                assert file.read(size) == plain.read(size)
            assert file.read() == plain.read()
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": range(100_000)}), sink, row_group_size=1000)
    store.write("t.parquet", sink.getvalue())
    with store.open("t.parquet", buffer=0) as file:
        assert pq.ParquetFile(file).read_row_group(50).column("a")[7].as_py() == 50_007


def test_what_is_missing_is_told_at_once(store: Store) -> None:
    began = time.monotonic()
    other, _ = open_store("s3://no-such-bucket")
    for one in (store, other):
        for call in (one.read, one.open, one.size, one.folder):
            with pytest.raises(StoreMissing, match=f"no file at {one.uri}"):
                call("absent")
        assert not one.exists("absent") and not one.is_folder("absent")
        assert list(one.list()) == [] and list(one.list("absent")) == []
        one.delete("absent")
    with pytest.raises(StoreMissing):
        other.write("x", b"1")
    assert time.monotonic() - began < 5


def test_wrong_keys_are_told_at_once(store: Store, server: ObjectStore) -> None:
    if server.kind == "moto":
        pytest.skip("moto lets every key in")
    store.write("x", b"1")
    began = time.monotonic()
    for keys in (f"nobody:{SECRET}", f"{KEY}:wrong-secret"):
        wrong, path = open_store(f"s3://{keys}@{store.uri.removeprefix('s3://')}/x")
        for call in (wrong.read, wrong.open, wrong.size, wrong.folder):
            with pytest.raises(StoreDenied) as told:
                call(path)
            assert SECRET not in str(told.value) and "wrong-secret" not in str(told.value)
        with pytest.raises(StoreDenied):
            wrong.write(path, b"2")
    nobody, path = open_store(f"{store.uri}/x?anonymous=true")
    with pytest.raises(StoreDenied):
        nobody.read(path)
    assert time.monotonic() - began < 5 and store.read("x") == b"1"


def test_a_store_that_is_away_for_a_while(store: Store, server: ObjectStore) -> None:
    store.write("a", b"1")
    file = store.open("a")
    for call in (
        lambda: store.read("a"),
        lambda: store.write("b", b"2"),
        lambda: list(store.list()),
        file.read,
    ):
        server.leave()
        back = threading.Timer(2, server.come_back)
        back.start()
        began = time.monotonic()
        try:
            call()
        finally:
            back.join()
        assert time.monotonic() - began > 1.5
    assert store.read("b") == b"2"


def test_a_store_that_stays_away(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores_module, "PATIENCE", 2.0)
    away, path = open_store("s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http")
    for call in (away.read, away.open, away.exists, away.folder, lambda path: away.write(path, b"1")):
        began = time.monotonic()
        with pytest.raises(StoreUnreachable, match=r"^s3://bucket/x cannot be reached: .*connect"):
            call(path)
        assert 0.5 < time.monotonic() - began < 4


class Answers(BaseHTTPRequestHandler):
    """A server that gives the answers it is told to, then the object."""

    todo: list[tuple[int, str]] = []  # noqa: RUF012
    asked = 0
    data = b"the object"

    def do_GET(self) -> None:
        type(self).asked += 1
        status, code = self.todo.pop(0) if self.todo else (206 if "Range" in self.headers else 200, "")
        body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode() if code else self.data
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def answers(server: ObjectStore) -> Iterator[type[Answers]]:
    told = type("Told", (Answers,), {"todo": [], "asked": 0})
    with ThreadingHTTPServer(("127.0.0.1", 8099), told) as http:
        threading.Thread(target=http.serve_forever).start()
        yield told
        http.shutdown()


CANNED = "s3://bucket/x?endpoint_override=127.0.0.1:8099&scheme=http"


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"), (502, "BadGateway")],
)
def test_errors_of_the_server_are_waited_out(answers: type[Answers], status: int, code: str) -> None:
    answers.todo[:] = [(status, code)] * 3
    store, path = open_store(CANNED)
    assert store.read(path) == Answers.data
    assert answers.asked == 3 + 2  # of a try, and of none by pyarrow itself


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, "AccessDenied"), (403, "RequestTimeTooSkewed"), (400, "ExpiredToken"), (301, "PermanentRedirect")],
)
def test_refusals_are_told_at_once(answers: type[Answers], status: int, code: str) -> None:
    store, path = open_store(CANNED)
    for call in (store.read, store.folder):
        answers.todo[:] = [(status, code)]
        with pytest.raises(StoreDenied, match="s3://bucket/x: access was refused"):
            call(path)


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch, server: ObjectStore) -> None:
    from crnn_deploy.stores import remote

    monkeypatch.setattr(remote, "_ANSWER", 2.0)
    monkeypatch.setattr(stores_module, "PATIENCE", 1.0)
    with socket.create_server(("127.0.0.1", 8098), backlog=50):
        store, path = open_store("s3://bucket/x?endpoint_override=127.0.0.1:8098&scheme=http")
        began = time.monotonic()
        with pytest.raises(StoreUnreachable, match="too slow"):
            store.read(path)
        assert time.monotonic() - began < 10


def test_a_store_goes_to_another_process(store: Store, tmp_path: Path) -> None:
    """The server that the environment named goes with it, and so do keys of the address."""
    store.write("x", b"123")
    keyed, path = open_store(f"s3://{KEY}:{SECRET}@{store.uri.removeprefix('s3://')}/x")
    (tmp_path / "sent").write_bytes(pickle.dumps(keyed))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).read(sys.argv[2]))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "sent"), path],
        env={**environment, "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout == "b'123'\n", run.stderr


def test_stores_know_the_keys_of_a_bucket(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("x", b"123")
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    address = f"s3://{KEY}:{SECRET}@{BUCKET}/a?endpoint_override=127.0.0.1:7480&scheme=http"
    stores = pickle.loads(pickle.dumps(Stores([address, f"s3://{BUCKET}/b"])))
    opened, path = stores.open(f"{store.uri}/x")
    assert opened.read(path) == b"123" and opened.name(path) == f"{store.uri}/x"
    assert SECRET not in f"{opened.uri} {stores!r} {opened!r} {vars(stores)!r}"
    again, _ = stores.open(f"s3://{BUCKET}/other")
    assert again is opened


def test_an_object_changes_whole(store: Store, client: Any) -> None:
    """One of several parts too, whoever reads it."""
    size = 25_000_000
    store.write("x", b"a" * size)
    writer = threading.Thread(target=store.write, args=("x", b"b" * size))
    writer.start()
    seen = set()
    while writer.is_alive():
        body = client.get_object(Bucket=BUCKET, Key=f"{within(store)}/x")["Body"].read()
        assert len(body) == size and len(set(body)) == 1
        seen.add(body[:1])
    assert store.read("x") == b"b" * size and seen <= {b"a", b"b"}


def test_keys_that_no_path_names_are_not_passed_over(store: Store, client: Any, server: ObjectStore) -> None:
    if server.kind == "moto":
        pytest.skip("moto's server makes one slash of two")
    store.write("a/x.png", b"1")
    client.put_object(Bucket=BUCKET, Key=f"{within(store)}/a//y.png", Body=b"1")
    assert store.folder("a").unnamed and not store.folder("").unnamed
    assert [entry.path for entry in store.list()] == ["a/x.png"]
    with pytest.raises(StoreDenied, match="Empty path component"):
        store.read("a//y.png")


TREE = (
    *("b.png", "a.JPG", "c.txt", ".hidden.png", "z.tiff", "a-b.png", "a/1.png", "a/0.png", "a/x/deep.webp"),
    *("a/.git/no.png", "B/one.png", "b/two.png", "b/note", "ü/ä.png"),
)


@pytest.fixture
def crops(store: Store, tmp_path: Path) -> Path:
    """The same images in the store and in a folder."""
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
        store.write(name, name.encode())
    return tmp_path


@pytest.mark.parametrize("given", ["", "*", "**", "**/*.png", "a*", "[ab]/*.png", "**/x/*", "b.png"])
def test_images_in_a_store_are_those_of_a_folder(store: Store, crops: Path, given: str) -> None:
    inputs = [f"{store.uri}/{given}"]
    names = [name for one in plan_of(inputs, 4, Stores(inputs)) for name in one.names]
    assert [name.removeprefix(f"{store.uri}/") for name in names] == [
        os.path.relpath(path, crops) for path in sources.find([str(crops / given)], ())
    ]


def read(inputs: list[str], output: Path) -> list[Item]:
    stores = Stores(inputs)
    local, path = open_store(str(output))
    found: list[Item] = []
    for chunk in write_plan(local.below(path), plan_of(inputs, 1000, stores)):
        source = str(output / chunk.source) if chunk.listed else chunk.source
        found += open_chunk(replace(chunk, source=source), stores)
    return found


def test_images_of_a_store_in_their_order(store: Store, crops: Path) -> None:
    names = [f"{store.uri}/{name}" for name in TREE] * 20
    names[7::50] = [f"{store.uri}/absent.png"] * len(names[7::50])
    names[3] = str(crops / "b.png")
    (crops / "list.txt").write_text("\n".join(names), encoding="utf-8")
    found = read([str(crops / "list.txt")], crops / "out")
    assert [one.name for one in found] == names
    for one in found:
        if "absent" in one.name:
            assert isinstance(one.image, StoreMissing)
        elif one.name.startswith("s3://"):
            assert one.image == one.name.removeprefix(f"{store.uri}/").encode()
    assert found[3].image == str(crops / "b.png")


def test_files_of_images_in_a_store(store: Store, tmp_path: Path) -> None:
    images = [os.urandom(1000 + number) for number in range(50)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"img": images}), sink, row_group_size=7)
    store.write("p/a.parquet", sink.getvalue())
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for number, image in enumerate(images):
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(image)
            tar.addfile(member, io.BytesIO(image))
    store.write("t/a.tar", sink.getvalue())
    for given in ("p", "p/*.parquet", "p/a.parquet", "t", "t/*.tar", "t/a.tar"):
        assert [one.image for one in read([f"{store.uri}/{given}"], tmp_path / given)] == images


def test_a_store_that_stays_away_ends_the_chunk(
    store: Store, crops: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores_module, "PATIENCE", 1.0)
    (crops / "list.txt").write_text("s3://bucket/a.png?\n" * 3, encoding="utf-8")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StoreUnreachable):
        read([str(crops / "list.txt")], crops / "out")
