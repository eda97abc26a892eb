"""What `dataset preview` shows of a training."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from crnn_deploy.training.config import Config
from crnn_deploy.training.preview import training_samples


def images(folder: Path, text: str) -> dict[str, str]:
    folder.mkdir()
    for at in range(5):
        cv2.imwrite(str(folder / f"{at}.png"), np.full((32, 64), 40 * at, np.uint8))
    (folder / "labels.tsv").write_text("".join(f"{at}.png\t{text}\n" for at in range(5)), encoding="utf-8")
    return {"path": str(folder / "labels.tsv"), "kind": "tabs"}


def test_each_source_is_shown_as_often_as_its_weight_says(tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "out": str(tmp_path / "run"),
            "recipe": "paper",
            "alphabet": {"string": "ab"},
            "steps": 1,
            "batch": 64,
            "window": 64,
            "train": [
                {**images(tmp_path / "often", "a"), "weight": 0.75},
                {**images(tmp_path / "seldom", "b"), "weight": 0.25},
            ],
        }
    )
    texts = Counter(sample.text for sample in islice(training_samples(config, 12), 24))
    assert texts == {"a": 18, "b": 6}
