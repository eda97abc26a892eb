"""Font packs: the same images as from the fonts that went in; a pack is whole or refused."""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from fontTools.ttLib import TTFont
from matplotlib import get_data_path

from crnn_deploy.cli.main import main
from crnn_deploy.synthesis import font_pack
from crnn_deploy.synthesis.chinese_texts import CHINESE_KINDS
from crnn_deploy.synthesis.dataset import SyntheticDataset
from crnn_deploy.synthesis.font_pack import (
    FontPackInvalid,
    FontPackMissing,
    Material,
    unpacked,
    write_font_pack,
)
from crnn_deploy.synthesis.fonts import Face, FontsMissing, scan
from crnn_deploy.synthesis.texts import TextKind
from crnn_deploy.training.config import DataConfig
from crnn_deploy.training.sources import open_source

MATPLOTLIB = Path(get_data_path()) / "fonts"  # which every machine has
ALPHABET = "".join(chr(code) for code in range(32, 127)) + "éÄß€"
KINDS = dict.fromkeys([kind for kind in get_args(TextKind) if kind not in CHINESE_KINDS], 1)
WORDS = ["alder", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "rowan", "willow"]
OUTLINES = {"glyf", "loca", "cvt ", "fpgm", "prep", "hmtx", "kern", "cmap", "name", "maxp", "CFF "}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dict") / "trees"
    path.write_text("\n".join(WORDS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory, words: Path) -> Path:
    path = tmp_path_factory.mktemp("packed") / "fonts.tar.xz"
    # the second folder comes first by name; the order of the folders is kept
    write_font_pack(path, folders=[MATPLOTLIB / "ttf", MATPLOTLIB / "pdfcorefonts"], word_lists=[words])
    return path


def images(material: Material | None, source: Mapping[str, Any], count: int) -> list[tuple[str, bytes]]:
    """Texts, sizes and pixels of the first images of a seed."""
    dataset = open_source(DataConfig.model_validate({"synthetic": source}), ALPHABET, 3, material)
    assert isinstance(dataset, SyntheticDataset)
    drawn = [(sample.text, np.asarray(sample.image)) for sample in (dataset[i] for i in range(count))]
    return [(text, repr(pixels.shape).encode() + pixels.tobytes()) for text, pixels in drawn]


def test_an_image_of_a_pack_is_the_image_of_the_fonts_in_it(pack: Path, words: Path) -> None:
    folders = (MATPLOTLIB / "ttf", MATPLOTLIB / "pdfcorefonts")
    source = {"kinds": KINDS, "folders": [str(folder) for folder in folders]}
    with unpacked(pack) as material:
        assert [path.read_bytes() for path in material.word_lists] == [words.read_bytes()]
        drawn = images(material, {**source, "folders": ["/nowhere"]}, 150)
        assert drawn == images(Material(folders, (words,)), source, 150)
        assert len({pixels for _, pixels in drawn}) > 140
        told = [told_of(face) for face in scan(folders=material.folders)]
        assert told == [told_of(face) for face in scan(folders=folders)]
    assert not any(path.exists() for path in (*material.folders, *material.word_lists))


def told_of(face: Face) -> tuple[Any, ...]:
    own = face.path.name, face.index, face.family, face.style, face.lineage, face.split, face.licence
    return *own, sorted(face.characters)


def test_words_are_those_of_the_pack(pack: Path) -> None:
    kinds = {"kinds": {"word": 1}, "augmented": False}
    with unpacked(pack) as material:
        texts = {text for text, _ in images(material, kinds, 60)}
    bare = {"".join(c for c in text.casefold() if c.isascii() and c.isalpha()) for text in texts}
    assert len(bare & set(WORDS)) >= 6 and not bare & {"apple", "water"}


def test_what_is_in_a_pack(pack: Path) -> None:
    """Read by the standard library alone: outlines, hints, kerning and names are those of the sources."""
    with tarfile.open(pack, "r:xz") as tar:
        files = {member.name: read(tar, member) for member in tar}
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}
    contents = json.loads(files.pop("contents.json"))
    assert contents["tier"] == "latin" and contents["folders"] == ["fonts/0", "fonts/1"]
    rows = (*contents["fonts"], *contents["word_lists"], *contents["frequencies"])
    assert {row["path"]: row["sha256"] for row in rows} == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }
    [sans] = [row for row in contents["fonts"] if row["path"] == "fonts/0/DejaVuSans.ttf"]
    source = (MATPLOTLIB / "ttf" / "DejaVuSans.ttf").read_bytes()
    assert sans["source_sha256"] == hashlib.sha256(source).hexdigest()
    assert sans["family"] == "DejaVu Sans" and sans["licence"]
    before, after = TTFont(io.BytesIO(source)), TTFont(io.BytesIO(files[sans["path"]]))
    assert before.reader is not None and after.reader is not None
    kept = OUTLINES & set(before.reader.keys())
    assert len(kept) > 8 and all(before.reader[tag] == after.reader[tag] for tag in kept)
    assert "GSUB" in before.reader and "GSUB" not in after.reader


