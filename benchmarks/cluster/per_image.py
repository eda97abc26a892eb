"""What it costs to fetch, read, recognise and write one image: the figures that the cost model starts from.

    unshare -n sh -c 'ip link set lo up && python -m benchmarks.cluster.per_image [--json FILE]'
    python -m benchmarks.cluster.per_image --without-store [--images 1000] [--rounds 5]

One process with one thread measures the steps in turn:

- fetch: the client's CPU time alone, from an S3 server on this machine (`benchmarks.cluster.object_store`)
  without TLS. The server's log gives the number of requests.
- read: decode the image file and prepare the image
- recognise: the network and the texts, in batches of one width. Weights are random, except those of `latin`.
- rows: make a file of output rows

The script needs the extras [cpu,export,ray].
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import BATCH, cpu_in_turn, export_networks, measured, options, write
from crnn_deploy.evaluation.speed import draw_images
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.batching import Groups
from crnn_deploy.runtime.prepared import Prepared
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.runtime.records import Record

Task = Callable[[], object]


def as_png(data: bytes) -> bytes:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return cv2.imencode(".png", pixels)[1].tobytes()


def grouped(images: Sequence[Prepared]) -> Iterator[list[Prepared]]:
    """Batches of one width, as `infer` groups them."""
    groups: Groups[Prepared] = Groups(BATCH)
    for image in images:
        if full := groups.add(image.columns, image):
            yield full
    while groups:
        yield groups.pop_oldest()


def prepare(reader: Recognizer, files: Sequence[bytes]) -> None:
    for data in files:
        reader.prepare(data)


def recognise(reader: Recognizer, batches: Sequence[list[Prepared]]) -> None:
    for batch in batches:
        reader.read_batch(batch)


def rows_of(count: int) -> tuple[Task, int]:
    """Making a chunk's file of so many rows, and its bytes."""
    from crnn_deploy.cluster.rows import encode, names_digest, table_of

    names = [f"s3://archive/{at % 97:02}/{at * 2654435761 % 2**32:08x}.jpg" for at in range(count)]
    random = np.random.default_rng(0)
    texts = ["".join(map(chr, random.integers(97, 123, random.integers(1, 12)))) for _ in names]
    records = [
        Record(name, "ok", text, at / 7) for at, (name, text) in enumerate(zip(names, texts, strict=True))
    ]

    def made() -> bytes:
        table = table_of(0, records, model="ab" * 32, version="0.1.0")
        return encode(table, 0, count, names_digest(names), "cd" * 32)

    return made, len(made())


def tar_of(folder: Path, images: Sequence[bytes]) -> Path:
    path = folder / "shard.tar"
    with tarfile.open(path, "w") as file:
        for at, data in enumerate(images):
            member = tarfile.TarInfo(f"{at:06}.jpg")
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def fetching(
    stack: ExitStack, folder: Path, images: Sequence[bytes]
) -> tuple[dict[str, Task], Callable[[], int]]:
    """Reading objects and members of a tar from an S3 server, and how many requests it has answered."""
    import os

    from benchmarks.cluster.object_store import BUCKET, object_store
    from crnn_deploy.cluster.plan import Chunk
    from crnn_deploy.cluster.sources import open_chunk
    from crnn_deploy.stores.store import Stores

    server = stack.enter_context(object_store(folder / "store"))
    os.environ |= server.environment
    stores = Stores()
    store, _ = stores.open(f"s3://{BUCKET}")
    for at, data in enumerate(images):
        store.write(f"{at:06}.jpg", data)
    store.write("shard.tar", tar_of(folder, images).read_bytes())
    tar = Chunk(0, "tar", f"s3://{BUCKET}/shard.tar", 0, None)

    def answered() -> int:
        logs = "".join(path.read_text(errors="replace") for path in (folder / "store" / "log").glob("*"))
        return logs.count('HTTP/1.1" 20')

    tasks: dict[str, Task] = {
        "fetch: an object": lambda: [store.read(f"{at:06}.jpg") for at in range(len(images))],
        "fetch: a member of a tar": lambda: sum(1 for _ in open_chunk(tar, stores)),
    }
    return tasks, answered


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument(
        "--images", type=int, default=1000, help="Draw this many words, and a fifth as many lines."
    )
    parser.add_argument("--without-store", action="store_true", help="Leave out what needs an S3 server.")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    tasks: dict[str, Task] = {}
    counts: dict[str, int] = {}
    about: dict[str, dict[str, Any]] = {}
    words, lines = draw_images("words", given.images), draw_images("lines", given.images // 5)
    readers = {"latin": Recognizer.load(DEFAULT)}
    for network, model in export_networks(["compact", "paper"]).items():
        readers[network] = Recognizer.load(model)
    reader = readers["compact"]
    for kind, files in (("words", words), ("lines", lines)):
        for suffix, data in (("JPEG", files), ("PNG", [*map(as_png, files)])):
            name = f"read: {kind}, {suffix}"
            tasks[name] = partial(prepare, reader, data)
            about[name] = {"bytes": round(sum(map(len, data)) / len(data))}
            counts[name] = len(data)
    for called, one in readers.items():
        for kind, files in (("words", words), ("lines", lines)):
            few = files[: len(files) // 4] if called == "paper" else files
            batches = [*grouped([one.prepare(file) for file in few])]
            name = f"recognise: {kind}, {called}"
            tasks[name] = partial(recognise, one, batches)
            counts[name] = len(few)
    tasks["rows"], size = rows_of(5000)
    counts["rows"], about["rows"] = 5000, {"bytes": round(size / 5000)}
    with ExitStack() as stack:
        if not given.without_store:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            found, answered = fetching(stack, folder, words)
            for name, task in found.items():
                before = answered()
                task()
                about[name] = {"requests": round((answered() - before) / len(words), 4)}
                tasks[name], counts[name] = task, len(words)
        spent = cpu_in_turn(tasks, counts, given.rounds)
    rows: dict[str, Any] = {}
    for name, values in spent.items():
        rows[name] = {
            **about.get(name, {}),
            "images": counts[name],
            "cpu_per_image": measured(values, "CPU ms"),
        }
        print(
            f"{rows[name]['cpu_per_image']['median']:9.4f} CPU ms  {name} {about.get(name, '')}", flush=True
        )
    write("cluster_per_image", rows, given.json)


if __name__ == "__main__":
    main()
