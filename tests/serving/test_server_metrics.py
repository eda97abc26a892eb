"""What Prometheus is told: by one process, and by several of which one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from crnn_deploy.serving.metrics import Metrics, NoSharedFolder, shared_between_processes

DIGEST = "ab" * 32
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def shown(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Values by name and labels."""
    body, content_type = metrics.exposition()
    assert content_type.startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return shown(metrics).get((f"crnn_deploy_{name}", tuple(sorted(labels.items()))))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def test_each_thing_that_happens_is_counted_once(metrics: Metrics) -> None:
    metrics.model("latin", DIGEST)
    metrics.began()
    assert value(metrics, "requests_in_flight") == 1
    metrics.request("/v1/read", "POST", 200, 0.02)
    metrics.image("latin", "ok", 0.97)
    metrics.image("latin", "error", None)
    metrics.error("overload")
    metrics.queued(7)
    metrics.waited(0.003)
    metrics.prepared(0.0004)
    metrics.ran(100, 5, 0.004)
    metrics.reloaded("latin", True)
    metrics.reloaded("latin", False)
    assert value(metrics, "requests_total", route="/v1/read", method="POST", status="200") == 1
    assert value(metrics, "request_seconds_sum", route="/v1/read") == 0.02
    assert value(metrics, "requests_in_flight") == 0
    for status, count in (("ok", 1), ("low-confidence", 0), ("error", 1)):
        assert value(metrics, "images_total", model="latin", status=status) == count
    assert value(metrics, "confidence_count", model="latin") == 1
    assert value(metrics, "confidence_bucket", model="latin", le="0.95") == 0
    assert value(metrics, "confidence_bucket", model="latin", le="0.99") == 1
    assert value(metrics, "errors_total", kind="overload") == 1
    assert value(metrics, "queue_images") == 7
    assert value(metrics, "queue_seconds_sum") == 0.003
    assert value(metrics, "prepare_seconds_sum") == 0.0004
    assert value(metrics, "batch_images_sum", width="128") == 5
    assert value(metrics, "run_seconds_sum", width="128") == 0.004
    assert value(metrics, "model_reloads_total", model="latin", result="swapped") == 1
    assert value(metrics, "model_reloads_total", model="latin", result="refused") == 1


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_the_process_tells_its_memory_and_cpu(metrics: Metrics) -> None:
    memory = value(metrics, "worker_resident_memory_bytes", worker="1")
    cpu = value(metrics, "worker_cpu_seconds_total", worker="1")
    assert memory is not None and 2**22 < memory < 2**36
    assert cpu is not None and abs(cpu - time.process_time()) < 1


def test_a_model_takes_the_place_of_the_one_of_its_name(metrics: Metrics) -> None:
    for digest in ("aa", "bb", "aa", "cc"):
        metrics.model("latin", digest)
    metrics.model("plates", "dd")
    served = {key: count for key, count in shown(metrics).items() if key[0] == "crnn_deploy_model_workers"}
    assert {dict(labels)["digest"]: count for (_, labels), count in served.items()} == {"cc": 1, "dd": 1}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 1), max_size=50))
def test_the_histogram_of_confidences_counts_what_it_was_given(confidences: list[float]) -> None:
    metrics = Metrics()
    metrics.model("latin", DIGEST)
    for confidence in confidences:
        metrics.image("latin", "ok", confidence)
    values = shown(metrics)
    for most in (*np.arange(1, 10) / 10, 0.95, 0.99, 1.0):
        key = ("crnn_deploy_confidence_bucket", (("le", str(float(most))), ("model", "latin")))
        assert values[key] == sum(confidence <= most for confidence in confidences)


def test_labels_have_few_values_whatever_comes(metrics: Metrics) -> None:
    for number in range(1, 5000, 3):
        metrics.ran(number, 1, 0.001)
        metrics.began()
        metrics.request("unmatched", f"BREW{number}", 405, 0.001)
    values = shown(metrics)
    widths = {
        dict(labels).get("width") for name, labels in values if name == "crnn_deploy_batch_images_count"
    }
    assert widths == {"32", "64", "128", "256", "512", "more"}
    methods = [key for key in values if key[0] == "crnn_deploy_requests_total"]
    assert len(methods) == 1 and dict(methods[0][1])["method"] == "other"
    assert values["crnn_deploy_batch_images_count", (("width", "32"),)] == 11  # 1, 4 ... 31
    assert values["crnn_deploy_batch_images_count", (("width", "64"),)] == 11  # 34 ... 64


def test_threads_lose_nothing(metrics: Metrics) -> None:
    assert in_threads(metrics) == (4000, 4000, 0)


def in_threads(metrics: Metrics) -> tuple[float | None, float | None, float | None]:
    def work() -> None:
        for _ in range(1000):
            metrics.began()
            metrics.image("latin", "ok", 0.5)
            metrics.request("/v1/read", "POST", 200, 0.25)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (
        value(metrics, "requests_total", route="/v1/read", method="POST", status="200"),
        value(metrics, "confidence_count", model="latin"),
        value(metrics, "requests_in_flight"),
    )


def test_nothing_is_shared_by_two_in_one_process(metrics: Metrics) -> None:
    metrics.error("overload")
    assert value(Metrics(), "errors_total", kind="overload") is None


