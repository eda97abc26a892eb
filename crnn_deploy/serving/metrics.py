"""What Prometheus is told: counters, gauges and histograms of all workers together.

Each worker process writes its figures into files that it has mapped into memory, in a folder that all workers
share, and a worker that is asked adds up those of all (prometheus_client's multiprocess mode). A worker has a
number that no other living one has, and the worker that takes a dead one's number carries on its counters, so
there are never more files than workers. No label has an unlimited number of values.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, values
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from crnn_deploy.errors import CrnnDeployError

__all__ = ["Metrics", "NoSharedFolder", "shared_between_processes", "worker_ended"]

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # the variable that tells prometheus_client where the files are
_MEMORY = "/dev/shm"  # files that are written for each request should not reach a disk
_CLAIM = ".worker"  # ending of the files by which workers have numbers

_MODELS = "crnn_deploy_model_workers"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_STATUSES = ("ok", "low-confidence", "error")
_WIDTHS = (32, 64, 128, 256, 512)  # of batches, in columns; beyond them one label more
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_SHORT = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)  # seconds
_LONG = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class NoSharedFolder(CrnnDeployError, OSError):
    """No folder in which the workers could put their figures."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the workers need a folder for their metrics, and none can be made ({reason}); set TMPDIR to a "
            "folder that can be written"
        )


class Metrics:
    """The figures of this process. Each method may be called in any thread and takes a few microseconds.

    Within `shared_between_processes`, those of all workers are shown together.
    """

    def __init__(self) -> None:
        folder = os.environ.get(_FOLDER)
        own = CollectorRegistry()
        figures = own if folder is None else MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]
        self._shown = _Shown(figures, folder)
        self._requests = Counter(
            "crnn_deploy_requests",
            "Requests that were answered; status 499 is a client that went away.",
            ["route", "method", "status"],
            registry=own,
        )
        self._request_seconds = Histogram(
            "crnn_deploy_request_seconds",
            "Seconds from a request's headers to the end of its answer.",
            ["route"],
            buckets=_LONG,
            registry=own,
        )
        self._in_flight = Gauge(
            "crnn_deploy_requests_in_flight",
            "Requests that are being answered.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self._images = Counter(
            "crnn_deploy_images", "Images that were answered.", ["model", "status"], registry=own
        )
        self._confidence = Histogram(
            "crnn_deploy_confidence",
            "Confidences of the texts that were read.",
            ["model"],
            buckets=_CONFIDENCES,
            registry=own,
        )
        self._errors = Counter(
            "crnn_deploy_errors",
            "Requests and images that failed, by the kind of error.",
            ["kind"],
            registry=own,
        )
        self._queue = Gauge(
            "crnn_deploy_queue_images",
            "Images that were accepted and are not read yet.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self._waited = Histogram(
            "crnn_deploy_queue_seconds", "Seconds an image waited for its run.", buckets=_LONG, registry=own
        )
        self._prepared = Histogram(
            "crnn_deploy_prepare_seconds",
            "Seconds in which an image was decoded and resized.",
            buckets=_SHORT,
            registry=own,
        )
        self._batch = Histogram(
            "crnn_deploy_batch_images",
            "Images that ran together, by width in columns, rounded up.",
            ["width"],
            buckets=_BATCHES,
            registry=own,
        )
        self._run = Histogram(
            "crnn_deploy_run_seconds",
            "Seconds in which a batch was read, by width in columns, rounded up.",
            ["width"],
            buckets=_SHORT,
            registry=own,
        )
        self._models = Gauge(
            _MODELS,
            "Workers that serve a model, by the SHA-256 of its file.",
            ["model", "digest"],
            registry=own,
            multiprocess_mode="livesum",
        )
        self._reloads = Counter(
            "crnn_deploy_model_reloads",
            "Model files that changed, and took the place of the old one (swapped) or did not (refused).",
            ["model", "result"],
            registry=own,
        )
        self._digests: dict[str, str] = {}
        self._by_request: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._by_image: dict[tuple[str, str], tuple[Counter, Histogram]] = {}
        self._by_kind: dict[str, Counter] = {}
        self._by_width = {
            width: (self._batch.labels(name), self._run.labels(name))
            for width, name in [*((width, str(width)) for width in _WIDTHS), (0, "more")]
        }

    def began(self) -> None:
        """A request has come; `request` says when it is answered."""
        self._in_flight.inc()

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered.

        route: the template of its path, such as /v2/models/{name}, never the path itself
        """
        key = (route, method, status)
        found = self._by_request.get(key)
        if found is None:
            method = method if method in _METHODS else "other"
            found = self._requests.labels(route, method, status), self._request_seconds.labels(route)
            if method != "other":
                self._by_request[key] = found
        found[0].inc()
        found[1].observe(seconds)
        self._in_flight.dec()

    def image(self, model: str, status: str, confidence: float | None) -> None:
        """An image was answered with a status (ok, low-confidence, error), and a text's confidence."""
        key = (model, status)
        found = self._by_image.get(key)
        if found is None:
            found = self._images.labels(model, status), self._confidence.labels(model)
            self._by_image[key] = found
        found[0].inc()
        if confidence is not None:
            found[1].observe(confidence)

    def error(self, kind: str) -> None:
        """Something failed. `kind` is one of few words."""
        found = self._by_kind.get(kind)
        if found is None:
            found = self._by_kind[kind] = self._errors.labels(kind)
        found.inc()

    def queued(self, count: int) -> None:
        """So many images wait now, or are being read."""
        self._queue.set(count)

    def waited(self, seconds: float) -> None:
        """An image waited this long for its run."""
        self._waited.observe(seconds)

    def prepared(self, seconds: float) -> None:
        """An image was decoded and resized, or could not be."""
        self._prepared.observe(seconds)

    def ran(self, width: int, size: int, seconds: float) -> None:
        """A batch of `size` images of this width was read."""
        batch, run = self._by_width[next((most for most in _WIDTHS if width <= most), 0)]
        batch.observe(size)
        run.observe(seconds)

    def model(self, name: str, digest: str) -> None:
        """A model is served from now on, in the place of that of its name."""
        before = self._digests.get(name)
        if before is not None:
            self._models.labels(name, before).set(0)
        self._digests[name] = digest
        self._models.labels(name, digest).set(1)
        self._confidence.labels(name)
        for status in _STATUSES:
            self._images.labels(name, status)

    def reloaded(self, name: str, ok: bool) -> None:
        """A model file that changed was loaded, or could not be."""
        self._reloads.labels(name, "swapped" if ok else "refused").inc()

    def exposition(self) -> tuple[bytes, str]:
        """All figures in Prometheus's text format, and its content type."""
        return generate_latest(self._shown), CONTENT_TYPE_PLAIN_0_0_4


