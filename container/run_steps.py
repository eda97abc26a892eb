"""Runs a Containerfile's steps as they are, without a container engine, and then the server that they make.

    python container/run_steps.py FOLDER [--file Containerfile]

For root on a Linux machine with debootstrap, overlayfs, unshare and nsenter. In FOLDER it makes a root file
system of Debian as a stand-in for the official Python image, which it does not pull; then it runs FROM, COPY,
RUN and the rest of the file as they stand there, each stage in an overlay of its own, and starts what
ENTRYPOINT and CMD say: as USER, as process 1 of namespaces of its own (processes, mounts, network with
loopback alone), without capabilities, and with a root that cannot be written. It prints what it found;
the exit code is 1 where something was not as it should be. It takes minutes and is no part of the tests.

Not emulated: the engine itself, its seccomp profile and user namespaces, limits of memory and CPU, published
ports, volumes, and the base image's own Python, in whose place Debian's of the same version stands.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from container.containerfile import Copy, Image, Run, Stage, files_of, parse  # noqa: E402

BASE = re.compile(r"python:(?P<version>3\.\d+)-slim-(?P<suite>\w+)")
PACKAGES = "python3,python3-venv,python3-pip,python-is-python3,ca-certificates"
HANDED_DOWN = re.compile(r"PIP_\w+|https?_proxy|no_proxy|SSL_CERT_FILE", re.IGNORECASE)  # to RUN
TOKEN = "a-token-of-this-run"
SECRET = "crnn-deploy-tokens"
READY_WITHIN = 60.0  # seconds
REPLACED_WITHIN = 20.0  # seconds

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

# an orphan: its parent ends first, so process 1 inherits it
ORPHAN = ["sh", "-c", "sleep 0.3 & exit 0"]


class Findings:
    """What was found, printed as it is."""

    def __init__(self) -> None:
        self.failed = 0

    def say(self, what: str) -> None:
        print(f"        {what}", flush=True)

    def check(self, what: str, held: bool, seen: object = "") -> None:
        self.failed += not held
        print(f"{'proved' if held else 'FAILED'}: {what}{f' ({seen})' if seen != '' else ''}", flush=True)


class Builder:
    """Makes the root file systems of a Containerfile's stages in a folder."""

    def __init__(self, work: Path, context: Path, binds: Sequence[Path]) -> None:
        self.work, self.context, self.binds = work, context, binds
        self.rules = (context / ".containerignore").read_text(encoding="utf-8")
        self.layers: dict[str, list[Path]] = {}  # of each stage, the topmost first

    def base(self, name: str) -> Path:
        """A stand-in for a base image."""
        if not (found := BASE.fullmatch(name)):
            raise SystemExit(f"there is no stand-in for FROM {name}")
        root = self.work / f"base-{found['suite']}"
        if not root.exists():
            made = root.with_name(f"{root.name}.part")
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", found["suite"], str(made)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            shutil.rmtree(made / "var/cache/apt/archives", ignore_errors=True)
            made.rename(root)
        for path in ("/etc/resolv.conf", "/etc/hosts", *map(str, self.binds)):
            place = root / path[1:]
            if Path(path).is_dir():
                place.mkdir(parents=True, exist_ok=True)
            elif not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
        said = subprocess.run(["chroot", root, "python", "-V"], capture_output=True, text=True, check=True)
        if not said.stdout.startswith(f"Python {found['version']}."):
            raise SystemExit(f"the stand-in for {name} has {said.stdout.strip()}")
        return root

    def build(self, stages: Sequence[Stage]) -> list[Path]:
        """Run all steps; the layers of the last stage, the topmost first."""
        names = [stage.name or str(at) for at, stage in enumerate(stages)]
        for name, stage in zip(names, stages, strict=True):
            lower = self.layers.get(stage.base) or [self.base(stage.base)]
            upper, scratch = self.work / f"layer-{name}", self.work / f"scratch-{name}"
            for folder in (upper, scratch):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            with overlay(self.work / f"root-{name}", lower, upper, scratch) as root:
                (root / stage.image.folder[1:]).mkdir(parents=True, exist_ok=True)
                for step in stage.steps:
                    if isinstance(step, Copy):
                        self._copy(step, root)
                    else:
                        self._run(step, root)
            self.layers[name] = [upper, *lower]
        return self.layers[names[-1]]

    def _copy(self, step: Copy, root: Path) -> None:
        print(f"COPY {' '.join(step.sources)} -> {step.target}", flush=True)
        target = root / step.target[1:]
        if step.stage is not None:
            with overlay(self.work / "root-from", self.layers[step.stage]) as source:
                for name in step.sources:
                    shutil.copytree(source / name[1:], target, symlinks=True, dirs_exist_ok=True)
            return
        for name in step.sources:
            top = self.context / name
            for path in files_of(self.context, name, self.rules):
                inside = (self.context / path).relative_to(top)
                place = target / path.name if top.is_file() else target / inside
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.context / path, place)

    def _run(self, step: Run, root: Path) -> None:
        print(f"RUN {step.line}", flush=True)
        handed_down = {name: value for name, value in os.environ.items() if HANDED_DOWN.fullmatch(name)}
        settings = {"HOME": "/root", **handed_down, **step.environment}
        binds = ["/etc/resolv.conf", "/etc/hosts", "/dev", *map(str, self.binds)]
        mounts = "\n".join(f'mount --bind "{path}" "$1{path}"' for path in binds)
        script = f'set -e\n{mounts}\nmount -t proc proc "$1/proc"\nroot="$1"; shift\nexec chroot "$root" "$@"'
        command = ["sh", "-c", f'cd {step.folder} && exec /bin/sh -c "$1"', "sh", step.line]
        unshare = ["unshare", "--mount", "--pid", "--fork", "--ipc", "--uts"]
        line = [*unshare, "sh", "-c", script, "sh", str(root), *environment(settings), *command]
        subprocess.run(line, check=True)


