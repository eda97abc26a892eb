"""Alphabets from files: all characters on one line, or one on each line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crnn_deploy.recipes.alphabets import AlphabetInvalid, read_alphabet


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("abc", ("a", "b", "c")),
        ("abc \n", ("a", "b", "c", " ")),
        ("a\nb\n \n", ("a", "b", " ")),
        ("a\r\nß\r\n", ("a", "ß")),
        ("\ufeffab", ("a", "b")),
        ("a\nfi\n", ("a", "fi")),
    ],
)
def test_alphabet_files(content: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "alphabet.txt"
    path.write_bytes(content.encode())
    assert read_alphabet(path) == expected


@pytest.mark.parametrize("content", [b"", b"a\n\nb\n", "京".encode("gbk"), b"\n"])
def test_alphabet_files_that_are_wrong(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "alphabet.txt"
    path.write_bytes(content)
    with pytest.raises(AlphabetInvalid):
        read_alphabet(path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(AlphabetInvalid, match="not a regular file"):
        read_alphabet(tmp_path / "fifo")
