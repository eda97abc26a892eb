"""Order, memory and failures of the pipeline, with recognisers that take their time."""

from __future__ import annotations

import random
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.errors import CrnnDeployError, ReadFailed
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.pipeline import read_in_order


class Word(NamedTuple):
    """As wide as its name is long."""

    path: str

    @property
    def columns(self) -> int:
        return len(self.path)


class Reader:
    """Reads `x` as the text X, after `delay()` seconds; the names in `bad` break the whole call."""

    def __init__(self, delay: float = 0.0, bad: frozenset[str] = frozenset()) -> None:
        self.delay, self.bad, self.active, self.most_active = delay, bad, 0, 0
        self.sizes: list[int] = []  # of the batches
        self.lock = threading.Lock()

    def prepare(self, source: str, /) -> Word:
        if "error" in source:
            raise CrnnDeployError(f"{source}: error")
        return Word(source)

    def read_batch(self, images: Sequence[Word], /) -> list[Text | CrnnDeployError]:
        assert len({image.columns for image in images}) == 1
        with self.lock:
            self.sizes.append(len(images))
            self.active += 1
            self.most_active = max(self.most_active, self.active)
        if self.delay:
            time.sleep(random.random() * self.delay)
        with self.lock:
            self.active -= 1
        if broken := self.bad & {image.path for image in images}:
            raise RuntimeError(f"broken\nby {min(broken)}")
        return [Text(image.path.upper(), 0.5, ()) for image in images]


def spelled(chunks: Iterator[list[tuple[str, Text | CrnnDeployError]]]) -> list[tuple[str, str]]:
    return [
        (path, result.text if isinstance(result, Text) else f"! {result}")
        for chunk in chunks
        for path, result in chunk
    ]


@given(
    st.integers(0, 60), st.integers(1, 7), st.integers(1, 4), st.integers(1, 40), st.sets(st.integers(0, 59))
)
@settings(deadline=None, max_examples=40)
def test_every_path_has_one_result_in_order(
    count: int, batch: int, workers: int, window: int, errors: set[int]
) -> None:
    paths = [f"error {number}" if number in errors else f"image {number}" for number in range(count)]
    reader = Reader(delay=0.002)
    results = read_in_order(reader, iter(paths), batch=batch, workers=workers, window=window)
    assert spelled(results) == [
        (path, f"! {path}: error" if "error" in path else path.upper()) for path in paths
    ]
    assert all(size <= batch for size in reader.sizes)


def test_several_batches_run_at_once() -> None:
    reader = Reader(delay=0.02)
    assert sum(map(len, read_in_order(reader, map(str, range(60)), batch=3, workers=3))) == 60
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
    for some in read_in_order(Reader(delay), paths(), batch=5, workers=2, window=20):
        assert drawn - given_back <= 20
        given_back += len(some)
    assert given_back == drawn == 400


def test_images_of_a_width_find_each_other_across_the_window() -> None:
    """Twenty widths in turn: a batch of 4 spans 61 images; a window of 20 fills none."""
    paths = ["x" * (1 + number % 20) for number in range(800)]
    reader = Reader()
    assert [
        path for path, _ in spelled(read_in_order(reader, paths, batch=4, workers=1, window=160))
    ] == paths
    assert len(reader.sizes) < 220
    narrow = Reader()
    assert len(spelled(read_in_order(narrow, paths, batch=4, workers=1, window=20))) == 800
    assert max(narrow.sizes) < 4


def test_wide_images_do_not_wait_for_each_other_beyond_a_bound() -> None:
    """Of images 10,000 pixels wide only a few wait, though the window would hold all."""

    class Wide(Reader):
        waiting = most = 0

        def prepare(self, source: str, /) -> Word:
            with self.lock:
                self.waiting += 1
                self.most = max(self.most, self.waiting)
            return super().prepare("x" * (10_000 + int(source)))

        def read_batch(self, images: Sequence[Word], /) -> list[Text | CrnnDeployError]:
            with self.lock:
                self.waiting -= len(images)
            return super().read_batch(images)

    reader = Wide()
    results = read_in_order(reader, map(str, range(200)), batch=4, workers=1, window=200)
    assert sum(map(len, results)) == 200
    assert reader.most < 30


