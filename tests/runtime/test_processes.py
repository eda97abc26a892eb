"""Reading in processes: order, memory, failures and stops, with readers that take their time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime")

from crnn_deploy import Recognizer
from crnn_deploy.errors import CrnnDeployError, ReadFailed
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.images.budget import MemoryBudget, SharedBudget
from crnn_deploy.runtime.images.pixels import read_image, use_image
from crnn_deploy.runtime.opening import opening
from crnn_deploy.runtime.pipeline import Result, read_in_order
from crnn_deploy.runtime.processes import ReadingStopped, read_in_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="images are read in processes on Linux alone")

BATCH = 2
FEW = 2 * BATCH  # images below which threads read
WINDOW = 256 * BATCH  # images for each process


class Word:
    """As wide as its name is long."""

    def __init__(self, path: str) -> None:
        self.path, self.columns = path, len(path)


class Reader:
    """Reads `x` as the text X."""

    def prepare(self, source: str, /) -> Word:
        if "error" in source:
            raise CrnnDeployError(f"{source}: error")
        return Word(source)

    def read_batch(self, images: Sequence[Word], /) -> list[Text | CrnnDeployError]:
        assert len({image.columns for image in images}) == 1 and len(images) <= BATCH
        return [Text(image.path.upper(), os.getpid(), ()) for image in images]


def all_children() -> set[int]:
    """Processes that this one has started, those that nobody has waited for included."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.add(int(path.parent.name))
    return found


@pytest.fixture
def children() -> Callable[[], set[int]]:
    """Processes that this one has started since the test began; those of earlier tests may go on."""
    before = all_children()
    return lambda: all_children() - before


def flat(chunks: Iterable[list[Result[str]]]) -> list[Result[str]]:
    return [result for chunk in chunks for result in chunk]


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("count", [FEW, 3 * FEW, 3000])
def test_every_path_has_one_result_in_order(
    count: int, workers: int, children: Callable[[], set[int]]
) -> None:
    rng = np.random.default_rng(count)
    paths = [
        f"error {at}" if rng.random() < 0.05 else f"{at} ".ljust(rng.integers(5, 30), "x")
        for at in range(count)
    ]
    results = flat(read_in_processes(Reader(), iter(paths), batch=BATCH, workers=workers))
    assert [path for path, _ in results] == paths
    for path, result in results:
        if "error" in path:
            assert isinstance(result, CrnnDeployError) and str(result) == f"{path}: error"
        else:
            assert isinstance(result, Text) and result.text == path.upper()
    readers = {result.confidence for _, result in results if isinstance(result, Text)}
    assert os.getpid() not in readers and len(readers) == (workers if count > FEW else 2)
    assert not children()


def test_few_images_are_read_by_threads() -> None:
    results = flat(read_in_processes(Reader(), map(str, range(FEW - 1)), batch=BATCH, workers=2))
    assert {result.confidence for _, result in results if isinstance(result, Text)} == {os.getpid()}


def test_inputs_are_drawn_on_a_window_ahead_only() -> None:
    drawn = given = 0

    def paths() -> Iterator[str]:
        nonlocal drawn
        for drawn in range(1, 2001):
            yield str(drawn)

    for some in read_in_processes(Reader(), paths(), batch=BATCH, workers=2):
        assert drawn - given <= 2 * WINDOW
        given += len(some)
    assert given == drawn == 2000


class Counting(Reader):
    """Says for each image how many were read with it."""

    def read_batch(self, images: Sequence[Word], /) -> list[Text | CrnnDeployError]:
        return [Text("", len(images), ()) for _ in images]


