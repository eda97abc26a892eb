"""The sheets of effects: every effect of a table is there, and each does something."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from crnn_deploy.cli.main import main
from crnn_deploy.synthesis import document_effects, scene_table
from crnn_deploy.synthesis.effect_samples import EffectStyle, effect_samples
from crnn_deploy.synthesis.fonts import scan

TABLES = {"scene": scene_table.EFFECTS, "document": document_effects.EFFECTS}


@pytest.mark.parametrize("style", get_args(EffectStyle))
def test_each_effect_of_the_table_is_shown_by_its_name(style: EffectStyle) -> None:
    faces = scan()[:4]
    samples = list(effect_samples(style, faces, each=2))
    assert Counter(sample.text for sample in samples) == dict.fromkeys(TABLES[style], 2)
    again = list(effect_samples(style, faces, each=2))
    assert all(
        np.array_equal(np.asarray(a.image), np.asarray(b.image)) for a, b in zip(samples, again, strict=True)
    )


def test_the_command_writes_a_picture(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    done = CliRunner().invoke(main, ["dataset", "effects", "document", "-o", str(sheet)])
    assert done.exit_code == 0, done.output
    picture = cv2.imread(str(sheet))
    assert picture is not None and picture.shape[1] == 1600


def test_photographs_belong_to_scenes(tmp_path: Path) -> None:
    command = [
        "dataset",
        "effects",
        "document",
        "-o",
        str(tmp_path / "a.png"),
        "--photographs",
        str(tmp_path),
    ]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2 and "for the style `scene`" in done.output


def test_a_folder_without_photographs_is_an_error(tmp_path: Path) -> None:
    command = ["dataset", "effects", "scene", "-o", str(tmp_path / "a.png"), "--photographs", str(tmp_path)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2 and "there are no photographs (.jpg)" in done.output
    assert not (tmp_path / "a.png").exists()