def test_a_thread_prepares_few_wide_images_at_a_time() -> None:
    """Of lines of 65,536 pixels only some for each thread are there, though a batch would hold more."""

    class Wide(Reader):
        waiting = most = 0

        def prepare(self, source: str, /) -> Word:
            with self.lock:
                self.waiting += 1
                self.most = max(self.most, self.waiting)
            return super().prepare(source.ljust(2**16, "x"))

        def read_batch(self, images: Sequence[Word], /) -> list[Text | CrnnDeployError]:
            results = super().read_batch(images)
            with self.lock:
                self.waiting -= len(images)
            return [Text(image.path.rstrip("x"), 0.5, ()) for image in images] if results else []

    reader, paths = Wide(), [*map(str, range(60))]
    results = read_in_order(reader, paths, batch=16, workers=2)
    assert spelled(results) == [(path, path) for path in paths]
    assert reader.most <= 12


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        paths = (f"{'folder/' * 20}{number}.png" for number in range(count))
        assert sum(map(len, read_in_order(Reader(), paths, batch=4, workers=2, window=64))) == count
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(100)
    assert peak(10_000) < 2 * peak(1_000)


def test_a_breakdown_costs_only_the_image_that_caused_it() -> None:
    reader = Reader(bad=frozenset({"3", "7"}))
    results = [
        result for some in read_in_order(reader, map(str, range(10)), batch=5, workers=2) for result in some
    ]
    assert [path for path, _ in results] == [str(number) for number in range(10)]
    failed = {path: result for path, result in results if not isinstance(result, Text)}
    assert set(failed) == {"3", "7"}
    assert all(isinstance(result, ReadFailed) for result in failed.values())
    assert "RuntimeError" in str(failed["3"]) and str(failed["3"]).startswith("3: ")


def test_a_reader_that_loses_an_image_is_found_out() -> None:
    class Careless(Reader):
        def read_batch(self, images: Sequence[Word], /) -> list[Text | CrnnDeployError]:
            return super().read_batch(images)[:4]

    results = [result for some in read_in_order(Careless(), "abcdefg", batch=7, workers=1) for result in some]
    assert [path for path, _ in results] == list("abcdefg")
    assert all(isinstance(result, Text) for _, result in results)  # read again, one by one


def test_once_stopped_what_has_begun_is_finished_and_the_rest_dropped() -> None:
    both, stopped = threading.Barrier(2, timeout=10), threading.Event()

    class Held(Reader):
        def read_batch(self, images: Sequence[Word], /) -> list[Text | CrnnDeployError]:
            if not stopped.is_set():
                both.wait()
                stopped.set()
            return super().read_batch(images)

    paths = ["x"] * 900
    reader = Held()  # two threads are within a batch each when it is stopped; each may begin one more task
    results = spelled(read_in_order(reader, paths, batch=3, workers=2, stopped=stopped.is_set))
    assert results == [("x", "X")] * sum(reader.sizes)
    assert 2 <= len(reader.sizes) <= 4


def test_what_is_dropped_leaves_no_gap() -> None:
    """The first image waits for another of its width when the run is stopped: nothing is put out."""
    stopped = False

    def paths() -> Iterator[str]:
        nonlocal stopped
        yield "lonely"
        yield from "abcdefgh"
        time.sleep(0.2)
        stopped = True

    reader = Reader()
    assert spelled(read_in_order(reader, paths(), batch=2, workers=1, stopped=lambda: stopped)) == []
    assert sum(reader.sizes) > 0


def test_closing_early_ends_the_threads() -> None:
    before = threading.active_count()
    results = read_in_order(Reader(0.01), map(str, range(1000)), batch=2, workers=4)
    next(results)
    results.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("taken", [3, 1000])
def test_a_pool_that_is_given_stays_and_has_nothing_to_do(taken: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        reader = Reader(0.01)
        results = read_in_order(reader, map(str, range(300)), batch=2, workers=2, pool=pool)
        assert 24 <= sum(map(len, islice(results, taken))) <= 300
        results.close()
        read = len(reader.sizes)
        time.sleep(0.1)
        assert len(reader.sizes) == read
        assert spelled(read_in_order(Reader(), "abc", batch=2, workers=2, pool=pool)) == [
            ("a", "A"),
            ("b", "B"),
            ("c", "C"),
        ]


def test_a_thread_that_never_ends_is_given_up() -> None:
    """The results before its batch are put out."""
    ends, stopped = threading.Event(), threading.Event()

    class Held(Reader):
        def read_batch(self, images: Sequence[Word], /) -> list[Text | CrnnDeployError]:
            if len(self.sizes) == 5:
                stopped.set()
                ends.wait(60)
            return super().read_batch(images)

    begun = time.monotonic()
    results = spelled(
        read_in_order(Held(), ["x"] * 900, batch=3, workers=1, window=900, stopped=stopped.is_set)
    )
    assert results == [("x", "X")] * 15
    assert time.monotonic() - begun < 30
    ends.set()
