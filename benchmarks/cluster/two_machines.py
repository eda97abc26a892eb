"""Whether a training on two machines gives the same bits after it was killed in the middle and resumed.

    python -m benchmarks.cluster.two_machines [--steps 200] [--json FILE]

Two network namespaces stand for the machines. Each has an address on a bridge, its own processes and its own
cache. An S3 server (`benchmarks.cluster.object_store`) answers from the bridge. `dataset pack` writes drawn
numbers there as shards (tars), and torchrun trains with gloo over the bridge. The cases:

- whole: two machines, without a stop
- killed 1, killed 0: all processes of a machine end at once (SIGKILL) in the middle of a training. 1 is the
  second machine; 0 is the first, which writes. Then both resume.
- silent: the second machine's cable is pulled, so nothing says that it is gone. After some seconds both are
  ended and started again.
- one machine: two processes of one machine

Everything in last.pth must be equal bit for bit: weights, average, optimiser, random numbers. If one differs,
the exit code is 1. The script needs root, iproute2 and util-linux, an S3 server, and the extras [ray,train].
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.cluster.object_store import BUCKET, object_store
from benchmarks.common import write

__all__ = ["differences", "main"]

ROOT = Path(__file__).parents[2]
SHARDS = f"s3://{BUCKET}/numbers"
NETWORK = "10.9.0"
STORE = f"{NETWORK}.254"
PORT = 29500
PATIENCE = 300.0  # seconds for a training
RECIPE = """blank = "first"
color = "gray"
height = 16
[width]
minimum = 32
maximum = 160
multiple = 8
"""
# a network and processes of their own; they end with the command that began them
_ALONE = ("unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc")


class Machine:
    """A network namespace behind a bridge, in which a training runs."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.folder = number, folder
        self.address = f"{NETWORK}.{number + 1}"
        self._cable = f"machine{number}"
        self._holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.training: subprocess.Popen[bytes] | None = None
        own = f"/proc/{self._holder.pid}/ns/net"
        while os.stat(own).st_ino == os.stat("/proc/self/ns/net").st_ino:
            time.sleep(0.01)
        _ip(f"link add {self._cable} type veth peer name eth0 netns {self._holder.pid}")
        _ip(f"link set {self._cable} master bridge0 up")
        for line in ("link set lo up", f"address add {self.address}/24 dev eth0", "link set eth0 up"):
            self._run("ip", *line.split())

    @property
    def log(self) -> Path:
        return self.folder / f"machine{self.number}.log"

    def start(self, config: Path, out: Path, launch: Sequence[str], *, resume: bool) -> None:
        """Begin a training; its processes are in a process namespace of their own."""
        command = [sys.executable, "-m", "torch.distributed.run", *launch, "-m", "crnn_deploy", "train"]
        command += ["--config", str(config), "--set", f"out={out}"]
        command += ["--set", f"cache.folder={self.folder / f'cache{self.number}'}"]
        command += ["--resume"] if resume else []
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
        with self.log.open("wb") as log:
            self.training = subprocess.Popen(
                ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "unshare", *_ALONE[2:], *command],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment,
            )

    def wait(self, seconds: float = PATIENCE) -> int:
        assert self.training is not None
        return self.training.wait(seconds)

    def kill(self) -> None:
        """All processes of the training at once, as when the power fails."""
        assert self.training is not None
        self.training.kill()
        self.training.wait()

    def cable(self, state: str) -> None:
        _ip(f"link set {self._cable} {state}")

    def stop(self) -> None:
        if self.training is not None:
            self.kill()
        self._holder.kill()
        self._holder.wait()

    def _run(self, *command: str) -> None:
        subprocess.run(["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", *command], check=True)


def _ip(line: str) -> None:
    subprocess.run(["ip", *line.split()], check=True)


