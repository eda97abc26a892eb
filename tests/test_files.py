"""Files are written whole or not at all, whatever their names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from crnn_deploy import files


def test_a_full_disk_names_the_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    path.write_text("old")
    with (
        pytest.raises(files.OutputUnwritable, match=r"cannot write .*figures\.json: No space left on device"),
        files.replacing(path) as temporary,
        temporary.open("wb"),
        open("/dev/full", "wb", 0) as full,
    ):
        full.write(b"x")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["figures.json"]


def test_a_name_of_255_bytes_is_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "😀" * 63, "a." + "b" * 253):
        files.write(tmp_path / name, "new")
        assert (tmp_path / name).read_text() == "new"


def test_a_folder_is_made_however_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files.write(Path(*"d" * 1_500, "a"), "new")
    assert Path(*"d" * 1_500, "a").read_text() == "new"
    for depth in range(1_500, 0, -1):  # pytest removes recursively
        shutil.rmtree(Path(*"d" * depth)) if depth == 1_500 else os.rmdir(Path(*"d" * depth))
