"""The machines of a run: a Ray of its own on this one, or a Ray cluster that is there.

Ray runs the code of anyone who reaches its ports, so a token is asked for on both (docs/cluster.md).
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from crnn_deploy.cluster.plan import Chunk
from crnn_deploy.cluster.reader import ChunkReader, Receipt
from crnn_deploy.cluster.task import Task
from crnn_deploy.cluster.token import ClusterUnreachable, check_token
from crnn_deploy.errors import CrnnDeployError, LibraryMissing, first_line

__all__ = [
    "ClusterFailed",
    "Nodes",
    "NodesMissing",
    "connected",
    "read_chunks",
    "workers_that_fit",
]

_STORE_BYTES = 200 * 2**20  # of objects, on a Ray of the command's own: only the model goes through it
_PATIENCE = 10.0  # seconds, for a connection to a cluster and for a thread that has been told to end
_RETRIES = 10  # of a chunk whose worker or node ends
_QUIET = {
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what matters is raised
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing leaves the machine
    # without workers that nobody uses and without metrics, a Ray begins in 1.2 s of CPU less
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a thread of Ray Data that outlives Ray would start another one
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # CUDA_VISIBLE_DEVICES stays as it is for actors without a GPU
}


class ClusterFailed(CrnnDeployError, RuntimeError):
    """Ray that ends before the run does."""

    exit_code = 1

    def __init__(self, reason: str) -> None:
        super().__init__(f"Ray ended with an error: {reason}; what was read is kept; go on with --resume")


class NodesMissing(CrnnDeployError, ValueError):
    """A cluster without the CPUs or GPUs that one worker takes."""

    def __init__(self, needed: str, there: str) -> None:
        super().__init__(
            f"a worker needs {needed}, and no node has so many (the cluster has {there}); ask for fewer with "
            "--cpus-per-worker or --gpus-per-worker"
        )


@dataclass(frozen=True)
class Nodes:
    """Which machines read, and with how much of each."""

    address: str | None = None  # of a Ray cluster; None: this machine alone
    without_token: bool = False
    workers: int | None = None  # None: as many as fit
    cpus: int = 1  # of each worker, which reads in as many threads
    gpus: float = 0  # of each worker


@contextmanager
def connected(address: str | None, *, without_token: bool = False) -> Iterator[None]:
    """Within the block, Ray is there; one that was started for it ends with it.

    address: of a cluster, as HOST:PORT or auto; None: this machine alone
    without_token: whether a cluster that asks for no token may be used
    Raises LibraryMissing, ClusterOpen, TokenRefused, ClusterUnreachable, ClusterFailed.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not without_token:
        os.environ["RAY_AUTH_MODE"] = "token"
    if address is None:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        # with this, all processes of Ray listen on loopback, and else on all interfaces
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    with _hushed():
        ray = _ray()
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised or told by a receipt
    given: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if address is None:
        given |= {
            "address": "local",  # else Ray takes the cluster of RAY_ADDRESS or of this machine
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
            "_node_ip_address": "127.0.0.1",
        }
    else:
        given["address"] = address = _resolved(address)
        if not without_token:
            check_token(address)
    try:
        with _hushed(), _sigterm_kept():
            ray.init(**given)
    except Exception as error:  # of no class of its own where a node takes too long to start
        if address is None:
            raise ClusterFailed(first_line(error)) from error
        raise ClusterUnreachable(address, first_line(error)) from error
    try:
        # Ray says there at length that a worker has ended; receipts, and their lack, tell what matters
        with open(os.devnull, "w", encoding="utf-8") as nothing, redirect_stdout(nothing):
            yield
    finally:
        with suppress(Exception), _hushed():
            ray.shutdown()


