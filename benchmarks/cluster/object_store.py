"""An S3 server on this machine, as real as the installed programs allow.

    python -m benchmarks.cluster.object_store FOLDER -- COMMAND ...

Run it after `unshare -n` and `ip link set lo up`. The server starts in the current network namespace. The
script says on stderr which server it is, makes the bucket `crops`, and runs the command with AWS_ENDPOINT_URL
and keys in its environment. The server ends with the command. Nothing protects the server, so start it only
where nobody else can reach it.

- `ceph`: RADOS Gateway, with one monitor and one OSD that keeps its objects in memory. It needs root. It
  checks keys, as Amazon does. Debian: apt-get install --no-install-recommends ceph-mon ceph-osd radosgw
  iproute2
- `moto`: Python's stand-in, which accepts every key. PyPI: moto[s3]>=5.2.5 flask flask-cors. If another
  Python than this one has them, MOTO_PYTHON names it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

__all__ = ["BUCKET", "KINDS", "ObjectStore", "installed", "object_store"]

BUCKET = "crops"
KEY, SECRET = "crnn-deploy", "not-a-secret"
_PATIENCE = 60.0  # seconds for a server to start
_MEMORY = 4 * 2**30  # bytes of objects
_CEPH = ("ceph", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
_OSD = ("ceph-osd", "-f", "-i", "0", "-c", "ceph.conf")
_CEPH_CONF = """[global]
fsid = {fsid}
mon host = 127.0.0.1:6789
mon initial members = a
mon data = {folder}/mon
mon data avail crit = 1
mon allow pool size one = true
public network = 127.0.0.0/8
auth cluster required = none
auth service required = none
auth client required = none
osd data = {folder}/osd
osd objectstore = memstore
memstore device bytes = {memory}
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/log/$name.log
rgw data = {folder}/rgw
rgw frontends = beast endpoint={host}:{port}
"""


class ObjectStore:
    """A server that runs, or is away."""

    kind: str

    def __init__(self, folder: Path, host: str, port: int) -> None:
        self.folder, self.host, self.port = folder, host, port
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a client finds the server and may use it."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.host}:{self.port}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        raise NotImplementedError

    def leave(self) -> None:
        """The server goes away; its objects stay."""
        raise NotImplementedError

    def come_back(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        """End all processes."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def _run(self, *command: str) -> None:
        """A server of its own session, so that Ctrl-C in a terminal leaves it to `stop`."""
        with (self.folder / "log" / f"{Path(command[0]).name}.out").open("ab") as log:
            self._processes.append(
                subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, start_new_session=True)
            )

    def _wait(self) -> None:
        """Until the port is open."""

        def answers() -> bool:
            with socket.socket() as tried:
                return tried.connect_ex((self.host, self.port)) == 0

        self._until(answers)

    def _until(self, done: Callable[[], bool]) -> None:
        end = time.monotonic() + _PATIENCE
        while not done():
            if time.monotonic() > end:
                raise TimeoutError(f"{self.kind} does not start; see {self.folder / 'log'}")
            time.sleep(0.1)


