"""The boxes of pages: a file of one page or many, or a folder with a file for each page.

In a file, a page's boxes are those of the image that the file calls as the page is called: by the path from
the file's folder, by the path as it stands, or by equal trailing parts of the two; else by the name of the
file alone, where no other image of the file has it. In a folder they stand in the one file that is called as
the page is, with another ending, and perhaps with gt_ or res_ before it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.regions.formats import pages_in
from crnn_deploy.regions.page_boxes import BoxesInvalid, PageBoxes

__all__ = ["Boxes", "BoxesAmbiguous"]

_ENDINGS = (".xml", ".json", ".txt", ".tsv", ".csv", ".jsonl")
_FOLDER_NAMES = (  # of the files of a page, where it is called {stem}{suffix}
    *(f"{{stem}}{ending}" for ending in _ENDINGS),
    *(f"{{stem}}{{suffix}}{ending}" for ending in _ENDINGS),
    *("gt_{stem}.txt", "res_{stem}.txt", "{stem}.page.xml", "{stem}.alto.xml"),
)


class BoxesAmbiguous(CrnnDeployError, ValueError):
    """A page whose boxes may be these or those."""

    def __init__(self, page: str, reason: str) -> None:
        super().__init__(f"{page}: {reason}")


class Boxes:
    """The boxes of a file or of a folder.

    A file is read at once, one of a folder when its page is asked for. Raises BoxesInvalid.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._pages: dict[str, list[_NamedPage]] = defaultdict(list)  # of a file, by the name of the image
        # the page of a file that holds no other, whatever it calls its image
        self.only: PageBoxes | None = None
        self._files: dict[str, bool] = {}  # of a folder, and whether it was asked for
        self.is_folder = os.path.isdir(self.path)
        try:
            if self.is_folder:
                self._files = {
                    one.name: False for one in os.scandir(self.path) if one.name.endswith(_ENDINGS)
                }
                return
        except OSError as error:
            raise BoxesInvalid(self.path, f"cannot be read: {error.strerror}") from None
        pages = pages_in(self.path)
        if len(pages) == 1:
            self.only = pages[0]
        for one in pages:
            page = _NamedPage(one, os.path.dirname(_real(self.path)))
            self._pages[page.parts[-1] if page.parts else ""].append(page)

    @property
    def unasked(self) -> list[str]:
        """What has boxes and was not asked for: images as the file calls them, or names of files."""
        images = (one.boxes.image for several in self._pages.values() for one in several if not one.is_named)
        return [*images, *(name for name, asked in self._files.items() if not asked)]

    def of(self, page: str | os.PathLike[str]) -> PageBoxes | None:
        """The boxes of a page by its path; None where there are none. Raises BoxesInvalid, BoxesAmbiguous."""
        page = os.fspath(page)
        if self.is_folder:
            return self._in_folder(page)
        parts = _parts(page)
        named = self._pages.get(parts[-1] if parts else "", [])
        found = self._fitting(page, parts, named)
        if len(found) > 1:
            for one in found:
                one.is_named = True
            names = " and ".join(repr(one.boxes.image) for one in found[:2])
            raise BoxesAmbiguous(
                page,
                f"{self.path} has {len(found)} pages that may be it, {names}; keep one, or "
                "name the page by its path",
            )
        if not found and self.only is not None and not self.only.image:
            found = self._pages[""]
        if not found:
            return None
        [one] = found
        place = _real(page)
        if one.asked not in (None, place):
            raise BoxesAmbiguous(
                page,
                f"its boxes in {self.path}, of {one.boxes.image or 'a page without a name'}, were given to "
                f"{one.asked}; read the two pages one after the other",
            )
        one.asked, one.is_named = place, True
        return one.boxes

    def _fitting(self, page: str, parts: tuple[str, ...], named: Sequence[_NamedPage]) -> list[_NamedPage]:
        """Those that fit best, of pages with the same file name."""
        place = _real(page)
        if found := [one for one in named if one.place == place]:
            return found
        if found := [one for one in named if one.boxes.image == page]:
            return found
        shared = [min(len(parts), len(one.parts)) for one in named]
        ends = [
            count if parts[-count:] == one.parts[-count:] else 0
            for one, count in zip(named, shared, strict=True)
        ]
        if any(ends):
            return [one for one, count in zip(named, ends, strict=True) if count == max(ends)]
        return list(named)

    def _in_folder(self, page: str) -> PageBoxes | None:
        stem, suffix = os.path.splitext(os.path.basename(page))
        names = {name.format(stem=stem, suffix=suffix) for name in _FOLDER_NAMES}
        found = sorted(names & self._files.keys())
        if len(found) > 1:
            raise BoxesAmbiguous(page, f"{self.path} has {' and '.join(found)}; take the others away")
        if not found:
            return None
        self._files[found[0]] = True
        inside = Boxes(os.path.join(self.path, found[0]))
        return inside.only or inside.of(page)


class _NamedPage:
    def __init__(self, boxes: PageBoxes, folder: str) -> None:
        self.boxes, self.folder = boxes, folder
        self.parts = _parts(boxes.image)
        self.asked: str | None = None  # the page that it was given for
        self.is_named = False  # whether a page was asked for that it may be

    @cached_property
    def place(self) -> str:
        """Where its image is, if the path begins at the file's folder."""
        return _real(os.path.join(self.folder, _slashed(self.boxes.image)))


def _parts(path: str) -> tuple[str, ...]:
    """Folders and name of a path of any system, without what says nothing."""
    return tuple(one for one in _slashed(path).split("/") if one not in ("", "."))


def _slashed(path: str) -> str:
    return path.replace("\\", "/")


def _real(path: str) -> str:
    """A path without links; as it is where no system can have it, as one with a NUL."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return path
