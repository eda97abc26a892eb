"""What it costs to prove that a run lost and doubled no row: seconds, CPU-seconds, memory, by inputs.

    python -m benchmarks.cluster.reconcile [--inputs 1000000,10000000] [--rows-per-file 5000] [--json FILE]

The output is made up at random, in two kinds. In `names` the plan lists every input, with a name of some 40
characters. In `tars` the plan knows the names only as a digest. After the measurement ten files of the output
are damaged, and the result shows what the proof counts then. Each proof is a process of its own, start-up
included. The files are local; an object store adds its latency, 32 requests at a time. The script needs the
extra [ray].
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import apart, options, run_alone, write

__all__ = ["main"]

RUN = "ab" * 32
PROOF = """
import json, sys
from crnn_deploy.cluster.plan import read_plan
from crnn_deploy.cluster.reconcile import reconcile
from crnn_deploy.stores.local import LocalStore
store = LocalStore(sys.argv[1])
found = reconcile(store, read_plan(store), sys.argv[2])
with open(sys.argv[3], "w") as file:
    json.dump(found.to_plain(), file)
"""
DAMAGES = ("missing", "uncounted", "duplicates", "strange", "to_do")
DAMAGED = 10  # files: every second one is removed, the others are copied beside it


def names_of(chunk: int, count: int) -> list[str]:
    begin = chunk * count
    return [
        f"s3://archive/{chunk % 997:03}/{at * 2654435761 % 2**32:08x}-{at:010}.jpg"
        for at in range(begin, begin + count)
    ]


def draw(folder: Path, inputs: int, rows_per_file: int, kind: str) -> None:
    """Write an output and its plan."""
    import numpy as np
    import pyarrow as pa

    from crnn_deploy.cluster.plan import Chunk, part_of, write_plan
    from crnn_deploy.cluster.rows import SCHEMA, encode, id_of, names_digest
    from crnn_deploy.stores.local import LocalStore

    store, random = LocalStore(str(folder)), np.random.default_rng(0)
    letters = np.frombuffer(random.bytes(2**20), np.uint8) % 26 + 97
    chunks = inputs // rows_per_file

    def planned() -> Iterator[tuple[Chunk, list[str]]]:
        for number in range(chunks):
            if kind == "tars":
                yield Chunk(number, "tar", f"s3://archive/{number:06}.tar", 0, None), []
            else:
                yield Chunk(number, "paths", "", 0, rows_per_file), names_of(number, rows_per_file)

    write_plan(store, planned())
    constant = pa.array(np.zeros(rows_per_file, np.int32))
    for number in range(chunks):
        names = names_of(number, rows_per_file)
        ends = np.cumsum(random.integers(1, 12, rows_per_file)).astype(np.int32)
        texts = pa.StringArray.from_buffers(
            rows_per_file, pa.py_buffer(np.concatenate([[0], ends]).astype(np.int32)), pa.py_buffer(letters)
        )
        columns = [
            pa.array(np.arange(rows_per_file) + id_of(number, 0)),
            pa.array(names),
            texts,
            pa.array(random.random(rows_per_file)),
            pa.nulls(rows_per_file, pa.string()),
            pa.DictionaryArray.from_arrays(constant, ["cd" * 32]),
            pa.DictionaryArray.from_arrays(constant, ["0.1.0"]),
        ]
        table = pa.table(columns, SCHEMA)
        store.write(part_of(number), encode(table, number, rows_per_file, names_digest(names), RUN))


def damage(folder: Path) -> None:
    files = sorted(folder.glob("[0-9]*/*.parquet"))
    for at, path in enumerate(files[:: max(1, len(files) // DAMAGED)][:DAMAGED]):
        if at % 2:
            path.unlink()
        else:
            shutil.copy(path, path.with_name(f"copy-{path.name}"))


def prove(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What it took and what it found."""
    report = folder.with_suffix(".json")
    took = run_alone([sys.executable, "-c", PROOF, str(folder), RUN, str(report)])
    if took.pop("exit_code"):
        raise RuntimeError(f"the proof of {folder} failed")
    return took, json.loads(report.read_text())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument(
        "--inputs", default="1000000,10000000", help="Prove outputs of these numbers of inputs."
    )
    parser.add_argument(
        "--rows-per-file", type=int, default=5000, help="Put this many rows into a file of the output."
    )
    parser.add_argument(
        "--folder", type=Path, help="Make the outputs in this folder. By default it is a temporary one."
    )
    given = parser.parse_args(arguments)
    rows: dict[str, Any] = {}
    for inputs in map(int, given.inputs.split(",")):
        for kind in ("names", "tars"):
            with tempfile.TemporaryDirectory(dir=given.folder) as temporary:
                folder = Path(temporary) / "out"
                apart(draw, folder, inputs, given.rows_per_file, kind)
                found = [prove(folder) for _ in range(given.rounds)]
                if not all(plain["whole"] and plain["rows"] == inputs for _, plain in found):
                    raise RuntimeError("the proof miscounts a whole output")
                damage(folder)
                _, damaged = prove(folder)
                row = {
                    "inputs": inputs,
                    "files": inputs // given.rows_per_file,
                    "megabytes": round(
                        sum(path.stat().st_size for path in folder.rglob("*.parquet")) / 1e6, 1
                    ),
                    **{name: [took[name] for took, _ in found] for name in found[0][0]},
                    "damaged": {name: damaged[name] for name in DAMAGES},
                }
            rows[f"{inputs:,} inputs, {kind}"] = row
            print(json.dumps(row))
    write("cluster_reconcile", rows, given.json)


if __name__ == "__main__":
    main()
