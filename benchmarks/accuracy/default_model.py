"""How well the default model, or another, reads words and fonts that it was not trained on, and real images.

    python -m benchmarks.accuracy.default_model [--model NAME|FILE] [--images 2000] [--data DIR ...]
        [--json FILE]

The drawn images show words that are not in the training, in fonts whose designs are not in it. Each set has a
seed. A text is right only if it is exact, upper and lower case included. Each --data is a dataset of real
images, as `crnn-deploy evaluate` takes it. A label with a character outside the model's alphabet counts as
wrong. The script needs the extras [cpu,evaluate,train], and the fonts and word lists of the tier `latin`.
"""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path

from crnn_deploy.datasets import Dataset, open_dataset
from crnn_deploy.evaluation.evaluate import Provenance, evaluate
from crnn_deploy.evaluation.speed import header
from crnn_deploy.models import DEFAULT, model_file
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.synthesis.dataset import Polarity, SyntheticDataset
from crnn_deploy.synthesis.fonts import scan
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.texts import TextKind, TextSource, read_words

# name: kind of text, with the faults of cameras, polarity, seed; inverted sets have their fellows' texts
SETS: dict[str, tuple[TextKind, bool, Polarity, int]] = {
    "clean words": ("word", False, "dark-on-light", 101),
    "clean words, inverted": ("word", False, "light-on-dark", 101),
    "augmented words": ("word", True, "dark-on-light", 102),
    "augmented words, inverted": ("word", True, "light-on-dark", 102),
    "clean numbers": ("number", False, "both", 103),
    "clean codes": ("code", False, "both", 104),
    "clean lines of words": ("line", False, "both", 105),
    "augmented lines of words": ("line", True, "both", 106),
    "clean random characters": ("random", False, "both", 107),
}


def drawn_sets(alphabet: tuple[str, ...], size: int) -> dict[str, Dataset]:
    """The sets of drawn images."""
    words = read_words("held-out")
    renderer = Renderer([face for face in scan() if face.split == "held-out"], alphabet)
    return {
        name: SyntheticDataset(
            TextSource(alphabet, words, {kind: 1}), renderer, seed, augmented, polarity, size
        )
        for name, (kind, augmented, polarity, seed) in SETS.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        type=model_file,
        default=DEFAULT,
        help="Read with this model: the name of a shipped one, or a file.",
    )
    parser.add_argument("--images", type=int, default=2000, help="Draw this many images of each set.")
    parser.add_argument("--data", action="append", default=[], help="Read these real images too.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    parser.add_argument(
        "--html", type=Path, help="Write a page of the results, as `crnn-deploy evaluate` does."
    )
    arguments = parser.parse_args()
    with closing(Recognizer.load(arguments.model)) as recognizer:
        alphabet = recognizer.manifest.alphabet
        sets = drawn_sets(alphabet, arguments.images)
        sets |= {Path(path).name: open_dataset(path) for path in arguments.data}
        evaluation = evaluate(recognizer, sets, chunk=256)
        provenance = Provenance.of(arguments.model, recognizer.manifest)
    print(evaluation.table())
    results = header("default_model")
    results["model"] = {
        "name": arguments.model.name,
        "sha256": provenance.sha256,
        "source": dict(provenance.source),
    }
    for name, score in evaluation.by_group.items():
        results[name] = score.to_plain()
    results["confusions"] = {
        f"{truth or 'nothing'} -> {prediction or 'nothing'}": count
        for (truth, prediction), count in list(evaluation.confusions.items())[:30]
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.html:
        from crnn_deploy.evaluation.report import render

        arguments.html.write_text(render(evaluation, provenance), encoding="utf-8")


if __name__ == "__main__":
    main()
