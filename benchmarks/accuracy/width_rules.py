"""What a model reads of real images if they reach it wider or narrower than its manifest says.

    python -m benchmarks.accuracy.width_rules [--model latin] [--aspect 1,1.25,1.5,1.75]
        [--minimum 32,64,80,96] [--data FOLDER] [--json FILE]

A row is one pair of `aspect` and `minimum` in the manifest's width rule: the factor on the width that keeps
an image's proportions, and the least width in pixels, to which narrower images are stretched. Nothing is
trained for it. The row has the score of each set of --data, and the median CPU time for one image of all
sets. The pairs take turns. The script needs the extras [cpu,evaluate].
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.accuracy.latin_choices import ROOT, held_back_sets, together
from benchmarks.common import cpu_in_turn, measured, write
from crnn_deploy.datasets import Dataset
from crnn_deploy.evaluation.evaluate import evaluate
from crnn_deploy.models import model_file
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.recognizer import Recognizer


def reader(model: Path, aspect: float, minimum: int) -> Recognizer:
    backend = OrtBackend(model)
    manifest = backend.manifest
    backend.manifest = replace(manifest, width=replace(manifest.width, aspect=aspect, minimum=minimum))
    return Recognizer(backend)


def scores(recognizer: Recognizer, sets: dict[str, Dataset]) -> dict[str, Any]:
    found = together(dict(evaluate(recognizer, sets, chunk=256).by_group))
    return {name: score.to_plain() for name, score in found.items()}


def _numbers(given: str) -> list[float]:
    return [float(number) for number in given.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="latin", help="Read with this model: a name or a file.")
    parser.add_argument(
        "--aspect", type=_numbers, default="1,1.25,1.5,1.75", help="Try these factors, separated by commas."
    )
    parser.add_argument(
        "--minimum",
        type=_numbers,
        default="32,64,80,96",
        help="Try these widths, in pixels.",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT.parent / "shared" / "data",
        help="Read the real sets in this folder.",
    )
    parser.add_argument("--rounds", type=int, default=3, help="Measure the time in this many rounds.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    given = parser.parse_args()
    model = Path(model_file(given.model))
    sets = held_back_sets(given.data)
    images = [read_image(dataset[at].image) for dataset in sets.values() for at in range(len(dataset))]
    rows: dict[str, dict[str, Any]] = {}
    tasks = {}
    for aspect, minimum in product(given.aspect, given.minimum):
        name = f"aspect {aspect:g}, at least {minimum:g} px"
        recognizer = reader(model, aspect, int(minimum))
        rows[name] = {"aspect": aspect, "minimum": int(minimum), "sets": scores(recognizer, sets)}
        tasks[name] = partial(recognizer.read, images)
        read = {one: f"{score['alphanumeric_accuracy']:.1%}" for one, score in rows[name]["sets"].items()}
        print(name, read, flush=True)
    for name, spent in cpu_in_turn(tasks, dict.fromkeys(tasks, len(images)), given.rounds).items():
        rows[name]["image"] = measured(spent, "CPU ms")
        print(name, rows[name]["image"]["median"], "CPU ms an image")
    write("width_rules", rows, given.json)


if __name__ == "__main__":
    main()
