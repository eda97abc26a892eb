"""How fast the server is under load, beside reading in one process and other servers with the same network.

    python -m benchmarks.serving.load [--networks compact,paper] [--clients 1,32,256] [--images 1000]
        [--rounds 5] [--seconds 120] [--peers read,infer,litserve,litserve-together,triton] [--json FILE]

Every request is one JPEG file of a drawn word. All servers run at once. They are loaded in turn, round by
round, each with all images. Then `Recognizer.read` reads the same images in this process. CPU time is that of
all processes of a server together. The servers and this process stay on one CPU. The clients are a process of
their own, on another CPU.

At the end requests come at random moments for --seconds: first at a server's capacity, then at twice that.
The capacity is the rate that the server reached with the most clients.

LitServe runs this toolkit's recogniser in two ways: image by image, and with up to 32 requests at a time,
which the recogniser groups by width. Its environment is made in .benchmarks/ if it is absent. Triton is the
server in nvidia-pytriton's wheel; TRITON_VENV names its environment. It runs what `crnn-deploy triton
--layout python` writes. The script needs the extras [cpu,export,serve].
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any, cast

from benchmarks.common import Network, export_networks, measured, options, write
from benchmarks.process_tree import cpu_seconds, memory_mb
from benchmarks.serving.clients import Outcome, Target, closed_loop, generator, open_loop, percentiles
from benchmarks.serving.peers import OURS, PEERS, Peer, opened
from crnn_deploy.evaluation.speed import draw_images
from crnn_deploy.runtime.recognizer import Recognizer

__all__ = ["main"]

IN_PROCESS = "in process"


def other_texts(
    peers: dict[str, Peer], expected: Sequence[str], clients: ProcessPoolExecutor
) -> dict[str, int]:
    """How many texts of each server differ from those that are read here; this warms the servers up."""
    different = {}
    for name, peer in peers.items():
        outcome = clients.submit(closed_loop, peer.target, 8, len(expected), keep=True).result()
        if outcome.lost or outcome.statuses.keys() != {200}:
            raise RuntimeError(f"{name} answers {dict(outcome.statuses)}, {outcome.lost} lost")
        different[name] = sum(peer.text(outcome.bodies[at]) != text for at, text in enumerate(expected))
    return different


class Rounds:
    """What was measured of one server with so many clients."""

    def __init__(self) -> None:
        self.cpu: list[float] = []  # CPU-milliseconds an image
        self.clock: list[float] = []  # milliseconds an image
        self.percentiles: dict[str, list[float]] = {"p50": [], "p95": [], "p99": []}
        self.busy = 0.0

    def take(self, outcome: Outcome, cpu: float) -> None:
        images = len(outcome.accepted)
        self.cpu.append(max(cpu, 0.01) / images * 1e3)  # the kernel counts in hundredths of a second
        self.clock.append(outcome.seconds / images * 1e3)
        for name, value in percentiles(outcome.accepted).items():
            self.percentiles[name].append(value)
        self.busy = max(self.busy, outcome.busy)

    def row(self, in_process: Sequence[float]) -> dict[str, Any]:
        return {
            "cpu_per_image": measured(self.cpu, "CPU ms"),
            "images_per_cpu_second": round(1e3 / median(self.cpu), 1),
            "of_in_process": round(median(a / b for a, b in zip(in_process, self.cpu, strict=True)), 3),
            "images_per_second": round(1e3 / median(self.clock), 1),
            **{name: measured(values, "ms") for name, values in self.percentiles.items()},
            "clients_busy": self.busy,
        }


def closed(
    peers: dict[str, Peer],
    here: Callable[[], object],
    many: Sequence[int],
    rounds: int,
    clients: ProcessPoolExecutor,
) -> dict[str, Any]:
    """Rounds in turn: this process, and every server with every number of clients."""
    images = len(next(iter(peers.values())).target.requests)
    own: list[float] = []
    runs = {(name, some): Rounds() for some in many for name in peers}
    for _ in range(rounds):
        start = time.process_time()
        here()
        own.append((time.process_time() - start) / images * 1e3)
        for (name, some), run in runs.items():
            peer = peers[name]
            before = cpu_seconds(peer.pid)
            # one client alone takes as long for a tenth of the images
            count = images if some > 1 else max(images // 10, 1)
            outcome = clients.submit(closed_loop, peer.target, some, count).result()
            run.take(outcome, cpu_seconds(peer.pid) - before)
            if outcome.lost or outcome.statuses.keys() != {200}:
                raise RuntimeError(f"{name}: {dict(outcome.statuses)}, {outcome.lost} lost")
    rows: dict[str, Any] = {
        IN_PROCESS: {
            "cpu_per_image": measured(own, "CPU ms"),
            "images_per_cpu_second": round(1e3 / median(own), 1),
        }
    }
    print(f"{1e3 / median(own):8.1f} images a CPU-second             {IN_PROCESS}", flush=True)
    for (name, some), run in runs.items():
        row = rows[f"{some} clients: {name}"] = run.row(own)
        times = " ".join(f"{at} {row[at]['median']:.4g}" for at in run.percentiles)
        print(
            f"{row['images_per_cpu_second']:8.1f} images a CPU-second, {row['of_in_process']:.0%} "
            f"{row['images_per_second']:8.1f} a second, ms {times}; {some} clients: {name}",
            flush=True,
        )
    return rows


def arriving(
    peer: Peer, capacity: float, times: float, seconds: float, clients: ProcessPoolExecutor
) -> dict[str, Any]:
    """Requests at random at `times` a server's capacity, and its memory while they come."""
    before = cpu_seconds(peer.pid)
    target = Target(peer.target.port, peer.target.requests, peer.target.host)
    load = clients.submit(open_loop, target, capacity * times, seconds)
    memory = []
    while not load.done():
        memory.append(memory_mb(peer.pid)[1])
        time.sleep(min(seconds / 50, 2))
    outcome = load.result()
    row = {
        "arrivals_per_second": round(capacity * times, 1),
        "seconds": round(outcome.seconds, 1),
        "statuses": {str(status): count for status, count in sorted(outcome.statuses.items())},
        "lost": outcome.lost,
        "lost_because": dict(outcome.reasons),
        "accepted_ms": percentiles(outcome.accepted),
        "refused_ms": percentiles(outcome.refused),
        "images_per_second": round(len(outcome.accepted) / outcome.seconds, 1),
        "images_per_cpu_second": round(len(outcome.accepted) / max(cpu_seconds(peer.pid) - before, 0.01), 1),
        "rss_mb": memory[:: max(len(memory) // 10, 1)],
        "clients_busy": outcome.busy,
        "worst_lag_ms": round(outcome.lag * 1e3, 1),
    }
    print(f"{times} x capacity: {row}", flush=True)
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument(
        "--networks", default="compact,paper", help="Serve these networks of benchmarks.common."
    )
    parser.add_argument(
        "--clients", default="1,32,256", help="Load the servers with these numbers of clients."
    )
    parser.add_argument("--images", type=int, default=1000, help="Send this many images in each round.")
    parser.add_argument(
        "--seconds",
        type=float,
        default=120,
        help="Send requests at random for this many seconds; 0 leaves this out.",
    )
    parser.add_argument("--peers", default=",".join(PEERS), help="Compare these servers.")
    given = parser.parse_args(arguments)
    many = [int(some) for some in given.clients.split(",")]
    cpus = sorted(os.sched_getaffinity(0))
    rows: dict[str, Any] = {}
    words = [bytes(word) for word in draw_images("words", given.images)]
    with generator(cpus[-1]) as clients:
        os.sched_setaffinity(0, {cpus[0]})  # the servers inherit it
        try:
            for network, model in export_networks(cast(list[Network], given.networks.split(","))).items():
                print(network, flush=True)
                found = of_network(model, words, given, many, clients)
                rows |= {f"{network}, {name}": row for name, row in found.items()}
        finally:
            os.sched_setaffinity(0, cpus)
    write("serving_load", rows, given.json)


def of_network(
    model: Path, words: Sequence[bytes], given: Any, many: Sequence[int], clients: ProcessPoolExecutor
) -> dict[str, Any]:
    """Everything about one network."""
    recognizer = Recognizer.load(model)
    expected = [text.text for text in recognizer.read(words)]
    with (
        tempfile.TemporaryDirectory() as folder,
        opened(given.peers.split(","), model, words, Path(folder)) as (peers, missing),
    ):
        for name, reason in missing.items():
            print(f"{name} is missing: {reason}", flush=True)
        different = other_texts(peers, expected, clients)
        rows = closed(peers, lambda: recognizer.read(words), many, given.rounds, clients)
        for name, count in different.items():
            rows[f"{many[0]} clients: {name}"]["other_texts"] = count
        if given.seconds:
            most = rows[f"{max(many)} clients: {OURS}"]
            for times in (1, 2):
                row = arriving(peers[OURS], most["images_per_second"], times, given.seconds, clients)
                row["p99_to_that_at_capacity"] = round(row["accepted_ms"]["p99"] / most["p99"]["median"], 2)
                rows[f"{times} x capacity: {OURS}"] = row
    return rows | {f"{name} is missing": {"reason": reason} for name, reason in missing.items()}


if __name__ == "__main__":
    main()
