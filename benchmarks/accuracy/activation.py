"""Whether the weights of a checkpoint alone show that its network has ReLU or LeakyReLU.

    python -m benchmarks.accuracy.activation [--out DIR] [--steps 600] [--json FILE]

The script trains small networks of three published families, on three kinds of drawn images, once with ReLU
and once with LeakyReLU. Then it reads the statistics that batch norm keeps in each checkpoint, and tells the
activation from them. It trains 18 networks. Each takes one to two minutes on one CPU. It needs the extras
[cpu,train].
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from crnn_deploy.evaluation.speed import header
from crnn_deploy.export.activation import distances, leaky_relu
from crnn_deploy.export.checkpoints.checkpoint import load
from crnn_deploy.networks.crnn import CRNN, PAPER_WIDTHS
from crnn_deploy.networks.families import recognise
from crnn_deploy.networks.gitycc import GitYccCRNN
from crnn_deploy.networks.mmocr import MmocrCRNN
from crnn_deploy.recipes.recipe import find_recipe

SMALL = tuple(width // 8 for width in PAPER_WIDTHS)


@dataclass(frozen=True)
class Data:
    """What the networks of one kind are trained on."""

    alphabet: str
    recipe: str
    texts: dict[str, Any]


DATA = {
    "digits": Data("0123456789", "training/print.toml", {"kinds": {"random": 1}}),
    "capitals, dark on light": Data(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-",
        "training/print.toml",
        {"kinds": {"code": 1}, "polarity": "dark-on-light"},
    ),
    "words, width 100": Data(
        "abcdefghijklmnopqrstuvwxyz", "paper", {"kinds": {"random": 1}, "augmented": False}
    ),
}


def network(family: str, classes: int, leaky: bool) -> nn.Module:
    if family == "crnn.pytorch":
        return CRNN(32, 1, classes, 32, widths=SMALL, leaky_relu=leaky)
    if family == "GitYCC":
        return GitYccCRNN(32, 1, classes, 32, 32, widths=SMALL, leaky_relu=leaky)
    return MmocrCRNN(32, 1, classes, 32, widths=SMALL, leaky_relu=leaky)


def train(folder: Path, module: nn.Module, data: Data, leaky: bool, steps: int, seed: int) -> Path:
    """The checkpoint of a network trained for a while."""
    folder.mkdir(parents=True, exist_ok=True)
    start = folder / "start.pth"
    settings = {"leaky_relu": leaky, "alphabet": data.alphabet}
    torch.save({"state_dict": module.state_dict(), "config": settings}, start)
    config = {
        "out": str(folder / "run"),
        "start": {"checkpoint": str(start), "recipe": data.recipe},
        "train": [{"synthetic": data.texts}],
        "seed": seed,
        "steps": steps,
        "batch": 24,
        "window": 16,
        "ema": 0,
        "optimizer": {"lr": 0.004},
        "schedule": {"name": "cosine"},
        "save_every": steps,
        "validate_every": steps,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = ["train", "--config", str(folder / "config.yaml")]
    subprocess.run([sys.executable, "-m", "crnn_deploy", *command], check=True, stdout=subprocess.DEVNULL)
    return folder / "run" / "last.pth"


def builder(path: Path) -> Callable[[bool], nn.Module]:
    """What builds the network from its bare weights, with LeakyReLU or with ReLU."""
    state = load(path).state
    family = recognise(state)
    assert family is not None

    def build(leaky: bool) -> nn.Module:
        module = family.build(state, leaky)
        module.load_state_dict(state, strict=False)  # old weights lack how many batches batch norm saw
        return module

    return build


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/activation"), help="Keep the networks in this folder."
    )
    parser.add_argument("--steps", type=int, default=600, help="Train each network for this many steps.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, dict[str, Any]] = {}
    for seed, (kind, data) in enumerate(DATA.items()):
        for family in ("crnn.pytorch", "GitYCC", "mmocr"):
            for leaky in (False, True):
                name = f"{family}, {kind}, {'LeakyReLU' if leaky else 'ReLU'}"
                folder = options.out / name.replace(" ", "-").replace(",", "")
                path = folder / "run" / "last.pth"
                if not path.is_file():
                    torch.manual_seed(seed)
                    module = network(family, len(data.alphabet) + 1, leaky)
                    path = train(folder, module, data, leaky, options.steps, seed)
                build, recipe = builder(path), find_recipe(data.recipe)
                relu, with_leak = distances(build, recipe)
                told = leaky_relu(build, recipe)
                rows[name] = {
                    "distance_as_relu": round(relu, 4),
                    "distance_as_leaky_relu": round(with_leak, 4),
                    "told": {None: "nothing", True: "LeakyReLU", False: "ReLU"}[told],
                    "right": told == leaky,
                }
                print(f"{name:48} {relu:8.3f} {with_leak:8.3f}  {rows[name]['told']}", flush=True)
    right = sum(row["right"] for row in rows.values())
    silent = sum(row["told"] == "nothing" for row in rows.values())
    print(f"of {len(rows)}: {right} told, {len(rows) - right - silent} mistaken, {silent} not told")
    if options.json is not None:
        result = {**header("activation"), "steps": options.steps, **rows}
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
