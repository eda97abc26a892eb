"""How well the shipped models, or others, read words and fonts that no training saw, and real images.

    python -m benchmarks.accuracy.drawn_text [--model NAME|FILE ...] [--images 2000] [--data DIR ...]
        [--json FILE]

The drawn images show words that are not in the training, in fonts whose designs are not in it. Each set has a
seed. A model whose alphabet is Chinese reads Chinese ones. A text is right only if it is exact, upper and
lower case included. The last set is paper without text, with the faults of cameras: only an empty text is
right. Each --data is a dataset of real images, as `crnn-deploy evaluate` takes it. A label with a character
outside the model's alphabet counts as wrong. The script needs the extras [cpu,evaluate,train], and the fonts
and word lists of the tier `latin`, and for a Chinese model those of the tier `chinese` too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from crnn_deploy.datasets import Dataset, open_dataset
from crnn_deploy.evaluation.evaluate import Provenance, evaluate
from crnn_deploy.evaluation.speed import header
from crnn_deploy.models import model_file, shipped
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.synthesis.chinese_words import read_chinese_words
from crnn_deploy.synthesis.dataset import Polarity, SyntheticDataset
from crnn_deploy.synthesis.printed import faces_for, is_chinese
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.texts import TextKind, TextSource, read_words

# name: kinds of text, with the faults of cameras, polarity, seed; inverted sets have their fellows' texts
_Sets = Mapping[str, tuple[Mapping[TextKind, float], bool, Polarity, int]]
SETS: _Sets = {
    "clean words": ({"word": 1}, False, "dark-on-light", 101),
    "clean words, inverted": ({"word": 1}, False, "light-on-dark", 101),
    "augmented words": ({"word": 1}, True, "dark-on-light", 102),
    "augmented words, inverted": ({"word": 1}, True, "light-on-dark", 102),
    "clean numbers": ({"number": 1}, False, "both", 103),
    "clean codes": ({"code": 1}, False, "both", 104),
    "clean lines of words": ({"line": 1}, False, "both", 105),
    "augmented lines of words": ({"line": 1}, True, "both", 106),
    "clean random characters": ({"random": 1}, False, "both", 107),
}
PAPER, _PAPER_SEED = "paper without text", 121
_BOTH: Mapping[TextKind, float] = {"chinese-word": 1, "chinese-sentence": 1}
CHINESE_SETS: _Sets = {
    "clean words": ({"chinese-word": 1}, False, "dark-on-light", 111),
    "clean words, inverted": ({"chinese-word": 1}, False, "light-on-dark", 111),
    "clean sentences": ({"chinese-sentence": 1}, False, "both", 112),
    "augmented words and sentences": (_BOTH, True, "dark-on-light", 113),
    "augmented words and sentences, inverted": (_BOTH, True, "light-on-dark", 113),
    "clean figures": ({"chinese-figure": 1}, False, "both", 114),
    "clean Chinese with Latin words and figures": ({"chinese-mixed": 1}, False, "both", 115),
    "clean labels of forms and shops": ({"chinese-label": 1}, False, "both", 116),
    "clean random characters": ({"random": 1}, False, "both", 117),
    "clean Latin words and numbers": ({"word": 1, "number": 1}, False, "both", 118),
}


def drawn_sets(alphabet: Sequence[str], size: int) -> dict[str, Dataset]:
    """The sets of drawn images for an alphabet."""
    chinese = read_chinese_words("held-out") if is_chinese(alphabet) else None
    words = read_words("held-out")
    renderer = Renderer(faces_for(alphabet, "held-out"), tuple(alphabet))
    return {
        name: SyntheticDataset(
            TextSource(alphabet, words, kinds, chinese=chinese), renderer, seed, augmented, polarity, size
        )
        for name, (kinds, augmented, polarity, seed) in (CHINESE_SETS if chinese else SETS).items()
    }


def paper(alphabet: Sequence[str], size: int) -> Dataset:
    """Images without letters."""
    renderer = Renderer(faces_for(alphabet, "held-out"), tuple(alphabet))
    texts = TextSource(alphabet, read_words("held-out"), {"word": 1, "number": 1})
    return SyntheticDataset(texts, renderer, _PAPER_SEED, True, "both", size, empty=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model",
        dest="models",
        action="append",
        help="Read with this model: the name of a shipped one, or a file. Give the option again for more. By "
        "default all shipped ones in fp32 read.",
    )
    parser.add_argument("--images", type=int, default=2000, help="Draw this many images of each set.")
    parser.add_argument("--data", action="append", default=[], help="Read these real images too.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    arguments = parser.parse_args()
    models = arguments.models or [name for name in shipped() if not name.endswith(".int8")]
    for named in ([model_file(name).stem for name in models], [Path(data).name for data in arguments.data]):
        if twice := next((name for name in named if named.count(name) > 1), None):
            parser.error(f"two results would be called {twice}; read them one after the other")
    results = header("drawn_text")
    for name in models:
        path = model_file(name)
        with closing(Recognizer.load(path)) as recognizer:
            sets = drawn_sets(recognizer.manifest.alphabet, arguments.images)
            sets |= {Path(data).name: open_dataset(data) for data in arguments.data}
            evaluation = evaluate(recognizer, sets, chunk=256)
            empty = {PAPER: paper(recognizer.manifest.alphabet, arguments.images)}
            of_paper = evaluate(recognizer, empty, chunk=256).overall
            provenance = Provenance.of(path, recognizer.manifest)
        print(f"{name}:\n{evaluation.table()}\n{PAPER}: {of_paper.accuracy:.2%} right", flush=True)
        row: dict[str, Any] = {"sha256": provenance.sha256, "source": dict(provenance.source)}
        row |= {group: score.to_plain() for group, score in evaluation.by_group.items()}
        row[PAPER] = of_paper.to_plain()
        row["confusions"] = {
            f"{truth or 'nothing'} -> {prediction or 'nothing'}": count
            for (truth, prediction), count in list(evaluation.confusions.items())[:30]
        }
        results[path.stem] = row
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
