"""How fast a model is here: latency and throughput over batches and widths, and where an image's time goes.

Shared by `crnn-deploy benchmark` and the scripts in benchmarks/. What is compared runs in one process, round
by round in turn, after a round that warms up. CPU-seconds are those of the whole process, so that a loaded
machine disturbs them less than the clock.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from crnn_deploy.manifest import Manifest
from crnn_deploy.plain_text import plain_text
from crnn_deploy.process import cpus
from crnn_deploy.runtime.backends import cpu
from crnn_deploy.runtime.backends.backend import Backend
from crnn_deploy.runtime.batching import batches
from crnn_deploy.runtime.decoding import ctc
from crnn_deploy.runtime.images.pixels import decode_image, load_bytes
from crnn_deploy.runtime.images.prepare import prepare

__all__ = [
    "DISTRIBUTIONS",
    "Cell",
    "Distribution",
    "SpeedReport",
    "Spread",
    "Stages",
    "draw_images",
    "header",
    "measure_grid",
    "measure_peak",
    "measure_stages",
    "operations",
    "peak_memory",
    "word_image",
]

Distribution = Literal["words", "lines"]
# natural width in pixels at a height of 32: a gamma distribution's shape and scale, and its bounds
DISTRIBUTIONS: dict[Distribution, tuple[float, float, int, int]] = {
    "words": (5.0, 21.6, 16, 400),  # mean 108
    "lines": (5.0, 120.0, 100, 2048),  # mean 600
}
_PEAK_SIZE = 1024


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of what was measured."""

    median: float
    lower: float
    upper: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0], len(values))
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper, len(values))


@dataclass(frozen=True)
class Cell:
    """One model at one batch, width and number of threads."""

    model: str
    batch: int
    width: int  # pixels
    threads: int
    p50_ms: float  # of one call, by the clock
    p95_ms: float
    p99_ms: float
    images_per_second: float  # by the clock, from p50
    cpu_ms_per_image: Spread


@dataclass(frozen=True)
class Stages:
    """CPU-milliseconds of one image, stage by stage, one thread."""

    read: float
    decode: float
    preprocess: float
    infer: float  # in batches of one width
    ctc: float

    @property
    def total(self) -> float:
        return float(sum(asdict(self).values()))


def header(suite: str) -> dict[str, Any]:
    """How every results file begins: the question, the machine and the versions."""
    names = (
        *("crnn-deploy", "numpy", "onnx", "onnxruntime", "opencv-python", "opencv-python-headless"),
        *("openvino", "tensorrt-rtx", "torch"),
    )
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "suite": suite,
        "machine": f"{platform.machine()}, {cpus()} CPUs",
        "cpu": cpu.kind(),
        "device": "cpu",
        "versions": versions,
    }


def draw_images(distribution: Distribution, count: int, seed: int = 0) -> list[bytes]:
    """JPEG files of drawn words, 32 to 64 pixels high, as wide as the distribution says."""
    rng = np.random.default_rng(seed)
    shape, scale, least, most = DISTRIBUTIONS[distribution]
    files = []
    for natural in np.clip(rng.gamma(shape, scale, count), least, most):
        height = int(rng.integers(32, 65))
        width = max(8, int(natural * height / 32))
        files.append(cv2.imencode(".jpg", word_image(height, width, rng))[1].tobytes())
    return files