class Bench:
    def __init__(self, machines: Sequence[Machine], folder: Path, steps: int) -> None:
        self.machines, self.folder, self.steps = machines, folder, steps
        self.config = folder / "train.yaml"
        (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
        plain = {
            "out": "",
            "alphabet": {"string": "0123456789"},
            "recipe": str(folder / "recipe.toml"),
            "network": {"name": "compact", "scale": 0.34, "hidden": 16},
            "train": [{"path": SHARDS, "joined": 4}],
            "augment": True,
            "steps": steps,
            "batch": 8,
            "window": 4,
            "workers": 1,
            "optimizer": {"name": "adamw", "lr": 0.003},
            "save_every": 20,
            "log_every": 5,
        }
        self.config.write_text(json.dumps(plain), encoding="utf-8")  # which is YAML too

    def start(self, name: str, *, resume: bool = False) -> None:
        for machine in self.machines:
            launch = ["--nnodes", "2", "--nproc-per-node", "1", "--node-rank", str(machine.number)]
            launch += ["--master-addr", self.machines[0].address, "--master-port", str(PORT)]
            machine.start(self.config, self.folder / name, launch, resume=resume)

    def finish(self) -> None:
        """Raises RuntimeError where a machine's training fails."""
        for machine in self.machines:
            if code := machine.wait():
                raise RuntimeError(f"machine {machine.number} ends with {code}:\n{machine.log.read_text()}")

    def reach(self, step: int) -> None:
        """Wait until the first machine says that a step is done."""
        end = time.monotonic() + PATIENCE
        while f"step {step}/" not in self.machines[0].log.read_text(errors="replace"):
            if time.monotonic() > end or self.machines[0].training is None:
                raise RuntimeError(self.machines[0].log.read_text())
            time.sleep(0.02)

    def last(self, name: str) -> dict[str, Any]:
        """What last.pth holds, without the configuration, which names folders."""
        content: dict[str, Any] = torch.load(self.folder / name / "last.pth", weights_only=True)
        del content["training"]["config"]
        return content


def whole(bench: Bench) -> dict[str, Any]:
    begin = time.monotonic()
    bench.start("whole")
    bench.finish()
    return {"seconds": round(time.monotonic() - begin, 1)}


def killed(number: int) -> Callable[[Bench], dict[str, Any]]:
    def part(bench: Bench) -> dict[str, Any]:
        name, at = f"killed{number}", bench.steps // 2 + 5
        bench.start(name)
        bench.reach(at)
        bench.machines[number].kill()
        begin = time.monotonic()
        code = bench.machines[1 - number].wait()
        row = {"said_step": at, "other_ends_after_seconds": round(time.monotonic() - begin, 1)}
        row |= {"exit_code_of_the_other": code, "kept_step": bench.last(name)["training"]["step"]}
        bench.start(name, resume=True)
        bench.finish()
        return row

    return part


def silent(bench: Bench, seconds: float = 10) -> dict[str, Any]:
    at = bench.steps // 2 + 5
    bench.start("silent")
    bench.reach(at)
    bench.machines[1].cable("down")
    try:
        bench.machines[0].wait(seconds)
        waits = False
    except subprocess.TimeoutExpired:
        waits = True
    for machine in bench.machines:
        machine.kill()
    bench.machines[1].cable("up")
    row = {"said_step": at, "first_still_waits_after_seconds": seconds if waits else None}
    row["kept_step"] = bench.last("silent")["training"]["step"]
    bench.start("silent", resume=True)
    bench.finish()
    return row


def one_machine(bench: Bench) -> dict[str, Any]:
    launch = ["--standalone", "--nproc-per-node", "2"]
    begin = time.monotonic()
    bench.machines[0].start(bench.config, bench.folder / "one", launch, resume=False)
    if code := bench.machines[0].wait():
        raise RuntimeError(f"it ends with {code}:\n{bench.machines[0].log.read_text()}")
    return {"seconds": round(time.monotonic() - begin, 1)}


PARTS: dict[str, tuple[str, Callable[[Bench], dict[str, Any]]]] = {
    "whole": ("whole", whole),
    "killed 1": ("killed1", killed(1)),
    "killed 0": ("killed0", killed(0)),
    "silent": ("silent", silent),
    "one machine": ("one", one_machine),
}


def differences(one: Any, other: Any, at: str = "") -> list[str]:
    """Where two nests of values differ in a single bit."""
    if isinstance(one, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [at]
    if isinstance(one, Mapping):
        if list(one) != list(other):
            return [at]
        return [found for key in one for found in differences(one[key], other[key], f"{at}/{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [at]
        pairs = enumerate(zip(one, other, strict=True))
        return [found for place, (a, b) in pairs for found in differences(a, b, f"{at}/{place}")]
    return [] if one == other else [at]


def draw(folder: Path, count: int) -> None:
    """Numbers as PNG files and their labels."""
    folder.mkdir()
    lines = []
    for at, number in enumerate(np.random.default_rng(0).integers(0, 10_000, count).tolist()):
        image = np.full((20, 8 + 12 * len(str(number))), 230, np.uint8)
        cv2.putText(image, str(number), (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 20, 1, cv2.LINE_AA)
        cv2.imwrite(str(folder / f"{at}.png"), image)
        lines.append(f"{at}.png {number}\n")
    (folder / "labels.txt").write_text("".join(lines), encoding="utf-8")


@contextmanager
def machines(folder: Path) -> Iterator[list[Machine]]:
    _ip("link set lo up")
    _ip("link add bridge0 type bridge")
    _ip(f"address add {STORE}/24 dev bridge0")
    _ip("link set bridge0 up")
    found: list[Machine] = []
    try:
        for number in range(2):
            found.append(Machine(number, folder))
        yield found
    finally:
        for machine in found:
            machine.stop()


def inside(given: argparse.Namespace) -> int:
    """In a network of its own."""
    rows: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        both = stack.enter_context(machines(folder))
        server = stack.enter_context(object_store(folder / "store", given.store, host=STORE))
        os.environ.update(server.environment)
        draw(folder / "numbers", given.images)
        pack = ["dataset", "pack", str(folder / "numbers"), "-o", SHARDS, "--samples-per-shard", "50"]
        subprocess.run([sys.executable, "-m", "crnn_deploy", *pack], check=True, cwd=ROOT)
        bench = Bench(both, folder, given.steps)
        for name, (out, part) in PARTS.items():
            rows[name] = {"store": server.kind, "steps": given.steps, **part(bench)}
            found = differences(bench.last("whole"), bench.last(out))
            rows[name] |= {"differs_in": found[:5], "tensors_and_values_that_differ": len(found)}
            print(name, json.dumps(rows[name]), flush=True)
    if given.json is not None:
        write("two_machines", rows, given.json)
    return 1 if any(row["differs_in"] for row in rows.values()) else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--steps", type=int, default=200, help="Train for this many steps. The default is %(default)s."
    )
    parser.add_argument(
        "--images", type=int, default=1000, help="Draw this many images. The default is %(default)s."
    )
    parser.add_argument(
        "--store",
        choices=("ceph", "moto"),
        help="Start this S3 server, instead of the most real one installed.",
    )
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.inside:
        return inside(given)
    own = sys.argv[1:] if arguments is None else arguments
    command = [*_ALONE, sys.executable, "-m", "benchmarks.cluster.two_machines", "--inside", *own]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
