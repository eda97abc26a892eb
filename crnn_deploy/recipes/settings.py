"""What the user says of a checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from crnn_deploy.recipes.recipe import Blank

__all__ = ["Activation", "CheckpointSettings"]

Activation = Literal["relu", "leaky-relu"]


@dataclass(frozen=True)
class CheckpointSettings:
    """What the user says of a checkpoint; None leaves it to the checkpoint and its family's recipe."""

    recipe: str | None = None  # name or .toml file
    factory: str | None = None  # `package.module:name` or `file.py:name`
    alphabet: tuple[str, ...] | None = None
    blank: Blank | int | None = None  # or the number of its class
    activation: Activation | None = None  # of a family whose project has a switch between the two
    alphabet_from: str = "as given"  # where the alphabet comes from, in words
    left_out: int | None = None  # the class that the numbers in the alphabet's file leave to the blank
