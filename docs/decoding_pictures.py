"""The pictures of docs/decoding.md.

    python docs/decoding_pictures.py

Reads examples/images/08.png (`naïve façade`) with the default model, and draws what its decoders see and say
into docs/pictures/. Needs the extras [cpu,decode,train].
benchmarks/accuracy/confidence.py draws reliability.png.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from crnn_deploy.runtime.decoding.alignment import Decoder
from crnn_deploy.runtime.decoding.beam import Beam
from crnn_deploy.runtime.decoding.constraints import Constraint
from crnn_deploy.runtime.decoding.ctc import Char, Text
from crnn_deploy.runtime.decoding.greedy import Greedy
from crnn_deploy.runtime.decoding.lexicon import ClosestWord
from crnn_deploy.runtime.decoding.lm import train
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.runtime.recognizer import Recognizer

ROOT = Path(__file__).parents[1]
PATH = ROOT / "examples" / "images" / "08.png"
PICTURES = ROOT / "docs" / "pictures"
LINES = ["a naïve façade", "naïve façade", "the façade", "naïve", "façade", "facade"]  # of the language model
SHOWN = 0.01  # probability that a class must reach in some frame


def main() -> None:
    recognizer = Recognizer()
    pixels = read_image(PATH)
    logits = recognizer.run([recognizer.prepare(PATH)]).logits
    assert logits is not None
    exponentials = np.exp(logits[0] - logits[0].max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    model = train(LINES, 4)
    decoders: dict[str, Decoder] = {
        "greedy": Greedy(),
        "greedy, --block i": Greedy(Constraint(block="i")),
        "beam": Beam(nbest=5),
        "beam, --lm, --alpha 1 --beta 1": Beam(scorers=[(model, 1.0)], bonus=1.0, nbest=5),
        "closest-word": ClosestWord(["naïve façade", "native arcade", "neat facade"]),
    }
    texts = {name: recognizer.with_decoder(decoder).read([PATH])[0] for name, decoder in decoders.items()}
    for name, text in texts.items():
        print(f"{name:32} {text.text!r} {text.confidence:.3f}")
        for one in text.alternatives:
            print(f"{'':34}{one.score:8.2f}  {one.text!r}")
    PICTURES.mkdir(exist_ok=True)
    manifest = recognizer.manifest
    tokens = (*manifest.alphabet[: manifest.blank], "blank", *manifest.alphabet[manifest.blank :])
    _posteriors(pixels, probabilities, tokens, texts["greedy"]).savefig(PICTURES / "posteriors.png")
    shown = {name: texts[name] for name in texts if name not in ("beam", "closest-word")}
    _alignments(pixels, shown, len(probabilities)).savefig(PICTURES / "alignments.png")


def _posteriors(
    pixels: NDArray[Any], probabilities: NDArray[np.float32], tokens: tuple[str, ...], greedy: Text
) -> Figure:
    """The image, the probability of each class in each frame below it, and the best path through it."""
    rows = np.flatnonzero(probabilities.max(axis=0) > SHOWN)
    steps = len(probabilities)
    figure = Figure(figsize=(10, 6), dpi=80, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(1, 5))
    above.imshow(pixels, cmap="gray", aspect="auto", extent=(0, steps, 0, 1))
    above.set_axis_off()
    below.imshow(
        np.log10(np.maximum(probabilities[:, rows].T, 1e-4)),
        cmap="Blues",
        aspect="auto",
        extent=(0, steps, len(rows), 0),
    )
    below.set_yticks(np.arange(len(rows)) + 0.5, [repr(tokens[row])[1:-1] for row in rows])
    path = [np.flatnonzero(rows == label)[0] + 0.5 for label in probabilities.argmax(axis=1)]
    below.plot(np.arange(steps) + 0.5, path, color="tab:red", linewidth=1, marker=".", markersize=3)
    below.set_xlabel("frame")
    below.set_title(f"best path: {greedy.text}", fontsize=10)
    return figure


def _alignments(pixels: NDArray[Any], texts: dict[str, Text], steps: int) -> Figure:
    """For each decoder the frames that its text's likeliest alignment gives to each character."""
    figure = Figure(figsize=(10, 1.5 * len(texts)), dpi=64, layout="constrained")
    for panel, (name, text) in zip(figure.subplots(len(texts), 1), texts.items(), strict=True):
        panel.imshow(pixels, cmap="gray", aspect="auto", extent=(0, steps, 0, 1), alpha=0.5)
        panel.set_axis_off()
        panel.set_title(f"{name}: {text.text}   ({text.confidence:.3f})", fontsize=10, loc="left")
        for at, char in enumerate(text.chars):
            _mark(panel, char, "tab:blue" if at % 2 else "tab:red")
    return figure


def _mark(panel: Any, char: Char, color: str) -> None:
    panel.axvspan(char.start, char.end, color=color, alpha=0.35)
    middle = (char.start + char.end) / 2
    panel.text(middle, -0.05, char.char, ha="center", va="top", fontsize=10, color=color)


if __name__ == "__main__":
    main()
