"""What the benchmarks share: the networks, the words, rounds in turn, and how results are written.

Things that are compared run in one process with one thread. They take turns, round by round, after a round
that warms up, so a busy machine slows all alike. CPU time is that of the whole process. Every round's value
is kept; `benchmarks.speed.compare` uses them to tell a change from noise. Weights are random, so speeds are
valid and accuracies are not.
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.process_tree import held_mb
from crnn_deploy.evaluation.speed import draw_images, header
from crnn_deploy.manifest import Manifest, WidthRule
from crnn_deploy.runtime.batching import batches
from crnn_deploy.runtime.images.pixels import decode_image
from crnn_deploy.runtime.images.prepare import prepare

__all__ = [
    "Network",
    "apart",
    "convolution_peak",
    "convolution_tasks",
    "cpu_in_turn",
    "export_networks",
    "infer",
    "measured",
    "module",
    "noise",
    "options",
    "prepared_words",
    "quantised",
    "run_alone",
    "stacks",
    "word_files",
    "write",
]

_LOOK = 0.1  # seconds

Network = Literal[
    "paper",  # arXiv 1507.05717 with batch norm, LSTMs of 256 units, grey
    "compact",  # the print model's, of 37 classes
    "tiny",  # the paper's with a sixteenth of its channels, so that all but the network is measured
    "docTR vgg16",  # docTR's crnn_vgg16_bn, colour
    "docTR mobilenet small",  # docTR's crnn_mobilenet_v3_small, colour
]
# words have the width that keeps their aspect; `paper` in the recipes holds it at 100 or more
WIDTHS = WidthRule(16, 512, multiple=4)
BATCH = 8  # as `infer` has it

Unit = Literal["CPU ms", "ms", "MB"]


def options(description: str | None, *, rounds: int) -> argparse.ArgumentParser:
    """A parser with what every script takes."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="Measure this many rounds. The default is %(default)s."
    )
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    return parser


def write(suite: str, rows: Mapping[str, Any], path: Path | None) -> None:
    """One results file: the header, how loaded the machine was, and a row for each thing measured."""
    results = header(suite)
    results["load"] = round(os.getloadavg()[2], 2)  # of the last 15 minutes, this benchmark's own included
    results["rows"] = dict(rows)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def measured(values: Sequence[float], unit: Unit) -> dict[str, Any]:
    """Median, quartiles and every round's value, to four digits."""
    kept = [float(f"{value:.4g}") for value in values]
    lower, upper = min(kept), max(kept)
    if len(kept) > 1:
        lower, _, upper = statistics.quantiles(kept, n=4, method="inclusive")
    return {
        **{"unit": unit, "median": float(f"{statistics.median(kept):.4g}")},
        **{"lower": float(f"{lower:.4g}"), "upper": float(f"{upper:.4g}"), "rounds": kept},
    }


def cpu_in_turn(
    tasks: Mapping[str, Callable[[], object]], images: Mapping[str, int], rounds: int
) -> dict[str, list[float]]:
    """CPU-milliseconds an image of each task in each round; a task does its number of images each time.

    A task runs twice in its turn, and the second time counts. The first brings its memory back, which a
    virtual machine may have taken away while other tasks ran.
    """
    spent: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            task()
            start = time.process_time()
            task()
            spent[name].append((time.process_time() - start) / images[name] * 1e3)
    return spent


def export_networks(names: Sequence[Network], classes: int = 37) -> dict[Network, Path]:
    """ONNX files of random networks, kept in .benchmarks/ for as long as the code of the networks stays.

    Made apart: the peak memory of a process that `infer` measures starts at that of this one.
    """
    root = Path(__file__).parents[1]
    code = hashlib.sha256(f"{inspect.getsource(_export)}{inspect.getsource(module)}{WIDTHS}".encode())
    for source in sorted((root / "crnn_deploy" / "networks").glob("*.py")):
        code.update(source.read_bytes())
    folder = root / ".benchmarks" / "networks" / code.hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[Network, Path] = {name: folder / f"{name}-{classes}.onnx" for name in names}
    for name, path in paths.items():
        if not path.is_file():
            apart(_export, name, path, classes)
    return paths


