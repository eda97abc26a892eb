"""How well the default model reads a few hundred labelled images of your own, before and after finetuning.

    python -m benchmarks.accuracy.finetune NAME=DATA ... [--json FILE]
    python -m benchmarks.accuracy.finetune signed_numbers=DIR/labels.tsv plates=DIR/labels.tsv --json FILE

The model is trained on four fifths of each dataset with training/finetune.yaml. It reads the rest before and
after. A hash of each image decides its part, so equal images stay together. The alphabet is the model's, plus
the characters of the labels that it lacks. The script needs the extras [cpu,evaluate,export,train].
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from crnn_deploy.datasets import Dataset, open_dataset
from crnn_deploy.evaluation.evaluate import evaluate
from crnn_deploy.evaluation.speed import header
from crnn_deploy.export.reference import open_reference
from crnn_deploy.metrics import Score
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.training.config import Config, DataConfig, read_config
from crnn_deploy.training.loop import train
from crnn_deploy.training.sources import open_source

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "training" / "finetune.yaml"
CHECKPOINT = ROOT / "training" / "latin.pth"


def score(checkpoint: Path, dataset: Dataset) -> Score:
    """How a checkpoint reads a dataset."""
    recognizer = Recognizer(open_reference(checkpoint, CheckpointSettings()))
    return evaluate(recognizer, {"held out": dataset}).overall


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "data", nargs="+", metavar="NAME=DATA", help="Finetune on these datasets, one after another."
    )
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        help="Change the training's configuration, as `crnn-deploy train --set` does.",
    )
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    arguments = parser.parse_args()
    results = header("finetune")
    before = open_reference(CHECKPOINT, CheckpointSettings()).manifest.alphabet
    for entry in arguments.data:
        name, path = entry.split("=", 1)
        whole = open_dataset(path)
        own = {character for i in range(len(whole)) for character in whole[i].text}
        alphabet = [*before, *sorted(own - set(before))]
        with tempfile.TemporaryDirectory() as folder:
            tokens = Path(folder) / "alphabet.txt"
            tokens.write_text("\n".join(alphabet) + "\n", encoding="utf-8")
            changes = (
                *(f"out={folder}/run", f"start.checkpoint={CHECKPOINT}", f"alphabet.file={tokens}"),
                *(f"train.0.path={path}", "train.0.part=[0, 0.8]"),
                *(f"validation.own.path={path}", "validation.own.part=[0.8, 1]"),
                *arguments.changes,
            )
            config: Config = read_config(CONFIG, changes)
            parts = [
                open_source(DataConfig(path=path, part=part), alphabet, 0) for part in ((0, 0.8), (0.8, 1))
            ]
            first = score(CHECKPOINT, parts[1])
            start, cpu = time.perf_counter(), time.process_time()
            train(config)
            results[name] = {
                "trained on": len(parts[0]),
                "steps": config.steps,
                "characters added": len(alphabet) - len(before),
                "before": first.to_plain(),
                "seconds": round(time.perf_counter() - start, 1),
                "cpu_seconds": round(time.process_time() - cpu, 1),
                "after": score(Path(folder) / "run" / "last.pth", parts[1]).to_plain(),
            }
        print(name, json.dumps(results[name]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
