"""Draw digits to train the paper's network on.

\b
    python training/digits.py OUT

OUT/short gets numbers of one to three digits, and OUT/all numbers of any length.
"""

import csv
from pathlib import Path

import click
import cv2
import numpy as np

from crnn_deploy.cli.script import ScriptCommand
from crnn_deploy.synthesis.dataset import SyntheticDataset
from crnn_deploy.synthesis.fonts import scan
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.texts import TextSource

DIGITS = "0123456789"
SHORT = 10_000  # images of one to three digits, a quarter with the faults of cameras
ALL = 16_000  # of any length, half with those faults


class Short(TextSource):
    """One to three digits."""

    def sample(self, rng: np.random.Generator) -> str:
        return "".join(str(digit) for digit in rng.integers(0, 10, rng.integers(1, 4)))


def draw(folder: Path, texts: TextSource, seed: int, count: int, augmented: range, long: float) -> None:
    """Images and labels.csv.

    augmented: which of every four images has faults
    long: how many of the texts of more than four digits are kept
    """
    folder.mkdir(parents=True)
    renderer = Renderer([face for face in scan() if face.split == "train"], DIGITS)
    clean, faulty = (SyntheticDataset(texts, renderer, seed, faults, "both") for faults in (False, True))
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str]] = []
    at = 0
    while len(rows) < count:
        sample = (faulty if at % 4 in augmented else clean)[at]
        at += 1
        if len(sample.text) > 4 and rng.random() > long:
            continue
        rows.append((f"{len(rows)}.png", sample.text))
        cv2.imwrite(str(folder / rows[-1][0]), np.asarray(sample.image))
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("filename", "words"), *rows])


@click.command(cls=ScriptCommand, help=__doc__)
@click.argument("out", type=click.Path(path_type=Path))
def main(out: Path) -> None:
    draw(out / "short", Short(DIGITS, [], {"random": 1}), 21, SHORT, range(3, 4), 1.0)
    draw(out / "all", TextSource(DIGITS, [], {"random": 1}), 11, ALL, range(1, 4, 2), 0.08)


if __name__ == "__main__":
    main()
