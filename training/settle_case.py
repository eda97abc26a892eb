"""Give labels that are all in capitals the case of a second reading, if both agree.

\b
    python training/settle_case.py receipts/labels.tsv readings.tsv settled.tsv

Use it for labels that are in capitals, whatever the images show. Both files have a line `image<TAB>text` for
each image. A label without letters is kept. If the reading differs from a label only in case and spaces, the
label takes the reading's case, letter by letter, and keeps its own spaces. All other labels are left out,
since nobody knows how their images are written.
"""

from __future__ import annotations

from pathlib import Path

import click

from crnn_deploy.cli.script import ScriptCommand
from crnn_deploy.files import check_outputs, write


def settled(label: str, reading: str) -> str | None:
    """The label in the case that the image shows; None where the reading does not tell it."""
    if not any(letter.isalpha() for letter in label):
        return label
    letters = reading.replace(" ", "")
    if letters.casefold() != label.replace(" ", "").casefold() or len(letters) != len(label.replace(" ", "")):
        return None
    told = iter(letters)
    return "".join(" " if letter == " " else next(told) for letter in label)


def rows(path: Path) -> list[tuple[str, str]]:
    """Image and text of each line. What stands after a second tab is not read, nor are empty lines."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{path} is not UTF-8; save it as UTF-8") from error
    found = []
    for number, line in enumerate(lines, 1):
        image, tab, rest = line.partition("\t")
        if line and not tab:
            raise click.UsageError(f"{path}, line {number} has no tab; it must be image<TAB>text")
        if line:
            found.append((image, rest.split("\t")[0]))
    return found


@click.command(cls=ScriptCommand, help=__doc__)
@click.argument("labels", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("readings", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("output", type=click.Path(path_type=Path))
def main(labels: Path, readings: Path, output: Path) -> None:
    check_outputs((output,), (labels, readings))
    read, labelled = dict(rows(readings)), rows(labels)
    texts = [(image, settled(label, read.get(image, ""))) for image, label in labelled]
    kept = [f"{image}\t{text}\n" for image, text in texts if text is not None]
    write(output, "".join(kept))
    click.echo(f"{output}: {len(kept)} of {len(texts)} labels, {len(texts) - len(kept)} left out")


if __name__ == "__main__":
    main()