def read(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def test_the_same_fonts_give_the_same_bytes_and_a_break_leaves_the_old_file(
    pack: Path, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "below" / "again.tar.xz"
    folders = [MATPLOTLIB / "ttf", MATPLOTLIB / "pdfcorefonts"]
    packed = write_font_pack(path, folders=folders, word_lists=[words, tmp_path / "absent"])
    assert path.read_bytes() == pack.read_bytes()
    assert (packed.word_lists, packed.size) == (1, path.stat().st_size) and packed.fonts > 10

    def broken(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", broken)
    with pytest.raises(OSError, match="no space"):
        write_font_pack(path, folders=folders, word_lists=[words])
    assert [found.name for found in path.parent.iterdir()] == ["again.tar.xz"]
    assert path.read_bytes() == pack.read_bytes()


def tarred(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with lzma.open(path, "wb") as file, tarfile.open(fileobj=file, mode="w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def listed(**changes: Any) -> bytes:
    return json.dumps({"schema": 1, "folders": [], "fonts": [], "word_lists": [], **changes}).encode()


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([(tarfile.TarInfo("../outside"), b"x")], "outside"),
        ([(tarfile.TarInfo("/etc/outside"), b"x")], "not a place inside"),
        ([(tarfile.TarInfo("twice"), b"x"), (tarfile.TarInfo("twice"), b"y")], "File exists"),
        ([(tarfile.TarInfo("a"), b"x"), (tarfile.TarInfo("a/b"), b"y")], "File exists|Not a directory"),
        ([(link("contents.json", "/etc/passwd"), b"")], "no plain file"),
        ([(tarfile.TarInfo("other"), b"x")], "contents.json"),
        ([(tarfile.TarInfo("contents.json"), b"[")], "Expecting value"),
        ([(tarfile.TarInfo("contents.json"), listed(schema=9))], "its schema is 9"),
        ([(tarfile.TarInfo("contents.json"), listed(folders=["/etc"]))], "not a place inside"),
        ([(tarfile.TarInfo("contents.json"), listed(folders=["fonts/../.."]))], "not a place inside"),
        (
            [
                (tarfile.TarInfo("contents.json"), listed(fonts=[{"path": "a.ttf", "sha256": "0"}])),
                (tarfile.TarInfo("a.ttf"), b"x"),
            ],
            "a.ttf has changed",
        ),
    ],
)
def test_a_pack_that_reaches_outside_or_lies_is_refused(
    members: list[tuple[tarfile.TarInfo, bytes]], reason: str, tmp_path: Path
) -> None:
    path = tarred(tmp_path / "bad.tar.xz", *members)
    with pytest.raises(FontPackInvalid, match=reason) as told, unpacked(path):
        pass
    assert "\n" not in str(told.value)
    assert [found.name for found in tmp_path.iterdir()] == ["bad.tar.xz"]


def test_what_is_no_whole_pack(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, path = pack.read_bytes(), tmp_path / "part.tar.xz"
    for content in (b"", b"no pack at all", whole[: len(whole) // 2], whole[:-4]):
        path.write_bytes(content)
        with pytest.raises(FontPackInvalid, match="pack-fonts"), unpacked(path):
            pass
    with pytest.raises(FontPackMissing, match="pack-fonts writes one"), unpacked(tmp_path / "absent"):
        pass
    monkeypatch.setattr(font_pack, "_LARGEST", 2**20)
    with pytest.raises(FontPackInvalid, match="more than 1 MiB"), unpacked(pack):
        pass


def test_without_fonts_there_is_nothing_to_pack(tmp_path: Path) -> None:
    arguments = [
        "dataset",
        "pack-fonts",
        "-o",
        str(tmp_path / "x.tar.xz"),
        "--folder",
        str(tmp_path / "none"),
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == FontsMissing.exit_code
    assert "there are no fonts to pack" in result.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_the_command_packs_and_the_preview_shows_what_is_drawn_from_it(tmp_path: Path) -> None:
    path = tmp_path / "fonts.tar.xz"
    result = CliRunner().invoke(
        main, ["dataset", "pack-fonts", "-o", str(path), "--folder", str(MATPLOTLIB / "ttf")]
    )
    assert result.exit_code == 0, result.output
    assert f"{path}: " in result.stdout and "font files" in result.stdout and "MiB" in result.stdout
    sheets = []
    for at, (folder, key) in enumerate(
        ((str(MATPLOTLIB / "ttf"), None), (str(tmp_path / "none"), str(path)))
    ):
        plain = {
            "out": str(tmp_path / "run"),
            "alphabet": {"string": "0123456789"},
            "train": [{"synthetic": {"kinds": {"number": 1, "random": 1}, "folders": [folder]}}],
            "steps": 1,
            "font_pack": key,
        }
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(plain))
        sheet = tmp_path / f"{at}.png"
        result = CliRunner().invoke(
            main, ["dataset", "preview", str(tmp_path / "own.yaml"), "-o", str(sheet), "--max-images", "6"]
        )
        assert result.exit_code == 0, result.output
        sheets.append(sheet.read_bytes())
    assert sheets[0] == sheets[1]
