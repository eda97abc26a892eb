"""Files that commands write beside a model: figures as JSON, and pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crnn_deploy.cli.say import plain_json

__all__ = ["check_reports", "write_json", "write_page"]


def check_reports(*paths: Path | None) -> None:
    """Refuse reports in folders that are not there, before a long run. Raises OutputUnwritable."""
    from crnn_deploy.files import OutputUnwritable

    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise OutputUnwritable(path, f"{path.parent} is not a folder")


def write_json(path: Path | None, value: Any) -> None:
    """Write figures, whole or not at all, where they are asked for. Raises OutputUnwritable."""
    if path is not None:
        from crnn_deploy.files import write

        write(path, plain_json(value, indent=1) + "\n")


def write_page(path: Path, page: str) -> None:
    """Write a page; half of a surrogate pair, from a name that is not text, becomes a reference to it.

    Raises OutputUnwritable.
    """
    from crnn_deploy.files import write

    write(path, page.encode(errors="xmlcharrefreplace"))
