"""Options that several commands share: what the user says of a checkpoint, of a dataset, of its images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from crnn_deploy.datasets import Kept
    from crnn_deploy.recipes.settings import CheckpointSettings

__all__ = [
    "alphabet_of",
    "check_data_outputs",
    "checkpoint_options",
    "data_options",
    "max_pixels_option",
    "open_data",
    "settings_of",
]

_OPTIONS = (
    click.option("--recipe", metavar="NAME|FILE.toml", help="Preprocessing, alphabet, blank and width rule."),
    click.option(
        "--model",
        "factory",
        metavar="MODULE:FACTORY",
        help="Your own network: package.module:f or file.py:f.",
    ),
    click.option(
        "--alphabet",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="UTF-8: its only line, or one token a line; spaces count.",
    ),
    click.option("--alphabet-string", metavar="TEXT", help="The characters themselves, in class order."),
    click.option("--blank", type=click.Choice(["first", "last"]), help="Class of the CTC blank."),
)

_DATA_OPTIONS = (
    click.option(
        "--kind",
        metavar="KIND",
        help="lmdb, csv, tsv, doctr, names, tabs or indices.  [default: told from what is there]",
    ),
    click.option(
        "--images", metavar="DIR", help="Folder of the names in the labels.  [default: that of the labels]"
    ),
    click.option(
        "--characters", metavar="FILE", help="What the labels are indexes into, as of 360CC (GBK or UTF-8)."
    ),
)


def max_pixels_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option for the largest image that is decoded."""
    return click.option(
        "--max-pixels",
        metavar="N",
        type=click.IntRange(1, 2**30),
        default=64_000_000,
        show_default=True,
        help="An image of more pixels is not decoded.",
    )(command)


def checkpoint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `settings_of` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def data_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `open_data` reads."""
    for option in reversed(_DATA_OPTIONS):
        command = option(command)
    return command


def open_data(data: str, kind: Any, images: str | None, characters: str | None) -> Kept:
    """The dataset at a path and what `data_options` gathered. Raises DatasetNotFound, DatasetInvalid."""
    from crnn_deploy.datasets import open_dataset

    return open_dataset(data, kind=kind, images=images, characters=characters)


def check_data_outputs(
    outputs: Iterable[Path | None], datasets: Iterable[Kept], characters: str | None = None
) -> None:
    """Refuse outputs that datasets are read from. Raises OutputIsInput, OutputUnwritable."""
    from itertools import chain

    from crnn_deploy.files import check_outputs

    files = chain.from_iterable(dataset.files() for dataset in datasets)
    check_outputs(outputs, chain([characters], files))


def alphabet_of(alphabet: Path | None, alphabet_string: str | None) -> tuple[str, ...] | None:
    """The alphabet that the user gave, if any. Raises AlphabetInvalid."""
    from crnn_deploy.recipes.alphabets import check_alphabet, read_alphabet

    if alphabet is not None and alphabet_string is not None:
        raise click.UsageError("--alphabet and --alphabet-string exclude each other")
    if alphabet_string is not None:
        return check_alphabet(tuple(alphabet_string), "--alphabet-string")
    return read_alphabet(alphabet) if alphabet is not None else None


def settings_of(
    recipe: str | None,
    factory: str | None,
    alphabet: Path | None,
    alphabet_string: str | None,
    blank: Any,
) -> CheckpointSettings:
    """What `checkpoint_options` gathered. Raises AlphabetInvalid."""
    from crnn_deploy.recipes.settings import CheckpointSettings

    return CheckpointSettings(recipe, factory, alphabet_of(alphabet, alphabet_string), blank)
