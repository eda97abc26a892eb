"""What the site needs beyond docs/: pages of the project that lie elsewhere, and links that lead to them.

mkdocs calls these functions (`hooks` in mkdocs.yml). A page such as training/README.md becomes
project/training/README.md of the site; links between it and docs/ are written anew.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
ELSEWHERE = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md", "THIRD_PARTY.md"),
    *("benchmarks/README.md", "calibration/README.md", "export/README.md", "training/README.md"),
)
PLACE = "project"  # of these pages in the site
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    for path in ELSEWHERE:
        files.append(File.generated(config, f"{PLACE}/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    here = page.file.src_uri
    of_project = in_project(here)

    def written_anew(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(of_project), match[1]))
        return posixpath.relpath(in_site(target), posixpath.dirname(here) or ".")

    return LINK.sub(written_anew, markdown)


def in_project(place: str) -> str:
    """The path in the project of a page of the site."""
    return place.removeprefix(f"{PLACE}/") if place.startswith(f"{PLACE}/") else f"docs/{place}"


def in_site(path: str) -> str:
    """The place in the site of a page of the project."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{PLACE}/{path}"
