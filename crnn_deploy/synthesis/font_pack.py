"""Fonts and word lists of this machine in one file, for machines that have none: a font pack.

A pack is a tar file, compressed by xz: the fonts that `fonts.scan` takes, at their places below their
folders, so that they come in the same order, the word lists, the words of five languages where wordfreq is
installed, and first of all a list of what is in it. A text
is drawn character by character, so the tables that tell a shaping engine how to join and replace glyphs are
left out; outlines, hints, widths, the `kern` table and names stay as they are, byte for byte. The same texts
and images are drawn from a pack as from the fonts that went into it.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from fontTools.ttLib import TTFont

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import replacing, sha256
from crnn_deploy.synthesis.chinese_words import read_chinese_levels
from crnn_deploy.synthesis.fonts import FOLDERS, Face, FontsMissing, Tier, packages, scan
from crnn_deploy.synthesis.lexicon import read_frequencies
from crnn_deploy.synthesis.texts import WORD_LISTS

__all__ = ["FontPack", "FontPackInvalid", "FontPackMissing", "Material", "unpacked", "write_font_pack"]

_CONTENTS = "contents.json"
_FREQUENCIES = "words/frequencies.json"
_CHINESE = "words/chinese.json"
_SCHEMA = 1
_DICTIONARY = 2**26  # bytes that xz looks back over: more than a family of fonts
_MEMORY = 2**28  # bytes that xz may take to unpack
_LARGEST = 2**31  # bytes of everything in a pack
_MOST_FILES = 10_000
_CHUNK = 2**20
_SHAPING = frozenset(  # tables of OpenType, AAT and Graphite for shaping, of editors, and signatures
    (
        *("GSUB", "GPOS", "GDEF", "BASE", "JSTF", "MATH", "morx", "mort", "feat", "prop", "meta"),
        *("Silf", "Silt", "Sill", "Glat", "Gloc", "Feat", "TeX ", "PfEd", "FFTM", "TTFA", "DSIG"),
    )
)

_BROKEN = (
    *(lzma.LZMAError, EOFError, tarfile.TarError),  # the file, or the tar in it
    *(FileExistsError, NotADirectoryError, IsADirectoryError),  # a place that it names twice
    *(FileNotFoundError, ValueError, LookupError, TypeError),  # its list of contents
)


class FontPackInvalid(CrnnDeployError, ValueError):
    """A file that is no font pack, or not a whole one."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path} is not a font pack of crnn-deploy dataset pack-fonts: {reason}")


