"""Whether `infer-cluster` loses or doubles a row while workers, nodes, drivers, the store and the disk fail.

    python -m benchmarks.cluster.faults [--runs 20] [--images 6000] [--rows-per-file 100] [--model latin]
        [--store ceph|moto|none] [--seed 0] [--json FILE]

Three Ray nodes of one CPU each run as processes in network namespaces. An S3 server runs in a fourth one.
Each run reads the same drawn words and broken files, from a folder into a folder, or from the store into the
store. The first run has no fault. In every other run, one to three faults come, each when a random number of
files is there:

- a worker's process is killed
- all processes of a node are killed; half of the time the node comes back at once
- the driver is killed, sometimes before it has planned
- the store is away for ten seconds, because its cable is out or its server is gone
- the disk of the output is full

After each fault the run goes on with --resume, as a person would do it, until the command says that the
output is whole. Then counts, ids, texts and confidences are compared with the records of `infer`, to the bit.
If a row is lost, doubled or changed, the exit code is 1. The script needs Linux, root, and the extras
[cpu,ray].
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from tempfile import mkdtemp
from threading import Thread
from typing import Any

import pyarrow.parquet as pq
from pyarrow.fs import FileSystem, FileType, LocalFileSystem, S3FileSystem

from benchmarks.cluster.nodes import Cluster, inside
from benchmarks.cluster.object_store import BUCKET, KINDS, ObjectStore, installed, object_store
from benchmarks.common import run_alone, word_files, write

__all__ = ["Place", "compared", "drawn_images", "expected_of", "main", "scratch", "versions"]

FAULTS = ("worker", "node", "driver", "store", "disk")
AWAY = 10.0  # seconds
_MOST_STARTS = 12
_PATIENCE = 600.0  # seconds from one start to its end
_ROOM = 2**20  # kilobytes of a disk that is not full
_PORT = 7480

Expected = dict[str, tuple[str | None, float | None, bool]]  # text, confidence and failure by name


@dataclass(frozen=True)
class Place:
    """A folder, here or in the store."""

    address: str  # as the command takes it
    path: str  # as the file system takes it
    files: FileSystem

    def below(self, name: str) -> Place:
        return Place(f"{self.address}/{name}", f"{self.path}/{name}", self.files)

    def parts(self) -> int:
        """Files of rows in it."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.path, allow_not_found=True, recursive=True)
        names = [info.base_name for info in self.files.get_file_info(selector)]
        return sum(name.startswith("part-") and name.endswith(".parquet") for name in names)

    def sizes(self) -> dict[str, int]:
        """Bytes of all files in it, by path below it."""
        from pyarrow.fs import FileSelector

        found = self.files.get_file_info(FileSelector(self.path, allow_not_found=True, recursive=True))
        return {info.path[len(self.path) + 1 :]: info.size for info in found if info.type == FileType.File}

    def manifest(self) -> dict[str, Any] | None:
        path = f"{self.path}/_run/manifest.json"
        if self.files.get_file_info(path).type != FileType.File:
            return None
        with self.files.open_input_stream(path) as file:
            found: dict[str, Any] = json.loads(file.read())
        return found


