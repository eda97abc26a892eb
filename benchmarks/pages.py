"""Tables in Markdown, and their places in the documents.

A table stands between `<!-- NAME -->` and `<!-- end -->`. The text around it is written by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["digits", "markdown", "placed"]


def markdown(titles: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    rows = [titles, ["---"] * len(titles), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def digits(value: float) -> str:
    """Three digits, no exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def placed(page: str, name: str, text: str) -> str:
    """The page with this text in the place of that name. Raises SystemExit where it has none."""
    start, end = f"<!-- {name} -->", "<!-- end -->"
    before, _, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not closed:
        raise SystemExit(f"the page has no place for the table {name}")
    return f"{before}{start}\n\n{text}\n\n{end}{after}"
