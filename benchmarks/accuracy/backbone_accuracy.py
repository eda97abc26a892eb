"""Which backbone reads best after the same training: the same drawn images, steps and input rule for each.

    python -m benchmarks.accuracy.backbone_accuracy [--steps 2000] [--jobs 2] [--out DIR] [--json FILE]

Three networks start from random weights: the compact network, docTR's crnn_mobilenet_v3_small, and the
paper's VGG at a quarter of its channels. docTR's published weights are not used, since they were trained on
other images. The texts are words and numbers of 62 characters. Each network is trained with the training
fonts and words, and tested with the held-out ones, on 2,000 images a set. `benchmarks.speed.backbones` says
how fast they are. The script takes about 45 minutes on two cores. It needs the extras [cpu,evaluate,train],
and the fonts and word lists of the tier `latin`.
"""

from __future__ import annotations

import argparse
import json
import string
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from benchmarks.accuracy.drawn_text import drawn_sets
from crnn_deploy.evaluation.evaluate import evaluate
from crnn_deploy.evaluation.speed import header
from crnn_deploy.export.reference import open_reference
from crnn_deploy.networks.compact import CompactCRNN
from crnn_deploy.networks.crnn import CRNN, PAPER_WIDTHS
from crnn_deploy.networks.doctr import DoctrCRNN
from crnn_deploy.networks.mobilenet import mobilenet_v3_small
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.runtime.recognizer import Recognizer

ALPHABET = string.digits + string.ascii_letters
SETS = ("clean words", "augmented words", "clean numbers")
RECIPE = """
blank = "first"
color = "{color}"
height = 32
mean = {half}
std = {half}
interpolation = "linear"
[width]
minimum = 32
maximum = 1600
multiple = 8
"""


def networks() -> dict[str, tuple[str, nn.Module]]:
    """Name: colour of its input, and the network with random weights."""
    torch.manual_seed(0)
    classes = len(ALPHABET) + 1
    quarter = [width // 4 for width in PAPER_WIDTHS]
    return {
        "compact": ("gray", CompactCRNN(32, 1, classes)),
        "docTR crnn_mobilenet_v3_small": ("rgb", DoctrCRNN(mobilenet_v3_small(3), 576, 128, classes)),
        "VGG x 1/4": ("gray", CRNN(32, 1, classes, 64, widths=quarter)),
    }


def train(folder: Path, color: str, module: nn.Module, steps: int) -> Path:
    """The averaged weights of a network after its training."""
    folder.mkdir(parents=True, exist_ok=True)
    half = [0.5] * (1 if color == "gray" else 3)
    (folder / "input.toml").write_text(RECIPE.format(color=color, half=half))
    torch.save({"state_dict": module.state_dict(), "config": {"alphabet": ALPHABET}}, folder / "start.pth")
    config = {
        "out": str(folder / "run"),
        "start": {"checkpoint": str(folder / "start.pth"), "recipe": str(folder / "input.toml")},
        "train": [{"synthetic": {"kinds": {"word": 0.75, "number": 0.25}}}],
        "seed": 1,
        "steps": steps,
        "batch": 64,
        "optimizer": {"name": "adamw", "lr": 0.002, "weight_decay": 0.01},
        "schedule": {"name": "trapezoid", "warmup": 200, "decay": 0.4},
        "ema": 0.998,
        "validate_every": steps,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "crnn_deploy", "train", "--config", str(folder / "config.yaml")]
    with (folder / "log").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)
    return folder / "run" / "last.pth"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000, help="Train for this many steps of 64 images.")
    parser.add_argument("--jobs", type=int, default=2, help="Train this many networks at once.")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/backbones"), help="Keep the networks in this folder."
    )
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    made = networks()
    results: dict[str, Any] = header("backbone_accuracy")
    results["training"] = {"steps": options.steps, "batch": 64, "characters": len(ALPHABET)}

    def trained(name: str) -> Path:
        folder = options.out / name.replace(" ", "-").replace("/", "-")
        return train(folder, *made[name], options.steps)

    with ThreadPoolExecutor(options.jobs) as pool:
        paths = dict(zip(made, pool.map(trained, made), strict=True))
    sets = {name: held_out for name, held_out in drawn_sets(tuple(ALPHABET), 2000).items() if name in SETS}
    for name, path in paths.items():
        with closing(Recognizer(open_reference(path, CheckpointSettings()))) as recognizer:
            evaluation = evaluate(recognizer, sets, chunk=256)
        results[name] = {group: score.to_plain() for group, score in evaluation.by_group.items()}
        print(
            name, {group: f"{score.accuracy:.2%}" for group, score in evaluation.by_group.items()}, flush=True
        )
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
