"""The benchmarks of serving: what they send is what they say, and each runs to its end on a tiny network."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("uvicorn", reason="needs the extra [serve]")
if not sys.platform.startswith("linux"):
    pytest.skip("CPU time of a server comes from /proc", allow_module_level=True)

from benchmarks.process_tree import cpu_seconds, memory_mb, pids_of
from benchmarks.serving.clients import Target, closed_loop, open_loop, percentiles
from benchmarks.serving.malformed import KINDS, malformed
from crnn_deploy.evaluation.speed import draw_images


@pytest.fixture
def network(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scripts get a tiny network in place of those that they export."""
    for script in ("faults", "load", "same_texts", "start"):
        module = import_module(f"benchmarks.serving.{script}")
        monkeypatch.setattr(module, "export_networks", lambda names: dict.fromkeys(names, tiny_onnx))
    return tiny_onnx


def rows(path: Path, suite: str) -> dict[str, Any]:
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["suite"] == suite and result["versions"]["crnn-deploy"]
    return dict(result["rows"])


def test_load_compares_a_server_with_this_process(network: Path, tmp_path: Path) -> None:
    import benchmarks.serving.load

    few = ["--networks", "tiny", "--clients", "1,4", "--images", "20", "--rounds", "1", "--seconds", "0.5"]
    benchmarks.serving.load.main([*few, "--peers", "read,infer", "--json", str(tmp_path / "x")])
    found = rows(tmp_path / "x", "serving_load")
    servers = ("crnn-deploy serve", "crnn-deploy serve, Open Inference Protocol")
    closed = {f"tiny, {many} clients: {name}" for many in (1, 4) for name in servers}
    open_ = {f"tiny, {times} x capacity: {servers[0]}" for times in (1, 2)}
    assert found.keys() == {"tiny, in process", *closed, *open_}
    for name in closed:
        assert found[name]["p50"]["median"] <= found[name]["p95"]["median"] <= found[name]["p99"]["median"]
        assert found[name].get("other_texts", 0) == 0
    for name in open_:
        assert found[name]["lost"] == 0 and found[name]["statuses"].keys() <= {"200", "503"}


def test_faults_are_survived_and_counted(network: Path, tmp_path: Path) -> None:
    import benchmarks.serving.faults

    few = ["--requests", "100", "--malformed", str(2 * len(KINDS)), "--slow", "1", "--patience", "0.2"]
    benchmarks.serving.faults.main(
        ["--parts", "memory,malformed,slow,drain", *few, "--json", str(tmp_path / "x")]
    )
    found = rows(tmp_path / "x", "serving_faults")
    assert found["memory"]["statuses"] == {"200": 100} and len(found["memory"]["pss_mb"]) == 10
    assert found["malformed"]["answers"].keys() == KINDS.keys()
    assert found["malformed"]["passed"], found["malformed"]["first_failures"]
    assert found["slow"]["others_lost"] == 0
    assert found["drain"]["answered"] == 64


def test_texts_are_compared_with_those_of_infer(network: Path, tmp_path: Path) -> None:
    import benchmarks.serving.same_texts

    few = ["--model", "tiny", "--images", "60", "--clients", "4", "--json", str(tmp_path / "x")]
    assert benchmarks.serving.same_texts.main(few) == 0
    [row] = rows(tmp_path / "x", "serving_same_texts").values()
    assert row["compared"] == row["images"] == 60
    assert benchmarks.serving.same_texts.differences(
        {"path": "", "text": "a", "confidence": 0.5, "error": None},
        {"name": "x", "text": "a", "confidence": 0.5000000000000001, "error": None},
        protocol=False,
    ) == ["confidence"]


def test_starts_are_measured(network: Path, tmp_path: Path) -> None:
    import benchmarks.serving.start

    few = ["--rounds", "1", "--models", "tiny", "--workers", "1"]
    benchmarks.serving.start.main([*few, "--json", str(tmp_path / "x")])
    [row] = rows(tmp_path / "x", "serving_start").values()
    assert row.keys() == {"cpu", "clock", "pss", "first_image"}
    assert row["cpu"]["median"] > 0 and row["first_image"]["median"] > 0


def test_the_page_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("selenium")
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("needs Chromium and chromedriver on the PATH")
    import benchmarks.serving.page

    few = ["--rounds", "1", "--images", "1,3"]
    benchmarks.serving.page.main([*few, "--json", str(tmp_path / "x")])
    found = rows(tmp_path / "x", "serving_page")
    assert found.keys() == {"1 image", "3 images"}
    for row in found.values():
        assert row.keys() == {"cpu", "server_cpu", "clock"}
        assert row["clock"]["median"] > 0


def test_malformed_requests_are_the_same_for_the_same_seed() -> None:
    words = [bytes(word) for word in draw_images("words", 4)]
    first, again, other = ([*malformed(words, "m", 48, seed)] for seed in (1, 1, 2))
    assert first == again != other
    assert [kind for kind, _ in first] == 3 * [*KINDS]


def test_a_server_is_all_of_its_processes() -> None:
    """A child that works, and one that has ended: the time of both is counted."""
    work = "sum(i for i in range(10_000_000))"
    code = (
        "import subprocess, sys, time\n"
        f"subprocess.run([sys.executable, '-c', '{work}'])\n"
        f"subprocess.Popen([sys.executable, '-c', '{work}; import time; time.sleep(60)'])\n"
        "print('both', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"both\n"
        until = time.monotonic() + 30
        while cpu_seconds(process.pid) < 0.1 and time.monotonic() < until:
            time.sleep(0.02)
        assert len(pids_of(process.pid)) == 2
        assert cpu_seconds(process.pid) >= 0.1
        pss, rss = memory_mb(process.pid)
        assert 1 < pss <= rss
    finally:
        for pid in pids_of(process.pid):
            subprocess.run(["kill", "-9", str(pid)], check=False)
        process.wait()


def test_clients_count_what_is_refused_and_what_is_lost() -> None:
    """A server that answers, refuses and hangs up in turn."""

    async def served() -> None:
        turn = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal turn
            while await reader.readline():
                turn += 1
                if turn % 3 == 0:
                    writer.close()
                    return
                status = b"200 OK" if turn % 3 == 1 else b"503 Busy"
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nab")

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        target = Target(server.sockets[0].getsockname()[1], [b"one\n", b"two\n"])
        closed = await asyncio.to_thread(closed_loop, target, 1, 9, keep=True)
        assert (closed.statuses, closed.lost) == ({200: 3, 503: 3}, 3)
        assert len(closed.accepted) == len(closed.refused) == 3 and set(closed.bodies.values()) == {b"ab"}
        again = await asyncio.to_thread(closed_loop, target, 1, 6, tries=2)
        assert again.lost == 0 and again.statuses.total() == 6 and again.retried == 2
        opened = await asyncio.to_thread(open_loop, target, 200, 0.3)
        assert opened.lost > 0 and opened.statuses[200] > 0 and opened.statuses[503] > 0
        server.close()

    asyncio.run(served())
    assert percentiles([0.001] * 99 + [1.0])["p50"] == 1.0
