"""How memory and speed grow with images, workers, classes and widths.

    python -m benchmarks.speed.scaling [--largest 100000] [--json FILE]

- Images: `infer` reads a list of JPEG files on standard input, 10,000 files again and again. The network is
  tiny, so the pipeline is measured. Peak memory must not grow with the images. --largest 1000000 takes some
  ten minutes on two cores.
- Workers: the compact network on 1,000 files.
- Classes and widths: the paper's network in ONNX Runtime, one thread. Greedy decoding is measured by the
  number of classes, and argmax separately.

The script needs the extras [cpu,export].
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.common import (
    apart,
    cpu_in_turn,
    export_networks,
    infer,
    measured,
    noise,
    options,
    word_files,
    write,
)
from crnn_deploy.evaluation.speed import peak_memory
from crnn_deploy.process import cpus
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.decoding import ctc

FILES, WORKER_FILES = 10_000, 1_000
CLASSES = (37, 176, 1000, 6736)
WIDTHS = (32, 64, 128, 256, 512, 1024, 2048)
LINES, STEPS = 256, 28  # of greedy decoding; the steps of a word 108 px wide


def streams(model: Path, files: Sequence[Path], largest: int) -> dict[str, Any]:
    """Peak memory and rate at growing numbers of images."""
    rows = {}
    for count in (count for count in (1000, 10_000, 100_000, 1_000_000) if count <= largest):

        def feed(stream: IO[bytes], count: int = count) -> None:
            stream.writelines(f"{path}\n".encode() for path in islice(cycle(files), count))

        row = infer(model, "--format", "jsonl", "-", feed=feed)
        if row["peak_mb"] < peak_memory() + 1:
            raise RuntimeError("this process is larger than infer, whose peak memory cannot be told")
        row["images_per_second"] = round(count / row["seconds"], 1)
        row["cpu_ms_per_image"] = round(row["cpu_seconds"] / count * 1e3, 3)
        rows[f"{count:,} images"] = row
        print(count, row, flush=True)
    return rows


def workers(model: Path, files: Sequence[Path], rounds: int) -> dict[str, Any]:
    """Clock and CPU time by the number of workers, in turn."""
    counts = sorted({1, *range(2, 2 * cpus() + 1, max(1, cpus() // 2))})
    runs: dict[int, list[dict[str, Any]]] = {count: [] for count in counts}

    def feed(stream: IO[bytes]) -> None:
        stream.writelines(f"{path}\n".encode() for path in files)

    for at in range(rounds + 1):
        for count in counts:
            run = infer(model, "--workers", count, "--format", "jsonl", "-", feed=feed)
            if at:
                runs[count].append(run)
    rows = {}
    for count, some in runs.items():
        row = rows[f"{count} workers on {cpus()} CPUs"] = {
            "clock_per_image": measured([run["seconds"] / len(files) * 1e3 for run in some], "ms"),
            "cpu_per_image": measured([run["cpu_seconds"] / len(files) * 1e3 for run in some], "CPU ms"),
        }
        print(count, "workers", row["clock_per_image"]["median"], "ms by the clock", flush=True)
    return rows


def classes_and_widths(rounds: int) -> dict[str, Any]:
    """CPU time of an image by classes (108 px wide, batch 8) and by width (batch 1)."""
    tasks: dict[str, Callable[[], object]] = {}
    images: dict[str, int] = {}
    for classes in CLASSES:
        backend = OrtBackend(export_networks(["paper"], classes)["paper"])
        name = f"{classes:,} classes, width 108, batch 8"
        tasks[name], images[name] = partial(backend.run, noise((8, 1, 32, 108))), 8
    backend = OrtBackend(export_networks(["paper"])["paper"])
    for width in WIDTHS:
        name = f"37 classes, width {width}, batch 1"
        tasks[name], images[name] = partial(backend.run, noise((1, 1, 32, width))), 1
    spent = cpu_in_turn(tasks, images, rounds)
    return {name: {"cpu_per_image": measured(values, "CPU ms")} for name, values in spent.items()}


def decoding(rounds: int) -> dict[str, Any]:
    """Greedy decoding of a line of 28 steps: argmax and probabilities, and what comes after."""
    rng = np.random.default_rng(0)
    tasks: dict[str, Callable[[], object]] = {}
    for classes in CLASSES:
        logits = rng.standard_normal((LINES, STEPS, classes), np.float32)
        logits[:, ::2, 0] += 9  # every other frame blank, as trained networks have it
        frames = ctc.Frames.from_logits(logits)
        alphabet = tuple(chr(0x4E00 + at) for at in range(classes - 1))
        tasks[f"argmax and probabilities, {classes:,} classes"] = partial(ctc.Frames.from_logits, logits)
        greedy = partial(ctc.BestPath(alphabet, 0), frames, [(4.0, 108)] * LINES)
        tasks[f"greedy decoding with confidences, {classes:,} classes"] = greedy

        def placed(greedy: Callable[[], Sequence[ctc.Text]] = greedy) -> object:
            return [text.chars for text in greedy()]

        tasks[f"greedy decoding with each character's place, {classes:,} classes"] = placed
    spent = cpu_in_turn(tasks, dict.fromkeys(tasks, LINES), rounds)
    return {name: {"cpu_per_line": measured(values, "CPU ms")} for name, values in spent.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=5)
    parser.add_argument(
        "--largest",
        type=int,
        default=100_000,
        help="Read at most this many images. The default is %(default)s.",
    )
    given = parser.parse_args(arguments)
    models = export_networks(["tiny", "compact"])
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        apart(word_files, Path(name), min(FILES, max(given.largest, WORKER_FILES)))
        files = sorted(Path(name).glob("*/*.jpg"))
        rows |= streams(models["tiny"], files, given.largest)  # first: a child's peak starts at its parent's
        rows |= workers(models["compact"], files[:WORKER_FILES], given.rounds)
    measured_here = classes_and_widths(given.rounds) | decoding(given.rounds)
    for name, row in measured_here.items():
        print(next(iter(row.values()))["median"], "ms", name, flush=True)
    rows |= measured_here
    write("scaling", rows, given.json)


if __name__ == "__main__":
    main()