@contextmanager
def shared_between_processes() -> Iterator[None]:
    """Processes that are forked within the block and make `Metrics` share their figures.

    For the process that forks the workers, which makes no `Metrics` of its own and calls `worker_ended` when
    one has ended. Raises NoSharedFolder.
    """
    maker = os.getpid()
    try:
        folder = tempfile.mkdtemp(prefix="crnn-deploy-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None)
    except OSError as error:
        raise NoSharedFolder(error.strerror or str(error)) from None
    variable, kind = os.environ.get(_FOLDER), values.ValueClass
    os.environ[_FOLDER] = folder
    values.ValueClass = values.MultiProcessValue(_Number(Path(folder)))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if os.getpid() == maker:  # and no worker that leaves the block in its own way
            values.ValueClass = kind
            del os.environ[_FOLDER]
            if variable is not None:
                os.environ[_FOLDER] = variable
            shutil.rmtree(folder, ignore_errors=True)


def worker_ended(pid: int) -> None:
    """A worker is no more: its gauges are no longer counted, and its counters stay."""
    folder = Path(os.environ[_FOLDER])
    for number, holder in _claims(folder):
        if holder == pid:
            _forget_gauges(folder, number)


class _Number:
    """The number of this process among those that share a folder; it names the process's files.

    A lock on a file holds it, which the system drops when the process ends, however that happens.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._pid, self._number = folder, os.getpid(), 0

    def __call__(self) -> int:
        if self._pid != os.getpid():  # forked
            self._number = self._claimed()
            self._pid = os.getpid()
        return self._number

    def _claimed(self) -> int:
        number = 0
        while True:
            number += 1
            file = os.open(self._folder / f"{number}{_CLAIM}", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                continue
            os.pwrite(file, b"%-20d" % os.getpid(), 0)
            _forget_gauges(self._folder, number)  # those of one that died
            return number


def _forget_gauges(folder: Path, number: int) -> None:
    mark_process_dead(number, str(folder))  # type: ignore[no-untyped-call]


def _claims(folder: Path) -> Iterator[tuple[int, int]]:
    """Numbers, and the processes that have them or had them last."""
    for path in sorted(folder.glob(f"*{_CLAIM}")):
        with suppress(OSError, ValueError):
            yield int(path.stem), int(path.read_text(encoding="ascii"))


class _Shown(Collector):
    """What is shown: the figures, without the models that no worker serves any more, and the processes."""

    def __init__(self, figures: Collector, folder: str | None) -> None:
        self._figures, self._folder = figures, folder

    def collect(self) -> Iterable[Metric]:
        for metric in self._figures.collect():
            if metric.name == _MODELS:
                metric.samples = [sample for sample in metric.samples if sample.value]
            yield metric
        yield from self._processes()

    def _processes(self) -> Iterable[Metric]:
        """CPU, memory and open files of each worker."""
        cpu = CounterMetricFamily(
            "crnn_deploy_worker_cpu_seconds", "Seconds of CPU of a worker.", labels=["worker"]
        )
        memory = GaugeMetricFamily(
            "crnn_deploy_worker_resident_memory_bytes", "Resident memory of a worker.", labels=["worker"]
        )
        files = GaugeMetricFamily(
            "crnn_deploy_worker_open_fds", "Open files and connections of a worker.", labels=["worker"]
        )
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {
            "process_cpu_seconds": cpu,
            "process_resident_memory_bytes": memory,
            "process_open_fds": files,
        }
        workers = [(1, os.getpid())] if self._folder is None else _claims(Path(self._folder))
        for number, pid in workers:
            for metric in ProcessCollector(pid=partial(str, pid), registry=None).collect():
                if metric.name in families:
                    families[metric.name].add_metric([str(number)], metric.samples[0].value)
        return families.values()
