"""Write the training images that a model misreads into an LMDB: hard examples, to train on more often.

\b
    python training/misread.py training/latin.yaml model.onnx misread.lmdb --drawn 5000

The model reads every labelled image of the training's sources, and new images of each drawn source. Images
that it reads exactly as labelled are left out, and so are those that no training could use. The LMDB can be
one more source of the training (`train: - {path: misread.lmdb, weight: 0.15}`).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import click

from crnn_deploy.cli.say import progress_bar
from crnn_deploy.cli.script import ScriptCommand
from crnn_deploy.datasets import Dataset, Sample, record
from crnn_deploy.datasets.pack import pack
from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import check_outputs
from crnn_deploy.runtime.decoding import ctc
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.prepared import Prepared
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.synthesis.font_pack import unpacked
from crnn_deploy.training.config import DataConfig, read_config
from crnn_deploy.training.sources import open_source

_CHUNK = 256  # images that are in memory at a time


@dataclass(frozen=True)
class Chosen:
    """Some samples of a dataset."""

    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


class Reader:
    """Reads samples that a training could use.

    ignore_case: labels become lower case, as in the training
    """

    def __init__(self, recognizer: Recognizer, ignore_case: bool) -> None:
        self._recognizer, self._ignore_case = recognizer, ignore_case
        self._encode = ctc.Encoder(recognizer.manifest.alphabet, recognizer.manifest.blank)

    def misread(self, dataset: Dataset, done: Callable[[int], object]) -> tuple[list[Sample], int]:
        """The samples whose text is not the label, and how many cannot be trained on.

        done: called with the number of samples that were read
        """
        found: list[Sample] = []
        useless = 0
        for first in range(0, len(dataset), _CHUNK):
            rows = [record(dataset, i) for i in range(first, min(first + _CHUNK, len(dataset)))]
            usable = [
                (row, *ready)
                for row in rows
                if isinstance(row, Sample) and (ready := self._ready(row)) is not None
            ]
            useless += len(rows) - len(usable)
            results = self._recognizer.read_prepared(image for _, image, _ in usable)
            for (sample, _, text), result in zip(usable, results, strict=True):
                if isinstance(result, Text) and result.text != text:
                    found.append(sample)
            done(len(rows))
        return found, useless

    def _ready(self, sample: Sample) -> tuple[Prepared, str] | None:
        """A sample's image for the network, and its text; None where it cannot be trained on."""
        text = sample.text.lower() if self._ignore_case else sample.text
        try:
            needed = ctc.steps_needed(self._encode(text))
            image = self._recognizer.prepare(sample.image)
        except CrnnDeployError:
            return None
        return (image, text) if 0 < needed <= self._recognizer.manifest.steps(image.columns) else None


@click.command(cls=ScriptCommand, help=__doc__)
@click.argument("config", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("model", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--drawn", type=click.IntRange(1), default=5000, help="Draw this many images of each drawn source."
)
@click.option("--seed", type=click.IntRange(0), default=0, help="Draw other images with another number.")
def main(config: Path, model: Path, output: Path, drawn: int, seed: int) -> None:
    check_outputs((output,), (config, model))
    if os.path.lexists(output):
        raise click.UsageError(f"{output} exists; remove it first, or name another file")
    told = read_config(config)
    chosen: list[Sample] = []
    with (
        closing(Recognizer.load(model)) as recognizer,
        unpacked(told.font_pack) if told.font_pack else nullcontext() as material,
    ):
        reader = Reader(recognizer, told.ignore_case)
        for at, source in enumerate(told.train):
            own = zlib.crc32(f"misread {seed} {told.seed} {at}".encode())
            alphabet = recognizer.manifest.alphabet
            images = open_source(
                _sized(source, drawn), alphabet, own, material, click.echo, told.cache.opened()
            )
            with progress_bar(len(images), f"train.{at}") as bar:
                found, useless = reader.misread(images, bar.update)
            left_out = f"; {useless:,} cannot be trained on and are left out" if useless else ""
            click.echo(f"train.{at}: {len(found):,} of {len(images):,} images are misread{left_out}")
            chosen += found
        if chosen:
            pack(Chosen(tuple(chosen)), output)
    click.echo(f"{output}: {len(chosen):,} images" if chosen else "nothing is misread; nothing was written")


def _sized(source: DataConfig, drawn: int) -> DataConfig:
    """The source, of so many images with letters if it is drawn."""
    if source.synthetic is None:
        return source
    synthetic = source.synthetic.model_copy(update={"size": drawn, "empty": 0.0})
    return source.model_copy(update={"synthetic": synthetic})


if __name__ == "__main__":
    main()
