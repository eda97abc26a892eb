"""CPU time and memory of `infer-cluster` on one machine, beside `infer` on the same images.

    python -m benchmarks.cluster.overhead [--images 2000,200000] [--distinct 5000] [--model latin]
        [--rows-per-file 10000] [--workers 2] [--rounds 1] [--json FILE]

The two take turns on the same folder: `infer` with --workers threads, and `infer-cluster` with as many
workers on a Ray of its own. Only --distinct images differ; further names are links to them. Texts and
confidences are compared with the records of `infer`, to the bit.

CPU time is that of all processes that a command starts, Ray's among them. It is taken in two ways, and the
larger figure counts: the kernel's account of children that have ended, and a look at all processes every
fifth of a second. The second is needed since the kernel keeps no account of workers that Ray does not wait
for.

The memory of each worker is taken every second. It is flat if the last fifth of a worker's life holds as much
as the second fifth. If a row is lost, doubled or changed, the exit code is 1. The script needs Linux, the
right to make namespaces, and the extras [cpu,ray].
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pyarrow.fs import LocalFileSystem

from benchmarks.cluster.faults import Place, compared, drawn_images, expected_of, scratch, versions
from benchmarks.cluster.nodes import inside
from benchmarks.common import write

__all__ = ["main"]

_CHILD_SUBREAPER = 36  # of prctl: children whose parent has ended become this process's own
_EVERY = 0.2  # seconds between two looks at the CPU time of all processes
_MEMORY_EVERY = 5  # so many of them one looks at the workers' memory


def linked_images(folder: Path, distinct: int, count: int) -> None:
    """`count` names in folders of 1,000, of `distinct` drawn words and some broken files."""
    drawn_images(folder, min(distinct, count))
    files = sorted(folder.glob("0*/*.jpg"))
    for at in range(len(files), count):
        if at % 1000 == 0:
            (folder / f"{at // 1000:04}").mkdir(exist_ok=True)
        os.link(files[at % len(files)], folder / f"{at // 1000:04}" / f"{at:07}.jpg")


def workers() -> dict[int, float]:
    """MB that each of Ray Data's workers holds."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with suppress(FileNotFoundError, ProcessLookupError):
                if Path(f"/proc/{entry}/cmdline").read_bytes().startswith(b"ray::MapWorker"):
                    pages = int(Path(f"/proc/{entry}/statm").read_text(encoding="ascii").split()[1])
                    found[int(entry)] = round(pages * resource.getpagesize() / 2**20, 1)
    return found


def cpu_times() -> dict[int, float]:
    """CPU seconds of each process in this namespace, without this one and without their children's."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and int(entry) != os.getpid():
            with suppress(FileNotFoundError, ProcessLookupError):
                after_name = Path(f"/proc/{entry}/stat").read_bytes().rpartition(b")")[2].split()
                found[int(entry)] = (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")
    return found


def measured(command: Sequence[object]) -> dict[str, Any]:
    """Run a command to its end and to that of all that it started."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    others = cpu_times()
    seen: dict[int, float] = {}
    start, memory = time.monotonic(), defaultdict(list)
    process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL)
    ended, seconds = False, 0.0
    for look in itertools.count():
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == process.pid:
            ended, seconds = True, time.monotonic() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        elif pid == 0:
            seen |= cpu_times()
            if not ended and look % _MEMORY_EVERY == 0:
                for worker, megabytes in workers().items():
                    memory[worker].append(megabytes)
            time.sleep(_EVERY)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    accounted = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    looked_at = sum(spent - others.get(pid, 0) for pid, spent in seen.items())
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(max(accounted, looked_at), 2),
        "exit_code": process.returncode,
        "memory": {f"worker {at}": flatness(memory[pid]) for at, pid in enumerate(memory)},
    }


def flatness(megabytes: Sequence[float]) -> dict[str, Any]:
    """MB of a worker over its life: the second and the last fifth, the peak, and up to 100 values."""
    fifth = max(1, len(megabytes) // 5)
    return {
        "second fifth": statistics.median(megabytes[fifth : 2 * fifth] or megabytes),
        "last fifth": statistics.median(megabytes[-fifth:]),
        "peak": max(megabytes),
        "every so often": list(megabytes[:: -(-len(megabytes) // 100)]),
    }


def turn(given: argparse.Namespace, images: Path, folder: Path) -> dict[str, Any]:
    """Both commands over the same images, once."""
    records, output = folder / "infer.jsonl", folder / "out"
    options = ["--model", given.model, "--workers", given.workers]
    command = [sys.executable, "-m", "crnn_deploy"]
    alone = measured([*command, "infer", *options, "-o", records, images])
    cluster = [*command, "infer-cluster", *options, "--rows-per-file", given.rows_per_file]
    ray = measured([*cluster, "-o", output, images])
    expected = expected_of(records, images)
    place = Place(str(output), str(output), LocalFileSystem())
    found = compared(place, Place(str(images), str(images), LocalFileSystem()), expected, given.rows_per_file)
    del alone["memory"]
    percent = 100 * (ray["cpu_seconds"] / alone["cpu_seconds"] - 1)
    manifest = place.manifest() or {}
    return {"infer": alone, "infer-cluster": ray, "more CPU, %": round(percent, 1)} | {
        "whole": bool(manifest.get("whole")),
        "in workers, CPU s": manifest.get("this_run", {}).get("worker_cpu_seconds"),
        **found,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images",
        default="2000,200000",
        help="Read these numbers of images, one after another. The default is %(default)s.",
    )
    parser.add_argument(
        "--distinct", type=int, default=5000, help="Draw this many images; further names are links to them."
    )
    parser.add_argument("--model", default="latin", help="Read with this model.")
    parser.add_argument(
        "--rows-per-file", type=int, default=10_000, help="Write this many rows to a file of the output."
    )
    parser.add_argument(
        "--workers", type=int, default=2, help="Use this many threads of infer, and as many workers."
    )
    parser.add_argument("--rounds", type=int, default=1, help="Measure this many rounds.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    given = parser.parse_args(arguments)
    inside("benchmarks.cluster.overhead")
    if ctypes.CDLL(None, use_errno=True).prctl(_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot adopt what Ray leaves behind")
    rows: dict[str, Any] = {}
    for count in map(int, given.images.split(",")):
        for at in range(given.rounds):
            with scratch() as folder:
                images = folder / "images"
                linked_images(images, given.distinct, count)
                row = rows[f"{count} images, round {at + 1}"] = turn(given, images, folder)
            print(f"{count} images: {json.dumps(row)}", flush=True)
    rows["set"] = {"model": given.model, "workers": given.workers, "distinct": given.distinct}
    rows["set"] |= {"rows per file": given.rows_per_file, **versions()}
    write("cluster_overhead", rows, given.json)
    runs = [row for row in rows.values() if "whole" in row]
    faults = ("lost", "doubled", "of no input", "changed")
    return int(not all(row["whole"] and not any(row[fault] for fault in faults) for row in runs))


if __name__ == "__main__":
    sys.exit(main())
