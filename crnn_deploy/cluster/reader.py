"""The work of one actor: a chunk's images in, one file of rows out, and a receipt for the driver."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pyarrow import concat_tables

from crnn_deploy.cluster.plan import Chunk, part_of
from crnn_deploy.cluster.rows import encode, names_digest, table_of
from crnn_deploy.cluster.sources import Item, open_chunk
from crnn_deploy.cluster.task import Task
from crnn_deploy.errors import CrnnDeployError, first_line
from crnn_deploy.runtime.images.pixels import Source
from crnn_deploy.runtime.pipeline import read_in_order
from crnn_deploy.runtime.prepared import Prepared
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.runtime.records import Record

__all__ = ["ChunkReader", "Receipt"]


@dataclass(frozen=True)
class Receipt:
    """What became of a chunk. `failed` is why it has no file; the chunk is read again then."""

    chunk: int
    inputs: int = 0
    rows: int = 0
    errors: int = 0  # rows of images that cannot be read
    seconds: float = 0.0  # by the clock
    cpu_seconds: float = 0.0  # of the actor's process
    node: str = ""
    failed: str = ""
    hopeless: bool = False  # the node reads no chunk: its model does not open, or its version differs


class ChunkReader:
    """Reads chunks with one recogniser, which is opened for the first of them.

    node: what the machine is called in messages
    """

    def __init__(self, task: Task, node: str) -> None:
        self._task, self._node, self._store = task, node, task.output_store()
        self._threads = ThreadPoolExecutor(task.threads)
        self._recognizer: Recognizer | None = None

    def read(self, chunk: Chunk) -> Receipt:
        """Read a chunk and commit its rows. Whatever goes wrong stands in the receipt."""
        began, cpu = time.monotonic(), time.process_time()
        if self._recognizer is None:
            try:
                with TemporaryDirectory(prefix="crnn-deploy-") as folder:
                    self._recognizer = self._task.open(Path(folder))
            except Exception as error:
                return Receipt(chunk.number, node=self._node, failed=first_line(error), hopeless=True)
        try:
            inputs, rows, errors = self._read(chunk, self._recognizer)
        except Exception as error:
            told = (
                first_line(error)
                if isinstance(error, CrnnDeployError)
                else f"{type(error).__name__}: {error}"
            )
            return Receipt(chunk.number, node=self._node, failed=told)
        seconds, used = time.monotonic() - began, time.process_time() - cpu
        return Receipt(chunk.number, inputs, rows, errors, seconds, used, self._node)

    def _read(self, chunk: Chunk, recognizer: Recognizer) -> tuple[int, int, int]:
        task = self._task
        store = self._store
        if chunk.listed:
            chunk = replace(chunk, source=store.name(chunk.source))
        images = open_chunk(chunk, task.stores)
        tables, errors, count = [], 0, 0
        results = read_in_order(
            _Reader(recognizer), _named(images), batch=task.batch, workers=task.threads, pool=self._threads
        )
        with closing(results):
            for some in results:
                records = [Record.of(str(path), result, with_chars=task.show_chars) for path, result in some]
                tables.append(table_of(chunk.number, records, first=count, **task.columns))
                count += len(records)
                errors += sum(record.error is not None for record in records)
        names = images.names  # only now: those of a tar are known once it has been read
        whole = concat_tables(tables) if tables else table_of(chunk.number, [], **task.columns)
        data = encode(whole, chunk.number, len(names), names_digest(names), task.run)
        store.write(part_of(chunk.number), data)
        return len(names), count, errors


class _Named(str):
    """The name of an image, with the image itself until that is prepared."""

    image: Source | CrnnDeployError | None


def _named(items: Iterable[Item]) -> Iterator[_Named]:
    for item in items:
        named = _Named(item.name)
        named.image = item.image
        yield named


class _Reader:
    """A recogniser that takes images with their names."""

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self.read_batch = recognizer.read_batch

    def prepare(self, named: str) -> Prepared:
        assert isinstance(named, _Named)
        image, named.image = named.image, None
        if isinstance(image, CrnnDeployError):
            raise image
        assert image is not None
        return self._recognizer.prepare(image, name=str(named))
