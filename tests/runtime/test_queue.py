"""Images of many callers through one thread: every text as if read alone, whatever else is read."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from crnn_deploy.errors import CrnnDeployError, ReadFailed
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.queue import CallResults, QueueFull, ReadQueue
from crnn_deploy.runtime.recognizer import Recognizer

EXAMPLES = sorted((Path(__file__).parents[2] / "examples" / "images").glob("*.png"))


class Watch:
    """Remembers what a queue does."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []  # width and size
        self.waits: list[float] = []
        self.depths: list[int] = []
        self.preparations = 0

    def queued(self, count: int) -> None:
        self.depths.append(count)

    def prepared(self, seconds: float) -> None:
        self.preparations += 1

    def waited(self, seconds: float) -> None:
        self.waits.append(seconds)

    def ran(self, width: int, size: int, seconds: float) -> None:
        self.batches.append((width, size))


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def queue(watch: Watch) -> Iterator[ReadQueue]:
    made = ReadQueue(size=64, batch=4, max_wait=0.05, watch=watch)
    yield made
    made.close()


def read(queue: ReadQueue, recognizer: Recognizer, *images: tuple[str, bytes]) -> CallResults:
    """The reading of one call."""
    done, found = threading.Event(), []

    def take(reading: CallResults) -> None:
        found.append(reading)
        done.set()

    queue.submit(recognizer, images, take)
    assert done.wait(60)
    [reading] = found
    return reading


def encoded(width: int, seed: int = 0) -> bytes:
    """A PNG of noise, 32 pixels high."""
    pixels = np.random.default_rng(seed).integers(0, 255, (32, width), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def test_every_text_and_confidence_is_that_of_the_image_alone(queue: ReadQueue, watch: Watch) -> None:
    """Calls of random sizes from several threads, images of random widths, two recognisers."""
    recognizers = [Recognizer("latin"), Recognizer("latin", rotate="auto")]
    images = [path.read_bytes() for path in EXAMPLES] + [encoded(20 + 9 * at, at) for at in range(20)]
    alone = [[one.read(image) for image in images] for one in recognizers]
    failed: list[tuple[int, Text | CrnnDeployError]] = []

    def call(seed: int) -> None:
        chosen = random.Random(seed)
        for _ in range(10):
            which = chosen.randrange(2)
            some = [chosen.randrange(len(images)) for _ in range(chosen.randint(1, 9))]
            reading = read(queue, recognizers[which], *((str(at), images[at]) for at in some))
            for at, text in zip(some, reading.results, strict=True):
                one = alone[which][at]
                if not isinstance(text, Text) or (text.text, text.confidence, text.chars) != (
                    *(one.text, one.confidence),
                    one.chars,
                ):
                    failed.append((at, text))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert max(size for _, size in watch.batches) > 1  # something was read together
    assert max(size for _, size in watch.batches) <= 4
    assert queue.waiting == 0
    assert sum(size for _, size in watch.batches) == len(watch.waits) == watch.preparations


def test_an_image_that_cannot_be_read_fails_alone_and_by_its_name(queue: ReadQueue) -> None:
    good = EXAMPLES[0].read_bytes()
    reading = read(queue, Recognizer("latin"), ("a.png", good), ("b.png", b"nonsense"), ("c.png", good))
    first, second, third = reading.results
    assert isinstance(first, Text) and isinstance(third, Text) and first.text == third.text
    assert isinstance(second, CrnnDeployError) and str(second).startswith("b.png: not an image")


@dataclass
class Prepared:
    """A prepared image of a stand-in, as wide as its data says."""

    data: bytes

    @property
    def columns(self) -> int:
        return len(self.data)


class StandIn:
    """Reads an image as its own bytes; holds every batch until it is let go."""

    def __init__(self, *, held: bool = False, broken: bytes = b"") -> None:
        self.go, self.begun, self.broken = threading.Event(), threading.Event(), broken
        self.batches: list[list[bytes]] = []
        if not held:
            self.go.set()

    def prepare(self, data: bytes, *, name: str) -> Prepared:
        if data == b"!":
            raise ZeroDivisionError("of a library")
        return Prepared(data)

    def read_batch(self, images: Sequence[Prepared]) -> list[Text | CrnnDeployError]:
        self.batches.append([one.data for one in images])
        self.begun.set()
        assert self.go.wait(60)
        if any(one.data == self.broken for one in images):
            raise MemoryError("too much")
        return [Text(one.data.decode(), 1.0, ()) for one in images]


def submit(queue: ReadQueue, reader: StandIn, *images: bytes) -> list[CallResults]:
    """A call; its reading comes into the list."""
    found: list[CallResults] = []
    queue.submit(cast(Recognizer, reader), [(repr(one), one) for one in images], found.append)
    return found


def test_a_full_queue_takes_nothing_of_a_call_and_has_room_again_later(watch: Watch) -> None:
    queue, reader = ReadQueue(size=3, batch=8, max_wait=1, watch=watch), StandIn(held=True)
    first = submit(queue, reader, b"a", b"b")
    with pytest.raises(QueueFull, match="2 of 3 places of the queue are taken, so 2 more images"):
        submit(queue, reader, b"c", b"d")
    second = submit(queue, reader, b"c")
    reader.go.set()
    queue.close()
    assert [
        text.text for reading in (*first, *second) for text in reading.results if isinstance(text, Text)
    ] == [*("a", "b", "c")]
    assert queue.waiting == 0


def test_the_fullest_batch_runs_first_until_an_image_has_waited_too_long(watch: Watch) -> None:
    for max_wait, then in ((60.0, [[b"bb", b"cc"], [b"a"]]), (0.0, [[b"a"], [b"bb", b"cc"]])):
        queue, reader = ReadQueue(size=9, batch=4, max_wait=max_wait, watch=watch), StandIn(held=True)
        submit(queue, reader, b"xxx")
        assert reader.begun.wait(60)  # it runs, and what follows waits
        submit(queue, reader, b"a", b"bb", b"cc")
        reader.go.set()
        queue.close()
        assert reader.batches == [[b"xxx"], *then]


def test_a_batch_that_fails_is_read_one_by_one(watch: Watch) -> None:
    queue, reader = ReadQueue(size=9, batch=3, max_wait=1, watch=watch), StandIn(broken=b"b")
    [*found] = [submit(queue, reader, b"a", b"b", b"c", b"!")]
    queue.close()
    [[reading]] = found
    first, second, third, fourth = reading.results
    assert isinstance(first, Text) and isinstance(third, Text)
    assert isinstance(second, ReadFailed) and "unexpected MemoryError: too much" in str(second)
    assert isinstance(fourth, ReadFailed) and "unexpected ZeroDivisionError: of a library" in str(fourth)


def test_closing_reads_what_was_handed_over(watch: Watch) -> None:
    queue, reader = ReadQueue(size=99, batch=4, max_wait=1, watch=watch), StandIn()
    found = [submit(queue, reader, *([b"x" * (1 + at % 5)] * 3)) for at in range(20)]
    queue.close()
    assert all(len(reading.results) == 3 for [reading] in found)


def test_a_call_of_many_long_lines_holds_up_no_small_one(queue: ReadQueue, watch: Watch) -> None:
    recognizer = Recognizer("latin")
    large = threading.Event()
    long_lines = [(str(at), encoded(6000 + at)) for at in range(24)]
    queue.submit(recognizer, long_lines, lambda _: large.set())
    read(queue, recognizer, ("small", encoded(100)))
    assert not large.is_set() and len(watch.batches) < 12
    assert large.wait(60)