class Ceph(ObjectStore):
    """While it is away its port is closed: a client's connection is refused."""

    kind = "ceph"

    def start(self) -> None:
        for name in ("mon", "osd", "rgw", "run"):
            (self.folder / name).mkdir()
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        conf = _CEPH_CONF.format(
            fsid=fsid, folder=self.folder, memory=_MEMORY, host=self.host, port=self.port
        )
        (self.folder / "ceph.conf").write_text(conf, encoding="utf-8")
        self._call("ceph-mon", "--mkfs", "-i", "a", "--fsid", fsid)
        self._run("ceph-mon", "-f", "-i", "a", "-c", "ceph.conf")
        self._call("ceph", "osd", "new", osd)
        self._call("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._run(*_OSD)
        self._until(self._is_up)  # before that the next call hangs
        user = ("--uid=crops", "--display-name=crops", f"--access-key={KEY}", f"--secret-key={SECRET}")
        self._call("radosgw-admin", "user", "create", *user)
        self.come_back()

    def _is_up(self) -> bool:
        if self._processes[-1].poll() is not None:  # a young monitor has refused it
            self._processes.pop()
            self._run(*_OSD)
        return "1 up" in self._call("ceph", "osd", "stat")

    def leave(self) -> None:
        gateway = self._processes.pop()
        gateway.kill()
        gateway.wait()

    def come_back(self) -> None:
        self._run("radosgw", "-f", "-n", "client.rgw", "-c", "ceph.conf")
        self._wait()

    def _call(self, name: str, *arguments: str) -> str:
        """What a command says; a young monitor refuses one now and then ("wrong fsid")."""
        command = [name, "-c", "ceph.conf", *arguments]
        for tries_left in (2, 1, 0):
            try:
                run = subprocess.run(
                    command, cwd=self.folder, capture_output=True, text=True, timeout=_PATIENCE, check=True
                )
                break
            except subprocess.CalledProcessError:
                if not tries_left:
                    raise
                time.sleep(1)
        return run.stdout


class Moto(ObjectStore):
    """While it is away its port is open, as its objects are in its memory: a client gets no answer."""

    kind = "moto"

    def start(self) -> None:
        self._run(_moto_python(), "-m", "moto.server", "-H", self.host, "-p", str(self.port))
        self._wait()

    def leave(self) -> None:
        self._processes[0].send_signal(signal.SIGSTOP)

    def come_back(self) -> None:
        self._processes[0].send_signal(signal.SIGCONT)


KINDS: dict[str, type[ObjectStore]] = {"ceph": Ceph, "moto": Moto}


def _moto_python() -> str:
    return os.environ.get("MOTO_PYTHON") or sys.executable


def installed() -> list[str]:
    """The servers that can be started here, the realest first."""
    found = ["ceph"] if os.geteuid() == 0 and all(map(shutil.which, _CEPH)) else []
    if "MOTO_PYTHON" in os.environ or (find_spec("moto") and find_spec("flask")):
        found.append("moto")
    return found


@contextmanager
def object_store(
    folder: Path, kind: str | None = None, *, host: str = "127.0.0.1", port: int = 7480
) -> Iterator[ObjectStore]:
    """A server with the bucket BUCKET, in the current network namespace.

    folder: absolute, for what the server writes; it may not be there yet
    kind: one of KINDS; None: the realest that is installed
    Raises LookupError where none is installed.
    """
    kind = kind or next(iter(installed()), None)
    if kind is None:
        raise LookupError(
            "no S3 server is installed: apt-get install ceph-mon ceph-osd radosgw, or moto[server,s3]"
        )
    (folder / "log").mkdir(parents=True, exist_ok=True)
    server = KINDS[kind](folder, host, port)
    try:
        server.start()
        make_bucket(server)
        yield server
    finally:
        server.stop()


def make_bucket(server: ObjectStore, name: str = BUCKET) -> None:
    from pyarrow.fs import S3FileSystem

    filesystem = S3FileSystem(
        access_key=KEY,
        secret_key=SECRET,
        region="us-east-1",
        endpoint_override=f"{server.host}:{server.port}",
        scheme="http",
        allow_bucket_creation=True,
    )
    filesystem.create_dir(name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command beside a server; its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="Write what the server writes below this folder.")
    parser.add_argument("--kind", choices=KINDS, help="Start this server.")
    parser.add_argument("--host", default="127.0.0.1", help="Listen at this address.")
    parser.add_argument("--port", type=int, default=7480, help="Listen at this port.")
    parser.add_argument("command", nargs="+", help="Run this command.")
    given = parser.parse_args(arguments)
    with object_store(given.folder.absolute(), given.kind, host=given.host, port=given.port) as server:
        print(f"{server.kind} answers at {server.host}:{server.port}", file=sys.stderr)
        return subprocess.run(given.command, env={**os.environ, **server.environment}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
