"""Samples that are told apart by a number, some of them broken, and what lies in folders."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from crnn_deploy.datasets import Sample, open_dataset
from crnn_deploy.runtime.images.pixels import Source


def png(value: int) -> bytes:
    """A PNG that no other value gives."""
    pixels = np.frombuffer(value.to_bytes(4), np.uint8).reshape(1, 4)
    return cv2.imencode(".png", pixels)[1].tobytes()


class Listed:
    """Samples that are there already; one may kill the process, as `kill -9` does."""

    def __init__(self, rows: Sequence[tuple[Source, str]], deadly: int = -1) -> None:
        self.rows, self.deadly = rows, deadly

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return Sample(*self.rows[index], f"#{index}")


ROWS: list[tuple[Source, str]] = [
    (b"broken" if at % 7 == 3 else png(at), f"text {at} é") for at in range(250)
]
GOOD = [row for at, row in enumerate(ROWS) if at % 7 != 3]


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def samples_of(path: Path) -> list[tuple[Source, str]]:
    dataset = open_dataset(str(path))
    return [(one.image, one.text) for one in map(dataset.__getitem__, range(len(dataset)))]