def test_images_of_a_width_find_each_other_across_the_window() -> None:
    """Eighty widths at random, as words have them, shared by two processes: most batches are full."""
    widths = np.random.default_rng(0).integers(1, 81, 8000)
    paths = ["x" * width for width in widths]
    results = flat(read_in_processes(Counting(), iter(paths), batch=8, workers=2))
    batches = sum(1 / result.confidence for _, result in results if isinstance(result, Text))
    assert len(results) == len(paths) and batches < len(paths) / 8 / 0.9


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words, an image of another kind, one that is damaged and one that is not there."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
    paths = []
    for at in range(700):
        pixels = np.full((32, int(rng.integers(20, 300)), 3), 255, np.uint8)
        cv2.putText(pixels, f"{at}", (2, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 2)
        paths.append(str(folder / f"{at:03}.{'png' if at % 7 else 'jpg'}"))
        cv2.imwrite(paths[-1], pixels)
    Path(paths[100]).write_bytes(Path(paths[101]).read_bytes()[:60])
    os.remove(paths[200])
    return paths


@pytest.mark.parametrize("settings", [{}, {"rotate": "180"}, {"batch": 3}])
def test_real_images_read_as_in_threads(files: list[str], settings: dict[str, object]) -> None:
    recognizer = Recognizer.load(DEFAULT, **settings)  # type: ignore[arg-type]
    [threads, processes] = (
        flat(read(recognizer, files, batch=8, workers=2)) for read in (read_in_order, read_in_processes)
    )
    for (path, one), (other_path, other) in zip(threads, processes, strict=True):
        assert path == other_path and type(one) is type(other)
        if isinstance(one, Text) and isinstance(other, Text):
            assert one == other and one.chars == other.chars
        else:
            assert str(one) == str(other) and isinstance(other, CrnnDeployError)
    assert sum(isinstance(result, CrnnDeployError) for _, result in processes) == 2


def test_characters_are_left_out_where_nobody_asks_for_them(files: list[str]) -> None:
    kept, left_out = (
        flat(read_in_processes(Recognizer(), files, batch=8, workers=2, chars=chars))
        for chars in (True, False)
    )
    for (_, one), (_, other) in zip(kept, left_out, strict=True):
        if isinstance(one, Text) and isinstance(other, Text):
            assert (one.text, one.confidence) == (other.text, other.confidence)
            assert len(one.chars) == len(one.text) and other.chars == ()


def test_a_breakdown_costs_only_the_image_that_caused_it() -> None:
    class Broken(Reader):
        def read_batch(self, images: Sequence[Word], /) -> list[Text | CrnnDeployError]:
            if any(image.path == "777" for image in images):
                raise RuntimeError("broken")
            return super().read_batch(images)

    results = flat(read_in_processes(Broken(), map(str, range(1000)), batch=BATCH, workers=2))
    failed = [(path, result) for path, result in results if not isinstance(result, Text)]
    assert len(results) == 1000 and len(failed) == 1
    [(path, result)] = failed
    assert path == "777" and isinstance(result, ReadFailed) and "RuntimeError: broken" in str(result)


def test_a_process_that_dies_ends_the_reading_with_a_line(children: Callable[[], set[int]]) -> None:
    class Deadly(Reader):
        def prepare(self, source: str, /) -> Word:
            if source == "900":
                os.kill(os.getpid(), signal.SIGKILL)
            return super().prepare(source)

    given = []
    with pytest.raises(ReadingStopped) as caught:
        for some in read_in_processes(Deadly(), map(str, range(1500)), batch=BATCH, workers=2):
            given += some
    said = re.search(r"ended \(signal 9\); it had images from (\d+) to (\d+)\. ", str(caught.value))
    assert said is not None and int(said[1]) <= 900 <= int(said[2])
    assert [path for path, _ in given] == [str(number) for number in range(len(given))]
    assert not children()


def test_what_was_read_before_a_process_died_is_given() -> None:
    """The images before it are fewer than are given at once."""

    class Deadly(Reader):
        def prepare(self, source: str, /) -> Word:
            if source == "6":
                time.sleep(0.5)
                os.kill(os.getpid(), signal.SIGKILL)
            return super().prepare(source)

    given: list[Result[str]] = []
    with pytest.raises(ReadingStopped):
        for some in read_in_processes(Deadly(), map(str, range(9)), batch=BATCH, workers=4):
            given += some
    assert [path for path, _ in given][:4] == ["0", "1", "2", "3"]


def test_once_stopped_the_results_end_before_the_first_gap(children: Callable[[], set[int]]) -> None:
    class Slow(Reader):
        def prepare(self, source: str, /) -> Word:
            time.sleep(0.001)
            return super().prepare(source)

    stopped = False
    results = read_in_processes(
        Slow(), map(str, range(10**6)), batch=BATCH, workers=2, stopped=lambda: stopped
    )
    given = flat(islice(results, 20))
    stopped, begun = True, time.monotonic()
    given += flat(results)
    assert time.monotonic() - begun < 5
    assert [path for path, _ in given] == [str(number) for number in range(len(given))]
    assert not children()


def test_a_process_that_never_answers_is_given_up(children: Callable[[], set[int]]) -> None:
    class Held(Reader):
        def prepare(self, source: str, /) -> Word:
            if source == "400":
                time.sleep(3600)
            return super().prepare(source)

    began = time.monotonic()
    results = read_in_processes(
        Held(),
        map(str, range(1500)),
        batch=BATCH,
        workers=2,
        stopped=lambda: time.monotonic() > began + 2,
    )
    given = flat(results)
    assert time.monotonic() - began < 20
    assert [path for path, _ in given] == [str(number) for number in range(len(given))]
    assert 0 < len(given) <= 400 and not children()


def test_closing_early_ends_the_processes(children: Callable[[], set[int]]) -> None:
    results = read_in_processes(Reader(), map(str, range(10**6)), batch=BATCH, workers=3)
    next(results)
    assert len(children()) == 3
    results.close()
    assert not children()


KILLED = """
import os, sys, time
from crnn_deploy.runtime.processes import read_in_processes
class Slow:
    def prepare(self, path):
        os.write(1, f"{os.getpid()}\\n".encode())  # whole, beside that of the other process
        time.sleep(3600)
for some in read_in_processes(Slow(), map(str, range(500)), batch=2, workers=2):
    pass
"""


def test_processes_end_with_their_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            readers = {int(process.stdout.readline()) for _ in range(2)}
        finally:
            process.kill()
    until = time.monotonic() + 20
    while any(map(_alive, readers)):
        assert time.monotonic() < until
        time.sleep(0.02)


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_budget_is_that_of_all_processes_together() -> None:
    """Four processes that take 40 of 100 each: never more than two at a time hold some."""
    context = get_context("fork")
    budget, held, most, lock = MemoryBudget(100), context.RawValue("i"), context.RawValue("i"), context.Lock()
    shared = SharedBudget(context)

    def hold() -> None:
        budget.join(shared)
        for _ in range(10):
            with budget.part(40):
                with lock:
                    held.value += 1
                    most.value = max(most.value, held.value)
                until = time.monotonic() + 5  # the first one waits for a second one
                while most.value < 2 and time.monotonic() < until:
                    time.sleep(0.005)
                time.sleep(0.005)
                with lock:
                    held.value -= 1

    processes = [context.Process(target=hold) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert most.value == 2 and held.value == 0


def test_a_killed_process_holds_up_nobody_who_reads_large_images(tmp_path: Path) -> None:
    """It held the pixels of an image that is counted; its parent and a second reading go on."""

    class Deadly(Reader):
        def prepare(self, source: str, /) -> Word:
            if source == "40":
                use_image(large, lambda pixels: os.kill(os.getpid(), signal.SIGKILL))
            return super().prepare(source)

    large = str(tmp_path / "large.png")
    cv2.imwrite(large, np.zeros((5000, 8000), np.uint8))  # 40 of 64 million pixels
    for _ in range(2):
        with pytest.raises(ReadingStopped):
            flat(read_in_processes(Deadly(), map(str, range(60)), batch=BATCH, workers=2))
        assert read_image(large).shape == (5000, 8000)


def test_as_many_processes_as_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, children: Callable[[], set[int]]
) -> None:
    fork, made = os.fork, 0

    def scarce() -> int:
        nonlocal made
        if made == allowed:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        made += 1
        return fork()

    monkeypatch.setattr(os, "fork", scarce)
    for allowed in (0, 1, 3):
        made = 0
        results = flat(read_in_processes(Reader(), map(str, range(1500)), batch=BATCH, workers=8))
        assert [path for path, _ in results] == [*map(str, range(1500))]
        readers = {result.confidence for _, result in results if isinstance(result, Text)}
        assert len(readers) == max(1, allowed) and (os.getpid() in readers) == (allowed == 0)
    assert not children()


UNFINISHED = """
import sys, threading
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.processes import read_in_processes
class Word:
    columns = 1
class Reader:
    def prepare(self, path):
        return Word()
    def read_batch(self, images):
        return [Text("x", 1.0, ())] * len(images)
results = read_in_processes(Reader(), map(str, range(5000)), batch=2, workers=2)
if sys.argv[1] == "another thread":  # which begins, and ends before the rest is read
    thread = threading.Thread(target=next, args=(results,))
    thread.start()
    thread.join()
    print(sum(map(len, results)) > 4000)
else:
    next(results)
    print(True)
"""


@pytest.mark.parametrize("how", ["left unfinished", "another thread"])
def test_a_reading_of_another_thread_and_one_that_is_left_unfinished(how: str) -> None:
    command = [sys.executable, "-c", UNFINISHED, how]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == "True\n"


@pytest.mark.parametrize(
    ("name", "expected"), [("model.onnx", sys.platform == "linux"), ("model.engine", False)]
)
def test_which_networks_can_be_run_by_forked_processes(name: str, expected: bool) -> None:
    assert opening(Path(name)).can_fork is expected
    assert not opening(Path(name), device="cuda").can_fork
    assert not opening(Path(name), threads=2).can_fork
    if name.endswith(".onnx"):
        assert not opening(Path(name), backend="openvino").can_fork


def test_infer_gives_the_same_records_by_any_number_of_workers(files: list[str]) -> None:
    command = [sys.executable, "-m", "crnn_deploy", "infer", "--format", "jsonl", "--show-chars"]
    folder = str(Path(files[0]).parent)
    runs = [
        subprocess.run([*command, "--workers", workers, folder], capture_output=True, text=True)
        for workers in ("1", "2", "5")
    ]
    assert {run.returncode for run in runs} == {1}  # the damaged image
    assert len({run.stdout for run in runs}) == 1 and runs[0].stdout.count("\n") == 699
    assert len({re.sub(r"\d+\.\d+", "", run.stderr.splitlines()[0]) for run in runs}) == 1
