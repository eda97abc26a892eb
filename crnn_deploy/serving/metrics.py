"""What Prometheus is told: counters, gauges and histograms of all workers together.

A worker counts in plain numbers, since a request must cost microseconds, and writes them into a file of its
own in a folder that all workers share, once a second. The worker that is asked writes its own and adds those
in the other files. So no counter ever shows less than before: a worker that takes a dead one's slot carries
on what the file has, and nothing was shown that it has not. No label has an unlimited number of values.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from crnn_deploy.errors import CrnnDeployError

__all__ = ["Metrics", "NoSharedFolder", "forget_gauges", "metrics_folder"]

_MEMORY = "/dev/shm"  # files that are written every second should not reach a disk
_PREFIX = "crnn-deploy-"  # of the folder's name
_HELD = "server"  # a file in it that is locked while the server lives
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_STATUSES = ("ok", "low-confidence", "error")
_WIDTHS = (32, 64, 128, 256, 512)  # of batches, in columns; beyond them one label more
_WIDTH_LABELS = (*map(str, _WIDTHS), "more")
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_SHORT = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)  # seconds
_LONG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class _Figure(NamedTuple):
    """What is counted."""

    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()  # of a histogram's buckets


_COUNTERS = {
    "requests": _Figure(
        "Requests that were answered; status 499 is a client that went away.", ("route", "method", "status")
    ),
    "images": _Figure("Images that were answered.", ("model", "status")),
    "errors": _Figure("Requests and images that failed, by the kind of error.", ("kind",)),
    "model_reloads": _Figure(
        "Model files that changed, and took the place of the old one (swapped) or did not (refused).",
        ("model", "result"),
    ),
}
_GAUGES = {
    "requests_in_flight": _Figure("Requests that are being answered."),
    "queue_images": _Figure("Images that were accepted and are not read yet."),
    "model_workers": _Figure("Workers that serve a model, by the SHA-256 of its file.", ("model", "digest")),
}
_HISTOGRAMS = {
    "request_seconds": _Figure(
        "Seconds from a request's headers to the end of its answer.", ("route",), _LONG
    ),
    "confidence": _Figure("Confidences of the texts that were read.", ("model",), _CONFIDENCES),
    "queue_seconds": _Figure("Seconds an image waited for its run.", (), _LONG),
    "prepare_seconds": _Figure("Seconds in which an image was decoded and resized.", (), _SHORT),
    "batch_images": _Figure(
        "Images that ran together, by width in columns, rounded up.", ("width",), _BATCHES
    ),
    "run_seconds": _Figure(
        "Seconds in which a batch was read, by width in columns, rounded up.", ("width",), _SHORT
    ),
}
_Key = tuple[str, ...]  # a figure's name and its labels' values


class NoSharedFolder(CrnnDeployError, OSError):
    """No folder in which the workers could put their figures."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the workers need a folder for their metrics, and none can be made ({reason}); set TMPDIR to a "
            "folder that can be written"
        )