def apart(function: Callable[..., object], *arguments: object) -> None:
    """Call it in a process of its own, so that what it imports stays out of this one."""
    maker = get_context("spawn").Process(target=function, args=arguments)
    maker.start()
    maker.join()
    if maker.exitcode:
        raise RuntimeError(f"{function.__name__} failed")


def _export(name: Network, path: Path, classes: int) -> None:
    from crnn_deploy.export.exporter import export
    from crnn_deploy.export.reference import reference_of
    from crnn_deploy.recipes.recipe import RECIPES

    recipe = RECIPES[
        {"docTR vgg16": "doctr-vgg16", "docTR mobilenet small": "doctr-mobilenet-small"}.get(name, "paper")
    ]
    recipe = replace(recipe, width=WIDTHS)
    alphabet = tuple(chr(0x4E00 + at) for at in range(classes - 1))
    export(reference_of(module(name, classes), recipe, alphabet, {"benchmark": name}), path)


def module(name: Network, classes: int = 37) -> Any:
    """A network of random weights as a PyTorch module, always the same."""
    import torch

    from crnn_deploy.networks.compact import CompactCRNN
    from crnn_deploy.networks.crnn import CRNN, PAPER_WIDTHS
    from crnn_deploy.networks.doctr import DoctrCRNN, vgg16_bn
    from crnn_deploy.networks.mobilenet import mobilenet_v3_small

    torch.manual_seed(0)
    builders: dict[Network, Callable[[], Any]] = {
        "paper": lambda: CRNN(32, 1, classes),
        "compact": lambda: CompactCRNN(32, 1, classes),
        "tiny": lambda: CRNN(32, 1, classes, 16, widths=tuple(width // 16 for width in PAPER_WIDTHS)),
        "docTR vgg16": lambda: DoctrCRNN(vgg16_bn(3), 512, 128, classes),
        "docTR mobilenet small": lambda: DoctrCRNN(mobilenet_v3_small(3), 576, 128, classes),
    }
    return builders[name]().eval()


def quantised(model: Path, path: Path, inputs: Sequence[NDArray[np.float32]], *, lstm: bool = False) -> Path:
    """The INT8 file of a network: convolutions with static scales, their LSTMs in float or int8.

    inputs: batches (N, C, H, W) whose largest values become the ranges
    """
    import onnx

    from crnn_deploy.graph.model import load_onnx
    from crnn_deploy.quantization import qdq
    from crnn_deploy.quantization.calibrate import probe
    from crnn_deploy.quantization.int8_lstm import with_int8_lstm

    source = load_onnx(model)
    run = probe(source)
    ranges: dict[str, float] = {}
    for batch in inputs:
        for name, values in run(batch).items():
            ranges[name] = max(ranges.get(name, 0.0), float(np.abs(values).max()))
    result = qdq.insert(source, ranges, activations="uint8")
    onnx.save(with_int8_lstm(result, source, ranges) if lstm else result, path)
    return path


def word_files(folder: Path, count: int) -> None:
    """JPEG files of drawn words, mean width 108 px at a height of 32, 1,000 to a folder."""
    for at, data in enumerate(draw_images("words", count)):
        if at % 1000 == 0:
            (folder / f"{at // 1000:04}").mkdir(parents=True)
        (folder / f"{at // 1000:04}" / f"{at:07}.jpg").write_bytes(data)


def prepared_words(count: int, manifest: Manifest, seed: int = 1) -> list[NDArray[np.float32]]:
    """The same kind of words as the network takes them: (C, H, W) each."""
    return [prepare(decode_image(data, "<word>"), manifest) for data in draw_images("words", count, seed)]


def stacks(images: Sequence[NDArray[np.float32]], size: int = BATCH) -> list[NDArray[np.float32]]:
    """Batches (N, C, H, W) of one width, as the runtime groups them."""
    return [batch.images for batch in batches(enumerate(images), size)]


def infer(model: Path, *arguments: object, feed: Callable[[Any], None] | None = None) -> dict[str, Any]:
    """Run `crnn-deploy infer` in a process of its own: seconds, CPU-seconds, peak memory and exit code.

    feed: writes the list of images to its standard input
    """
    command = [sys.executable, "-m", "crnn_deploy", "infer", "--model", str(model), *map(str, arguments)]
    return run_alone(command, feed)


def run_alone(command: Sequence[str], feed: Callable[[Any], None] | None = None) -> dict[str, Any]:
    """A command in a process of its own, measured by the kernel.

    Its peak memory is that of the process alone, or what it and its own processes were seen to hold together.
    """
    # an installed package is compiled; where that is switched off, every start would compile it anew
    environment = {key: os.environ[key] for key in os.environ.keys() - {"PYTHONDONTWRITEBYTECODE"}}
    start, ended = time.perf_counter(), threading.Event()
    process = subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    family = _Watch(process.pid, ended)
    family.start()
    if feed:
        assert process.stdin is not None
        feed(process.stdin)
        process.stdin.close()
    _, status, usage = os.wait4(process.pid, 0)
    ended.set()
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3),
        "peak_mb": round(max(usage.ru_maxrss / 1024, family.most), 1),
        "exit_code": process.returncode,
    }


