"""What a server does when things go wrong: killed workers, slow clients, malformed requests, its own end.

    python -m benchmarks.serving.faults [--parts memory,kill,slow,malformed,schema,drain,drain-hanging]
        [--network tiny] [--requests 100000] [--malformed 10000] [--slow 100] [--examples 200] [--json FILE]

- memory: PSS and RSS of all processes during --requests requests of 32 clients. RSS counts all memory of a
  process; PSS counts its share of what processes share.
- kill: kill -9 of one of two workers under load. The clients send lost requests again. The figure is the
  seconds until the worker's successor answers.
- slow: --slow clients of each kind: they send headers or bodies a little at a time, stop half way, or are
  silent, while other clients are served.
- malformed: --malformed requests of `benchmarks.serving.malformed`. Nothing may crash, answer 5xx other than
  503, or show a traceback.
- schema: schemathesis on the OpenAPI document
- drain, drain-hanging: SIGTERM while 64 requests are on their way, without and with a client that hangs

If a goal is missed, the exit code is 1. The script needs the extras [cpu,export,serve,test].
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from benchmarks.common import Network, export_networks, write
from benchmarks.process_tree import pids_of
from benchmarks.serving.clients import Target, closed_loop, generator, percentiles
from benchmarks.serving.malformed import malformed
from benchmarks.serving.processes import HOST, Server, crnn_deploy_server
from benchmarks.serving.wire import Connection, multipart, post, raw
from crnn_deploy.evaluation.speed import draw_images

__all__ = ["main"]

TRACEBACK = b"Traceback (most recent call last)"


class Bench:
    """What every part needs: a model, images, clients in a second process, and a place for logs."""

    def __init__(
        self, model: Path, given: argparse.Namespace, clients: ProcessPoolExecutor, folder: Path
    ) -> None:
        self.model, self.given, self.clients, self.folder = model, given, clients, folder
        self.images = [bytes(word) for word in draw_images("words", 200)]

    def server(self, *options: object) -> Server:
        return crnn_deploy_server(self.model, self.folder / "serve.log", *options)

    def target(self, server: Server) -> Target:
        return Target(server.port, [post("/v1/read", raw(image)) for image in self.images])


def memory(bench: Bench) -> dict[str, Any]:
    """PSS and RSS after each tenth of the requests."""
    pss, rss = list[float](), list[float]()
    statuses, lost = Counter[int](), 0
    with bench.server() as server:
        for _ in range(10):
            count = max(bench.given.requests // 10, 1)
            outcome = bench.clients.submit(closed_loop, bench.target(server), 32, count).result()
            statuses += outcome.statuses
            lost += outcome.lost
            for values, value in zip((pss, rss), server.memory(), strict=True):
                values.append(value)
    return {
        "requests": statuses.total() + lost,
        "statuses": _named(statuses),
        "lost": lost,
        "pss_mb": pss,
        "rss_mb": rss,
        # PSS changes too when another program ends that shares a library
        "last_of_first_rss": round(rss[-1] / rss[0], 3),
        "passed": rss[-1] <= 1.1 * rss[0] and statuses.keys() == {200} and not lost,
    }


def kill(bench: Bench) -> dict[str, Any]:
    """One of two workers ends by SIGKILL: what is lost, and when its successor answers."""
    count = max(bench.given.requests // 10, 64)
    with bench.server("--workers", 2, "--queue", 256) as server:
        time.sleep(bench.given.settled)  # a worker that ends sooner after its start is replaced later
        old = _workers(server)
        load = bench.clients.submit(closed_loop, bench.target(server), 32, count, tries=20)
        time.sleep(1)
        os.kill(old[0], signal.SIGKILL)
        again = _seconds_until(lambda: len(_workers(server)) == 2)
        outcome = load.result()
        time.sleep(bench.given.settled)
        first, second = _workers(server)
        os.kill(second, signal.SIGSTOP)  # the other one answers nothing, so that the successor must
        try:
            os.kill(first, signal.SIGKILL)
            one = Target(server.port, bench.target(server).requests[:1])
            answered = _seconds_until(
                lambda: closed_loop(one, 1, 1, patience=0.2).statuses.get(200) == 1, patience=60
            )
        finally:
            os.kill(second, signal.SIGCONT)
        workers = len(_workers(server))
    return {
        "requests": outcome.statuses.total() + outcome.lost,
        "statuses": _named(outcome.statuses),
        "sent_again": outcome.retried,
        "lost": outcome.lost,
        "seconds_until_two_processes": again,
        "seconds_until_successor_answers": answered,
        "accepted_ms": percentiles(outcome.accepted),
        "workers_at_the_end": workers,
        "passed": not outcome.lost and outcome.retried <= 32 and workers == 2 and answered is not None,
    }


def _workers(server: Server) -> list[int]:
    """The worker processes: children of the one that was started."""
    return sorted(pids_of(server.pid) - {server.pid})


def _seconds_until(is_so: Callable[[], bool], patience: float = 30) -> float | None:
    start = time.perf_counter()
    while time.perf_counter() - start < patience:
        with suppress(OSError):
            if is_so():
                return round(time.perf_counter() - start, 2)
        time.sleep(0.02)
    return None


def slow(bench: Bench) -> dict[str, Any]:
    """Clients that take their time, and what others notice of them."""
    with bench.server() as server:
        target = bench.target(server)
        before = bench.clients.submit(closed_loop, target, 4, 400).result()
        load = bench.clients.submit(closed_loop, target, 4, 2000)
        rows: dict[str, Any] = asyncio.run(_slow_clients(server.port, bench.given))
        during = load.result()
        rows |= {
            "others_before_ms": percentiles(before.accepted),
            "others_during_ms": percentiles(during.accepted),
            "others_statuses": _named(during.statuses),
            "others_lost": during.lost,
            "pss_mb": server.memory()[0],
        }
    ended = all(rows[name]["ended_by_server"] == bench.given.slow for name in SLOW)
    return rows | {"passed": ended and during.statuses.keys() == {200} and not during.lost}


_HEAD = b"POST /v1/read HTTP/1.1\r\nHost: 127.0.0.1\r\n"
_BODY = _HEAD + b"Content-Type: image/jpeg\r\nContent-Length: 20000\r\n\r\n"
# what comes at once, and what comes every second
SLOW = {
    "headers, a line a second": (_HEAD, b"X: y\r\n"),
    "a body, ten bytes a second": (_BODY, b"0123456789"),
    "half a body and no more": (_BODY + b"\xff" * 10_000, b""),
    "no byte at all": (b"", b""),
}


async def _slow_clients(port: int, given: argparse.Namespace) -> dict[str, Any]:
    ended: dict[str, list[float]] = defaultdict(list)
    said: dict[str, Counter[str]] = defaultdict(Counter)

    async def one(name: str) -> None:
        first, later = SLOW[name]
        start = time.perf_counter()
        reader, writer = await asyncio.open_connection(HOST, port)
        answer = asyncio.create_task(reader.read())
        with suppress(OSError):
            writer.write(first)
            while not answer.done() and time.perf_counter() - start < given.patience:
                await asyncio.wait({answer}, timeout=1)
                if later:
                    writer.write(later)
                    await writer.drain()
        if answer.done():
            ended[name].append(time.perf_counter() - start)
        try:
            text = await asyncio.wait_for(answer, 0.1)
            said[name][text[9:12].decode() or "closed"] += 1
        except (TimeoutError, OSError) as error:
            said[name][type(error).__name__] += 1
        writer.close()

    await asyncio.gather(*(one(name) for name in SLOW for _ in range(given.slow)))
    return {
        name: {
            "clients": given.slow,
            "ended_by_server": len(ended[name]),
            "seconds_until_then": round(max(ended[name]), 1) if ended[name] else None,
            "answers": dict(said[name]),
        }
        for name in SLOW
    }


def malformed_requests(bench: Bench) -> dict[str, Any]:
    """Requests that nobody should send, eight at a time."""
    failures: list[dict[str, str]] = []
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    with bench.server() as server:
        name, start = bench.model.stem, time.perf_counter()
        before = pids_of(server.pid)
        requests = malformed(bench.images, name, bench.given.malformed, bench.given.seed)
        asyncio.run(_sent(requests, server.port, kinds, failures))
        last = closed_loop(bench.target(server), 1, 5)
        crashes = len(before - pids_of(server.pid))
        logged = server.wrote().count(TRACEBACK.decode())
        memory_mb = server.memory()
    return {
        "requests": sum(found.total() for found in kinds.values()),
        "seconds": round(time.perf_counter() - start, 1),
        "crashes": crashes,
        "failures": len(failures),
        "first_failures": failures[:20],
        "tracebacks_in_the_log": logged,
        "read_afterwards": last.statuses[200],
        "pss_mb": memory_mb[0],
        "answers": {kind: dict(sorted(found.items())) for kind, found in kinds.items()},
        "passed": not failures and not crashes and not logged and last.statuses[200] == 5,
    }


async def _sent(
    requests: Iterator[tuple[str, bytes]],
    port: int,
    kinds: dict[str, Counter[str]],
    failures: list[dict[str, str]],
) -> None:
    async def one() -> None:
        for kind, request in requests:
            answer = await _exchanged(port, request)
            status = answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/") else ""
            kinds[kind][status or ("closed" if answer == b"" else "no answer")] += 1
            if (status.startswith("5") and status != "503") or TRACEBACK in answer:
                failures.append({"kind": kind, "request": repr(request[:300]), "answer": repr(answer[-500:])})

    await asyncio.gather(*(one() for _ in range(8)))


async def _exchanged(port: int, request: bytes, patience: float = 2) -> bytes:
    """What a server answers on a connection of its own; `-` where nothing comes in time."""
    answer = b""
    try:
        reader, writer = await asyncio.open_connection(HOST, port, limit=2**24)
    except OSError:
        return b""
    sending = asyncio.create_task(_send(writer, request))
    try:
        async with asyncio.timeout(patience):
            answer = await reader.readuntil(b"\r\n\r\n")
        async with asyncio.timeout(0.2):
            found = answer.lower().partition(b"\r\ncontent-length:")[2].split(b"\r\n")[0]
            answer += await reader.readexactly(int(found or 0))
    except TimeoutError:
        answer = answer or b"-"
    except asyncio.IncompleteReadError as error:
        answer += error.partial
    except (OSError, asyncio.LimitOverrunError):
        pass
    sending.cancel()
    writer.transport.abort()
    return answer


async def _send(writer: asyncio.StreamWriter, request: bytes) -> None:
    with suppress(OSError):
        writer.write(request)
        await writer.drain()


def schema(bench: Bench) -> dict[str, Any]:
    """schemathesis on what the server says of itself.

    It may send what is valid by the document and no image, so that it must not ask for 2xx then.
    """
    report = bench.folder / "schemathesis.json"
    with bench.server() as server:
        before = pids_of(server.pid)
        command = [str(Path(sys.executable).with_name("schemathesis")), "run"]
        command += [f"http://{HOST}:{server.port}/openapi.json", "--max-examples", str(bench.given.examples)]
        command += ["--seed", str(bench.given.seed), "--exclude-checks", "positive_data_acceptance"]
        command += ["--continue-on-failure", "--generation-database", "none", "--no-color"]
        done = subprocess.run(
            [*command, "--report-json-path", str(report)], capture_output=True, text=True, cwd=bench.folder
        )
        crashes = len(before - pids_of(server.pid))
        logged = server.wrote().count(TRACEBACK.decode())
    if not report.is_file():
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])
    found = json.loads(report.read_text(encoding="utf-8"))
    return {
        "operations": found["operations"]["tested"],
        "cases": found["test_cases"]["generated"],
        "failures": [f"{one['title']} ({one['count']})" for one in found["failures"]],
        "errors": len(found["errors"]),
        "crashes": crashes,
        "tracebacks_in_the_log": logged,
        "passed": not found["failures"] and not found["errors"] and not crashes and not logged,
    }


def drain(bench: Bench, hanging: int = 0) -> dict[str, Any]:
    """SIGTERM with 64 requests on their way, of 16 images each, so that they are still on it."""
    names = [f"{at}.jpg" for at in range(16)]
    requests = [post("/v1/read", multipart(bench.images[at : at + 16], names)) for at in range(64)]
    with bench.server("--queue", 2048) as server:
        closed_loop(Target(server.port, requests[:8]), 8, 8)
        row = asyncio.run(_drained(server, requests, hanging))
    kept = row["answered"] == 64 and not row["lost"] and row["exit_code"] == 0
    return row | {"passed": kept and row["on_their_way"] > 0}


def drain_hanging(bench: Bench) -> dict[str, Any]:
    """The same beside a client that has sent no more than the beginning of a body."""
    return drain(bench, hanging=1)


async def _drained(server: Server, requests: Sequence[bytes], hanging: int) -> dict[str, Any]:
    hung = [await asyncio.open_connection(HOST, server.port) for _ in range(hanging)]
    for _, writer in hung:
        writer.write(_BODY)
    connections = [await Connection.to(HOST, server.port) for _ in requests]
    answers = [
        asyncio.ensure_future(one.ask(request)) for one, request in zip(connections, requests, strict=True)
    ]
    await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
    left = sum(not answer.done() for answer in answers)
    start = time.perf_counter()
    server.process.send_signal(signal.SIGTERM)
    await asyncio.wait(answers, timeout=90)
    last = time.perf_counter() - start
    code = await asyncio.to_thread(server.process.wait, 90)
    statuses: Counter[int] = Counter(
        one.result().status for one in answers if one.done() and not one.exception()
    )
    return {
        "on_their_way": left,
        "answered": statuses[200],
        "statuses": _named(statuses),
        "lost": len(requests) - statuses.total(),
        "seconds_until_last_answer": round(last, 3),
        "seconds_until_exit": round(time.perf_counter() - start, 3),
        "exit_code": code,
    }


def _named(statuses: Counter[int]) -> dict[str, int]:
    return {str(status): count for status, count in sorted(statuses.items())}


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "memory": memory,
    "kill": kill,
    "slow": slow,
    "malformed": malformed_requests,
    "schema": schema,
    "drain": drain,
    "drain-hanging": drain_hanging,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="Measure these parts.")
    parser.add_argument("--network", default="tiny", help="Serve this network of benchmarks.common.")
    parser.add_argument(
        "--requests", type=int, default=100_000, help="Send this many requests in the part memory."
    )
    parser.add_argument("--malformed", type=int, default=10_000, help="Send this many malformed requests.")
    parser.add_argument("--slow", type=int, default=100, help="Start this many slow clients of each kind.")
    parser.add_argument(
        "--patience", type=float, default=60, help="Let a slow client stay for this many seconds."
    )
    parser.add_argument(
        "--settled", type=float, default=12, help="Wait this many seconds before a worker is killed."
    )
    parser.add_argument(
        "--examples", type=int, default=200, help="Let schemathesis try this many examples of each operation."
    )
    parser.add_argument("--seed", type=int, default=0, help="Draw with this seed.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    given = parser.parse_args(arguments)
    [model] = export_networks([cast(Network, given.network)]).values()
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, generator() as clients:
        bench = Bench(model, given, clients, Path(folder))
        for name in given.parts.split(","):
            rows[name] = PARTS[name](bench)
            print(name, json.dumps(rows[name], indent=1), flush=True)
    write("serving_faults", rows, given.json)
    return 0 if all(row["passed"] for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
