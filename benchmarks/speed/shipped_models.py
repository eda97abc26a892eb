"""How many words and lines the shipped models read in a CPU-second.

    python -m benchmarks.speed.shipped_models [--images 400] [--rounds 9] [--json FILE]

Every model that is shipped takes its turn in each round, with one thread, from decoded pixels to texts. The
images are drawn without faults: words in Latin letters, and lines of ten characters for a model whose
alphabet is Chinese. A model for Latin letters also reads the words of `speed.peers`, which are shorter: 108
px wide on average at a height of 32. The script needs the extras [cpu,train], the fonts and word lists of the
tier `latin`, and for a Chinese model those of the tier `chinese`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.common import cpu_in_turn, measured, options, write
from crnn_deploy.evaluation.speed import draw_images
from crnn_deploy.models import shipped
from crnn_deploy.runtime.images.pixels import decode_image
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.synthesis.chinese_words import read_chinese_words
from crnn_deploy.synthesis.printed import faces_for, is_chinese
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.texts import TextKind, TextSource, read_words

LENGTH = 10  # characters of a Chinese line


def drawn(alphabet: Sequence[str], count: int) -> tuple[str, list[NDArray[np.uint8]]]:
    """What a model with the alphabet reads: a name, and images."""
    chinese = read_chinese_words("held-out") if is_chinese(alphabet) else None
    renderer = Renderer(faces_for(alphabet, "held-out"), tuple(alphabet))
    kind: TextKind = "chinese-sentence" if chinese else "word"
    name = f"lines of {LENGTH} characters" if chinese else "words"
    texts = TextSource(alphabet, read_words("held-out"), {kind: 1}, chinese=chinese)
    rng = np.random.default_rng(1)
    images: list[NDArray[np.uint8]] = []
    while len(images) < count:
        text = texts.sample(rng)[: LENGTH if chinese else None]
        if not chinese or len(text) == LENGTH:
            images.append(renderer.render(text, rng, strength=0.0))
    return name, images


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, rounds=9)
    parser.add_argument("--images", type=int, default=400, help="Read this many images with each model.")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    tasks: dict[str, Callable[[], object]] = {}
    short = [decode_image(data, "<word>") for data in draw_images("words", given.images)]
    for model in shipped():
        recognizer = Recognizer(model)
        name, images = drawn(recognizer.manifest.alphabet, given.images)
        tasks[f"{model}, {name}"] = partial(recognizer.read, images)
        if name == "words":
            tasks[f"{model}, words of 108 px"] = partial(recognizer.read, short)
    rows = {}
    for name, values in cpu_in_turn(tasks, dict.fromkeys(tasks, given.images), given.rounds).items():
        rows[name] = {"cpu_per_image": measured(values, "CPU ms")}
        print(f"{1e3 / float(np.median(values)):8.0f} a CPU-second  {name}", flush=True)
    write("shipped_models", rows, given.json)


if __name__ == "__main__":
    main()
