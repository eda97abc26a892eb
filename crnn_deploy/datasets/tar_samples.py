"""The samples in a tar, as the webdataset library groups them: members of one key that stand together.

A member's key is its name up to the first dot of its last part; what follows is its suffix.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import BinaryIO

import numpy as np

from crnn_deploy.datasets import DatasetInvalid
from crnn_deploy.datasets.json_file import TEXTS
from crnn_deploy.datasets.kinds import IMAGES
from crnn_deploy.datasets.tar_file import Member, members
from crnn_deploy.files import parse_json

__all__ = ["MOST_TEXT", "Listing", "list_samples", "text_of"]

MOST_TEXT = 2**20  # bytes of a text, or of the JSON that holds it

_PARTS = re.compile(r"((?:.*/)?[^.]+)\.([^/]*)", re.DOTALL)
_PASSED_OVER = re.compile(r"__[^/]*__(?:$|/)")  # what webdataset keeps beside samples
_LINES = ("gt.txt", "txt")
_TWICE = 1  # of `Listing.faults`
_SEVERAL = 2
FAULTS = {
    _TWICE: "stands in the tar twice; members of one key stand together, as tar --sort=name has them",
    _SEVERAL: "has several images; name one of them KEY.png or KEY.jpg",
}


@dataclass
class Listing:
    """Where the samples of a tar lie; -1 where a sample has no image or no text."""

    image_at: array[int] = field(default_factory=lambda: array("q"))
    image_size: array[int] = field(default_factory=lambda: array("q"))
    text_at: array[int] = field(default_factory=lambda: array("q"))
    text_size: array[int] = field(default_factory=lambda: array("q"))
    is_json: bytearray = field(default_factory=bytearray)
    faults: dict[int, int] = field(default_factory=dict)  # of samples: which of FAULTS
    passed_over: int = 0  # members that are neither image nor text
    _keys: bytearray = field(default_factory=bytearray)
    _key_ends: array[int] = field(default_factory=lambda: array("q"))

    def __len__(self) -> int:
        return len(self.image_at)

    def key(self, index: int) -> str:
        begin = self._key_ends[index - 1] if index else 0
        return self._keys[begin : self._key_ends[index]].decode(errors="surrogateescape")

    def add(self, key: str, files: dict[str, Member], *, twice: bool) -> None:
        """A sample of these files, by suffix; none where it has neither image nor text."""
        image = _image(files)
        text = next((files[name] for name in (*_LINES, "json") if name in files), None)
        self.passed_over += len(files) - (image is not None) - (text is not None)
        if image is None and text is None:
            return
        if twice:
            self.faults[len(self)] = _TWICE
        elif image is _AMBIGUOUS:
            self.faults[len(self)] = _SEVERAL
        none = Member("", -1, -1)
        for member, at, size in (
            (image or none, self.image_at, self.image_size),
            (text or none, self.text_at, self.text_size),
        ):
            at.append(member.offset)
            size.append(member.size)
        self.is_json.append(text is not None and text is files.get("json"))
        self._keys += key.encode(errors="surrogateescape")
        self._key_ends.append(len(self._keys))


_AMBIGUOUS = Member("", -1, -1)


def _image(files: dict[str, Member]) -> Member | None:
    """That of KEY.png before those of KEY.x.png."""
    if plain := next((files[name] for name in IMAGES if name in files), None):
        return plain
    found = [member for name, member in files.items() if name.rpartition(".")[2] in IMAGES]
    return _AMBIGUOUS if len(found) > 1 else next(iter(found), None)


def list_samples(file: BinaryIO) -> Listing:
    """Some 60 bytes are kept of a sample. Raises TarInvalid, and what reading raises."""
    found = Listing()
    digests = array("Q")
    places = array("q")
    key, files, twice = None, dict[str, Member](), False

    def add() -> None:
        if key is not None:
            before = len(found)
            found.add(key, files, twice=twice)
            if len(found) > before:
                digest = blake2b(key.encode(errors="surrogateescape"), digest_size=8).digest()
                digests.append(int.from_bytes(digest))
                places.append(before)

    def pass_over(name: str, kind: str) -> None:
        found.passed_over += 1

    for member in members(file, pass_over):
        parts = _PARTS.fullmatch(member.name)
        if parts is None or _PASSED_OVER.match(member.name):
            found.passed_over += 1
            continue
        suffix = parts[2].lower()
        if parts[1] != key:
            add()
            key, files, twice = parts[1], {}, False
        twice |= suffix in files
        files.setdefault(suffix, member)
    add()
    _, first = np.unique(np.array(digests, np.uint64), return_index=True)
    for again in np.setdiff1d(np.arange(len(digests)), first).tolist():
        found.faults[places[again]] = _TWICE
    return found


def text_of(path: str, data: bytes, *, is_json: bool) -> str:
    """The text that a member holds: the one line of a text file, or the text of an object.

    Raises DatasetInvalid.
    """
    if not is_json:
        try:
            text = data.decode("utf-8-sig").replace("\r\n", "\n").rstrip("\n")
        except UnicodeDecodeError:
            raise DatasetInvalid(path, "is not UTF-8") from None
        if "\n" in text:
            raise DatasetInvalid(path, f"holds {text.count(chr(10)) + 1} lines; the text of an image is one")
        return text
    try:
        whole = parse_json(data)
    except ValueError as error:
        raise DatasetInvalid(path, f"is not JSON: {error}") from None
    found = [value for key, value in whole.items() if key.lower() in TEXTS] if isinstance(whole, dict) else []
    match found:
        case [str(text)]:
            return text
    raise DatasetInvalid(
        path, f'needs one text, such as {{"text": "x"}}, by one of {", ".join(sorted(TEXTS))}'
    )
