"""How much TF32, fp16 and bf16 change a network's logits, compared with float64.

    python -m benchmarks.accuracy.number_formats IMAGES [IMAGES ...] [--checkpoint FILE] [--json FILE]

The tolerance of engines comes from these figures. All runs on a CPU: PyTorch computes in fp16 and bf16 there,
and TF32 is imitated by rounding the factors of products. The images of a batch have one width.

A row shows, for one format, the median and the largest error of a batch. The error is the largest difference
of its logits; if its logits exceed 10, the error is divided by (largest logit / 10).

The row also shows by how much the error of a small sample can be too low: (largest error of all batches) /
(largest error of the sample). In 99 of 100 random samples the ratio is at most the figure shown. The script
needs the extra [export].
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
_CHECKPOINT = Path(__file__).parents[2] / "training" / "latin.pth"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="+", help="Read these folders, files or globs.")
    parser.add_argument("--checkpoint", type=Path, default=_CHECKPOINT, help="Measure this checkpoint.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
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
