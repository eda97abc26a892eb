"""What a proof has counted, in words and for the manifest beside the output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from crnn_deploy.errors import amount

__all__ = ["FAULTS", "SHOWN", "Example", "Reconciliation"]

SHOWN = 100  # examples of each fault

# what may be wrong, in words that follow the number 1 and others
FAULTS = {
    "missing": ("image without a row", "images without a row"),
    "duplicates": ("row that repeats an image", "rows that repeat an image"),
    "misplaced": ("row in the wrong file", "rows in the wrong file"),
    "unknown": ("row of an image that was not given", "rows of images that were not given"),
    "renamed": ("row with the wrong path", "rows with the wrong path"),
    "torn": ("file that is not whole", "files that are not whole"),
    "strange": ("file that is not of this output", "files that are not of this output"),
    "foreign": ("file of another run or another place", "files of another run or another place"),
    "misnamed": ("file that was renamed after it was read", "files that were renamed after they were read"),
    "uncounted": ("tar that was not read", "tars that were not read"),
}

Example = dict[str, str | int]


@dataclass
class Reconciliation:
    """What is in the output of a run."""

    chunks: int
    inputs: int = 0  # without those of tars that are not counted
    rows: int = 0  # in all files that are whole
    errors: int = 0  # rows with an error
    missing: int = 0  # inputs without a row
    duplicates: int = 0  # rows beyond the first of an input, wherever they lie
    misplaced: int = 0  # rows of an input in a file that is not its chunk's
    unknown: int = 0  # rows with an id of no input
    renamed: int = 0  # rows in their chunk's file under a name that is not the plan's
    torn: int = 0  # files of chunks that are cut short, no Parquet or without the columns of rows
    strange: int = 0  # files that lie where no chunk has its own
    foreign: int = 0  # files of chunks that another run or another chunk has made
    misnamed: int = 0  # files of chunks whose names are not those that the chunk's reader has listed
    uncounted: int = 0  # tars whose file is absent or wrong, so that their members are not counted
    to_do: list[int] = field(default_factory=list)  # chunks whose file is absent or wrong
    examples: dict[str, list[Example]] = field(default_factory=dict)  # by fault, at most SHOWN of each

    @property
    def whole(self) -> bool:
        """Whether every input has one row, in its place and under its name, and nothing else is there."""
        return self.rows == self.inputs and not self.to_do and not any(getattr(self, name) for name in FAULTS)

    @property
    def stranger(self) -> str:
        """A file below the output that no run has written there, or one with such rows; "" where none is."""
        files = (one.get("file", "") for name in ("strange", *FAULTS) for one in self.examples.get(name, []))
        return str(next(filter(None, files), ""))

    @property
    def verdict(self) -> str:
        """One line on the counts."""
        counted = (
            f"{amount(self.inputs, 'input')}, {amount(self.rows, 'row')}, {self.errors:,} of them errors"
        )
        if self.whole:
            return f"{counted}: none is missing, none is there twice"
        faults = [
            amount(getattr(self, name), *words) for name, words in FAULTS.items() if getattr(self, name)
        ]
        if self.to_do:
            faults.append(f"{len(self.to_do):,} of {self.chunks:,} files to write")
        return f"{counted}: {', '.join(faults)}"

    def to_plain(self) -> dict[str, Any]:
        """The values of a manifest in JSON."""
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int)}
        examples = {**self.examples, "to_do": self.to_do[:SHOWN]}
        return {"whole": self.whole, **counts, "to_do": len(self.to_do), "examples": examples}
