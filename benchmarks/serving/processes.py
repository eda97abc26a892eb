"""A server as a process: how to start and stop it.

Linux only. A server is the process that was started, all processes that it started in turn, and all that stay
in its session when a parent ends.
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

from benchmarks.process_tree import cpu_seconds, memory_mb, pids_of

__all__ = ["NotReady", "Server", "crnn_deploy_server", "free_port"]

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"


class NotReady(RuntimeError):
    """A server that did not answer in time; the message ends with what it wrote last."""


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])


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
