"""Any number of images through a recogniser: several at a time, results in order, memory flat."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from crnn_deploy.errors import CrnnDeployError, ReadFailed, RunFailed
from crnn_deploy.runtime.batching import Groups
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.order import InOrder, Result, Taken

__all__ = ["MOST_COLUMNS", "Reader", "Result", "failure", "read_each", "read_in_order"]

_BATCHES_IN_WINDOW = 64  # of words in buckets of 4 pixels, 5 of 6 batches are full then
_BATCHES_GIVEN = 4  # images in so many batches are given at once: each time costs a write
_BATCHES_AT_ONCE = 4  # that a thread is handed, and images in so many: each hand-over wakes two threads
_SLICE = 0.05  # seconds of work after which a thread gives what it has and leaves the rest to all
_PATIENCE = 0.7  # seconds that what has begun may still take once the run is stopped
_TURN = 0.2  # seconds after which a thread that waits looks whether the run is stopped
MOST_COLUMNS = 2**16  # of images that wait for others, 8 MiB of grey 32-pixel lines
_COLUMNS_AT_ONCE = 2**14  # of images that a thread prepares before it gives them

Key = TypeVar("Key")  # what says which image: its path, or a box of a page


class Sized(Protocol):
    """An image as the network takes it."""

    @property
    def columns(self) -> int: ...  # pixels, its width


Image = TypeVar("Image", bound=Sized)
Source = TypeVar("Source", contravariant=True)


class Reader(Protocol[Source, Image]):
    """What is used of a Recognizer; called from several threads at once."""

    def prepare(self, source: Source, /) -> Image: ...
    def read_batch(self, images: Sequence[Image], /) -> Sequence[Text | CrnnDeployError]: ...


def read_in_order(
    reader: Reader[Key, Image],
    keys: Iterable[Key],
    *,
    batch: int,
    workers: int,
    window: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
    pool: ThreadPoolExecutor | None = None,
) -> Generator[list[Result[Key]], None, None]:
    """Results of all keys, such as paths, in their order, some batches at a time.

    `workers` threads load and prepare images and run batches of one width. An image waits until its batch is
    full or until `window` images (by default 64 times `batch`) were taken from `keys` and not yet yielded;
    then the batch of the one that has waited longest runs as it is. An image that cannot be read gives its
    error.
    Once `stopped()` is true, what no thread has begun is dropped, what does not end within a second is given
    up, as its thread may be in native code that never ends, and the results end before the first gap.

    pool: the threads, `workers` of them, which stay for another call; None: some for this call alone. glibc
        keeps memory for each thread that has been, so a process that reads again and again needs a pool.
    """
    threads = pool or ThreadPoolExecutor(workers)
    images = _Window(reader, keys, batch, window or _BATCHES_IN_WINDOW * batch)
    try:
        yield from images.results(threads, 2 * workers, stopped)
    finally:
        images.end()
        if pool is None:
            threads.shutdown(wait=not images.given_up)


class _Window(Generic[Key, Image]):
    """The images between the input and the output: taken, prepared, grouped, read."""

    def __init__(self, reader: Reader[Key, Image], keys: Iterable[Key], batch: int, size: int) -> None:
        self._reader, self._batch, self._size = reader, batch, size
        self._order = InOrder(keys, size)
        self.given_up = False  # a thread still works, and nobody waits for it
        self._left: deque[Taken[Key]] = deque()  # of tasks that had enough of wide images
        self._groups: Groups[_Item[Key, Image]] = Groups(batch)
        self._full: deque[list[_Item[Key, Image]]] = deque()
        self._submitted: set[Future[_TaskResult[Key, Image]]] = set()

    def results(
        self, pool: ThreadPoolExecutor, ahead: int, stopped: Callable[[], bool]
    ) -> Generator[list[Result[Key]], None, None]:
        """All results in order; the pool always has `ahead` tasks, as long as there are that many."""
        least = min(_BATCHES_GIVEN * self._batch, self._size // 4)
        finished: SimpleQueue[Future[_TaskResult[Key, Image]]] = SimpleQueue()
        submitted = self._submitted
        until = math.inf
        while True:
            while len(submitted) < ahead and not stopped() and (task := self._next_task()) is not None:
                future = pool.submit(task)
                submitted.add(future)
                future.add_done_callback(finished.put)
            if stopped():
                submitted.difference_update([future for future in submitted if future.cancel()])
                until = min(until, time.monotonic() + _PATIENCE)
            if not submitted:
                break
            try:
                future = finished.get(timeout=_TURN)
            except Empty:
                self.given_up = time.monotonic() > until
                if self.given_up:
                    break
                continue
            if future.cancelled():
                continue
            submitted.remove(future)
            self._take(future.result())
            if len(self._order.ready) >= max(1, least):
                yield self._order.give()
        if self._order.ready:
            yield self._order.give()

    def end(self) -> None:
        """No thread has anything to do any more; one that was given up may still be at it."""
        for future in self._submitted:
            future.cancel()
        if not self.given_up:
            wait(self._submitted)

    def _next_task(self) -> Callable[[], _TaskResult[Key, Image]] | None:
        """What a thread does next: run a full batch, else prepare images, else run one that is not full."""
        if self._full:
            share = max(1, min(_BATCHES_AT_ONCE, len(self._full) // 2))
            return partial(_run, self._reader, [self._full.popleft() for _ in range(share)])
        if self._groups.columns < MOST_COLUMNS:
            if self._left:
                return partial(_prepare, self._reader, self._left.popleft())
            # in small parts at first, so that a few images are shared among all threads
            most = self._batch * (_BATCHES_AT_ONCE if self._order.taken >= self._size else 1)
            if some := self._order.take(most):
                return partial(_prepare, self._reader, some)
        return partial(_run, self._reader, [self._groups.pop_oldest()]) if self._groups else None

    def _take(self, outcome: _TaskResult[Key, Image]) -> None:
        self._order.add(outcome.results)
        if outcome.left:
            self._left.append(outcome.left)
        self._full.extendleft(reversed(outcome.not_run))
        for item in outcome.prepared:
            if batch := self._groups.add(item.image.columns, item):
                self._full.append(batch)


class _Item(NamedTuple, Generic[Key, Image]):
    """A prepared image."""

    place: int  # in the input
    key: Key
    image: Image


@dataclass(frozen=True)
class _TaskResult(Generic[Key, Image]):
    """What a thread has done: images read or failed, by place in the input, images prepared, what is left."""

    results: dict[int, Text | CrnnDeployError]
    prepared: Sequence[_Item[Key, Image]] = ()
    left: Taken[Key] = field(default_factory=list)
    not_run: Sequence[list[_Item[Key, Image]]] = ()


def _prepare(reader: Reader[Key, Image], taken: Taken[Key]) -> _TaskResult[Key, Image]:
    failed: dict[int, Text | CrnnDeployError] = {}
    prepared: list[_Item[Key, Image]] = []
    columns, until = 0, time.monotonic() + _SLICE
    for at, (index, key) in enumerate(taken):
        if at and (columns > _COLUMNS_AT_ONCE or time.monotonic() > until):
            return _TaskResult(failed, prepared, taken[at:])
        try:
            image = reader.prepare(key)
        except Exception as error:
            failed[index] = failure(str(key), error)
        else:
            prepared.append(_Item(index, key, image))
            columns += image.columns
    return _TaskResult(failed, prepared)


def _run(reader: Reader[Key, Image], batches: list[list[_Item[Key, Image]]]) -> _TaskResult[Key, Image]:
    results: dict[int, Text | CrnnDeployError] = {}
    until = time.monotonic() + _SLICE
    for at, batch in enumerate(batches):
        if at and time.monotonic() > until:
            return _TaskResult(results, not_run=batches[at:])
        texts = read_each(reader, [item.image for item in batch], [str(item.key) for item in batch])
        results.update(zip((item.place for item in batch), texts, strict=True))
    return _TaskResult(results)


def read_each(
    reader: Reader[Any, Image], images: Sequence[Image], names: Sequence[str]
) -> Sequence[Text | CrnnDeployError]:
    """Texts of prepared images of one width; where they cannot be read together, each is tried alone."""
    try:
        texts = reader.read_batch(images)
        if len(texts) != len(images):
            raise ValueError(f"the reader gave {len(texts)} texts for {len(images)} images")
        return texts
    except Exception as error:
        if len(images) == 1:
            return [failure(names[0], error)]
        # the others are not to blame
        return [read_each(reader, [image], [name])[0] for image, name in zip(images, names, strict=True)]


def failure(path: str, error: Exception) -> CrnnDeployError:
    """The record of an image that cost its batch; an error that names the image stands as it is."""
    if isinstance(error, CrnnDeployError) and not isinstance(error, RunFailed):
        return error
    known = isinstance(error, CrnnDeployError)
    return ReadFailed(path, str(error) if known else f"unexpected {type(error).__name__}: {error}")