def word_image(height: int, width: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Dark random letters on light paper: (height, width, 3)."""
    paper = int(rng.integers(140, 256))
    word = "".join(chr(c) for c in rng.integers(97, 123, max(1, width // 20)))
    return plain_text(word, (height, width, 3), (3, height * 3 // 4), height / 40, paper=paper, ink=20)


def measure_grid(
    backends: Mapping[tuple[str, int], Backend],
    sizes: Sequence[int],
    widths: Sequence[int],
    rounds: int,
    progress: Callable[[], object] = lambda: None,
) -> list[Cell]:
    """Every model (name, threads) at every batch and width that its manifest allows; pixels are noise.

    Raises RunFailed.
    """
    rng = np.random.default_rng(0)
    clock: dict[tuple[str, int, int, int], list[float]] = {}
    used: dict[tuple[str, int, int, int], list[float]] = {}
    for width in widths:
        for batch in sizes:
            for at in range(rounds + 1):  # the first one warms up
                for (name, threads), backend in backends.items():
                    manifest = backend.manifest
                    if width not in manifest.width.buckets():
                        continue
                    images = rng.standard_normal(
                        (batch, manifest.channels, manifest.height, width), np.float32
                    )
                    wall, cpu = time.perf_counter(), time.process_time()
                    backend.run(images)
                    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                    if at:
                        clock.setdefault((name, batch, width, threads), []).append(wall)
                        used.setdefault((name, batch, width, threads), []).append(cpu / batch * 1e3)
            progress()
    cells = []
    for key, walls in clock.items():
        p50, p95, p99 = (float(np.percentile(walls, p)) for p in (50, 95, 99))
        name, batch, width, threads = key
        cells.append(
            Cell(
                *(name, batch, width, threads, p50 * 1e3, p95 * 1e3, p99 * 1e3, batch / p50),
                Spread.of(used[key]),
            )
        )
    return cells


def measure_stages(backend: Backend, files: Sequence[Path | bytes], batch: int = 8) -> Stages:
    """Where the time of an image goes, from the file to the text. Raises as `Recognizer.read`."""
    manifest = backend.manifest
    spent = dict.fromkeys(("read", "decode", "preprocess", "infer", "ctc"), 0.0)

    def timed(stage: str, task: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = task()
        spent[stage] += time.process_time() - start
        return result

    backend.run(np.zeros((1, manifest.channels, manifest.height, manifest.width.minimum), np.float32))
    encoded = timed("read", lambda: [f if isinstance(f, bytes) else load_bytes(str(f)) for f in files])
    grey = manifest.decoded_grey
    pixels = timed("decode", lambda: [decode_image(data, "<bytes>", decoded_grey=grey) for data in encoded])
    ready = timed("preprocess", lambda: [prepare(one, manifest) for one in pixels])
    stacks = [found.images for found in batches(enumerate(ready), batch)]
    frames = timed("infer", lambda: [backend.run(stack) for stack in stacks])
    timed(
        "ctc",
        lambda: [
            ctc.decode(one, manifest.alphabet, manifest.blank, [(1.0, 1)] * len(one.indices))
            for one in frames
        ],
    )
    return Stages(**{name: value / len(files) * 1e3 for name, value in spent.items()})


def measure_peak(rounds: int = 5) -> float:
    """fp32 operations per CPU-second of a large matrix product in NumPy's BLAS, the best of some rounds."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((_PEAK_SIZE, _PEAK_SIZE), np.float32) for _ in range(2))
    best = min(_cpu_of(lambda: a @ b) for _ in range(rounds + 1))
    return float(2 * _PEAK_SIZE**3 / best)


def operations(path: Path, manifest: Manifest, widths: Sequence[int]) -> Mapping[int, int]:
    """Operations of one image at each width; empty without the onnx package, which counts them."""
    try:
        from crnn_deploy.graph.flops import flops
        from crnn_deploy.graph.model import load_onnx
    except ImportError:
        return {}
    return flops(load_onnx(path), manifest, list(widths))


def peak_memory() -> float:
    """Peak resident memory of this process in MB; NaN where the system does not tell."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) / (2**20 if sys.platform == "darwin" else 2**10)


def _cpu_of(task: Callable[[], object]) -> float:
    start = time.process_time()
    task()
    return time.process_time() - start


@dataclass(frozen=True)
class SpeedReport:
    """All that `crnn-deploy benchmark` measured."""

    cells: Sequence[Cell]
    stages: Mapping[str, Stages]  # by model
    peak: float  # fp32 operations per CPU-second of this machine
    operations: Mapping[str, Mapping[int, int]]  # of one image, by model and width; empty without onnx
    peak_mb: float  # peak memory of the process with all models in it

    def share_of_peak(self, cell: Cell) -> float | None:
        """Operations per CPU-second in proportion to the machine's, 0-1; None where they are not counted."""
        count = self.operations.get(cell.model, {}).get(cell.width)
        return None if count is None else count / (cell.cpu_ms_per_image.median / 1e3) / self.peak

    def to_plain(self) -> dict[str, Any]:
        return {
            "peak_gflops": round(self.peak / 1e9, 1),
            "peak_mb": round(self.peak_mb, 1),
            "grid": [{**asdict(cell), "share_of_peak": self.share_of_peak(cell)} for cell in self.cells],
            "stages": {model: {**asdict(one), "total": one.total} for model, one in self.stages.items()},
        }

    def table(self) -> str:
        lines = [
            f"fp32 peak of one core, measured: {self.peak / 1e9:.0f} GFLOP/s; memory: {self.peak_mb:.0f} MB",
            f"{'batch':>5} {'width':>5} {'threads':>7} {'p50 ms':>9} {'p95 ms':>9} {'p99 ms':>9} "
            f"{'images/s':>9} {'CPU ms/image (IQR)':>24} {'of peak':>7}  model",
        ]
        for cell in self.cells:
            share, cpu = self.share_of_peak(cell), cell.cpu_ms_per_image
            spread = f"{cpu.median:.3f} ({cpu.lower:.3f}-{cpu.upper:.3f})"
            lines.append(
                f"{cell.batch:5} {cell.width:5} {cell.threads:7} {cell.p50_ms:9.2f} {cell.p95_ms:9.2f} "
                f"{cell.p99_ms:9.2f} {cell.images_per_second:9.0f} {spread:>24} "
                f"{'-' if share is None else f'{share:.0%}':>7}  {cell.model}"
            )
        lines.append("CPU-milliseconds of an image by stage:")
        for model, one in self.stages.items():
            split = ", ".join(f"{name} {value:.3f}" for name, value in asdict(one).items())
            lines.append(f"  {split}, together {one.total:.3f}  {model}")
        return "\n".join(lines)