@contextmanager
def _hushed() -> Iterator[None]:
    """Within the block, native code says nothing on stderr: Ray begins with lines about its own settings."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """After the block SIGTERM is answered as before: Ray has it end the process with a stack trace.

    Within it Ray ends the process with an exit code of its own, which becomes KeyboardInterrupt.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _resolved(address: str) -> str:
    """HOST:PORT of a cluster that answers there. Raises ClusterUnreachable."""
    if "://" in address:
        raise ClusterUnreachable(
            address, "it must be HOST:PORT, without ray://; run the command on a node of the cluster"
        )
    given = address
    if given == "auto":
        address = _address_of_this_machine()
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 2**16):
        raise ClusterUnreachable(given, "it must be HOST:PORT, such as 10.0.0.1:6379, or auto")
    try:  # Ray itself tries for 40 seconds
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE).close()
    except OSError as error:
        raise ClusterUnreachable(address, error.strerror or str(error)) from error
    return address


def _address_of_this_machine() -> str:
    """HOST:PORT of the cluster that this machine belongs to. Raises ClusterUnreachable."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address("auto")
    except ConnectionError:
        found = None
    if found is None:
        raise ClusterUnreachable("auto", "no Ray runs on this machine")
    return str(found)


def workers_that_fit(cpus: float, gpus: float) -> int:
    """How many workers the nodes have room for at a time. Raises NodesMissing."""
    nodes = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
    rooms = [
        min(int(node.get("CPU", 0) // cpus), int(node.get("GPU", 0) // gpus) if gpus else 2**31)
        for node in nodes
    ]
    if not sum(rooms):
        needed = _told(cpus, "CPU") + (f" and {_told(gpus, 'GPU')}" if gpus else "")
        there = "; ".join(
            f"{_told(node.get('CPU', 0), 'CPU')} and {_told(node.get('GPU', 0), 'GPU')}" for node in nodes
        )
        raise NodesMissing(needed, there)
    return sum(rooms)


def _told(number: float, unit: str) -> str:
    return f"{number:g} {unit}" + "s" * (number > 1 or number == 0)


def read_chunks(
    task: Task,
    chunks: Iterable[Chunk],
    *,
    workers: int,
    cpus: float,
    gpus: float,
) -> Iterator[Receipt]:
    """Receipts of all chunks, each as soon as it is there, in any order.

    A chunk whose worker or node ends is given to another one, some times; one that ends its worker each time
    gives no receipt. Iterated within `connected`, and closed before that is left: while a thread waits for a
    receipt, Ray's shutdown ends the process without a word. Raises ClusterFailed.
    """
    ray = _ray()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = -1  # what is passed over is told: it has no receipt, and the proof counts it
    items = [asdict(chunk) for chunk in chunks]
    held = ray.put(task)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # max_task_retries has no other way in yet
        receipts = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Actor,
            fn_constructor_args=([held],),  # in a list, so that an actor that begins again fetches it again
            batch_size=1,
            batch_format="pyarrow",
            # 1: a chunk that ends its worker costs no other one a retry
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
            num_cpus=cpus,
            num_gpus=gpus,
            max_task_retries=_RETRIES,
        )
    batches = iter(receipts.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0))
    try:
        for batch in batches:
            yield from (Receipt(**row) for row in batch.to_pylist())
    except Exception as error:
        raise ClusterFailed(first_line(error)) from error
    finally:
        with suppress(Exception):  # of a Ray that ends itself
            batches.close()
        _join_fetching_threads()


def _join_fetching_threads() -> None:
    """Ray Data fetches receipts in a thread, tells it to end and does not wait for it."""
    for thread in threading.enumerate():
        if thread.name == "iter_threaded":  # as of ray.data._internal.block_batching.util
            thread.join(_PATIENCE)


def _ray() -> Any:
    """The module ray, ray.data with it. Raises LibraryMissing."""
    try:
        import_module("ray.data")
        return import_module("ray")
    except ImportError as error:
        raise LibraryMissing("infer-cluster", "Ray", "ray") from error


class _Actor:
    """A worker of Ray Data: one chunk in, one receipt out."""

    def __init__(self, held: list[Any]) -> None:
        ray = _ray()
        self._reader = ChunkReader(ray.get(held[0]), ray.util.get_node_ip_address())

    def __call__(self, batch: Any) -> Any:
        import pyarrow

        return pyarrow.Table.from_pylist(
            [asdict(self._reader.read(Chunk(**row))) for row in batch.to_pylist()]
        )