def environment(settings: Mapping[str, str]) -> list[str]:
    return ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in settings.items())]


@contextmanager
def overlay(
    at: Path, lower: Sequence[Path], upper: Path | None = None, scratch: Path | None = None
) -> Iterator[Path]:
    """Layers as one tree, which cannot be written where no upper layer is given."""
    at.mkdir(exist_ok=True)
    given = [("lowerdir", ":".join(map(str, lower))), ("upperdir", upper), ("workdir", scratch)]
    options = ",".join(f"{name}={value}" for name, value in given if value is not None)
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(at)], check=True)
    try:
        yield at
    finally:
        subprocess.run(["umount", str(at)], check=True)


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


def cpu_seconds(pids: Sequence[int]) -> float:
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))  # its own and that of its children that ended
    return ticks / os.sysconf("SC_CLK_TCK")


def examine(root: Path, image: Image, work: Path, found: Findings, picture: bytes, as_infer: str) -> None:
    """Start the image's process and look at it."""
    container = Container(root, image, image.command, work / "server.log")
    try:
        ready = container.wait_ready()
        found.check(
            "the command of the image gets ready", ready, f"{time.monotonic() - container.began:.2f} s"
        )
        if not ready:
            return found.say(container.said())
        found.say(next(line for line in container.said().splitlines() if "ready:" in line))
        processes = container.processes()
        found.say(f"CPU until then: {cpu_seconds(list(processes)):.2f} s, {len(processes)} processes")
        statuses = list(processes.values())
        user = image.user.partition(":")[0]
        uids = {field for status in statuses for field in status["Uid"].split()}
        found.check("every process is the image's user", uids == {user}, ", ".join(sorted(uids)))
        rights = {status["CapEff"].strip("0") + status["NoNewPrivs"] for status in statuses}
        found.check("none has capabilities or can get more", rights == {"1"})
        shell = container.execute(["sh", "-c", "touch /x /opt/crnn-deploy/x 2>&1; touch /tmp/x && echo tmp"])
        said = shell.stdout.decode().splitlines()
        refused = len(said) == 3 and all("Read-only" in line for line in said[:2]) and said[2] == "tmp"
        found.check("the root cannot be written, /tmp can", refused, "" if refused else said)
        health = container.execute(image.health)
        found.check("HEALTHCHECK succeeds", health.returncode == 0, health.stderr.decode()[-200:])
        status, kind, body = container.read(picture)
        found.check(
            "without a token a request is refused", (status, kind) == (401, "application/problem+json")
        )
        status, _, body = container.read(picture, TOKEN)
        texts = [result["text"] for result in body.get("results", [])]  # type: ignore[attr-defined]
        found.check(
            "an image is read as by infer", (status, texts) == (200, [as_infer]), f"{status}: {texts}"
        )
        cached = container.execute(["sh", "-c", "ls /tmp/crnn-deploy-v1"]).stdout.decode().split()
        found.check("the optimised graph is kept in /tmp", any(name.endswith(".onnx") for name in cached))
        container.execute(ORPHAN)
        time.sleep(2)
        zombies = [pid for pid, status in container.processes().items() if status["State"].startswith("Z")]
        found.check("process 1 leaves no zombie of a stranger", not zombies, zombies or "")
        workers = [pid for pid in container.processes() if pid != container.pid]
        if workers:
            os.kill(workers[0], signal.SIGKILL)
            alive = container.processes()
            until = time.monotonic() + REPLACED_WITHIN
            while len(alive) < len(processes) or workers[0] in alive:
                if time.monotonic() > until:
                    break
                time.sleep(0.5)
                alive = container.processes()
            status, _, body = container.read(picture, TOKEN)
            found.check(
                "a worker that was killed is replaced", status == 200 and len(alive) == len(processes)
            )
            zombies = [pid for pid, one in alive.items() if one["State"].startswith("Z")]
            found.check("and its zombie is reaped", not zombies)
        health = container.execute(image.health)
        found.check("HEALTHCHECK succeeds again", health.returncode == 0, health.stderr.decode()[-200:])
        began = time.monotonic()
        code = container.stop(getattr(signal, image.stop_signal))
        took = f"exit code {code}, {time.monotonic() - began:.2f} s"
        found.check(f"{image.stop_signal} ends it in good order", code == 0, took)
    finally:
        container.stop(signal.SIGKILL)


