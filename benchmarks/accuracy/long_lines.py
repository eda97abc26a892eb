"""How cutting long lines changes the text, beside the same lines in one piece.

    python -m benchmarks.accuracy.long_lines [--lines 40] [--json FILE]

The lines are held-out words in held-out fonts, half of them with the faults of cameras. They are wider than
the default model's largest width, up to 4,096 pixels of its input. The model's graph takes any width, so each
line also runs in one piece. The frames (the outputs of the time steps) and the texts of both are compared.
The script needs the extras [cpu,evaluate,train], and the fonts and word lists of the tier `latin`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from crnn_deploy.evaluation.speed import header
from crnn_deploy.metrics import score
from crnn_deploy.models import DEFAULT
from crnn_deploy.runtime import long_lines
from crnn_deploy.runtime.backends.backend import open_backend
from crnn_deploy.runtime.decoding.ctc import BestPath, Frames
from crnn_deploy.runtime.prepared import Prepared
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.synthesis.fonts import scan
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.texts import read_words

OVERLAPS = (1, 2, 4, 8, 12, 24)  # times the height
WIDEST = 4096  # pixels of the network's input


def drawn(recognizer: Recognizer, count: int) -> list[tuple[str, Prepared]]:
    """Lines of the wanted widths, with their texts."""
    renderer = Renderer([face for face in scan() if face.split == "held-out"], recognizer.manifest.alphabet)
    words, rng = read_words("held-out"), np.random.default_rng(601)
    found: list[tuple[str, Prepared]] = []
    while len(found) < count:
        text = " ".join(words[rng.integers(len(words))] for _ in range(rng.integers(12, 28)))
        pixels = renderer.render(
            text, rng, strength=0.5 * (len(found) % 2), inverted=bool(rng.random() < 0.5)
        )
        prepared = recognizer.prepare(pixels)
        if recognizer.manifest.width.maximum < prepared.columns <= WIDEST:
            found.append((text, prepared))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=40, help="Draw this many lines.")
    parser.add_argument("--json", type=Path, help="Write the results to this file.")
    arguments = parser.parse_args()
    backend = open_backend(DEFAULT)
    manifest, best_path = backend.manifest, BestPath(backend.manifest.alphabet, backend.manifest.blank)
    lines = drawn(Recognizer(backend), arguments.lines)

    def text(frames: Frames) -> str:
        return best_path(frames, [(1.0, frames.indices.shape[1])])[0].text

    truths = [truth for truth, _ in lines]
    whole = [backend.run(prepared.pixels[None]) for _, prepared in lines]
    results = header("long_lines")
    read = score(zip(truths, map(text, whole), strict=True))
    results["uncut"] = {"lines": len(lines), "characters": read.characters, "edits": read.edits}
    print(f"uncut: {read.edits} edits in {read.characters} characters of {len(lines)} lines")
    for overlap in OVERLAPS:
        cut = [
            long_lines.run(backend.run, prepared.pixels[None], manifest, 1, overlap) for _, prepared in lines
        ]
        pairs = list(zip(whole, cut, strict=True))
        differing = sum(int((one.indices != other.indices).sum()) for one, other in pairs)
        same = sum(text(one) == text(other) for one, other in pairs)
        edits = score(zip(truths, map(text, cut), strict=True)).edits
        frames = sum(one.indices.size for one in whole)
        results[f"overlap {overlap}"] = {
            "frames": frames,
            "frames_differing": differing,
            "texts_equal": same,
            "edits": edits,
        }
        print(
            f"overlap {overlap:2} heights: {differing} of {frames} frames differ, {same} texts equal, "
            f"{edits} edits"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
