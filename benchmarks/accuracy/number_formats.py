"""What TF32, fp16 and bf16 cost a network's logits, against float64: the tolerance of engines comes from it.

    python -m benchmarks.accuracy.number_formats IMAGES [IMAGES ...] [--checkpoint FILE] [--json FILE]

On a CPU, where PyTorch computes in fp16 and bf16; of TF32 the factors of products are rounded. A row for each
format: the largest difference of logits up to 10, in proportion beyond, over batches of one width; and by how
much the worst of all batches exceeds the worst of a sample of so many images, in the sample that 99 of 100
are no worse than. Needs the extra [export].
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crnn_deploy.evaluation.speed import header
from crnn_deploy.export.pytorch import in_pytorch
from crnn_deploy.export.reference import open_reference
from crnn_deploy.parity.compare import LARGE
from crnn_deploy.parity.tolerance import FLOATS
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.runtime.batching import batches
from crnn_deploy.runtime.images import sources
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.images.prepare import prepare

_BATCH, _SAMPLES, _DRAWS = 8, (32, 64, 128, 256), 1000
_CHECKPOINT = Path(__file__).parents[2] / "training" / "default.pth"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", help="folders, files or globs")
    parser.add_argument("--checkpoint", type=Path, default=_CHECKPOINT)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    reference = open_reference(arguments.checkpoint, CheckpointSettings())
    manifest = reference.manifest
    paths = list(sources.find(tuple(arguments.images), ()))
    prepared = ((at, prepare(read_image(path), manifest)) for at, path in enumerate(paths))
    found = [batch.images for batch in batches(prepared, _BATCH)]
    results: dict[str, Any] = {**header("number_formats"), "images": len(paths), "batches": len(found)}
    for precision in FLOATS:
        errors = []
        for images in found:
            error = in_pytorch(reference.module, precision).measure(images)
            errors.append(error.max_delta / max(1, error.scale / LARGE))
        results[precision] = row = _row(np.array(errors))
        print(precision, json.dumps(row), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _row(errors: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    exceeded = {}
    for images in _SAMPLES:
        count = min(len(errors), images // _BATCH)
        worst = [errors[rng.permutation(len(errors))[:count]].max() for _ in range(_DRAWS)]
        exceeded[f"{images} images"] = round(float(errors.max() / np.percentile(worst, 1)), 2)
    return {
        "median": float(np.median(errors)),
        "largest": float(errors.max()),
        "largest / largest of a sample": exceeded,
    }


if __name__ == "__main__":
    main()
