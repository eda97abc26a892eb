"""What a model reads of real images if they reach it in another way than its manifest says.

    python -m benchmarks.accuracy.input_rules width [--model latin] [--data FOLDER] [--json FILE]
    python -m benchmarks.accuracy.input_rules contrast [--model latin] [--data FOLDER] [--json FILE]

Nothing is trained for it. A row of `width` is one pair of `aspect` and `minimum` in the manifest's width
rule: the factor on the width that keeps an image's proportions, and the least width in pixels, to which
narrower images are stretched. A row of `contrast` is the filter `stretch` with one pair of `tails` and
`least`: the share of the pixels that become black or white at each end, and the levels that are spread at
least; the first row has no filter. `contrast` reads drawn words and drawn paper without letters too.

A row has the score of each set, and the median CPU time for one image of all sets. The rows take turns. The
script needs the extras [cpu,evaluate].
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.accuracy.drawn_text import drawn_sets, paper
from benchmarks.accuracy.latin_choices import ROOT, held_back_sets, together
from benchmarks.common import cpu_in_turn, measured, write
from crnn_deploy.datasets import Dataset
from crnn_deploy.evaluation.evaluate import evaluate
from crnn_deploy.manifest import Manifest, Stretch
from crnn_deploy.models import model_file
from crnn_deploy.runtime.backends.ort import OrtBackend
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.recognizer import Recognizer

Rule = Callable[[Manifest], Manifest]

ASPECTS, MINIMA = (1.0, 1.25, 1.5, 1.75), (32, 64, 80, 96)
TAILS, LEASTS = (0.0, 0.005, 0.01, 0.02), (32, 64, 96, 128)
DRAWN = 1000  # images of a drawn set


def widths() -> dict[str, tuple[dict[str, float], Rule]]:
    """By the name of a row, its numbers and how it changes a manifest."""

    def rule(aspect: float, minimum: int, manifest: Manifest) -> Manifest:
        return replace(manifest, width=replace(manifest.width, aspect=aspect, minimum=minimum))

    return {
        f"aspect {aspect:g}, at least {minimum} px": (
            {"aspect": aspect, "minimum": minimum},
            partial(rule, aspect, minimum),
        )
        for aspect, minimum in product(ASPECTS, MINIMA)
    }


def contrasts() -> dict[str, tuple[dict[str, float], Rule]]:
    """By the name of a row, its numbers and how it changes a manifest."""

    def rule(filters: tuple[Stretch, ...], manifest: Manifest) -> Manifest:
        return replace(manifest, filters=filters)

    rows: dict[str, tuple[dict[str, float], Rule]] = {"no filter": ({}, partial(rule, ()))}
    for tails, least in product(TAILS, LEASTS):
        numbers = {"tails": tails, "least": least}
        rows[f"tails {tails:g}, least {least}"] = (numbers, partial(rule, (Stretch(tails, least),)))
    return rows


def reader(model: Path, rule: Rule) -> Recognizer:
    backend = OrtBackend(model)
    backend.manifest = rule(backend.manifest)
    return Recognizer(backend)


def drawn(model: Path) -> dict[str, Dataset]:
    alphabet = OrtBackend(model).manifest.alphabet
    words = drawn_sets(alphabet, DRAWN)
    names = ("clean words", "augmented words")
    return {name: words[name] for name in names} | {"paper without text": paper(alphabet, DRAWN)}


def scores(recognizer: Recognizer, sets: dict[str, Dataset]) -> dict[str, Any]:
    found = together(dict(evaluate(recognizer, sets, chunk=256).by_group))
    return {name: score.to_plain() for name, score in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rules", choices=("width", "contrast"), help="Try these rules.")
    parser.add_argument("--model", default="latin", help="Read with this model: a name or a file.")
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
    if given.rules == "contrast":
        sets |= drawn(model)
    rows: dict[str, dict[str, Any]] = {}
    tasks = {}
    for name, (numbers, rule) in (widths() if given.rules == "width" else contrasts()).items():
        recognizer = reader(model, rule)
        rows[name] = {**numbers, "sets": scores(recognizer, sets)}
        tasks[name] = partial(recognizer.read, images)
        read = {one: f"{score['alphanumeric_accuracy']:.1%}" for one, score in rows[name]["sets"].items()}
        print(name, read, flush=True)
    for name, spent in cpu_in_turn(tasks, dict.fromkeys(tasks, len(images)), given.rounds).items():
        rows[name]["image"] = measured(spent, "CPU ms")
        print(name, rows[name]["image"]["median"], "CPU ms an image")
    write(f"{given.rules}_rules", rows, given.json)


if __name__ == "__main__":
    main()
