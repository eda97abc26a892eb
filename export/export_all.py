"""Export every built-in recipe and every recipe file of this folder, and print one line of proof for each.

    python export/export_all.py [--checkpoints DIR] [-o DIR] [--json FILE] [NAME ...]

Built-in families are exported with random weights and random statistics of batch norm. They go through a
checkpoint file and the same steps as `crnn-deploy export`. A recipe file NAME.toml is exported if DIR/NAME
holds its checkpoint. If one proof fails, the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.evaluation.speed import header
from crnn_deploy.export.exporter import export
from crnn_deploy.export.reference import open_reference, reference_of
from crnn_deploy.networks.clovaai import BasicBlock, FourStage, resnet, vgg
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.networks.doctr import DoctrCRNN, vgg16_bn
from crnn_deploy.networks.gitycc import GitYccCRNN
from crnn_deploy.networks.mmocr import MmocrCRNN
from crnn_deploy.networks.mobilenet import InvertedResidual, mobilenet_v3_large, mobilenet_v3_small
from crnn_deploy.recipes.recipe import RECIPES, Recipe
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.verdict.drawn import drawn_images

HERE = Path(__file__).parent
# the published networks: classes, channels -> module
NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    "crnn": lambda classes, channels: CRNN(32, channels, classes),
    "mmocr": lambda classes, channels: MmocrCRNN(32, channels, classes),
    "gitycc": lambda classes, channels: GitYccCRNN(32, channels, classes),
    "clovaai-vgg": lambda classes, channels: FourStage(vgg(channels, 512), 512, 256, classes),
    "clovaai-resnet": lambda classes, channels: FourStage(resnet(channels, 512), 512, 256, classes),
    "easyocr-g1": lambda classes, channels: FourStage(resnet(channels, 512), 512, 512, classes),
    "easyocr-g2": lambda classes, channels: FourStage(vgg(channels, 256), 256, 256, classes),
    "doctr-vgg16": lambda classes, channels: DoctrCRNN(vgg16_bn(channels), 512, 128, classes),
    "doctr-mobilenet-small": lambda classes, channels: DoctrCRNN(
        mobilenet_v3_small(channels), 576, 128, classes
    ),
    "doctr-mobilenet-large": lambda classes, channels: DoctrCRNN(
        mobilenet_v3_large(channels), 960, 128, classes
    ),
}
LARGEST_ALPHABET = 6735  # stands in where the alphabet belongs to the checkpoint
LARGEST_LOGIT = 5.0


def random_checkpoint(recipe: Recipe, alphabet: tuple[str, ...], path: Path) -> None:
    """Save random weights of a recipe's network that are as alive as trained ones.

    With the published initialisations the signal fades: logits that hardly vary prove little. Here
    convolutions are He's (arXiv 1502.01852), recurrences Xavier's and orthogonal, and batch norm has random
    scales and the statistics of drawn images. A residual branch joins its shortcut at a fifth of the scale:
    with equal parts a deep random network magnifies fp32's rounding a thousandfold, in PyTorch as in ONNX
    Runtime. The last layer is scaled to logits of at most 5 on the drawn images.
    """
    assert recipe.family is not None
    torch.manual_seed(0)
    module = NETWORKS[recipe.family](len(alphabet) + 1, 1 if recipe.color == "gray" else 3)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.3)
            layer.momentum = None  # the plain mean over the batches
        elif isinstance(layer, nn.LSTM):
            for name, weight in layer.named_parameters():
                if name.startswith("weight_ih"):
                    nn.init.xavier_normal_(weight)
                elif name.startswith("weight_hh"):
                    nn.init.orthogonal_(weight)
    for block in module.modules():
        if isinstance(block, BasicBlock):
            nn.init.uniform_(block.bn2.weight, 0.1, 0.3)
        elif isinstance(block, InvertedResidual) and block.shortcut:
            nn.init.uniform_(
                [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)][-1].weight, 0.1, 0.3
            )
    manifest = reference_of(module, recipe, alphabet, {}).manifest
    rng = np.random.default_rng(0)
    width = max(100, recipe.width.minimum)
    batches = [torch.from_numpy(drawn_images(manifest, 8, width, rng)) for _ in range(4)]
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.inference_mode():
        module.train()
        for images in batches:
            module(images)
        module.eval()
        largest = max(float(module(images).abs().max()) for images in batches)
        last.weight.mul_(LARGEST_LOGIT / largest)
        last.bias.mul_(LARGEST_LOGIT / largest)
    torch.save(module.state_dict(), path)


def prove(checkpoint: Path, settings: CheckpointSettings, out: Path) -> dict[str, Any]:
    """Export one checkpoint; what its proof found."""
    start = time.perf_counter()
    try:
        result = export(open_reference(checkpoint, settings), out)
    except CrnnDeployError as error:
        return {"passed": False, "error": str(error)}
    report = result.report.to_plain()
    del report["cases"]
    manifest = result.manifest
    width = "any" if result.any_width else manifest.width.minimum
    return {
        **report,
        "family": manifest.source["family"],
        "classes": manifest.classes,
        "input": f"{manifest.channels}x{manifest.height}x{width}",
        "scale": max(case.scale for case in result.report.cases),
        "characters": sum(case.characters for case in result.report.cases),
        "sizes": len(result.report.cases),
        "megabytes": round(out.stat().st_size / 2**20, 1),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="Export these recipes. By default all are exported.")
    parser.add_argument(
        "--checkpoints",
        type=Path,
        help="Look in this folder for a folder of checkpoints for each recipe file.",
    )
    parser.add_argument("-o", "--out", type=Path, help="Keep the ONNX files in this folder.")
    parser.add_argument("--json", type=Path, help="Write the table to this file.")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    print(
        f"{'recipe':28}{'family':24}{'input':12}{'classes':>8}"
        f"{'MB':>7}{'characters':>12}{'max |logit|':>13}{'max |delta|':>13}{'flips':>7}{'texts':>7}"
    )
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        jobs: list[tuple[str, Path, CheckpointSettings]] = []
        for recipe in (recipe for recipe in RECIPES.values() if recipe.family):
            alphabet = recipe.alphabet or tuple(chr(0x4E00 + i) for i in range(LARGEST_ALPHABET))
            jobs.append(
                (
                    recipe.name,
                    Path(folder) / f"{recipe.name}.pth",
                    CheckpointSettings(recipe.name, None, alphabet),
                )
            )
        for file in sorted(HERE.glob("*.toml")):
            found = sorted((arguments.checkpoints / file.stem).glob("*.pth")) if arguments.checkpoints else []
            jobs += [(file.stem, path, CheckpointSettings(str(file))) for path in found]
        for name, checkpoint, settings in jobs:
            if arguments.names and name not in arguments.names:
                continue
            if name in RECIPES:
                assert settings.alphabet is not None
                random_checkpoint(RECIPES[name], settings.alphabet, checkpoint)
            row = rows[name] = prove(checkpoint, settings, out / f"{name}.onnx")
            if "error" in row:
                print(f"{name:28}FAILED: {row['error']}")
                continue
            print(
                f"{name:28}{row['family']:24}{row['input']:12}{row['classes']:8}{row['megabytes']:7}"
                f"{row['characters']:12}{row['scale']:13.2f}{row['max_delta']:13.2e}{row['flips']:7}{row['text_changes']:7}",
                flush=True,
            )
    passed = sum(row["passed"] for row in rows.values())
    print(
        f"{passed} of {len(rows)} proven: logits, every frame's argmax and text "
        "at 14 sizes that were not traced"
    )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({**header("export_parity"), **rows}, indent=1) + "\n", encoding="utf-8"
        )
    return 0 if rows and passed == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
