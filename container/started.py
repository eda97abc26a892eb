"""An image's process, started as a container engine starts it: in namespaces of its own, with few rights."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from container.build import environment
from container.containerfile import Image

__all__ = ["SECRET", "TOKEN", "Container"]

TOKEN = "a-token-of-this-run"
SECRET = "crnn-deploy-tokens"
READY_WITHIN = 60.0  # seconds

# $1: the root, $2: a file of tokens or nothing, $3: whether there is a /tmp to write; the rest is run
START = """
set -e
cd "$1"; secret="$2"; tmp="$3"; shift 3
mount -t proc proc proc
mount -t tmpfs -o mode=755,nosuid,noexec tmpfs dev
for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "dev/${device%:*}" c 1 "${device#*:}"
done
mkdir dev/shm
mount -t tmpfs -o mode=1777,nosuid,nodev,noexec tmpfs dev/shm
mount -t tmpfs -o mode=755,nosuid,nodev,noexec tmpfs run
if [ -n "$secret" ]; then
    mkdir run/secrets
    cp "$secret" run/secrets/
    chmod 444 run/secrets/*
fi
mount -o remount,ro run
if [ "$tmp" = yes ]; then mount -t tmpfs -o mode=1777,size=64m,nosuid,nodev,noexec tmpfs tmp; fi
python3 -c 'import fcntl, socket, struct  # the loopback interface is switched on
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 1))'
exec chroot . "$@"
"""

# run inside the container by its own Python, the image on stdin; prints status, type and body of the answer
CLIENT = """
import json, sys
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener
request = Request("http://127.0.0.1:8000/v1/read", sys.stdin.buffer.read(), {"Content-Type": "image/png"})
if len(sys.argv) > 1:
    request.add_header("Authorization", "Bearer " + sys.argv[1])
try:
    answer = build_opener(ProxyHandler({})).open(request, timeout=30)
except HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.headers.get_content_type(), json.load(answer)]))
"""


class Container:
    """The image's process, started; its standard error in a file."""

    def __init__(self, root: Path, image: Image, command: Sequence[str], log: Path, *, tmp: bool = True):
        user, _, group = image.user.partition(":")
        rights = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
        self._inside = ["setpriv", f"--reuid={user}", f"--regid={group or user}", *rights]
        self._inside += environment(image.environment)
        secret = log.with_name(SECRET)
        secret.write_text(f"{TOKEN}\n", encoding="ascii")
        self.log = log
        unshare = ["unshare", "--mount", "--pid", "--fork", "--ipc", "--uts", "--net", "--kill-child"]
        line = [*unshare, "sh", "-c", START, "sh", str(root), str(secret), "yes" if tmp else "no"]
        line += [*self._inside, *image.entry_point, *command]
        self.began = time.monotonic()
        with log.open("wb") as file:
            self._engine = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        children = Path(f"/proc/{self._engine.pid}/task/{self._engine.pid}/children")
        while not (pids := children.read_text().split()) and self._engine.poll() is None:
            time.sleep(0.01)
        self.pid = int(pids[0]) if pids else 0  # of the image's process 1, as this machine has it

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def execute(
        self, command: Sequence[str], given: bytes = b"", wait: float = 60.0
    ) -> subprocess.CompletedProcess[bytes]:
        """A command inside, as `docker exec` has it."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--ipc", "--uts", "--net", "--root"]
        line = [*enter, "--wd=/", *self._inside, *command]
        return subprocess.run(line, input=given, capture_output=True, timeout=wait)

    def read(self, picture: bytes, *token: str) -> tuple[int, str, dict[str, object]]:
        done = self.execute(["python", "-I", "-c", CLIENT, *token], picture)
        if done.returncode:
            raise SystemExit(f"the client failed: {done.stderr.decode(errors='replace')}")
        status, kind, body = json.loads(done.stdout)
        return status, kind, body

    def processes(self) -> dict[int, dict[str, str]]:
        """The fields of /proc/PID/status of process 1 and all below it."""
        found, left = {}, [self.pid]
        while left:
            pid = left.pop()
            with suppress(OSError):
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
                found[pid] = {key: value.strip() for key, value in (line.split(":", 1) for line in lines)}
                left += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def wait_ready(self) -> bool:
        while time.monotonic() - self.began < READY_WITHIN and self._engine.poll() is None:
            if "ready:" in self.said():
                return True
            time.sleep(0.05)
        return False

    def wait_hears(self, number: int) -> bool:
        """Wait until process 1 has asked for a signal; the kernel gives a process 1 no others."""
        while time.monotonic() - self.began < READY_WITHIN and self._engine.poll() is None:
            with suppress(OSError):
                lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
                caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
                if int(caught, 16) >> (number - 1) & 1:
                    return True
            time.sleep(0.005)
        return False

    def stop(self, number: int) -> int:
        """Send process 1 a signal from outside, as an engine does, and wait for its end; the exit code."""
        with suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, number)
        try:
            return self._engine.wait(30)
        except subprocess.TimeoutExpired:
            self._engine.kill()
            return -1

    def wait(self) -> int:
        """The exit code of a process that ends by itself; -1 for one that does not."""
        try:
            return self._engine.wait(READY_WITHIN / 4)
        except subprocess.TimeoutExpired:
            return -1