def test_the_folder_and_the_variable_are_gone_afterwards() -> None:
    before = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    with pytest.raises(KeyError, match="of the block"), shared_between_processes():
        folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
        assert folder.stat().st_mode & 0o777 == 0o700
        raise KeyError("of the block")
    assert not folder.exists() and os.environ.get("PROMETHEUS_MULTIPROC_DIR") == before


def test_without_a_folder_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: Any) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with (
        pytest.raises(NoSharedFolder, match=r"No usable temporary .* set TMPDIR"),
        shared_between_processes(),
    ):
        pass


KILLED = """
import os, signal
from crnn_deploy.serving.metrics import Metrics, shared_between_processes
with shared_between_processes():
    said, says = os.pipe()
    pid = os.fork()
    if not pid:
        Metrics().error("overload")
        os.closerange(0, 3)  # so that nobody waits for what it prints
        os.write(says, b".")
        signal.pause()
    os.read(said, 1)
    print(pid, os.environ["PROMETHEUS_MULTIPROC_DIR"], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@forks
def test_what_a_killed_server_left_is_removed_once_its_workers_are_gone() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=60)
    pid, folder = done.stdout.split()
    with shared_between_processes():
        assert Path(folder).exists()  # its worker lives, and so do others' servers
        os.kill(int(pid), signal.SIGKILL)
        for _ in range(500):
            with shared_between_processes():
                pass
            if not Path(folder).exists():
                break
            time.sleep(0.01)
        assert not Path(folder).exists()
        assert Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]).exists()


# three workers; the second is killed while it counts, and a fourth takes its place
FORKS = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
import test_server_metrics as test
from crnn_deploy.serving.metrics import Metrics, shared_between_processes, worker_ended

def worker(count, work):
    told, tells = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(told)
        metrics = Metrics()
        metrics.model("latin", "ab" * 32)
        for _ in range(count):
            metrics.began()
            metrics.request("/v1/read", "POST", 200, 0.25)
            metrics.image("latin", "ok", 0.97)
        metrics.began()
        metrics.queued(5)
        os.write(tells, json.dumps(work(metrics)).encode())
        signal.pause()
    os.close(tells)
    said[pid] = os.read(told, 2**16).decode()
    return pid

def end(pid, number):
    os.kill(pid, number)
    os.waitpid(pid, 0)
    worker_ended(pid)

def figures(metrics):
    values = {
        name: test.value(metrics, name, **labels)
        for name, labels in {
            "requests_total": dict(route="/v1/read", method="POST", status="200"),
            "confidence_count": dict(model="latin"),
            "confidence_sum": dict(model="latin"),
            "request_seconds_count": dict(route="/v1/read"),
            "requests_in_flight": {},
            "queue_images": {},
            "model_workers": dict(model="latin", digest="ab" * 32),
        }.items()
    }
    names = [name for name, _ in test.shown(metrics)]
    values["workers"] = names.count("crnn_deploy_worker_resident_memory_bytes")
    return values

said, shows = {}, []
with shared_between_processes():
    folder = os.environ["PROMETHEUS_MULTIPROC_DIR"]
    first, second = worker(100, lambda _: 0), worker(20, lambda _: 0)
    third = worker(3, figures)
    shows.append(json.loads(said[third]))
    end(second, signal.SIGKILL)
    pid = worker(0, lambda metrics: 0)
    end(pid, signal.SIGKILL)                     # one that took the number of the second
    again = worker(1000, figures)
    shows.append(json.loads(said[again]))
    shows.append(json.loads(said[worker(0, test.in_threads)]))
    shows.append(sorted(os.listdir(folder)))
    for pid in (first, third, again, max(said)):
        end(pid, signal.SIGTERM)
print(json.dumps([*shows, os.path.exists(folder)]))
"""


@pytest.fixture(scope="module")
def forked() -> Iterator[list[Any]]:
    command = [sys.executable, "-c", FORKS, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    yield json.loads(done.stdout)


@forks
def test_any_worker_shows_the_figures_of_all(forked: list[Any]) -> None:
    assert forked[0] == {
        "requests_total": 123,
        "confidence_count": 123,
        "confidence_sum": pytest.approx(123 * 0.97),
        "request_seconds_count": 123,
        "requests_in_flight": 3,
        "queue_images": 15,
        "model_workers": 3,
        "workers": 3,
    }


@forks
def test_counters_outlive_a_worker_that_is_killed_and_gauges_do_not(forked: list[Any]) -> None:
    assert forked[1] == {
        "requests_total": 1123,
        "confidence_count": 1123,
        "confidence_sum": pytest.approx(1123 * 0.97),
        "request_seconds_count": 1123,
        "requests_in_flight": 3,
        "queue_images": 15,
        "model_workers": 3,
        "workers": 3,
    }


@forks
def test_threads_of_workers_lose_nothing(forked: list[Any]) -> None:
    requests, images, flying = forked[2]
    assert (requests, images, flying) == (1123 + 4000, 1123 + 4000, 4)


@forks
def test_there_are_no_more_files_than_workers_ever_lived_at_once(forked: list[Any]) -> None:
    files, folder_is_there = forked[3:]
    kinds = ("counter_{}.db", "gauge_livesum_{}.db", "histogram_{}.db", "{}.worker")
    assert files == sorted(["server", *(kind.format(number) for kind in kinds for number in range(1, 5))])
    assert not folder_is_there
