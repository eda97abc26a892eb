"""What `crnn-deploy infer` needs: memory at few and many images, its cold start, and what broken images do.

    python -m benchmarks.speed.infer_stream [--images 100000] [--json FILE]

The images are drawn words (JPEG, 32 to 64 px high, 40 to 300 px wide, in folders of 1,000). They go through a
small CRNN with random weights. It has a sixteenth of the paper's channels, so the pipeline is measured and
not the network. The cold start, in a new process, is measured with the paper's network. The script needs the
extras [cpu,export].
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.common import apart, infer
from crnn_deploy.evaluation.speed import header, word_image


def make_images(folder: Path, count: int) -> None:
    """Write word images, 1,000 to a folder."""
    rng = np.random.default_rng(0)
    for i in range(count):
        if i % 1000 == 0:
            (folder / f"{i // 1000:04}").mkdir(parents=True)
        height, width = int(rng.integers(32, 65)), int(rng.integers(40, 301))
        cv2.imwrite(str(folder / f"{i // 1000:04}" / f"{i:07}.jpg"), word_image(height, width, rng))


def make_model(path: Path, widths: tuple[int, ...], hidden: int) -> None:
    """A random CRNN of 37 classes as ONNX."""
    import torch

    from crnn_deploy.export.exporter import export
    from crnn_deploy.export.reference import reference_of
    from crnn_deploy.networks.crnn import CRNN
    from crnn_deploy.recipes.recipe import RECIPES

    torch.manual_seed(0)
    recipe = RECIPES["paper"]
    module = CRNN(32, 1, 37, hidden, widths=widths)
    export(reference_of(module, recipe, recipe.alphabet or (), {"recipe": "paper", "family": "crnn"}), path)


def mutate(source: Path, folder: Path, count: int) -> None:
    """Break images: flip bytes, cut them short, or insert rubbish."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    originals = sorted(source.glob("*/*.jpg"))[:count]
    for i, path in enumerate(originals):
        encoded = path.read_bytes()
        if i % 2:  # half of them PNG
            pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
            assert pixels is not None
            encoded = cv2.imencode(".png", pixels)[1].tobytes()
        data = bytearray(encoded)
        for _ in range(int(rng.integers(1, 20))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        if i % 3 == 0:
            del data[int(rng.integers(len(data))) :]
        (folder / f"{i:04}{'.png' if i % 2 else '.jpg'}").write_bytes(data)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=100_000, help="Read at most this many images.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    arguments = parser.parse_args()
    results = header("infer_stream")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in (
            (folder / "small.onnx", (4, 8, 16, 16, 32, 32, 32), 16),
            (folder / "paper.onnx", (64, 128, 256, 256, 512, 512, 512), 256),
        ):
            apart(make_model, *model)
        make_images(folder / "images", arguments.images)
        for count in sorted({1000, min(10_000, arguments.images), arguments.images}):
            paths = sorted((folder / "images").iterdir())[: count // 1000]
            out = folder / f"{count}.jsonl"
            row = infer(folder / "small.onnx", "--format", "jsonl", "-o", out, *paths)
            row["images_per_second"] = round(count / row["seconds"], 1)
            row["records"] = sum(1 for _ in out.open("rb"))
            results[f"stream of {count}"] = row
            print(count, row, flush=True)
        one = next((folder / "images" / "0000").iterdir())
        runs = [infer(folder / "paper.onnx", one) for _ in range(7)]
        middle = sorted(runs, key=lambda run: run["cpu_seconds"])[3]
        results["cold start, paper network, median of 7"] = middle
        print("cold start", middle, flush=True)
        mutate(folder / "images", folder / "mutated", 300)
        out = folder / "mutated.jsonl"
        row = infer(folder / "small.onnx", "--format", "jsonl", "-o", out, folder / "mutated")
        statuses = [json.loads(line)["status"] for line in out.open(encoding="utf-8")]
        row |= {"records": len(statuses), "read": statuses.count("ok"), "errors": statuses.count("error")}
        results["300 mutated images"] = row
        print("mutated", row, flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
