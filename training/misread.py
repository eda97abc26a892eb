"""Write the training images that a model misreads into an LMDB: hard examples, to train on more often.

\b
    python training/misread.py training/latin.yaml model.onnx misread.lmdb --drawn 5000

The model reads every labelled image of the training's sources, and some images of each drawn source. Images
that it reads exactly as labelled are left out. The LMDB can be one more source of the training
(`train: - {path: misread.lmdb, weight: 0.15}`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import click

from crnn_deploy.cli.say import progress_bar
from crnn_deploy.cli.script import ScriptCommand
from crnn_deploy.datasets import Dataset, RecordInvalid, Sample, record
from crnn_deploy.datasets.pack import pack
from crnn_deploy.files import check_outputs
from crnn_deploy.runtime.decoding.ctc import Text
from crnn_deploy.runtime.recognizer import Recognizer
from crnn_deploy.training.config import DataConfig, read_config
from crnn_deploy.training.sources import open_source

_CHUNK = 256  # images that are in memory at a time
_SEED = 1000  # beyond those of the training, so that other images are drawn


@dataclass(frozen=True)
class Chosen:
    """Some samples of a dataset."""

    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def misread(recognizer: Recognizer, dataset: Dataset, done: Callable[[int], object]) -> list[Sample]:
    """The samples with a label whose text is another; `done` is called with the number of those read."""
    found = []
    for first in range(0, len(dataset), _CHUNK):
        rows = [record(dataset, i) for i in range(first, min(first + _CHUNK, len(dataset)))]
        samples = [row for row in rows if not isinstance(row, RecordInvalid)]
        results = recognizer.try_read(sample.image for sample in samples)
        found += [
            sample
            for sample, result in zip(samples, results, strict=True)
            if sample.text and isinstance(result, Text) and result.text != sample.text
        ]
        done(len(rows))
    return found


@click.command(cls=ScriptCommand, help=__doc__)
@click.argument("config", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("model", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--drawn", type=click.IntRange(1), default=5000, help="Draw this many images of each drawn source."
)
def main(config: Path, model: Path, output: Path, drawn: int) -> None:
    check_outputs((output,), (config, model))
    told = read_config(config)
    chosen: list[Sample] = []
    with closing(Recognizer.load(model)) as recognizer:
        for at, source in enumerate(told.train):
            images = open_source(_sized(source, drawn), recognizer.manifest.alphabet, told.seed + _SEED + at)
            with progress_bar(len(images), f"train.{at}") as bar:
                found = misread(recognizer, images, bar.update)
            click.echo(f"train.{at}: {len(found):,} of {len(images):,} images are misread")
            chosen += found
    pack(Chosen(tuple(chosen)), output)
    click.echo(f"{output}: {len(chosen):,} images")


def _sized(source: DataConfig, drawn: int) -> DataConfig:
    if source.synthetic is None:
        return source
    return source.model_copy(update={"synthetic": source.synthetic.model_copy(update={"size": drawn})})


if __name__ == "__main__":
    main()
