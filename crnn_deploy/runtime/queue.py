"""Images of many callers through one thread, in batches of one width: what a server reads with."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Protocol

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.regions.region import Region
from crnn_deploy.runtime.batching import Groups
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.pipeline import failure, read_each
from crnn_deploy.runtime.prepared import Prepared
from crnn_deploy.runtime.recognizer import Recognizer

__all__ = ["BoxedImage", "CallResults", "Image", "QueueFull", "QueueWatch", "ReadQueue", "places"]

_MOST_COLUMNS = 2**14  # of prepared images that wait for others: 150 words

Image = tuple[str, bytes]  # its name for messages, and the encoded file


@dataclass(frozen=True)
class BoxedImage:
    """An image of which boxes are read, each as an image of its own."""

    name: str  # for messages
    data: bytes  # the encoded file
    regions: Sequence[Region]


def places(images: Iterable[Image | BoxedImage]) -> int:
    """How many places of a queue some images take, and how many results they have."""
    return sum(len(image.regions) if isinstance(image, BoxedImage) else 1 for image in images)


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

    results: Sequence[Text | CrnnDeployError]  # in the order of the images, and of their boxes
    queued: float  # seconds until the last of them was run


@dataclass
class _Handover:
    """Images that were given together."""

    recognizer: Recognizer
    images: deque[Image | BoxedImage]  # those that are left to be prepared
    done: Callable[[CallResults], object]
    since: float
    left: int  # results that are not there yet
    place: int = 0  # of the next result
    box: int = 0  # of the first image: its boxes that were prepared
    results: dict[int, Text | CrnnDeployError] = field(default_factory=dict)
    queued: float = 0.0


@dataclass(frozen=True)
class _Waiting:
    """A prepared image that waits for others of its width."""

    call: _Handover
    at: int  # the place of its result in the call
    name: str
    prepared: Prepared
    since: float


class ReadQueue:
    """Reads images that callers in any thread hand over, each text as if its image were read alone.

    Images of one recogniser and width run together, as they come: a thread prepares what has been handed
    over, runs every batch that is full, and where nothing else has come the fullest. It is never idle while
    an image waits. Calls take turns, an image each, so a call of many large images holds up no small one.
    The boxes of an image are prepared in one turn, so that it is decoded once, or in a few where they take
    long; no decoded image waits.

    size: most images that wait or are read, each box being one; more are refused
    batch: most images that run together
    max_wait: seconds for which a prepared image lets fuller batches of other widths run first
    """

    def __init__(self, *, size: int, batch: int, max_wait: float, watch: QueueWatch) -> None:
        self._size, self._batch, self._max_wait, self._watch = size, batch, max_wait, watch
        self._given: SimpleQueue[_Handover | None] = SimpleQueue()
        self._groups: dict[Recognizer, Groups[_Waiting]] = {}  # only those in which something waits
        self._full: deque[list[_Waiting]] = deque()  # batches: a page's boxes may fill several at a time
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
        self,
        recognizer: Recognizer,
        images: Sequence[Image | BoxedImage],
        done: Callable[[CallResults], object],
    ) -> None:
        """Hand images over; `done` is called in the queue's thread once all of them are read.

        They are taken all or none; without images and boxes `done` is never called. Raises QueueFull.
        """
        count = places(images)
        with self._lock:
            if self._count + count > self._size:
                raise QueueFull(count, self._count, self._size)
            self._count += count
        self._watch.queued(self._count)
        left = deque(image for image in images if not isinstance(image, BoxedImage) or image.regions)
        if left:
            self._given.put(_Handover(recognizer, left, done, time.perf_counter(), count))

    def close(self) -> None:
        """Read what was handed over, then end the thread. Nothing may be handed over afterwards."""
        self._given.put(None)
        self._thread.join()

    def _work(self) -> None:
        closed = False
        while not closed or self._groups or self._full or not self._given.empty():
            some = bool(self._groups or self._full)
            if some and (self._columns >= _MOST_COLUMNS or self._given.empty()):
                self._run_next()
            elif (one := self._given.get()) is None:
                closed = True
            else:
                self._prepare_next(one)
                if self._full:
                    self._run_next()

    @property
    def _columns(self) -> int:
        """Of all prepared images."""
        full = sum(batch[0].prepared.columns * len(batch) for batch in self._full)
        return full + sum(groups.columns for groups in self._groups.values())

    def _prepare_next(self, call: _Handover) -> None:
        """Prepare a call's next image, or boxes of it; those that are left wait for their turn."""
        begun = time.perf_counter()
        found = _prepared(call)
        first, call.place = call.place, call.place + len(found)
        if call.images:
            self._given.put(call)
        seconds = (time.perf_counter() - begun) / len(found)
        for at, (name, result) in enumerate(found, first):
            self._watch.prepared(seconds)
            if isinstance(result, CrnnDeployError):
                self._finish(call, at, result)
                continue
            groups = self._groups.setdefault(call.recognizer, Groups(self._batch))
            if batch := groups.add(result.columns, _Waiting(call, at, name, result, begun)):
                self._full.append(batch)
                self._forget_empty(call.recognizer)

    def _run_next(self) -> None:
        """Run the batch of the image that has waited too long, or else one that is full, or the fullest."""
        first = self._full[0][0].since if self._full else math.inf
        oldest = min(self._groups, key=lambda one: self._groups[one].oldest.since, default=None)
        since = math.inf if oldest is None else self._groups[oldest].oldest.since
        if oldest is not None and since < first and time.perf_counter() - since > self._max_wait:
            batch = self._groups[oldest].pop_oldest()
            self._forget_empty(oldest)
        elif self._full:
            batch = self._full.popleft()
        else:
            fullest = max(self._groups, key=lambda one: self._groups[one].fullest)
            batch = self._groups[fullest].pop_fullest()
            self._forget_empty(fullest)
        self._run(batch[0].call.recognizer, batch)

    def _forget_empty(self, recognizer: Recognizer) -> None:
        if not self._groups[recognizer]:
            del self._groups[recognizer]

    def _run(self, recognizer: Recognizer, batch: Sequence[_Waiting]) -> None:
        begun = time.perf_counter()
        for one in batch:
            one.call.queued = begun - one.call.since
            self._watch.waited(one.call.queued)
        images = [one.prepared for one in batch]
        texts = read_each(recognizer, images, [one.name for one in batch])
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
            call.done(CallResults([call.results[place] for place in range(call.place)], call.queued))


