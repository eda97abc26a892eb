"""Labels in capitals whatever the image shows, given the case of a second reading where both agree.

    python training/settle_case.py receipts/labels.tsv readings.tsv settled.tsv

Both files have a line `image<TAB>text` for each image. A label without letters is kept. A label that the
reading equals but for case and spaces takes the reading's case, letter by letter, and keeps its own spaces.
All others are left out, since nobody knows how their images are written.
"""

from __future__ import annotations

from pathlib import Path

import click


def settled(label: str, reading: str) -> str | None:
    """The label in the case that the image shows; None where the reading does not tell it."""
    if not any(letter.isalpha() for letter in label):
        return label
    letters = reading.replace(" ", "")
    if letters.casefold() != label.replace(" ", "").casefold() or len(letters) != len(label.replace(" ", "")):
        return None
    told = iter(letters)
    return "".join(" " if letter == " " else next(told) for letter in label)


@click.command()
@click.argument("labels", type=click.Path(path_type=Path, exists=True))
@click.argument("readings", type=click.Path(path_type=Path, exists=True))
@click.argument("output", type=click.Path(path_type=Path))
def main(labels: Path, readings: Path, output: Path) -> None:
    rows = (line.split("\t") for line in readings.read_text(encoding="utf-8").splitlines())
    read = {row[0]: row[1] for row in rows}
    kept, count = [], 0
    for line in labels.read_text(encoding="utf-8").splitlines():
        image, _, label = line.partition("\t")
        count += 1
        if (text := settled(label, read.get(image, ""))) is not None:
            kept.append(f"{image}\t{text}\n")
    output.write_text("".join(kept), encoding="utf-8")
    click.echo(f"{output}: {len(kept)} of {count} labels, {count - len(kept)} left out")


if __name__ == "__main__":
    main()
