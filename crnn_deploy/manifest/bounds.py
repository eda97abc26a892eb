"""Bounds: a manifest comes from a stranger, so every number and word in it is held to some."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args

from crnn_deploy.decoding_rule import shown
from crnn_deploy.errors import ManifestInvalid, did_you_mean

__all__ = ["MOST_LEVEL", "MOST_WIDTH", "is_number", "need_numbers", "need_one_of", "need_text", "need_whole"]

MOST_WIDTH = 2**16  # pixels of the network's input; EasyOCR has 3,200
MOST_LEVEL = 255.0  # grey levels


def need_whole(least: int, most: int, /, **values: Any) -> None:
    for name, value in values.items():
        if not (isinstance(value, int) and is_number(value, least, most)):
            raise ManifestInvalid(f"{name} is {shown(value)}, not a whole number from {least:,} to {most:,}")


def need_numbers(least: float, most: float, /, **values: Any) -> None:
    for name, value in values.items():
        if not is_number(value, least, most):
            raise ManifestInvalid(f"{name} is {shown(value)}, not a number from {least:g} to {most:g}")


def is_number(value: Any, least: float, most: float) -> bool:
    """Whether it is within bounds, which neither NaN nor infinity is."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def need_one_of(kind: Any, **values: Any) -> None:
    for name, value in values.items():
        if value not in (known := get_args(kind)):
            hint = did_you_mean(value, known)
            raise ManifestInvalid(f"unknown {name} {shown(value)}{hint}; there are {', '.join(known)}")


def need_text(name: str, values: Iterable[Any], longest: int) -> None:
    for value in values:
        if not isinstance(value, str):
            raise ManifestInvalid(f"{name} holds {shown(value)}, not a string")
        if len(value) > longest:
            raise ManifestInvalid(f"{name} holds {shown(value)}, which is longer than {longest:,} characters")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ManifestInvalid(f"{name} holds {shown(value)}, half of a surrogate pair") from error
