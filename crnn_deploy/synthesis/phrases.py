"""The words and phrases of `phrases.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

__all__ = ["phrases"]


@cache
def phrases(section: str, name: str) -> tuple[str, ...]:
    """One list of them."""
    text = resources.files("crnn_deploy.synthesis").joinpath("phrases.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)[section][name])
