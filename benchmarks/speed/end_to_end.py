"""How fast a folder of 10,000 JPEG files becomes text, beside inference alone and reading and decoding alone.

    python -m benchmarks.speed.end_to_end [--images 10000] [--paper-images 1000] [--workers 2] [--json FILE]

- `infer` runs in a process of its own, start-up included.
- Inference alone runs the same batches in this process, on as many threads. They are made beforehand.
- Reading and decoding alone is `cv2.imread` of the same files (in grey). The rows `read_image` are the
  toolkit's own function, which checks a file before it decodes it.

Rates are by CPU time, all threads together, and by the clock. The clock is valid only on an idle machine. The
script needs the extras [cpu,export].
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.common import Network, export_networks, infer, measured, options, stacks, word_files, write
from crnn_deploy.models import shipped
from crnn_deploy.process import cpus
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.images.prepare import prepare

NETWORKS: tuple[Network, ...] = ("compact", "paper")
MODELS = ("latin", "latin.int8")  # of those that come with the package
_SHARE = 250  # files that a thread reads at a time


def timed(task: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of CPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - wall, time.process_time() - cpu


def reading(files: Sequence[str], read: Callable[[str], object], workers: int) -> Callable[[], object]:
    shares = [files[at : at + _SHARE] for at in range(0, len(files), _SHARE)]

    def run() -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda share: [read(name) for name in share], shares))

    return run


def inference(backend: OrtBackend, files: Sequence[str], workers: int) -> Callable[[], object]:
    """The batches of these files, made before; each thread takes the next."""
    batches = stacks([prepare(read_image(name), backend.manifest) for name in files])

    def run() -> None:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(backend.run, batches))

    return run


def compared(name: str, model: Path, folders: Sequence[Path], workers: int, rounds: int) -> dict[str, Any]:
    """The rates of one model, in turn."""
    files = sorted(str(path) for folder in folders for path in folder.glob("*.jpg"))
    tasks = {
        "inference alone": inference(OrtBackend(model), files, workers),
        "cv2.imread": reading(files, lambda file: cv2.imread(file, cv2.IMREAD_GRAYSCALE), workers),
        "read_image": reading(files, read_image, workers),
    }
    cv2.setNumThreads(1)
    wall: dict[str, list[float]] = {what: [] for what in ("infer", *tasks)}
    cpu: dict[str, list[float]] = {what: [] for what in wall}
    for at in range(rounds + 1):  # the first one warms up the files and the cache of graphs
        for what, task in tasks.items():
            seconds, used = timed(task)
            if at:
                wall[what].append(seconds / len(files) * 1e3)
                cpu[what].append(used / len(files) * 1e3)
        some = folders if at else folders[:1]
        run = infer(model, "--workers", workers, "--format", "jsonl", *some)
        if run["exit_code"]:
            raise RuntimeError(f"infer ended with {run['exit_code']}")
        if at:
            wall["infer"].append(run["seconds"] / len(files) * 1e3)
            cpu["infer"].append(run["cpu_seconds"] / len(files) * 1e3)
    rows: dict[str, Any] = {}
    best = float(np.median(cpu["inference alone"]))
    for what in wall:
        by_cpu, by_clock = float(np.median(cpu[what])), float(np.median(wall[what]))
        rows[f"{name}: {what}"] = {
            "images_per_cpu_second": round(1e3 / by_cpu, 1),
            "images_per_second": round(1e3 / by_clock, 1),
            "images": len(files),
            "of_inference_alone": round(best / by_cpu, 3),
            "cpu_per_image": measured(cpu[what], "CPU ms"),
            "clock_per_image": measured(wall[what], "ms"),
        }
        print(f"{1e3 / by_cpu:9.1f} a CPU-s {1e3 / by_clock:9.1f} a second  {name}: {what}", flush=True)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=3)
    parser.add_argument(
        "--images", type=int, default=10_000, help="Read this many files with each small network and model."
    )
    parser.add_argument(
        "--paper-images", type=int, default=1000, help="Read this many files with the paper's network."
    )
    parser.add_argument("--workers", type=int, default=cpus(), help="Run infer with this many workers.")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, help="Measure these networks.")
    parser.add_argument("--models", nargs="*", default=MODELS, help="Measure these shipped models.")
    given = parser.parse_args(arguments)
    rows: dict[str, Any] = {"workers": {"count": given.workers}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        word_files(folder, max(given.images, given.paper_images))
        networks = export_networks(given.networks).items()
        for name, model in [*networks, *((name, shipped()[name]) for name in given.models)]:
            count = given.paper_images if name == "paper" else given.images
            folders = sorted(folder.iterdir())[: -(-count // 1000)]
            rows |= compared(name, model, folders, given.workers, given.rounds)
    write("end_to_end", rows, given.json)


if __name__ == "__main__":
    main()
