"""Whether an image reads the same in a batch as alone, to the bit.

    python -m benchmarks.accuracy.batch_invariance MODEL.onnx ... [--precision bf16] [--cases 300]
        [--json FILE]

A case is 1 to 10 images of noise, 8 to 64 px high and 8 to 200 px wide. One thread reads each image alone.
Then the images are shuffled and read in batches of 2 to 9, by one thread and by two. The text, its
confidence, and each character's confidence and place must be equal. If one image differs, the exit code is 1.
The script needs the extra [cpu], and OpenVINO for bf16.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np

from crnn_deploy.evaluation.speed import header
from crnn_deploy.runtime.opening import Precision
from crnn_deploy.runtime.recognizer import Recognizer


def compare(model: Path, cases: int, precision: Precision | None) -> dict[str, Any]:
    """Read random cases; how many readings were compared, and how many differed."""
    rng = np.random.default_rng(0)
    readers = {
        (batch, threads): Recognizer.load(model, batch=batch, threads=threads, precision=precision)
        for batch in range(1, 10)
        for threads in (1, 2)
    }
    compared = different = characters = 0
    for _ in range(cases):
        sizes = zip(rng.integers(8, 65, 10).tolist(), rng.integers(8, 201, 10).tolist(), strict=True)
        images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes][: int(rng.integers(1, 11))]
        alone = [readers[1, 1].read([image])[0] for image in images]
        characters += sum(len(text.chars) for text in alone)
        order = rng.permutation(len(images)).tolist()
        batch = int(rng.integers(2, 10))
        for threads in (1, 2):
            together = readers[batch, threads].read([images[i] for i in order])
            compared += len(together)
            different += sum(text != alone[i] for i, text in zip(order, together, strict=True))
    return {"cases": cases, "compared": compared, "characters": characters, "different": different}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", type=Path, help="Read with these models.")
    parser.add_argument("--cases", type=int, default=300, help="Draw this many cases for each model.")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="Read in this precision. The default is that of the file.",
    )
    parser.add_argument(
        "--json", type=Path, help="Write the results to this file. Rows of other models there stay."
    )
    arguments = parser.parse_args()
    results = header("batch_invariance")
    if arguments.json and arguments.json.is_file():
        results = json.loads(arguments.json.read_text(encoding="utf-8")) | results
    different = 0
    for model in arguments.models:
        name = model.stem if arguments.precision is None else f"{model.stem}, {arguments.precision}"
        row = results[name] = compare(model, arguments.cases, arguments.precision)
        different += row["different"]
        print(name, row, flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