class _Buckets:
    """A histogram: how many values each bucket has, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts, self.sum = [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    def add(self, counts: Iterable[int], total: float) -> None:
        self.counts = [one + other for one, other in zip(self.counts, counts, strict=True)]
        self.sum += total


class _Figures:
    """Numbers by figure and labels."""

    def __init__(self) -> None:
        self.counters: dict[_Key, float] = {}
        self.gauges: dict[_Key, float] = {}
        self.histograms: dict[_Key, _Buckets] = {}

    def histogram(self, *key: str) -> _Buckets:
        if (found := self.histograms.get(key)) is None:
            found = self.histograms[key] = _Buckets(_HISTOGRAMS[key[0]].bounds)
        return found

    def count(self, *key: str, by: float = 1) -> None:
        self.counters[key] = self.counters.get(key, 0) + by

    def to_json(self) -> dict[str, Any]:
        return {
            "counters": [[*key, value] for key, value in self.counters.copy().items()],
            "gauges": [[*key, value] for key, value in self.gauges.copy().items()],
            "histograms": [[*key, one.counts, one.sum] for key, one in self.histograms.copy().items()],
        }

    def add(self, plain: Mapping[str, Any], *, gauges: bool) -> None:
        """Add what `to_json` gave."""
        for *key, value in plain["counters"]:
            self.count(*key, by=value)
        for *key, value in plain["gauges"] if gauges else ():
            self.gauges[tuple(key)] = self.gauges.get(tuple(key), 0) + value
        for *key, counts, total in plain["histograms"]:
            self.histogram(*key).add(counts, total)


class Metrics:
    """The figures of this process, shown with those of the other workers. A method takes a microsecond.

    Each figure is written by one thread: those of `waited`, `prepared` and `ran` by the queue's, others by
    the event loop's.

    folder: that of `metrics_folder`; None where there are no other workers
    slot: the number of this worker, of which no two living ones have the same
    """

    def __init__(self, folder: Path | None = None, slot: int = 0) -> None:
        self._folder, self._slot = folder, slot
        self._own = _Figures()
        if folder is not None and (before := _read(folder / f"{slot}.json")) is not None:
            self._own.add(before, gauges=False)
        self._registry = CollectorRegistry()
        self._registry.register(_Shown(self))
        self._digests: dict[str, str] = {}
        self._waited = self._own.histogram("queue_seconds")
        self._prepared = self._own.histogram("prepare_seconds")
        self._batches = [self._own.histogram("batch_images", width) for width in _WIDTH_LABELS]
        self._runs = [self._own.histogram("run_seconds", width) for width in _WIDTH_LABELS]
        self._in_flight = 0
        self.queued(0)

    def began(self) -> None:
        """A request has come; `request` says when it is answered."""
        self._in_flight += 1

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered.

        route: the template of its path, such as /v2/models/{name}, never the path itself
        """
        self._own.count("requests", route, method if method in _METHODS else "other", str(status))
        self._own.histogram("request_seconds", route).observe(seconds)
        self._in_flight -= 1

    def image(self, model: str, status: str, confidence: float | None) -> None:
        """An image was answered with a status (ok, low-confidence, error), and a text's confidence."""
        self._own.count("images", model, status)
        if confidence is not None:
            self._own.histogram("confidence", model).observe(confidence)

    def error(self, kind: str) -> None:
        """Something failed. `kind` is one of few words."""
        self._own.count("errors", kind)

    def queued(self, count: int) -> None:
        """So many images wait now, or are being read."""
        self._own.gauges["queue_images",] = count

    def waited(self, seconds: float) -> None:
        """An image waited this long for its run."""
        self._waited.observe(seconds)

    def prepared(self, seconds: float) -> None:
        """An image was decoded and resized, or could not be."""
        self._prepared.observe(seconds)

    def ran(self, width: int, size: int, seconds: float) -> None:
        """A batch of `size` images of this width was read."""
        at = bisect_left(_WIDTHS, width)
        self._batches[at].observe(size)
        self._runs[at].observe(seconds)

    def model(self, name: str, digest: str) -> None:
        """A model is served from now on, in the place of that of its name."""
        if (before := self._digests.get(name)) is not None:
            del self._own.gauges["model_workers", name, before]
        self._digests[name] = digest
        self._own.gauges["model_workers", name, digest] = 1
        self._own.histogram("confidence", name)
        for status in _STATUSES:
            self._own.count("images", name, status, by=0)

    def reloaded(self, name: str, ok: bool) -> None:
        """A model file that changed was loaded, or could not be."""
        self._own.count("model_reloads", name, "swapped" if ok else "refused")

    def publish(self) -> None:
        """Tell the other workers."""
        if self._folder is not None:
            _write(self._folder / f"{self._slot}.json", self._plain())

    def exposition(self) -> tuple[bytes, str]:
        """All figures in Prometheus's text format, and its content type."""
        self.publish()
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def all_workers(self) -> dict[int, dict[str, Any]]:
        """The figures of each worker by its slot, as JSON."""
        found = {self._slot: self._plain()}
        for path in [] if self._folder is None else sorted(self._folder.glob("*.json")):
            if int(path.stem) != self._slot and (plain := _read(path)) is not None:
                found[int(path.stem)] = plain
        return found

    def _plain(self) -> dict[str, Any]:
        self._own.gauges["requests_in_flight",] = self._in_flight
        return {"pid": os.getpid(), **self._own.to_json()}


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """A folder that workers share, for as long as the block runs. Raises NoSharedFolder."""
    try:
        base = _MEMORY if os.access(_MEMORY, os.W_OK) else tempfile.gettempdir()
        _remove_abandoned(Path(base))
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        held = _hold(made)
    except OSError as error:
        raise NoSharedFolder(error.strerror or str(error)) from None
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(held)


