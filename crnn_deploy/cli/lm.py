"""`crnn-deploy lm`: language models over characters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from crnn_deploy.cli.group import Group
from crnn_deploy.cli.options import output_option
from crnn_deploy.cli.outputs import check_reports
from crnn_deploy.cli.say import bars_are_hidden, progress_bar, say, working
from crnn_deploy.errors import CrnnDeployError

__all__ = ["lm"]


class TextUnreadable(CrnnDeployError, ValueError):
    """A text that cannot be learned from."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


@click.group(cls=Group)
def lm() -> None:
    """Make language models for the beam search.

    They are models over characters, which `infer` and `evaluate` take with --decoder beam --lm FILE.
    """


@lm.command()
@click.argument(
    "texts", metavar="TEXT...", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True)
)
@output_option("FILE.arpa")
@click.option(
    "--order",
    metavar="N",
    type=click.IntRange(1, 12),
    default=6,
    show_default=True,
    help="Count n-grams of at most this many characters.",
)
def train(texts: tuple[Path, ...], output: Path, order: int) -> None:
    """Learn which characters follow which, and write an ARPA file.

    TEXT is a UTF-8 file, or - for standard input. Each of its lines is one text such as an image holds: a
    line of a page, a word, a number. KenLM reads the ARPA file too, and its build_binary makes a smaller and
    faster file of it.

    \b
    crnn-deploy lm train lines.txt -o lines.arpa
    crnn-deploy infer --decoder beam --lm lines.arpa crops/
    """
    if output.suffix != ".arpa":
        raise click.UsageError(f"-o {output} must end in .arpa, by which the file is known later")
    from crnn_deploy.files import check_outputs, replacing
    from crnn_deploy.runtime.decoding.lm import train as learn

    check_reports(output)
    check_outputs((output,), ("/dev/stdin" if text == Path("-") else text for text in texts))
    total = None
    if not bars_are_hidden() and Path("-") not in texts:
        total = sum(1 for text in texts for _ in _lines(text))
    lines = (line for text in texts for line in _lines(text))
    with progress_bar(total, "lines", iterable=lines) as bar:
        model = learn(bar, order)
    with (
        working(f"write {output}"),
        replacing(output) as temporary,
        temporary.open("w", encoding="utf-8") as stream,
    ):
        model.write(stream)
    say(f"{output}: order {model.order}, {len(model.grams):,} n-grams")


def _lines(path: Path) -> Iterator[str]:
    try:
        with click.open_file(str(path), encoding="utf-8-sig", errors="strict") as stream:
            yield from stream
    except OSError as error:
        raise TextUnreadable(path, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise TextUnreadable(path, "it is not UTF-8 text") from None
