"""A server as a process: how to start and stop it, and what the kernel says of it and of all its children.

Linux only: CPU time and memory come from /proc. A server is the process that was started, all processes that
it started in turn, and all that stay in its session when a parent ends.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

__all__ = ["NotReady", "Server", "cpu_seconds", "crnn_deploy_server", "free_port", "memory_mb", "pids_of"]

ROOT = Path(__file__).parents[2]
TICK = os.sysconf("SC_CLK_TCK")
HOST = "127.0.0.1"


class NotReady(RuntimeError):
    """A server that did not answer in time; the message ends with what it wrote last."""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])


def _stats() -> dict[int, list[str]]:
    """Fields of /proc/PID/stat from the third one on, by process."""
    found: dict[int, list[str]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                text = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            found[int(entry)] = text.rpartition(")")[2].split()
    return found


def _family(root: int, stats: Mapping[int, Sequence[str]]) -> set[int]:
    inside = {pid for pid, fields in stats.items() if pid == root or int(fields[3]) == root}
    while more := {pid for pid, fields in stats.items() if int(fields[1]) in inside} - inside:
        inside |= more
    return {pid for pid in inside if stats[pid][0] != "Z"}


def pids_of(root: int) -> set[int]:
    """The living processes of a server."""
    return _family(root, _stats())


def cpu_seconds(root: int) -> float:
    """CPU time of a server so far, that of children that ended included."""
    stats = _stats()
    return sum(sum(map(int, stats[pid][11:15])) for pid in _family(root, stats)) / TICK


def memory_mb(root: int) -> tuple[float, float]:
    """PSS, in which shared pages count in parts, and RSS of a server, both in MB."""
    pss = rss = 0
    for pid in pids_of(root):
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        except (FileNotFoundError, ProcessLookupError):
            continue
        found = dict(re.findall(r"^(Pss|Rss): +(\d+) kB", text, re.M))
        pss += int(found.get("Pss", 0))
        rss += int(found.get("Rss", 0))
    return round(pss / 1024, 1), round(rss / 1024, 1)


class Server:
    """A server in a session of its own, ready when the block begins and gone when it ends.

    ready: looks at the server and gives its port, or None where it is not ready yet
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        ready: Callable[[Server], int | None],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        patience: float = 60,
    ) -> None:
        self.name, self.log, self.port = name, log, 0
        self._command, self._ready, self._patience = command, ready, patience
        self._environment = {**os.environ, **(environment or {})}

    def __enter__(self) -> Server:
        start = time.perf_counter()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while (port := self._ready(self)) is None:
            if self.process.poll() is not None or time.perf_counter() - start > self._patience:
                self.kill()
                said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise NotReady(f"{self.name} is not ready; it wrote:\n{said}")
            time.sleep(0.01)
        self.port, self.seconds_to_ready = port, time.perf_counter() - start
        self.cpu_to_ready = self.cpu()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        self.kill()

    def kill(self) -> None:
        """End every process of it at once."""
        for pid in pids_of(self.process.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu(self) -> float:
        return cpu_seconds(self.pid)

    def memory(self) -> tuple[float, float]:
        return memory_mb(self.pid)

    def wrote(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def crnn_deploy_server(model: str | Path, log: Path, *options: object) -> Server:
    """This toolkit's server of one model at a free port."""
    command = [sys.executable, "-m", "crnn_deploy", "serve", "--model", str(model), "--port", "0"]

    def ready(server: Server) -> int | None:
        said = re.search(rf"^ready: http://{HOST}:(\d+) ", server.wrote(), re.M)
        return int(said[1]) if said else None

    return Server("crnn-deploy serve", [*command, *map(str, options)], ready, log)
