"""Export every built-in recipe and every recipe file of this folder, and print one line of proof for each.

    python export/export_all.py [--checkpoints DIR] [-o DIR] [--json FILE] [NAME ...]

Built-in families are exported with random weights, batch norm's statistics among them, through a checkpoint
file and the same steps as `crnn-deploy export`. A recipe file NAME.toml is exported when DIR/NAME holds its
checkpoint. Exit code 1 when one proof failed.
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

import torch
from torch import nn

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.networks.clovaai import FourStage, resnet, vgg
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.networks.doctr import DoctrCRNN, vgg16_bn
from crnn_deploy.networks.gitycc import GitYccCRNN
from crnn_deploy.networks.mmocr import MmocrCRNN
from crnn_deploy.networks.mobilenet import mobilenet_v3_large, mobilenet_v3_small
from crnn_deploy.recipes import RECIPES, Recipe
from crnn_deploy.stages.export import export
from crnn_deploy.stages.reference import Settings, open_reference

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


def random_checkpoint(recipe: Recipe, alphabet: tuple[str, ...], path: Path) -> None:
    """Save random weights of a recipe's network."""
    assert recipe.family is not None
    torch.manual_seed(0)
    channels = 1 if recipe.color == "gray" else 3
    module = NETWORKS[recipe.family](len(alphabet) + 1, channels)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):  # fresh statistics would hide a fold that forgets them
            assert layer.running_mean is not None and layer.running_var is not None
            nn.init.normal_(layer.running_mean, 0, 0.1)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    torch.save(module.state_dict(), path)


def prove(checkpoint: Path, settings: Settings, out: Path) -> dict[str, Any]:
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
        "sizes": len(result.report.cases),
        "megabytes": round(out.stat().st_size / 2**20, 1),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="recipes; all when none is named")
    parser.add_argument(
        "--checkpoints", type=Path, help="folder with a folder of checkpoints for each recipe file"
    )
    parser.add_argument("-o", "--out", type=Path, help="keep the ONNX files here")
    parser.add_argument("--json", type=Path, help="write the table here")
    arguments = parser.parse_args()
    rows: dict[str, dict[str, Any]] = {}
    print(
        f"{'recipe':28}{'family':24}{'input':12}{'classes':>8}"
        f"{'MB':>7}{'max |logit|':>13}{'max |delta|':>13}{'flips':>7}{'texts':>7}"
    )
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        jobs: list[tuple[str, Path, Settings]] = []
        for recipe in RECIPES.values():
            alphabet = recipe.alphabet or tuple(chr(0x4E00 + i) for i in range(LARGEST_ALPHABET))
            jobs.append(
                (recipe.name, Path(folder) / f"{recipe.name}.pth", Settings(recipe.name, None, alphabet))
            )
        for file in sorted(HERE.glob("*.toml")):
            found = sorted((arguments.checkpoints / file.stem).glob("*.pth")) if arguments.checkpoints else []
            jobs += [(file.stem, path, Settings(str(file))) for path in found]
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
                f"{row['scale']:13.2f}{row['max_delta']:13.2e}{row['flips']:7}{row['text_changes']:7}",
                flush=True,
            )
    passed = sum(row["passed"] for row in rows.values())
    print(
        f"{passed} of {len(rows)} proven: logits, every frame's argmax and text "
        "at 14 sizes that were not traced"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0 if rows and passed == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