def examine_others(root: Path, image: Image, work: Path, found: Findings, picture: bytes, text: str) -> None:
    """What else may be asked of the image."""
    container = Container(root, image, image.command, work / "no-tmp.log", tmp=False)
    try:
        ready = container.wait_ready()
        status, _, body = container.read(picture, TOKEN) if ready else (0, "", {})
        read = ready and [one["text"] for one in body["results"]] == [text]  # type: ignore[attr-defined]
        found.check("without any place to write it reads the same", status == 200 and read)
        if not read:
            found.say(container.said())
        found.check("and SIGINT ends it too", container.stop(signal.SIGINT) in (0, 130))
    finally:
        container.stop(signal.SIGKILL)
    container = Container(root, image, image.command, work / "early.log")
    try:
        time.sleep(0.15)  # while it imports
        code = container.stop(getattr(signal, image.stop_signal))
        found.check(f"{image.stop_signal} while it starts ends it", code != -1, f"exit code {code}")
    finally:
        container.stop(signal.SIGKILL)
    open_to_all = [word for word in image.command if word not in ("--token-file", f"/run/secrets/{SECRET}")]
    container = Container(root, image, open_to_all, work / "no-token.log")
    try:
        code = container.wait()
    finally:
        container.stop(signal.SIGKILL)
    found.check("without a token file it does not start", code == 2, container.said().strip())
    container = Container(root, image, ["doctor"], work / "doctor.log")
    code = container.wait()
    found.check("another command of the toolkit runs", code in (0, 1), f"doctor: exit code {code}")


def size_of(layer: Path) -> tuple[int, int]:
    """Bytes of a layer's files, and of its archive as a registry keeps it."""
    files = {status.st_ino: status.st_size for path in layer.rglob("*") if (status := path.lstat())}
    tar = subprocess.Popen(["tar", "-C", str(layer), "-c", "."], stdout=subprocess.PIPE)
    packed = subprocess.run(["sh", "-c", "gzip | wc -c"], stdin=tar.stdout, capture_output=True, check=True)
    tar.wait()
    return sum(files.values()), int(packed.stdout)


def text_by_infer(root: Path, image: Image, work: Path, picture: Path) -> str:
    """What `infer` of the image reads in a picture."""
    script = 'mount --bind "$1" "$2/mnt"; root="$2"; shift 2; exec chroot "$root" "$@"'
    line = ["unshare", "--mount", "sh", "-c", script, "sh", str(picture.parent), str(root)]
    line += [*environment(image.environment), *image.entry_point, "infer", f"/mnt/{picture.name}"]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip().split("\t")[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the roots are made; they stay there")
    parser.add_argument("--file", type=Path, default=ROOT / "Containerfile")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--bind", type=Path, action="append", default=[], help="a path that RUN sees too")
    parser.add_argument("--picture", type=Path, default=ROOT / "examples" / "images" / "01.png")
    parser.add_argument("--no-build", action="store_true", help="take the layers of an earlier run")
    given = parser.parse_args()
    work = given.folder.resolve()
    work.mkdir(parents=True, exist_ok=True)
    arguments = dict(pair.split("=", 1) for pair in given.build_arg)
    stages = parse(given.file.read_text(encoding="utf-8"), arguments)
    builder = Builder(work, ROOT, [path.absolute() for path in given.bind])
    if given.no_build:
        layers = [work / f"layer-{len(stages) - 1}", builder.base(stages[-1].base)]
    else:
        layers = builder.build(stages)
    image, found = stages[-1].image, Findings()
    for what, layer in (("what the file adds", layers[0]), ("the stand-in for its base", layers[-1])):
        size, packed = size_of(layer)
        found.say(f"{what}: {size / 1e6:.0f} MB, {packed / 1e6:.0f} MB as an archive (gzip)")
    with overlay(work / "root", layers) as root:
        absent = subprocess.run(["chroot", root, "sh", "-c", "command -v gcc cc make"], capture_output=True)
        found.check("there is no compiler", absent.stdout == b"", absent.stdout.decode())
        text = text_by_infer(root, image, work, given.picture.resolve())
        picture = given.picture.read_bytes()
        examine(root, image, work, found, picture, text)
        examine_others(root, image, work, found, picture, text)
    sys.exit(found.failed > 0)


if __name__ == "__main__":
    main()
