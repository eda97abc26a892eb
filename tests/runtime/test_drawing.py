"""Boxes of characters, drawn where the characters are, below the folder that is named."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime")

from crnn_deploy.cli.main import main
from crnn_deploy.runtime.drawing import place

IMAGES = Path(__file__).parents[2] / "examples" / "images"
PATHS = sorted(map(str, IMAGES.glob("*.png")))


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["infer", *args])


@pytest.mark.parametrize("decoder", ["greedy", "beam"])
def test_boxes_are_drawn_where_the_characters_are(tmp_path: Path, decoder: str) -> None:
    folder = tmp_path / "boxes"
    result = run(
        PATHS[5], PATHS[1], "--draw", str(folder), "--format", "jsonl", "--show-chars", "--decoder", decoder
    )
    assert result.exit_code == 0, result.stderr
    for line in result.stdout.splitlines():
        row = json.loads(line)
        original, drawn = cv2.imread(row["path"]), cv2.imread(str(place(row["path"], folder)))
        assert original is not None and drawn is not None
        factor = drawn.shape[1] // original.shape[1]
        assert drawn.shape[1] == factor * original.shape[1]
        body = drawn[-factor * original.shape[0] :]
        enlarged = np.repeat(np.repeat(original, factor, 0), factor, 1)
        changed = set(np.flatnonzero((body != enlarged).any(axis=2).all(axis=0)).tolist())
        edges = [(round(c["left"] * factor), max(0, round(c["right"] * factor) - 1)) for c in row["chars"]]
        assert len(edges) == len(row["text"]) > 3
        assert changed == {edge for pair in edges for edge in pair}


def test_images_are_drawn_below_the_folder_alone() -> None:
    folder = Path("out")
    for path in ("a.png", "/a/b.png", "../../a.png", "x/../../../a", "/"):
        assert place(path, folder).resolve().is_relative_to(folder.resolve())
    assert place("crops/a.png", folder) == folder / "crops" / "a.png.png"


def test_a_folder_that_cannot_be_written_to_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run(PATHS[0], "--draw", str(tmp_path / "file"))
    assert result.exit_code == 2 and "cannot write" in result.stderr
