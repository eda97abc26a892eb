"""What a backbone costs: parameters, operations and images per CPU-second in ONNX Runtime.

    python -m benchmarks.speed.backbones [--classes 176] [--width 108] [--rounds 15] [--json FILE]

Weights are random, so speeds are valid and accuracies are not. The toolkit exports all networks, and proves
each export. They run in one process with one thread, in turn, round by round. The figures are medians of the
process's CPU time at batch 1 and 8. A network has three input channels if the published one has them. The
script needs the extras [cpu,export].
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.common import cpu_in_turn
from crnn_deploy.evaluation.speed import header
from crnn_deploy.export.exporter import export
from crnn_deploy.export.reference import reference_of
from crnn_deploy.graph.flops import flops
from crnn_deploy.graph.model import load_onnx
from crnn_deploy.networks.compact import CompactCRNN
from crnn_deploy.networks.crnn import CRNN, PAPER_WIDTHS
from crnn_deploy.networks.doctr import DoctrCRNN
from crnn_deploy.networks.mobilenet import mobilenet_v3_small
from crnn_deploy.recipes.recipe import RECIPES
from crnn_deploy.runtime.backends.ort import OrtBackend


def vgg(scale: float) -> Callable[[int], nn.Module]:
    """The paper's network with its channels and LSTM units scaled."""
    widths = tuple(round(width * scale) for width in PAPER_WIDTHS)
    return lambda classes: CRNN(32, 1, classes, round(256 * scale), widths=widths)


NETWORKS: dict[str, tuple[str, Callable[[int], nn.Module]]] = {
    "compact": ("paper", lambda classes: CompactCRNN(32, 1, classes)),
    "compact, 256 channels (the default model's)": (
        "paper",
        lambda classes: CompactCRNN(32, 1, classes, 192, widths=(32, 64, 128, 192, 256)),
    ),
    "VGG x 1/4": ("paper", vgg(1 / 4)),
    "VGG x 1/2": ("paper", vgg(1 / 2)),
    "VGG x 1 (the paper)": ("paper", vgg(1)),
    "docTR crnn_mobilenet_v3_small": (
        "doctr-mobilenet-small",
        lambda classes: DoctrCRNN(mobilenet_v3_small(3), 576, 128, classes),
    ),
}


def _repeated(work: Callable[[], object], times: int) -> None:
    for _ in range(times):
        work()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--classes", type=int, default=176, help="Give the networks this many classes.")
    parser.add_argument(
        "--width",
        type=int,
        default=108,
        help="Measure images of this width: by default the mean of words 32 px high.",
    )
    parser.add_argument("--rounds", type=int, default=15, help="Measure this many rounds.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    arguments = parser.parse_args()
    alphabet = tuple(chr(0x4E00 + i) for i in range(arguments.classes - 1))
    results = header("backbones")
    results["input"] = {"width": arguments.width, "height": 32, "classes": arguments.classes}
    backends = {}
    with tempfile.TemporaryDirectory() as folder:
        for at, (name, (recipe, build)) in enumerate(NETWORKS.items()):
            torch.manual_seed(0)
            path = Path(folder) / f"{at}.onnx"
            module = build(arguments.classes)
            export(reference_of(module, RECIPES[recipe], alphabet, {}), path)
            backends[name] = OrtBackend(path)
            operations = flops(load_onnx(path), backends[name].manifest, [arguments.width])[arguments.width]
            results[name] = {
                "parameters": sum(p.numel() for p in module.parameters()),
                "megaflops": round(operations / 1e6, 1),
            }
    rng = np.random.default_rng(0)
    tasks: dict[str, Callable[[], object]] = {}
    for name, backend in backends.items():
        shape = backend.manifest.channels, backend.manifest.height, arguments.width
        for batch in (1, 8):
            images = rng.standard_normal((batch, *shape), np.float32)
            tasks[f"{name}, {batch}"] = partial(_repeated, partial(backend.run, images), 8 // batch)
    spent = cpu_in_turn(tasks, dict.fromkeys(tasks, 8), arguments.rounds)
    for name, batch in product(NETWORKS, (1, 8)):
        quarters = statistics.quantiles(spent[f"{name}, {batch}"], n=4)
        results[name][f"images per CPU-second, batch {batch}"] = round(1e3 / quarters[1])
        results[name][f"interquartile range, batch {batch}"] = [
            round(1e3 / quarters[2]),
            round(1e3 / quarters[0]),
        ]
    for name in NETWORKS:
        print(name, results[name])
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
