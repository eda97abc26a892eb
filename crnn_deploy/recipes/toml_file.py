"""A recipe as the TOML file that `--recipe FILE.toml` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from crnn_deploy.manifest import filter_to_plain
from crnn_deploy.recipes.recipe import Recipe

__all__ = ["to_toml"]

_NO_KEYS = ("folder", "width", "filters")  # of a recipe: where its file lies, and what becomes a table
_PLAIN = str.maketrans({chr(code): f"\\u{code:04x}" for code in range(0x7F, 0xA0)})


def to_toml(recipe: Recipe) -> str:
    """All of a recipe; `find_recipe` reads an equal one from it. What is None there is left out."""
    lines = []
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.name not in _NO_KEYS and value is not None:
            lines.append(f"{field.name} = {_value(value)}")
    lines += ["", "[width]", *_table(recipe.width.to_plain())]
    for one in recipe.filters:
        lines += ["", "[[filters]]", *_table(filter_to_plain(one))]
    return "\n".join(lines) + "\n"


def _table(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_value(value)}" for name, value in values.items()]


def _value(value: Any) -> str:
    """A value of a recipe; an alphabet of single characters becomes one text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).translate(_PLAIN)
    if isinstance(value, tuple) and value and all(isinstance(one, str) and len(one) == 1 for one in value):
        return _value("".join(value))
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return f"{{ {', '.join(_table(vars(value)))} }}"
