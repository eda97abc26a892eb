"""What Prometheus is told: by one process, and by several of which one is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from crnn_deploy.serving.metrics import Metrics, NoSharedFolder, forget_gauges, metrics_folder

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


def test_the_documents_name_exactly_what_is_shown(metrics: Metrics) -> None:
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    families = [*text_string_to_metric_families(metrics.exposition()[0].decode())]
    names = {family.name + "_total" * (family.type == "counter") for family in families}
    assert set(re.findall(r"^\| `(crnn_deploy_\w+)` \|", text, re.MULTILINE)) == names
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bcrnn_deploy_\w+", text)}
    assert used == names


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system has no /proc")
def test_the_process_tells_its_memory_and_cpu(metrics: Metrics) -> None:
    memory = value(metrics, "worker_resident_memory_bytes", worker="0")
    cpu = value(metrics, "worker_cpu_seconds_total", worker="0")
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


def test_the_queue_and_the_event_loop_count_at_once_while_both_are_shown(metrics: Metrics) -> None:
    def queue() -> None:
        for number in range(20_000):
            metrics.waited(0.25)
            metrics.ran(number % 700, 1, 0.25)

    thread = threading.Thread(target=queue)
    thread.start()
    seen = []
    for number in range(200):
        metrics.began()
        metrics.request(f"/{number % 7}", "POST", 200 + number, 0.25)
        metrics.image("latin", "ok", 0.5)
        seen.append(value(metrics, "queue_seconds_count") or 0)
    thread.join()
    assert seen == sorted(seen)
    values = shown(metrics)
    assert values["crnn_deploy_queue_seconds_sum", ()] == 5000
    assert (
        sum(count for (name, _), count in values.items() if name == "crnn_deploy_batch_images_count")
        == 20_000
    )
    assert sum(count for (name, _), count in values.items() if name == "crnn_deploy_requests_total") == 200
    assert values["crnn_deploy_images_total", (("model", "latin"), ("status", "ok"))] == 200


def test_nothing_is_shared_by_two_without_a_folder(metrics: Metrics) -> None:
    metrics.error("overload")
    metrics.publish()
    assert value(Metrics(), "errors_total", kind="overload") is None


def test_a_worker_carries_on_what_the_last_one_of_its_slot_has_shown() -> None:
    with metrics_folder() as folder:
        for lives in range(1, 4):
            worker, other = Metrics(folder, 0), Metrics(folder, 1)
            worker.image("latin", "ok", 0.97)
            worker.queued(5)
            assert value(worker, "images_total", model="latin", status="ok") == lives  # and then it is killed
            assert value(other, "images_total", model="latin", status="ok") == lives
            assert value(other, "confidence_count", model="latin") == lives
            assert value(other, "queue_images") == 5
            forget_gauges(folder, 0)
            assert value(other, "queue_images") == 0
            assert value(other, "images_total", model="latin", status="ok") == lives


def test_files_that_cannot_be_written_or_read_cost_nothing_else() -> None:
    with metrics_folder() as folder:
        (folder / "1.json").write_text('{"counters": [["err')
        (folder / "0.part").mkdir()
        worker = Metrics(folder, 0)
        worker.error("overload")
        assert value(worker, "errors_total", kind="overload") == 1
        forget_gauges(folder, 1)
        forget_gauges(folder, 2)


def test_the_folder_is_private_and_gone_afterwards() -> None:
    with pytest.raises(KeyError, match="of the block"), metrics_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        raise KeyError("of the block")
    assert not folder.exists()


def test_without_a_folder_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: Any) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "mkdtemp", refused)
    with pytest.raises(NoSharedFolder, match=r"No usable temporary .* set TMPDIR"), metrics_folder():
        pass


KILLED = """
import os, signal
from crnn_deploy.serving.metrics import Metrics, metrics_folder
with metrics_folder() as folder:
    said, says = os.pipe()
    pid = os.fork()
    if not pid:
        Metrics(folder, 0).publish()
        os.closerange(0, 3)  # so that nobody waits for what it prints
        os.write(says, b".")
        signal.pause()
    os.read(said, 1)
    print(pid, folder, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@forks
def test_what_a_killed_server_left_is_removed_once_its_workers_are_gone() -> None:
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, timeout=60)
    pid, name = done.stdout.split()
    with metrics_folder() as other:
        assert Path(name).exists()  # its worker lives, and so do others' servers
        os.kill(int(pid), signal.SIGKILL)
        until = time.monotonic() + 10
        while Path(name).exists() and time.monotonic() < until:
            with metrics_folder():
                pass
        assert not Path(name).exists() and other.exists()


# three workers; the second is killed after it has shown what it counted, and another one takes its place
FORKS = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from test_server_metrics import shown
from crnn_deploy.serving.metrics import Metrics, forget_gauges, metrics_folder

def worker(slot, count):
    told, tells = os.pipe()
    pid = os.fork()
    if not pid:
        metrics = Metrics(folder, slot)
        metrics.model("latin", "ab" * 32)
        for _ in range(count):
            metrics.began()
            metrics.request("/v1/read", "POST", 200, 0.25)
            metrics.image("latin", "ok", 0.97)
        metrics.began()
        metrics.queued(5)
        values = [[name, dict(labels), value] for (name, labels), value in shown(metrics).items()]
        os.write(tells, json.dumps(values).encode())
        signal.pause()
    shows.append(json.loads(os.read(told, 2**16)))
    return pid

def end(pid, slot, number):
    os.kill(pid, number)
    os.waitpid(pid, 0)
    forget_gauges(folder, slot)

shows = []
with metrics_folder() as folder:
    first, second, third = worker(0, 100), worker(1, 20), worker(2, 3)
    end(second, 1, signal.SIGKILL)
    second = worker(1, 1000)
    for slot, pid in enumerate((first, second, third)):
        end(pid, slot, signal.SIGTERM)
    files = sorted(os.listdir(folder))
print(json.dumps([shows, files, os.path.exists(folder)]))
"""


@forks
def test_any_worker_shows_all_and_counters_outlive_one_that_is_killed() -> None:
    command = [sys.executable, "-c", FORKS, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shows, files, folder_is_there = json.loads(done.stdout)
    assert files == ["0.json", "1.json", "2.json", "server"] and not folder_is_there
    for show, count, workers in zip(shows, (100, 120, 123, 1123), (1, 2, 3, 3), strict=True):
        values = {
            (name.removeprefix("crnn_deploy_"), *labels.values()): value for name, labels, value in show
        }
        assert values["requests_total", "POST", "/v1/read", "200"] == count
        assert values["confidence_count", "latin"] == values["request_seconds_count", "/v1/read"] == count
        assert values["confidence_sum", "latin"] == pytest.approx(count * 0.97)
        assert values["requests_in_flight",] == workers and values["queue_images",] == 5 * workers
        assert values["model_workers", DIGEST, "latin"] == workers
        if Path("/proc/self/stat").exists():
            assert sum(key[0] == "worker_resident_memory_bytes" for key in values) == workers
