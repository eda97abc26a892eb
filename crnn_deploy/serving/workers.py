"""The processes of a server: one that watches, and workers that answer.

The watching process imports everything once and forks the workers, before any thread or model is in it; each
worker opens the models by itself. A worker that dies is replaced. The kernel shares new connections out among
the workers, which wait on one socket.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn

from crnn_deploy.errors import CrnnDeployError, first_line
from crnn_deploy.process import Stop
from crnn_deploy.serving.access_log import log_to_stderr
from crnn_deploy.serving.app import make_app
from crnn_deploy.serving.connection import Connection
from crnn_deploy.serving.metrics import Metrics, forget_gauges, metrics_folder
from crnn_deploy.serving.models import check_models
from crnn_deploy.serving.settings import ServerSettings
from crnn_deploy.serving.tokens import Tokens, check_exposure

__all__ = ["AddressInUse", "ServerFailed", "serve"]

_BACKLOG = 2048  # connections that wait to be accepted
_DRAIN = 60  # seconds that workers may take to answer what they accepted
_TURN = 0.5  # seconds between looks at the workers
_SOON = 10.0  # seconds; a worker that dies sooner after its start waits so long for its successor
_log = logging.getLogger("crnn_deploy.serving")


class AddressInUse(CrnnDeployError, OSError):
    """An address that a server cannot listen on."""

    def __init__(self, host: str, port: int, reason: str) -> None:
        super().__init__(f"cannot listen on {host} port {port}: {reason}; give another --host or --port")


class ServerFailed(CrnnDeployError, RuntimeError):
    """Workers that cannot begin."""


def serve(settings: ServerSettings, ready: Callable[[str], None]) -> None:
    """Answer requests until SIGTERM or Ctrl-C, and then what was accepted.

    ready: called once, with the address, when all workers answer
    Raises what `check_models` raises, TokensInvalid, Exposed, AddressInUse, and ServerFailed with what a
    worker's models raise.
    """
    log_to_stderr()
    check_models(settings.models)
    tokens = None if settings.token_file is None else Tokens.read(settings.token_file)
    check_exposure(settings.host, tokens, settings.open_to_all)
    if tokens is not None and tokens.warning is not None:
        _log.warning(tokens.warning)
    with _listening(settings.host, settings.port) as listener, metrics_folder() as folder:
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        _Workers(settings, tokens, listener, folder).watch(lambda: ready(f"http://{shown}:{port}"))


def _listening(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise AddressInUse(host, port, error.strerror or first_line(error)) from None
    return listener


class _WorkerProcess:
    """A process that answers, as the watching one knows it."""

    def __init__(self, slot: int, told: int) -> None:
        self.slot, self.told = slot, told  # `told`: the end of a pipe on which it says that it is ready
        self.since = time.monotonic()
        self.ready = False


class _Workers:
    """Starts the workers and keeps as many alive as there should be."""

    def __init__(
        self, settings: ServerSettings, tokens: Tokens | None, listener: socket.socket, folder: Path
    ) -> None:
        self._settings, self._tokens, self._listener, self._folder = settings, tokens, listener, folder
        self._workers: dict[int, _WorkerProcess] = {}
        self._next_start = 0.0  # time before which no worker is started

    def watch(self, ready: Callable[[], None]) -> None:
        announced = False
        with Stop(finishes="when what was accepted is answered") as stop:
            try:
                while not stop():
                    while len(self._workers) < self._settings.workers and time.monotonic() > self._next_start:
                        self._start()
                    self._hear(begun=announced)
                    if stop():  # the signal may have gone to the workers too
                        break
                    self._bury(begun=announced)
                    if not announced and self._all_ready():
                        announced = True
                        ready()
            finally:
                self._end()

    def _all_ready(self) -> bool:
        count = sum(worker.ready for worker in self._workers.values())
        return count == self._settings.workers

    def _start(self) -> None:
        slot = min({*range(self._settings.workers)} - {worker.slot for worker in self._workers.values()})
        told, tells = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(told)
            metrics = Metrics(self._folder, slot)
            _answer(self._settings, self._tokens, metrics, self._listener, tells)
        os.close(tells)
        self._workers[pid] = _WorkerProcess(slot, told)

    def _hear(self, *, begun: bool) -> None:
        """Wait a moment for what workers say.

        Raises ServerFailed where one cannot begin, unless the server has: then the others answer on.
        """
        pipes = {worker.told: worker for worker in self._workers.values() if not worker.ready}
        if not pipes:
            time.sleep(_TURN)
            return
        heard, _, _ = select.select([*pipes], [], [], _TURN)
        for pipe in heard:
            said = os.read(pipe, 4096).decode(errors="replace")
            if said == _READY:
                pipes[pipe].ready = True
            elif said and begun:
                _log.error("a worker cannot begin: %s", said)
            elif said:
                raise ServerFailed(said)

    def _bury(self, *, begun: bool) -> None:
        """Take note of workers that have ended."""
        for pid, status in _ended():
            if pid not in self._workers:
                continue
            worker = self._forget(pid)
            how = os.waitstatus_to_exitcode(status)
            said = f"signal {-how}" if how < 0 else f"exit code {how}"
            if not begun:
                raise ServerFailed(f"a worker ended before it was ready ({said})")
            _log.error("worker %d ended (%s); another takes its place", pid, said)
            if time.monotonic() - worker.since < _SOON:
                self._next_start = time.monotonic() + _SOON

    def _forget(self, pid: int) -> _WorkerProcess:
        worker = self._workers.pop(pid)
        os.close(worker.told)
        forget_gauges(self._folder, worker.slot)
        return worker

    def _end(self) -> None:
        """Let the workers answer what they have accepted; those that take too long are killed."""
        self._listener.close()  # else connections would wait for nobody
        for pid in self._workers:
            os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + _DRAIN
        while self._workers:
            if time.monotonic() > until:
                for pid in self._workers:
                    os.kill(pid, signal.SIGKILL)
            for pid, _ in _ended():
                if pid in self._workers:
                    self._forget(pid)
            time.sleep(0.01)


def _ended() -> Iterator[tuple[int, int]]:
    """The children that have ended, and how.

    The first process of a container inherits those of strangers too, such as what a health check left.
    """
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            yield ended


def _let_runs_finish() -> None:
    """Keep a request that comes from interrupting a network's run, which would find other data in its caches.

    Linux lets a thread that wakes go first, unless its policy is SCHED_BATCH. On one loaded CPU that costs an
    image of a small network 5 % (1.51 for 1.58 ms).
    """
    with suppress(AttributeError, OSError):  # not on macOS, and a container may forbid it
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


_READY = "ready"


class _Server(uvicorn.Server):
    """uvicorn's, which says on a pipe that it answers, and ends with its parent."""

    def __init__(self, config: uvicorn.Config, tells: int, *, ignores_interrupt: bool) -> None:
        super().__init__(config)
        self._tells, self._parent = tells, os.getppid()
        self._ignores_interrupt = ignores_interrupt

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        os.write(self._tells, _READY.encode())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGINT or not self._ignores_interrupt:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Whether to end: a worker does not outlive the process that watches it."""
        return await super().on_tick(counter) or os.getppid() != self._parent


def _answer(
    settings: ServerSettings, tokens: Tokens | None, metrics: Metrics, listener: socket.socket, tells: int
) -> NoReturn:
    """What a worker does, from the fork to its end."""
    code = 1
    try:
        # a script's job in the background ignores Ctrl-C, which reaches workers too
        ignores = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # until uvicorn answers it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _let_runs_finish()
        app = make_app(settings, metrics, tokens)
        gc.collect()
        gc.freeze()  # what is there now stays; the collector need not look at it again and again
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="uvloop",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_DRAIN,  # the parent, which kills those that take longer, may be gone
        )
        _Server(config, tells, ignores_interrupt=ignores).run([listener])
        code = 0
    except CrnnDeployError as error:
        with suppress(OSError):
            os.write(tells, str(error).encode())
        code = error.exit_code
    except BaseException:
        _log.exception("a worker failed")
    finally:
        os._exit(code)