class _Watch(threading.Thread):
    """Looks now and then what a process and those that it has started hold together."""

    def __init__(self, root: int, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self.most = 0.0  # MB
        self._root, self._ended = root, ended

    def run(self) -> None:
        while not self._ended.wait(_LOOK):
            self.most = max(self.most, held_mb(self._root))


# channels and side of 3x3 convolutions of equal work, as they stand in VGG-like networks
_SHAPES = ((64, 80), (128, 40), (256, 20), (512, 10))
_CHAIN = 4  # of them one after another, so that the change of layout at both ends counts little
_WORK = 2.0 * 64 * 64 * 9 * 80 * 80 * _CHAIN  # operations of a chain
_CONVOLUTIONS = "convolutions"


def convolution_tasks() -> dict[str, Callable[[], object]]:
    """Chains of large 3x3 convolutions in the libraries that are installed.

    They run in turn with what is compared: their best rate is the machine's peak under the same load.
    """
    import onnx
    import torch

    from crnn_deploy.graph.model import session_of

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    tasks: dict[str, Callable[[], object]] = {}
    for channels, side in _SHAPES:
        weights = rng.standard_normal((_CHAIN, channels, channels, 3, 3)).astype(np.float32) / channels
        pixels = rng.standard_normal((1, channels, side, side)).astype(np.float32)
        graph = onnx.helper.make_graph(
            [
                onnx.helper.make_node("Conv", [f"x{at}", f"w{at}"], [f"x{at + 1}"], pads=[1, 1, 1, 1])
                for at in range(_CHAIN)
            ],
            "convolutions",
            [onnx.helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, pixels.shape)],
            [onnx.helper.make_tensor_value_info(f"x{_CHAIN}", onnx.TensorProto.FLOAT, pixels.shape)],
            [onnx.numpy_helper.from_array(weight, f"w{at}") for at, weight in enumerate(weights)],
        )
        made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
        shape = f"{channels} channels, {side} px"
        tasks[f"{_CONVOLUTIONS} in ONNX Runtime, {shape}"] = partial(
            session_of(made).run, None, {"x0": pixels}
        )
        tasks[f"{_CONVOLUTIONS} in PyTorch (oneDNN), {shape}"] = partial(
            _chain, torch.from_numpy(pixels), torch.from_numpy(weights)
        )
    return tasks


def _chain(pixels: Any, weights: Any) -> Any:
    import torch

    with torch.inference_mode():
        for weight in weights:
            pixels = torch.conv2d(pixels, weight, padding=1)
    return pixels


def convolution_peak(spent: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """fp32 GFLOP per CPU-second of one core: the best median among the chains in `spent`."""
    rates = {
        name: _WORK / statistics.median(values) / 1e6
        for name, values in spent.items()
        if name.startswith(_CONVOLUTIONS)
    }
    best = max(rates, key=lambda name: rates[name])
    row = {"gflops": round(rates[best], 1), "of": best, "one": measured(spent[best], "CPU ms")}
    return row | {"others": {name: round(rate, 1) for name, rate in rates.items()}}


def noise(shape: Sequence[int], seed: int = 0) -> NDArray[np.float32]:
    """Pixels of no meaning, as a network takes them."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