def _hold(folder: Path) -> int:
    """Lock a file of the folder for as long as this process or a worker lives; a worker inherits the lock."""
    new = folder / "new"
    file = os.open(new, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(file, fcntl.LOCK_EX)
    new.rename(folder / _HELD)  # it is never there without its lock
    return file


def _remove_abandoned(base: Path) -> None:
    """Remove the folders of this user's servers that were killed; they would stay in memory otherwise."""
    for path in base.glob(f"{_PREFIX}*/{_HELD}"):
        with suppress(OSError):
            if path.parent.lstat().st_uid != os.getuid():
                continue
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent)


def forget_gauges(folder: Path, slot: int) -> None:
    """A worker is no more: its gauges are no longer counted, and its counters stay."""
    path = folder / f"{slot}.json"
    if (plain := _read(path)) is not None:
        _write(path, {**plain, "pid": None, "gauges": []})


def _read(path: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        plain: dict[str, Any] = json.loads(path.read_bytes())
        return plain
    return None


def _write(path: Path, plain: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    with suppress(OSError):  # a full disk costs figures and nothing else
        part.write_text(json.dumps(plain), encoding="ascii")
        part.replace(path)


class _Shown(Collector):
    """The figures of all workers, and their processes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        workers, total = self._metrics.all_workers(), _Figures()
        for plain in workers.values():
            total.add(plain, gauges=True)
        for name, figure in _COUNTERS.items():
            counter = CounterMetricFamily(f"crnn_deploy_{name}", figure.help, labels=figure.labels)
            for key, value in _of(total.counters, name):
                counter.add_metric(key, value)
            yield counter
        for name, figure in _GAUGES.items():
            gauge = GaugeMetricFamily(f"crnn_deploy_{name}", figure.help, labels=figure.labels)
            for key, value in _of(total.gauges, name):
                gauge.add_metric(key, value)
            yield gauge
        for name, figure in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(f"crnn_deploy_{name}", figure.help, labels=figure.labels)
            bounds = [*map(str, map(float, figure.bounds)), "+Inf"]
            for key, buckets in _of(total.histograms, name):
                upto = zip(bounds, accumulate(buckets.counts), strict=True)
                histogram.add_metric(key, [*upto], buckets.sum)
            yield histogram
        yield from _processes({slot: plain["pid"] for slot, plain in workers.items() if plain["pid"]})


def _of(figures: Mapping[_Key, Any], name: str) -> Iterable[tuple[_Key, Any]]:
    return ((key[1:], value) for key, value in figures.items() if key[0] == name)


def _processes(workers: Mapping[int, int]) -> Iterable[Metric]:
    """CPU, memory and open files of each worker."""
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
        "process_cpu_seconds": CounterMetricFamily(
            "crnn_deploy_worker_cpu_seconds", "Seconds of CPU of a worker.", labels=["worker"]
        ),
        "process_resident_memory_bytes": GaugeMetricFamily(
            "crnn_deploy_worker_resident_memory_bytes", "Resident memory of a worker.", labels=["worker"]
        ),
        "process_open_fds": GaugeMetricFamily(
            "crnn_deploy_worker_open_fds", "Open files and connections of a worker.", labels=["worker"]
        ),
    }
    for slot, pid in workers.items():
        for metric in ProcessCollector(pid=partial(str, pid), registry=None).collect():
            if metric.name in families:
                families[metric.name].add_metric([str(slot)], metric.samples[0].value)
    return families.values()
