"""How the project's plain docstrings become Markdown for the reference of Python (an extension of griffe).

A docstring has a first line, then lines `name: description` whose continuation is indented, examples behind
`>>>` and a last sentence `Raises A, B.`. Fields are described by a comment on their line, or above it.
"""

from __future__ import annotations

import re
from functools import cache
from inspect import cleandoc
from itertools import takewhile
from pathlib import Path
from typing import Any

import griffe

ITEM = re.compile(r"(\*{0,2}\w+(?:, \w+)*): (.*)")
EXAMPLE = (">>> ", "... ")


class PlainDocstrings(griffe.Extension):
    """Rewrites each docstring when it has been read, and gives fields theirs."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **_: Any) -> None:
        in_class = attr.parent is not None and attr.parent.is_class
        if attr.docstring is None and in_class and attr.lineno and attr.endlineno:
            said = _comment(Path(str(attr.filepath)), attr.lineno, attr.endlineno)
            if said:
                attr.docstring = griffe.Docstring(said, parent=attr)


def as_markdown(docstring: str) -> str:
    """A docstring with its descriptions of names as a list, its examples as code, what it raises apart."""
    written: list[str] = []
    before = ""
    for line in cleandoc(docstring).splitlines():
        ends = not before or before.endswith((".", ":")) or before.startswith(("- ", "```"))
        item = ITEM.fullmatch(line) if ends and written else None
        if line.startswith(EXAMPLE):
            written += [] if before == "```" else ["", "```pycon", "```"]
            written.insert(-1, line)
            before = "```"
            continue
        if item:
            written += [] if before.startswith("- ") else [""]
            names = ", ".join(f"`{name}`" for name in item[1].split(", "))
            written.append(f"- {names}: {item[2]}")
        elif line.startswith("    ") and before.startswith("- "):
            written.append(re.sub(r"^( +)\* ", r"\1\\* ", line))  # a star is no list of its own
            continue
        elif line.startswith("Raises ") or before.startswith("- ") or before == "```":
            written += ["", line]
        else:
            written.append(line)
        before = written[-1]
    return "\n".join(written)


def _comment(path: Path, first: int, last: int) -> str:
    """The comment on the lines of a field, else the comment above it."""
    lines = _lines(path)
    on_it = [line.partition("  # ")[2] for line in lines[first - 1 : last]]
    above = [*takewhile(lambda line: line.strip().startswith("# "), reversed(lines[: first - 1]))]
    found = [text for text in on_it if text] or [line.strip().removeprefix("# ") for line in reversed(above)]
    text = " ".join(found)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".") if text else ""


@cache
def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()
