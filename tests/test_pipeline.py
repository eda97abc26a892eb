"""Order, memory and failures of the pipeline, with recognisers that take their time."""

from __future__ import annotations

import random
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.ctc import Text
from crnn_deploy.errors import CrnnDeployError, ReadFailed
from crnn_deploy.pipeline import read_in_order


class Reader:
    """Reads `x` as the text X, after `delay()` seconds; the names in `bad` break the whole call."""

    def __init__(self, delay: float = 0.0, bad: frozenset[str] = frozenset()) -> None:
        self.delay, self.bad, self.calls, self.active, self.most_active = delay, bad, 0, 0, 0
        self.lock = threading.Lock()

    def try_read(self, images: Sequence[str], /) -> list[Text | CrnnDeployError]:
        with self.lock:
            self.calls += 1
            self.active += 1
            self.most_active = max(self.most_active, self.active)
        if self.delay:
            time.sleep(random.random() * self.delay)
        with self.lock:
            self.active -= 1
        if broken := self.bad & set(images):
            raise RuntimeError(f"broken\nby {min(broken)}")
        return [
            CrnnDeployError(f"{path}: error") if "error" in path else Text(path.upper(), 0.5, ())
            for path in images
        ]


def spelled(chunks: Iterator[list[tuple[str, Text | CrnnDeployError]]]) -> list[tuple[str, str]]:
    return [
        (path, result.text if isinstance(result, Text) else f"! {result}")
        for chunk in chunks
        for path, result in chunk
    ]


@given(st.integers(0, 60), st.integers(1, 7), st.integers(1, 4), st.sets(st.integers(0, 59)))
@settings(deadline=None, max_examples=40)
def test_every_path_has_one_result_in_order(count: int, chunk: int, workers: int, errors: set[int]) -> None:
    paths = [f"error {number}" if number in errors else f"image {number}" for number in range(count)]
    results = read_in_order(Reader(delay=0.002), iter(paths), chunk=chunk, workers=workers)
    assert spelled(results) == [
        (path, f"! {path}: error" if "error" in path else path.upper()) for path in paths
    ]


def test_several_chunks_run_at_once() -> None:
    reader = Reader(delay=0.02)
    assert len(list(read_in_order(reader, map(str, range(60)), chunk=3, workers=3))) == 20
    assert 2 <= reader.most_active <= 3


@pytest.mark.parametrize("delay", [0.0, 0.01])
def test_inputs_are_drawn_on_a_window_ahead_only(delay: float) -> None:
    drawn = 0

    def paths() -> Iterator[str]:
        nonlocal drawn
        for number in range(400):
            drawn += 1
            yield str(number)

    given_back = 0
    for chunk in read_in_order(Reader(delay), paths(), chunk=5, workers=2):
        assert drawn - given_back <= 5 * 2 * 2
        given_back += len(chunk)
    assert given_back == drawn == 400


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        paths = (f"{'folder/' * 20}{number}.png" for number in range(count))
        assert sum(map(len, read_in_order(Reader(), paths, chunk=16, workers=2))) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(100)
    assert peak(10_000) < 2 * peak(1_000)


def test_a_breakdown_costs_only_the_image_that_caused_it() -> None:
    reader = Reader(bad=frozenset({"3", "7"}))
    results = [
        result for chunk in read_in_order(reader, map(str, range(10)), chunk=5, workers=2) for result in chunk
    ]
    assert [path for path, _ in results] == [str(number) for number in range(10)]
    failed = {path: result for path, result in results if not isinstance(result, Text)}
    assert set(failed) == {"3", "7"}
    assert all(isinstance(result, ReadFailed) for result in failed.values())
    assert "RuntimeError" in str(failed["3"]) and str(failed["3"]).startswith("3: ")


def test_a_reader_that_loses_an_image_is_found_out() -> None:
    class Careless(Reader):
        def try_read(self, images: Sequence[str], /) -> list[Text | CrnnDeployError]:
            return super().try_read(images)[:4]

    results = [
        result for chunk in read_in_order(Careless(), "abcdefg", chunk=7, workers=1) for result in chunk
    ]
    assert [path for path, _ in results] == list("abcdefg")
    assert all(isinstance(result, Text) for _, result in results)  # read again, one by one


def test_once_stopped_what_has_begun_is_finished_and_the_rest_dropped() -> None:
    begun, release, stopped = threading.Semaphore(0), threading.Event(), False

    class Held(Reader):
        def try_read(self, images: Sequence[str], /) -> list[Text | CrnnDeployError]:
            begun.release()
            release.wait(10)
            return super().try_read(images)

    def paths() -> Iterator[str]:
        nonlocal stopped
        yield from map(str, range(9))
        assert begun.acquire(timeout=10) and begun.acquire(timeout=10)
        stopped = True
        threading.Timer(0.1, release.set).start()

    reader = Held()  # three chunks wait when the input ends; two threads have begun the first two
    results = spelled(read_in_order(reader, paths(), chunk=3, workers=2, stopped=lambda: stopped))
    assert results == [(str(number), str(number)) for number in range(6)]
    assert reader.calls == 2


def test_closing_early_ends_the_threads() -> None:
    before = threading.active_count()
    results = read_in_order(Reader(0.01), map(str, range(1000)), chunk=2, workers=4)
    next(results)
    results.close()
    assert threading.active_count() == before
