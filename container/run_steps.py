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
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from container.build import Builder, environment, overlay  # noqa: E402
from container.containerfile import Image, parse  # noqa: E402
from container.started import SECRET, TOKEN, Container  # noqa: E402

REPLACED_WITHIN = 20.0  # seconds

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
    number = getattr(signal, image.stop_signal)
    try:
        heard = container.wait_hears(number)
        early = heard and "ready:" not in container.said()
        code = container.stop(number)
        found.check(f"{image.stop_signal} while it starts ends it", early and code != -1, f"exit code {code}")
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
