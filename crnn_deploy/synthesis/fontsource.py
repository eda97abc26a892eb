"""The fonts that the project takes from npm's `@fontsource` packages, as fontsource.toml lists them.

training/fetch.py gets the files. Their letters were looked at, so they are taken where `fonts.scan` meets
their names, however little a display or script face is like the letters of print.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

__all__ = ["ListedFont", "listed_fonts"]

_SUBSETS = {"families": "latin", "chinese": "chinese-simplified"}  # of each section the files that are taken


@dataclass(frozen=True)
class ListedFont:
    """One font file of a package."""

    name: str  # of the file
    package: str
    version: str
    licence: str
    sha256: str
    capitals: bool  # capitals stand in the places of its small letters
    blank: str  # characters for which it has an empty glyph
    subset: str = "latin"  # of the family's characters: latin, chinese-simplified

    def draws(self, character: int) -> bool:
        """Whether its glyph for this code point is the character itself."""
        return chr(character) not in self.blank and not (self.capitals and chr(character).islower())


@cache
def listed_fonts() -> dict[str, ListedFont]:
    """Every font of the list by the name of its file."""
    table = tomllib.loads(resources.files("crnn_deploy.synthesis").joinpath("fontsource.toml").read_text())
    fonts = {}
    rows = [(subset, *row) for section, subset in _SUBSETS.items() for row in table[section].items()]
    for subset, family, row in rows:
        for weight in row.keys() - {"version", "licence"}:
            name = f"{family}-{subset}-{weight}-normal.woff"
            fonts[name] = ListedFont(
                name,
                f"@fontsource/{family}",
                row["version"],
                row["licence"],
                row[weight],
                family in table["capitals"],
                table["blank"].get(family, ""),
                subset,
            )
    return fonts