class FontPackMissing(CrnnDeployError, FileNotFoundError):
    """No file where a font pack should be."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"there is no font pack at {path}; crnn-deploy dataset pack-fonts writes one")


@dataclass(frozen=True)
class Material:
    """Where fonts and words are taken from."""

    folders: tuple[Path, ...]
    word_lists: tuple[Path, ...]
    frequencies: Path | None = None  # of the words of sentences and signs
    chinese: Path | None = None  # frequencies of Chinese words


@dataclass(frozen=True)
class FontPack:
    """What went into a pack."""

    fonts: int  # files
    word_lists: int
    size: int  # bytes of the pack


def write_font_pack(
    path: Path,
    tier: Tier = "latin",
    folders: Sequence[Path] = FOLDERS,
    word_lists: Sequence[Path] = WORD_LISTS,
) -> FontPack:
    """Write the fonts of a tier below the folders, and the word lists that there are; atomically.

    The same fonts and lists give the same bytes. Raises FontsMissing.
    """
    fonts: dict[str, Face] = {}
    for face in scan(tier, folders):
        at = next((at for at, folder in enumerate(folders) if face.path.is_relative_to(folder)), None)
        if at is None:  # matplotlib's, which stand in where there are none
            raise FontsMissing(
                f"there are no fonts to pack in {', '.join(map(str, folders))}; install some, such as: "
                f"apt-get install {' '.join(packages(tier)[:4])}"
            )
        fonts.setdefault(f"fonts/{at}/{face.path.relative_to(folders[at]).as_posix()}", face)
    files = {name: _without_shaping(face.path) for name, face in fonts.items()}
    found = [file for file in word_lists if file.is_file()]
    lists = {f"words/{at}-{file.name}": file.read_bytes() for at, file in enumerate(found)}
    known = {_FREQUENCIES: read_frequencies(), _CHINESE: None if tier == "latin" else read_chinese_levels()}
    frequent = {name: json.dumps(told, ensure_ascii=False).encode() for name, told in known.items() if told}
    contents = {
        "schema": _SCHEMA,
        "tier": tier,
        "folders": [f"fonts/{at}" for at in range(len(folders))],
        "fonts": [
            {
                "path": name,
                "sha256": hashlib.sha256(files[name]).hexdigest(),
                "family": face.family,
                "licence": face.licence,
                "source_sha256": face.sha256,
            }
            for name, face in fonts.items()
        ],
        "word_lists": [
            {"path": name, "sha256": hashlib.sha256(content).hexdigest()} for name, content in lists.items()
        ],
        "frequencies": [
            {"path": name, "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in frequent.items()
        ],
    }
    told = json.dumps(contents, indent=1, ensure_ascii=False).encode()
    with replacing(path) as temporary, temporary.open("wb") as file:
        _write({_CONTENTS: told, **files, **lists, **frequent}, file)
        file.flush()
        os.fsync(file.fileno())
    return FontPack(len(files), len(lists), path.stat().st_size)


def _without_shaping(path: Path) -> bytes:
    """A font file without what only a shaping engine reads; a collection as it is."""
    if path.suffix.lower() == ".ttc":
        return path.read_bytes()
    with TTFont(path, lazy=True, recalcBBoxes=False, recalcTimestamp=False) as font:
        for tag in _SHAPING.intersection(font.reader.keys()):
            del font[tag]
        font.flavor = None  # xz packs tables better than WOFF's zlib does
        written = io.BytesIO()
        font.save(written, reorderTables=None)
    return written.getvalue()


def _write(files: dict[str, bytes], file: BinaryIO) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": _DICTIONARY}]
    with (
        lzma.LZMAFile(file, "wb", filters=filters) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, content in files.items():
            member = tarfile.TarInfo(name)  # of no date and no owner
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@contextmanager
def unpacked(path: Path) -> Iterator[Material]:
    """What a pack holds, in a temporary folder that is gone after the block.

    Raises FontPackMissing, FontPackInvalid.
    """
    if not path.is_file():
        raise FontPackMissing(path)
    with tempfile.TemporaryDirectory(prefix="crnn-deploy-fonts-") as name:
        try:
            material = _unpack(path, Path(name))
        except _BROKEN as error:
            raise FontPackInvalid(path, " ".join(str(error).split())) from error
        yield material


def _unpack(path: Path, folder: Path) -> Material:
    with tempfile.TemporaryFile(dir=folder) as plain:
        with path.open("rb") as packed:
            _decompress(packed, plain)
        plain.seek(0)
        with tarfile.open(fileobj=plain, mode="r:") as tar:
            for count, member in enumerate(tar):
                if count > _MOST_FILES or not member.isreg():
                    raise ValueError(f"{member.name} is no plain file, or one too many")
                place = _inside(folder, member.name)
                place.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None  # it is a regular file
                with content, place.open("xb") as file:
                    shutil.copyfileobj(content, file)
    contents: dict[str, Any] = json.loads((folder / _CONTENTS).read_bytes())
    if contents["schema"] != _SCHEMA:
        raise ValueError(f"its schema is {contents['schema']}, this version reads {_SCHEMA}")
    frequent = contents.get("frequencies", [])  # of packs written before there were any
    for row in (*contents["fonts"], *contents["word_lists"], *frequent):
        if sha256(_inside(folder, row["path"])) != row["sha256"]:
            raise ValueError(f"{row['path']} has changed")
    named = {row["path"]: _inside(folder, row["path"]) for row in frequent}
    return Material(
        tuple(_inside(folder, name) for name in contents["folders"]),
        tuple(_inside(folder, row["path"]) for row in contents["word_lists"]),
        named.get(_FREQUENCIES),
        named.get(_CHINESE),
    )


def _inside(folder: Path, name: str) -> Path:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or parts[0] == "/":
        raise ValueError(f"{name!r} is not a place inside it")
    return folder.joinpath(*parts)


def _decompress(packed: BinaryIO, plain: Any) -> None:
    """Raises LZMAError, EOFError where the end is missing, and ValueError where it is too large."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
    written = 0
    while not decompressor.eof:
        chunk = packed.read(_CHUNK) if decompressor.needs_input else b""
        if decompressor.needs_input and not chunk:
            raise EOFError("its end is missing")
        written += plain.write(decompressor.decompress(chunk, max_length=_CHUNK))
        if written > _LARGEST:
            raise ValueError(f"it unpacks to more than {_LARGEST >> 20} MiB")
