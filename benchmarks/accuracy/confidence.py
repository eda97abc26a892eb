"""How far the default model's confidences can be trusted, before and after `calibrate-confidence`.

    python -m benchmarks.accuracy.confidence [--model FILE] [--images 1000] [--json FILE] [--picture FILE.png]

The images are held-out words in held-out fonts, drawn as in `benchmarks.accuracy.drawn_text`, but with
other seeds. The calibration is fitted to half of the images of all sets, and measured on the other half. A
line's confidence can be made from its characters' in several ways; the result has a row for each way. The
script needs the extras [cpu,evaluate,train], and the fonts and word lists of the tier `latin`.
"""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path
from typing import get_args

from crnn_deploy.datasets import Dataset
from crnn_deploy.decoding_rule import Aggregate
from crnn_deploy.evaluation.confidence import calibrate
from crnn_deploy.evaluation.confidence_report import diagram
from crnn_deploy.evaluation.speed import header
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.synthesis.dataset import SyntheticDataset
from crnn_deploy.synthesis.fonts import scan
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.texts import TextKind, TextSource, read_words

SETS: dict[str, tuple[TextKind, bool, int]] = {
    "clean words": ("word", False, 501),
    "augmented words": ("word", True, 502),
    "augmented numbers": ("number", True, 503),
    "augmented lines of words": ("line", True, 504),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=DEFAULT, help="Measure this model.")
    parser.add_argument("--images", type=int, default=1000, help="Draw this many images of each set.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    parser.add_argument("--picture", type=Path, help="Draw the reliability diagrams of the aggregate min.")
    arguments = parser.parse_args()
    results = header("confidence")
    with closing(Recognizer.load(arguments.model)) as recognizer:
        alphabet = recognizer.manifest.alphabet
        renderer = Renderer([face for face in scan() if face.split == "held-out"], alphabet)
        words = read_words("held-out")
        sets: dict[str, Dataset] = {}
        for name, (kind, augmented, seed) in SETS.items():
            texts = TextSource(alphabet, words, {kind: 1})
            drawn = SyntheticDataset(texts, renderer, seed, augmented, "both", arguments.images)
            sets[name] = [drawn[at] for at in range(len(drawn))]  # drawn once for all aggregates
        for aggregate in get_args(Aggregate):
            found = calibrate(recognizer, sets, aggregate)
            results[aggregate] = found.to_plain()
            print(f"{aggregate}\n{found.lines()}\n", flush=True)
            if aggregate == "min" and arguments.picture:
                diagram(found).savefig(arguments.picture)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
