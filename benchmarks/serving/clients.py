"""Load from a process of its own: a number of clients that each wait for their answer, or requests at a rate.

A closed loop has a number of clients, and measures what a server can do. An open loop measures what its users
see. In it, requests come at random moments (a Poisson process), and the time of each runs from the moment at
which it was due. So a server that stalls cannot hide the delay.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import numpy as np

from benchmarks.serving.wire import Answer, Connection

__all__ = ["Outcome", "Target", "closed_loop", "generator", "open_loop", "percentiles"]


@dataclass(frozen=True)
class Target:
    """Where requests go, and the requests, which are sent in turn from the first on."""

    port: int
    requests: Sequence[bytes]
    host: str = "127.0.0.1"


@dataclass
class Outcome:
    """What became of the requests of one load."""

    statuses: Counter[int] = field(default_factory=Counter)
    lost: int = 0  # the connection ended, could not be made, or no answer came in time
    reasons: Counter[str] = field(default_factory=Counter)  # of what was lost in an open loop
    retried: int = 0  # sent again after that
    accepted: list[float] = field(default_factory=list)  # seconds of each answer with status 200
    refused: list[float] = field(default_factory=list)  # seconds of every other answer
    bodies: dict[int, bytes] = field(default_factory=dict)  # by the request's place, where they are kept
    seconds: float = 0.0  # from the first request to the last answer
    busy: float = 0.0  # share of a CPU that the clients took
    lag: float = 0.0  # seconds by which the clients sent a request after it was due, at worst

    def take(self, answer: Answer, seconds: float) -> None:
        self.statuses[answer.status] += 1
        (self.accepted if answer.status == 200 else self.refused).append(seconds)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    if not seconds:
        return {}
    found = np.percentile(np.asarray(seconds), (50, 95, 99)) * 1e3
    return {f"p{at}": float(f"{value:.4g}") for at, value in zip((50, 95, 99), found, strict=True)}


@contextmanager
def generator(cpu: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """The second process, to which `closed_loop` and `open_loop` are submitted; on one CPU where it is
    given."""
    place = (cpu,) if cpu is not None else ()
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=_stay_on, initargs=place
    ) as second:
        yield second


def _stay_on(cpu: int | None = None) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})


def closed_loop(
    target: Target,
    clients: int,
    count: int,
    *,
    keep: bool = False,
    tries: int = 1,
    patience: float = 120,
) -> Outcome:
    """`count` requests from clients that each send the next one when the last one is answered.

    keep: whether the answers' bodies are returned
    tries: how often a request is sent until it is lost
    patience: seconds after which a request is sent again or lost
    """
    return _measured(_closed(target, clients, count, keep, tries, patience))


def open_loop(target: Target, rate: float, seconds: float, *, seed: int = 0, patience: float = 60) -> Outcome:
    """Requests that arrive at random, `rate` a second.

    patience: seconds after the last arrival in which an answer may still come
    """
    return _measured(_open(target, rate, seconds, seed, patience))


def _measured(load: Any) -> Outcome:
    start, cpu = time.perf_counter(), time.process_time()
    outcome: Outcome = asyncio.run(load)
    outcome.busy = round((time.process_time() - cpu) / (time.perf_counter() - start), 3)
    return outcome


async def _closed(
    target: Target, clients: int, count: int, keep: bool, tries: int, patience: float
) -> Outcome:
    outcome, turns = Outcome(), iter(range(count))
    connections = [await Connection.to(target.host, target.port) for _ in range(min(clients, count))]
    began = time.perf_counter()

    async def answered(connection: Connection, request: bytes) -> tuple[Connection, Answer | None]:
        for left in reversed(range(tries)):
            try:
                if not connection.open:
                    connection = await Connection.to(target.host, target.port)
                return connection, await asyncio.wait_for(connection.ask(request), patience)
            except (OSError, TimeoutError):
                connection.close()
                outcome.retried += left > 0
        return connection, None

    async def one(connection: Connection) -> None:
        for turn in turns:
            at = turn % len(target.requests)
            start = time.perf_counter()
            connection, answer = await answered(connection, target.requests[at])
            if answer is None:
                outcome.lost += 1
                continue
            outcome.take(answer, time.perf_counter() - start)
            if keep:
                outcome.bodies[at] = answer.body
        connection.close()

    await asyncio.gather(*map(one, connections))
    outcome.seconds = time.perf_counter() - began
    return outcome


async def _open(target: Target, rate: float, seconds: float, seed: int, patience: float) -> Outcome:
    outcome, idle = Outcome(), list[Connection]()
    due = np.cumsum(np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds * 1.2) + 20))
    running: set[asyncio.Task[None]] = set()
    began = time.perf_counter()

    async def one(request: bytes, start: float) -> None:
        try:
            while idle and not idle[-1].open:
                idle.pop()
            connection = idle.pop() if idle else await Connection.to(target.host, target.port)
            answer = await connection.ask(request)
        except OSError as error:
            outcome.lost += 1
            outcome.reasons[str(error)] += 1
            return
        outcome.take(answer, time.perf_counter() - start)
        idle.append(connection)

    for at, when in enumerate(due[due < seconds].tolist()):
        if (wait := began + when - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        else:
            outcome.lag = max(outcome.lag, -wait)
            if at % 16 == 0:
                await asyncio.sleep(0)  # answers are taken even where the clients are late
        task = asyncio.create_task(one(target.requests[at % len(target.requests)], began + when))
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        _, late = await asyncio.wait(running, timeout=patience)
        outcome.lost += len(late)
        outcome.reasons.update({"no answer in time": len(late)} if late else {})
        for task in late:
            task.cancel()
    outcome.seconds = time.perf_counter() - began
    for connection in idle:
        connection.close()
    return outcome