def _prepared(call: _Handover) -> list[tuple[str, Prepared | CrnnDeployError]]:
    """A call's next image, or boxes of it, with names for messages; what is prepared leaves the call."""
    image = call.images[0]
    if not isinstance(image, BoxedImage):
        name, data = image
        call.images.popleft()
        try:
            return [(name, call.recognizer.prepare(data, name=name))]
        except Exception as error:
            return [(name, failure(name, error))]
    first, count = call.box, len(image.regions)
    found: Sequence[Prepared | CrnnDeployError]
    try:
        found = call.recognizer.prepare_regions(image.data, image.regions, name=image.name, first=first)
    except CrnnDeployError as error:  # of the image
        found = [failure(image.name, error)] * (count - first)
    except Exception:  # the other boxes are not to blame
        found = [_alone(call.recognizer, image, first)]
    call.box += len(found)
    if call.box == count:
        call.images.popleft()
        call.box = 0
    return [(f"{image.name}: box {number}", one) for number, one in enumerate(found, first)]


def _forget_frames(error: BaseException) -> None:
    """Drop the tracebacks of an error and of what led to it.

    Their frames hold the image and the call, which holds the error: a circle that stays in memory until
    Python looks for circles.
    """
    led: BaseException | None = error
    while led is not None:
        led.__traceback__ = None
        led = led.__cause__ or led.__context__


def _alone(recognizer: Recognizer, image: BoxedImage, number: int) -> Prepared | CrnnDeployError:
    """One box of an image."""
    try:
        [found] = recognizer.prepare_regions(
            image.data, image.regions[: number + 1], name=image.name, first=number
        )
    except Exception as error:
        return failure(f"{image.name}: box {number}", error)
    return found