def _broken_files(folder: Path, images: Sequence[Path]) -> None:
    """Files that cannot be read: an empty one, a cut one and one of another kind for each thousand images."""
    folder.mkdir()
    for at in range(max(1, len(images) // 1000)):
        whole = images[at * 1000 % len(images)].read_bytes()
        for name, data in (("empty", b""), ("cut", whole[: len(whole) // 3]), ("other", b"no image at all")):
            (folder / f"{name}{at:03}.jpg").write_bytes(data)


def _infer(model: str, images: Path, records: Path) -> dict[str, Any]:
    """Read them on one machine; what it took."""
    command = [sys.executable, "-m", "crnn_deploy", "infer", "--model", model, "-o", records, images]
    took = run_alone([str(part) for part in command])
    if took["exit_code"] not in (0, 1):
        raise RuntimeError(f"infer ended with {took['exit_code']}")
    return took


def expected_of(records: Path, images: Path) -> Expected:
    """What the records of `infer` say of each image, by its name below the folder."""
    expected: Expected = {}
    with records.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            name = os.path.relpath(record["path"], images)
            expected[name] = (record["text"], record["confidence"], record["error"] is not None)
    return expected


def compared(output: Place, images: Place, expected: Expected, rows_per_file: int) -> dict[str, int]:
    """How the rows of an output differ from the records of `infer`."""
    columns = ["id", "path", "text", "confidence", "error"]
    table = pq.read_table(output.path, filesystem=output.files, columns=columns)
    names = Counter(path.removeprefix(f"{images.address}/") for path in table["path"].to_pylist())
    ids = Counter(table["id"].to_pylist())
    there = {at // rows_per_file << 32 | at % rows_per_file for at in range(len(expected))}
    changed = 0
    for row in table.to_pylist():
        says = (row["text"], row["confidence"], row["error"] is not None)
        wanted = expected.get(row["path"].removeprefix(f"{images.address}/"))
        # an image that failed has no text, which is an empty one where a column holds texts
        changed += wanted is not None and (says[0] or "", *says[1:]) != (wanted[0] or "", *wanted[1:])
    return {
        "rows": table.num_rows,
        "errors": sum(error is not None for error in table["error"].to_pylist()),
        "lost": len(expected.keys() - names.keys()) + len(there - ids.keys()),
        "doubled": sum(names.values()) - len(names) + sum(ids.values()) - len(ids),
        "of no input": len(names.keys() - expected.keys()) + len(ids.keys() - there),
        "changed": changed,
    }


@dataclass
class Fault:
    kind: str
    at: int  # files of rows that are there by then; -1: before there is a plan


@dataclass
class Run:
    """One run with its faults, until it is whole."""

    number: int
    where: str  # "folder", "disk" (a small one) or "store"
    faults: list[Fault]
    happened: list[dict[str, Any]] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    returning: list[Thread] = field(default_factory=list)

    @classmethod
    def drawn(cls, number: int, chunks: int, kinds: Sequence[str], rng: random.Random) -> Run:
        """Each kind of fault in turn, and up to two more."""
        if number == 0:
            return cls(number, "folder", [])
        first = kinds[(number - 1) % len(kinds)]
        chosen = [first, *rng.choices(("worker", "node", "driver"), k=rng.randrange(3))]
        where = first if first in ("disk", "store") else rng.choice(("folder", *{"store"} & {*kinds}))
        faults = [Fault(kind, rng.randrange(1, max(2, chunks * 9 // 10))) for kind in chosen]
        if first == "driver" and rng.random() < 0.25:
            faults[0].at = -1
        return cls(number, where, sorted(faults, key=lambda fault: fault.at))


class Bench:
    """The nodes, the store, the images in both and what `infer` says of them."""

    def __init__(self, given: argparse.Namespace, cluster: Cluster, images: Path, expected: Expected) -> None:
        self.given, self.cluster, self.expected = given, cluster, expected
        self.rng = random.Random(given.seed)
        self.images = {"folder": Place(str(images), str(images), LocalFileSystem())}
        self.outputs = {
            "folder": Place(str(cluster.folder / "out"), str(cluster.folder / "out"), LocalFileSystem()),
            "disk": Place(str(cluster.disk), str(cluster.disk), LocalFileSystem()),
        }
        self.images["disk"] = self.images["folder"]
        self.server: ObjectStore | None = None
        self.chunks = -(-len(expected) // given.rows_per_file)
        self.sizes: dict[str, int] = {}  # of the files of the run without a fault

    def use(self, server: ObjectStore) -> None:
        """Take a store, and put the images into it."""
        self.server = server
        os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
        keys = server.environment
        files = S3FileSystem(
            access_key=keys["AWS_ACCESS_KEY_ID"],
            secret_key=keys["AWS_SECRET_ACCESS_KEY"],
            region=keys["AWS_REGION"],
            endpoint_override=f"{server.host}:{server.port}",
            scheme="http",
            allow_delayed_open=True,
        )
        self.images["store"] = Place(f"s3://{BUCKET}/images", f"{BUCKET}/images", files)
        self.outputs["store"] = Place(f"s3://{BUCKET}/out", f"{BUCKET}/out", files)
        local = Path(self.images["folder"].path)

        def put(name: str) -> None:
            with files.open_output_stream(f"{BUCKET}/images/{name}") as stream:
                stream.write((local / name).read_bytes())

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(put, self.expected))

    def run(self, run: Run) -> dict[str, Any]:
        """One run until it is whole, compared with `infer`."""
        images, output = self.images[run.where], self.outputs[run.where].below(f"run{run.number:03}")
        log = self.cluster.folder / f"run{run.number:03}.log"
        options = ["--model", self.given.model, "--rows-per-file", self.given.rows_per_file]
        command = [sys.executable, "-m", "crnn_deploy", "infer-cluster", images.address]
        command += ["-o", output.address, "--address", self.cluster.address, *options]
        if run.where == "disk":
            self._shrink_disk(run)
        start = time.monotonic()
        whole = False
        while not whole and len(run.exit_codes) < _MOST_STARTS:
            self._start(run, [*command, *(["--resume"] if run.exit_codes else [])], output, log)
            whole = run.exit_codes[-1] in (0, 1) and bool((output.manifest() or {}).get("whole"))
            if not whole and run.where == "disk" and run.exit_codes[-1] >= 0:  # it was full, not killed
                self.cluster.size_disk(_ROOM)
        for thread in run.returning:
            thread.join()
        if not whole:
            print(log.read_text(errors="replace")[-8000:], file=sys.stderr)
        found = compared(output, images, self.expected, self.given.rows_per_file)
        manifest = output.manifest() or {}
        agreed = whole and manifest["rows"] == found["rows"] and manifest["errors"] == found["errors"]
        if run.number == 0:
            self.sizes = output.sizes()
        row = {
            "where": run.where,
            "faults": run.happened,
            "not reached": [fault.kind for fault in run.faults],
            "starts": len(run.exit_codes),
            "exit codes": run.exit_codes,
            "seconds": round(time.monotonic() - start, 1),
            "whole": whole,
            "manifest agrees": agreed,
            "files left over": sum(
                "part-" not in name or not name.endswith(".parquet")
                for name in output.sizes()
                if not name.startswith("_run/")
            ),
            **found,
        }
        output.files.delete_dir(output.path)
        return row

    def _shrink_disk(self, run: Run) -> None:
        """Make the disk full when as many files of rows are there as the fault says."""
        [fault] = [fault for fault in run.faults if fault.kind == "disk"]
        pages = {name: -(-size // 4096) * 4 for name, size in self.sizes.items()}
        parts = sorted(size for name, size in pages.items() if not name.startswith("_run/"))
        room = sum(pages.values()) - sum(parts) + sum(parts[: fault.at])
        self.cluster.size_disk(room)
        run.faults.remove(fault)
        run.happened.append({"fault": "disk", "kilobytes": room, "of": sum(pages.values())})

    def _start(self, run: Run, command: Sequence[object], output: Place, log: Path) -> None:
        """The driver from its start to its end, with the faults that come until then."""
        began = time.monotonic()
        early = self.rng.uniform(0.2, 6)  # seconds, for a fault before there is a plan
        process = self.cluster.driver(command, log)
        while process.poll() is None:
            time.sleep(0.05)
            if time.monotonic() - began > _PATIENCE:
                process.kill()
                run.happened.append({"fault": "none", "hung": _PATIENCE})
            elif run.faults and (fault := run.faults[0]).at < 0:
                if time.monotonic() - began > early:
                    run.faults.pop(0)
                    self._happen(run, fault, process, began, 0)
            elif run.faults and (there := output.parts()) >= run.faults[0].at:
                self._happen(run, run.faults.pop(0), process, began, there)
        run.exit_codes.append(process.wait())

    def _happen(self, run: Run, fault: Fault, process: Any, began: float, there: int) -> None:
        told: dict[str, Any] = {
            "fault": fault.kind,
            "files": there,
            "second": round(time.monotonic() - began, 1),
        }
        if fault.kind == "worker":
            until = time.monotonic() + 20
            while (node := self.cluster.kill_worker()) is None and time.monotonic() < until:
                time.sleep(0.05)
            told["node"] = node
        elif fault.kind == "node":
            told |= self._end_node(run)
        elif fault.kind == "driver":
            process.kill()
        else:
            told["how"] = self._store_away()
        run.happened.append(told)

    def _end_node(self, run: Run) -> dict[str, Any]:
        node = self.cluster.kill_node()
        back = self.rng.random() < 0.5
        thread = Thread(target=self.cluster.start_node, args=(node,))
        if back:
            thread.start()
            run.returning.append(thread)
        return {"node": node.number, "back at once": back}

    def _store_away(self) -> str:
        assert self.server is not None
        if self.rng.random() < 0.5:
            with self.cluster.store_unplugged():
                time.sleep(AWAY)
            return "cable out"
        with self.cluster.store.entered():
            self.server.leave()
            time.sleep(AWAY)
            self.server.come_back()
        return "server gone"


def drawn_images(folder: Path, count: int) -> None:
    """So many words as JPEG files, 1,000 to a folder, and some broken files."""
    word_files(folder, count)
    _broken_files(folder / "broken", sorted(folder.rglob("*.jpg")))


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that is gone after the block."""
    folder = Path(mkdtemp(prefix="crnn-deploy-faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("ray", "pyarrow")}


def summary(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All runs together."""
    told = Counter(fault["fault"] for row in rows.values() for fault in row["faults"])
    summed = ("rows", "lost", "doubled", "of no input", "changed", "starts", "seconds")
    return {
        "runs": len(rows),
        "whole": sum(row["whole"] and row["manifest agrees"] for row in rows.values()),
        "faults": dict(told),
        **{name: round(sum(row[name] for row in rows.values()), 1) for name in summed},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=20,
        help="Make this many runs with faults, after one without. The default is %(default)s.",
    )
    parser.add_argument("--images", type=int, default=6000, help="Read this many images.")
    parser.add_argument(
        "--rows-per-file", type=int, default=100, help="Write this many rows to a file of the output."
    )
    parser.add_argument("--model", default="latin", help="Read with this model.")
    parser.add_argument(
        "--store",
        choices=(*KINDS, "none"),
        help="Start this S3 server, instead of the most real one installed.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Choose the faults with this seed.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    given = parser.parse_args(arguments)
    inside("benchmarks.cluster.faults")
    kind = given.store or next(iter(installed()), "none")
    rows: dict[str, Any] = {}
    with scratch() as folder, ExitStack() as stack:
        images = folder / "images"
        drawn_images(images, given.images)
        took = _infer(given.model, images, folder / "infer.jsonl")
        expected = expected_of(folder / "infer.jsonl", images)
        rng = random.Random(given.seed)
        server: ObjectStore | None = None
        cluster = Cluster(rng=rng)
        if kind != "none":
            with cluster.store.entered():
                server = stack.enter_context(
                    object_store(folder / "store", kind, host=cluster.store.address, port=_PORT)
                )
            cluster.environment.update(server.environment)
        stack.enter_context(cluster)
        bench = Bench(given, cluster, images, expected)
        if server is not None:
            bench.use(server)
        kinds = [kind for kind in FAULTS if kind != "store" or server is not None]
        for number in range(given.runs + 1):
            run = Run.drawn(number, bench.chunks, kinds, rng)
            row = rows[f"run {number}"] = bench.run(run)
            cluster.mend()
            print(f"run {number}: {json.dumps(row)}", flush=True)
            told = summary(rows)
            about = {"images": len(expected), "files": bench.chunks, "model": given.model, "seed": given.seed}
            about |= {"store": kind, "nodes": len(cluster.nodes), "infer": took, **versions()}
            write(
                "cluster_faults", {**rows, "all": told, "set": about}, given.json
            )  # and again after each run
    print(json.dumps(told))
    bad = sum(told[name] for name in ("lost", "doubled", "of no input", "changed"))
    return int(bad > 0 or told["whole"] < told["runs"])


if __name__ == "__main__":
    sys.exit(main())
