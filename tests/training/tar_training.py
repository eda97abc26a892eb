"""A tiny training on 64 drawn numbers in shards of ten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.cluster.two_machines import differences
from crnn_deploy.datasets import Sample
from crnn_deploy.datasets.pack_shards import pack_tars
from crnn_deploy.training.config import Config

__all__ = ["DIGITS", "config_of", "differences", "last_of", "pack_digits"]

DIGITS = "0123456789"
_RECIPE = """
blank = "first"
color = "gray"
height = 16
[width]
minimum = 32
maximum = 160
multiple = 8
"""


class _Numbers:
    def __init__(self, broken: int) -> None:
        self._broken = broken  # every so many texts the alphabet has not

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Sample:
        text = str(100 + 13 * index)
        image = np.full((20, 8 + 12 * len(text)), 230, np.uint8)
        cv2.putText(image, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 20, 1, cv2.LINE_AA)
        bad = self._broken and index % self._broken == 3
        return Sample(image, f"{text}!" if bad else text, str(index))


def pack_digits(folder: Path, out: str, *, broken: int = 0) -> None:
    """The shards, and the recipe that `config_of` names."""
    (folder / "tiny.toml").write_text(_RECIPE)
    torch.set_num_threads(1)
    pack_tars(_Numbers(broken), out, samples_per_shard=10)


def config_of(folder: Path, name: str, **changes: Any) -> Config:
    """A training of an epoch and a quarter, 20 steps, into folder/name."""
    plain = {
        "out": folder / name,
        "alphabet": {"string": DIGITS},
        "recipe": str(folder / "tiny.toml"),
        "network": {"name": "compact", "scale": 0.34, "hidden": 8},
        "train": [{"path": str(folder / "shards"), "joined": 2}],
        "steps": 20,
        "batch": 4,
        "window": 3,
        "augment": True,
        "optimizer": {"name": "adamw", "lr": 0.01},
        "log_every": 5,
    }
    return Config.model_validate({**plain, **changes})


def last_of(out: str | Path) -> dict[str, Any]:
    """What last.pth holds, without the configuration, which names folders."""
    content: dict[str, Any] = torch.load(Path(out) / "last.pth", weights_only=True)
    del content["training"]["config"]
    return content
