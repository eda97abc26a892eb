"""Three Ray nodes and a store as processes of one machine, each with a network of its own, to break them.

`inside` starts a script again in new namespaces for the network, the processes and the mounts. Nothing that
the script starts reaches a real network. All of it ends when the script ends, however that happens. Inside,
`Cluster` has a network namespace for each node and one for a store, which a bridge joins, and a small disk
that can be filled. It needs Linux, the right to make namespaces, and `ip` and `unshare`.
"""

from __future__ import annotations

import ctypes
import os
import random
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType

__all__ = ["PORT", "Cluster", "Node", "NotReady", "inside"]

PORT = 6379  # of the head node
_MARK = "CRNN_DEPLOY_NODES"
_NETWORK = "10.20.0"
_OBJECTS = 100 * 10**6  # bytes of each node's object store
# a node that is gone is noticed after this; Ray's own defaults wait half a minute
_HEALTH = {
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


class NotReady(RuntimeError):
    """A node that does not start; says what it wrote."""


def inside(module: str) -> None:
    """Start a module again in namespaces of its own, with the same arguments, unless it is there already.

    Bash is the first process there, so that it collects those whose parents have ended.
    """
    if os.environ.get(_MARK):
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        names = Path("/run/netns")  # where `ip netns` keeps its names: out of the machine's own folder
        names.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(names)], check=True)
        return
    os.environ[_MARK] = "1"
    again = [sys.executable, "-m", module, *sys.argv[1:]]
    apart = ["unshare", "-n", "-p", "-m", "--fork", "--kill-child", "--mount-proc"]
    os.execvp("unshare", [*apart, "bash", "-c", '"$@"; exit $?', "nodes", *again])


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def _set_network(file: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(file, 0):
        raise OSError(ctypes.get_errno(), "the network namespace cannot be entered")


class _Namespace:
    """A network namespace with one address on the bridge."""

    def __init__(self, name: str, last: int) -> None:
        self.name, self.address = name, f"{_NETWORK}.{last}"
        _run("ip", "netns", "add", name)
        _run("ip", "link", "add", f"{name}-out", "type", "veth", "peer", "name", "eth0", "netns", name)
        _run("ip", "link", "set", f"{name}-out", "master", "bridge0", "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")
        _run("ip", "-n", name, "address", "add", f"{self.address}/24", "dev", "eth0")
        _run("ip", "-n", name, "link", "set", "eth0", "up")
        _run("ip", "-n", name, "route", "add", "default", "via", f"{_NETWORK}.1")

    def command(self, command: Sequence[object]) -> list[str]:
        return ["ip", "netns", "exec", self.name, *map(str, command)]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within the block, this thread is in it, and so are the processes and threads that it starts."""
        with open("/proc/thread-self/ns/net", "rb") as before, open(f"/run/netns/{self.name}", "rb") as there:
            _set_network(there.fileno())
            try:
                yield
            finally:
                _set_network(before.fileno())

    def pids(self) -> list[int]:
        """Processes in it."""
        told = subprocess.run(["ip", "netns", "pids", self.name], check=True, capture_output=True, text=True)
        return [int(line) for line in told.stdout.split()]

    def cable(self, plugged: bool) -> None:
        """Plug or unplug its cable: while it is out, packets are lost and no connection is refused."""
        _run("ip", "link", "set", f"{self.name}-out", "up" if plugged else "down")

    def kill(self) -> None:
        """End all of its processes at once, as if the power went off."""
        while pids := self.pids():
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


class Node(_Namespace):
    """A Ray node; `node0` is the head, on which the driver runs."""

    def __init__(self, number: int, folder: Path) -> None:
        super().__init__(f"node{number}", 10 + number)
        self.number, self.folder = number, folder

    def actors(self) -> list[int]:
        """Processes of Ray Data's workers."""
        found = []
        for pid in self.pids():
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::MapWorker"):
                    found.append(pid)
        return found


class Cluster:
    """Nodes and a store; within the block, all of the nodes are there.

    cpus: of each node, the head first
    rng: chooses what is killed
    environment: of nodes and drivers: a token, and what is put into it before the block
    """

    def __init__(
        self,
        cpus: Sequence[int] = (1, 1, 1),
        *,
        rng: random.Random | None = None,
    ) -> None:
        self.cpus, self._rng = tuple(cpus), rng or random.Random()
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        self.environment = {**os.environ, **token, "PATH": path, "OMP_NUM_THREADS": "1"}
        self.environment["RAY_USAGE_STATS_ENABLED"] = "0"
        self.folder = Path(mkdtemp(prefix="rn", dir="/tmp"))  # short: it holds Ray's sockets
        self.disk = self.folder / "disk"
        self.disk.mkdir()
        _run(
            "mount", "-t", "tmpfs", "none", self.disk
        )  # before the nodes, which keep the mounts they began with
        _run("ip", "link", "add", "bridge0", "type", "bridge")
        _run("ip", "address", "add", f"{_NETWORK}.1/24", "dev", "bridge0")
        _run("ip", "link", "set", "bridge0", "up")
        self.nodes = [Node(number, self.folder / f"n{number}") for number in range(len(cpus))]
        self.store = _Namespace("store", 9)

    @property
    def head(self) -> Node:
        return self.nodes[0]

    @property
    def address(self) -> str:
        """What --address takes."""
        return f"{self.head.address}:{PORT}"

    def __enter__(self) -> Cluster:
        try:
            for node in self.nodes:
                self.start_node(node)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for namespace in (*self.nodes, self.store):
            namespace.kill()
        _run("umount", self.disk)
        shutil.rmtree(self.folder, ignore_errors=True)

    def start_node(self, node: Node) -> None:
        """Start a node, or start it again. Raises NotReady."""
        where = ["--head", "--port", PORT, "--include-dashboard=false"]
        if node is not self.head:
            where = ["--address", self.address]
        options = ["--num-cpus", self.cpus[node.number], "--object-store-memory", _OBJECTS]
        own = ["--node-ip-address", node.address, "--temp-dir", node.folder]
        done = subprocess.run(
            node.command(["ray", "start", *where, *options, *own, "--disable-usage-stats"]),
            env={**self.environment, **_HEALTH},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise NotReady(
                f"{node.name} does not start; it wrote:\n{done.stdout[-1000:]}{done.stderr[-1000:]}"
            )

    def mend(self) -> None:
        """Start the nodes again of which nothing runs. Raises NotReady."""
        for node in self.nodes:
            if not node.pids():
                self.start_node(node)

    def kill_worker(self) -> int | None:
        """SIGKILL the process of an actor; the number of its node, None where there is no actor."""
        actors = [(node, pid) for node in self.nodes for pid in node.actors()]
        if not actors:
            return None
        node, pid = self._rng.choice(actors)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return node.number

    def kill_node(self) -> Node:
        """End all processes of a node at once, of any but the head, on which the driver runs."""
        node = self._rng.choice([node for node in self.nodes[1:] if node.pids()] or self.nodes[1:])
        node.kill()
        return node

    def driver(self, command: Sequence[object], log: Path) -> subprocess.Popen[bytes]:
        """Start a command on the head node, with the token; the process is the command's own.

        log: gets what it writes, after what is there
        """
        with log.open("ab") as written:
            return subprocess.Popen(
                self.head.command(command),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
            )

    @contextmanager
    def store_unplugged(self) -> Iterator[None]:
        """Within the block, the store's packets are lost."""
        self.store.cable(False)
        try:
            yield
        finally:
            self.store.cable(True)

    def size_disk(self, kilobytes: int) -> None:
        """Make the small disk hold this much, which may be less than what is on it."""
        _run("mount", "-o", f"remount,size={kilobytes}k", self.disk)
