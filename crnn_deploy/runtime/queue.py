"""Images of many callers through one thread, in batches of one width: what a server reads with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.runtime.batching import Groups
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.pipeline import failure, read_each
from crnn_deploy.runtime.prepared import Prepared
from crnn_deploy.runtime.recognizer import Recognizer

__all__ = ["CallResults", "Image", "QueueFull", "QueueWatch", "ReadQueue"]

_MOST_COLUMNS = 2**14  # of prepared images that wait for others: 150 words

Image = tuple[str, bytes]  # its name for messages, and the encoded file


class QueueFull(CrnnDeployError, RuntimeError):
    """More images than a queue has room for."""

    def __init__(self, images: int, waiting: int, size: int) -> None:
        super().__init__(
            f"{waiting} of {size} places of the queue are taken, so {images} more images find no room; try "
            "again later"
        )


class QueueWatch(Protocol):
    """Who is told what a queue does; called in its thread and those of its callers."""

    def queued(self, count: int) -> None:
        """So many images wait now, or are being read."""

    def prepared(self, seconds: float) -> None:
        """An image was decoded and resized, or could not be."""

    def waited(self, seconds: float) -> None:
        """An image waited this long for its run."""

    def ran(self, width: int, size: int, seconds: float) -> None:
        """A batch of `size` images of this width was read."""


@dataclass(frozen=True)
class CallResults:
    """What became of the images of one call."""

    results: Sequence[Text | CrnnDeployError]  # in the order of the images
    queued: float  # seconds until the last of them was run


@dataclass
class _Handover:
    """Images that were given together."""

    recognizer: Recognizer
    images: Sequence[Image]
    done: Callable[[CallResults], object]
    since: float
    left: int
    begun: int = 0  # images that were taken to be prepared
    results: dict[int, Text | CrnnDeployError] = field(default_factory=dict)
    queued: float = 0.0


@dataclass(frozen=True)
class _Waiting:
    """A prepared image that waits for others of its width."""

    call: _Handover
    at: int  # its place in the call
    prepared: Prepared
    since: float


class ReadQueue:
    """Reads images that callers in any thread hand over, each text as if its image were read alone.

    Images of one recogniser and width run together, as they come: a thread prepares what has been handed
    over, runs every batch that is full, and where nothing else has come the fullest. It is never idle while
    an image waits. Calls take turns, an image each, so a call of many large images holds up no small one.

    size: most images that wait or are read; more are refused
    batch: most images that run together
    max_wait: seconds for which a prepared image lets fuller batches of other widths run first
    """

    def __init__(self, *, size: int, batch: int, max_wait: float, watch: QueueWatch) -> None:
        self._size, self._batch, self._max_wait, self._watch = size, batch, max_wait, watch
        self._given: SimpleQueue[_Handover | None] = SimpleQueue()
        self._groups: dict[Recognizer, Groups[_Waiting]] = {}  # only those in which something waits
        self._count, self._lock = 0, threading.Lock()
        self._thread = threading.Thread(target=self._work, name="read queue")
        self._thread.start()

    @property
    def size(self) -> int:
        return self._size

    @property
    def waiting(self) -> int:
        """Images that were handed over and are not read."""
        return self._count

    def submit(
        self, recognizer: Recognizer, images: Sequence[Image], done: Callable[[CallResults], object]
    ) -> None:
        """Hand images over; `done` is called in the queue's thread once all of them are read.

        They are taken all or none; without images `done` is never called. Raises QueueFull.
        """
        with self._lock:
            if self._count + len(images) > self._size:
                raise QueueFull(len(images), self._count, self._size)
            self._count += len(images)
        self._watch.queued(self._count)
        call = _Handover(recognizer, images, done, time.perf_counter(), len(images))
        if images:
            self._given.put(call)

    def close(self) -> None:
        """Read what was handed over, then end the thread. Nothing may be handed over afterwards."""
        self._given.put(None)
        self._thread.join()

    def _work(self) -> None:
        closed = False
        while not closed or self._groups or not self._given.empty():
            full = sum(groups.columns for groups in self._groups.values()) >= _MOST_COLUMNS
            if self._groups and (full or self._given.empty()):
                self._run_next()
            elif (one := self._given.get()) is None:
                closed = True
            else:
                self._prepare_next(one)

    def _prepare_next(self, call: _Handover) -> None:
        """Prepare a call's next image; those that are left wait for their turn."""
        at = call.begun
        call.begun += 1
        if call.begun < len(call.images):
            self._given.put(call)
        begun = time.perf_counter()
        name, data = call.images[at]
        try:
            prepared = call.recognizer.prepare(data, name=name)
        except Exception as error:
            self._finish(call, at, failure(name, error))
        else:
            groups = self._groups.setdefault(call.recognizer, Groups(self._batch))
            if batch := groups.add(prepared.columns, _Waiting(call, at, prepared, begun)):
                self._run(call.recognizer, batch)
        finally:
            self._watch.prepared(time.perf_counter() - begun)

    def _run_next(self) -> None:
        """Run the batch of the image that has waited too long, or else the fullest."""
        oldest = min(self._groups, key=lambda one: self._groups[one].oldest.since)
        if time.perf_counter() - self._groups[oldest].oldest.since > self._max_wait:
            self._run(oldest, self._groups[oldest].pop_oldest())
        else:
            fullest = max(self._groups, key=lambda one: self._groups[one].fullest)
            self._run(fullest, self._groups[fullest].pop_fullest())

    def _run(self, recognizer: Recognizer, batch: Sequence[_Waiting]) -> None:
        if not self._groups[recognizer]:
            del self._groups[recognizer]
        begun = time.perf_counter()
        for one in batch:
            one.call.queued = begun - one.call.since
            self._watch.waited(one.call.queued)
        images = [one.prepared for one in batch]
        texts = read_each(recognizer, images, [one.call.images[one.at][0] for one in batch])
        self._watch.ran(images[0].columns, len(batch), time.perf_counter() - begun)
        for one, text in zip(batch, texts, strict=True):
            self._finish(one.call, one.at, text)

    def _finish(self, call: _Handover, at: int, result: Text | CrnnDeployError) -> None:
        with self._lock:
            self._count -= 1
        self._watch.queued(self._count)
        if isinstance(result, CrnnDeployError):
            _forget_frames(result)
        call.results[at] = result
        call.left -= 1
        if not call.left:
            call.done(CallResults([call.results[place] for place in range(len(call.images))], call.queued))


def _forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error and of what led to it.

    Their frames hold the image and the call, which holds the error: a circle that stays in memory until
    Python looks for circles.
    """
    led: BaseException | None = error
    while led is not None:
        led.__traceback__ = None
        led = led.__cause__ or led.__context__
