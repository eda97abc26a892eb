"""What an engine's sidecar says of its build: settings, which may be used again, and the model's place.

An engine may come from strangers, and its sidecar with it. So of the arguments that it holds only those of a
closed list are taken, each with a value of its own form: none that names code, a checkpoint, images, or a
file that is written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BuildArguments", "build_arguments"]

_MOST = 200  # arguments
_LONGEST = 4096  # characters of one
_FLAGS = frozenset(("--fp32", "--tf32", "--fp16", "--bf16", "--int8", "--no-ladder", "--argmax"))
_SIZES = r"\d{1,7},\d{1,7},\d{1,7}"
_VALUES = {
    "--keep-fp32": r"[^-\s][^\x00-\x1f\x7f]{0,199}",
    "--builder": "auto|tensorrt|tensorrt-rtx",
    "--width-range": _SIZES,
    "--batch-range": _SIZES,
    "--profiles": r"\d{1,2}",
    "--target": r"sm_\d{2,3}|current",
    "--workspace": r"\d{1,7}",
    "--optimization-level": "[0-5]",
}
_OUTPUT = ("-o", "--output")
_RENAMED = {  # names of options in older sidecars
    "--widths": "--width-range",
    "--batch": "--batch-range",
    "--model": "--factory",
}
_NOT_TAKEN = (  # each has one value
    *("--timing-cache", "--images", "--checkpoint", "--recipe", "--factory", "--alphabet"),
    *("--alphabet-string", "--blank", "--activation"),
)


@dataclass(frozen=True)
class BuildArguments:
    """Arguments of `build-engine` that a sidecar may give."""

    model: str  # the ONNX file
    settings: tuple[str, ...]  # options with their values
    left_out: tuple[str, ...]  # names of options that the user alone gives


def build_arguments(arguments: Sequence[str]) -> BuildArguments:
    """The settings among a sidecar's arguments. Raises ValueError, which says what is none."""
    if len(arguments) > _MOST or any(len(word) > _LONGEST for word in arguments):
        raise ValueError("more arguments than any build takes")
    models: list[str] = []
    settings: list[str] = []
    left_out: list[str] = []
    words = iter(arguments)
    for given in words:
        word = _RENAMED.get(given, given)
        if word in _FLAGS:
            settings.append(word)
        elif word in _VALUES or word in _NOT_TAKEN or word in _OUTPUT:
            value = next(words, None)
            if value is None:
                raise ValueError(f"{word} without a value")
            if word in _VALUES:
                if not re.fullmatch(_VALUES[word], value, re.ASCII):
                    raise ValueError(f"{word} with the value {value[:60]!r}")
                settings += [word, value]
            elif word in _NOT_TAKEN:
                left_out.append(word)
        elif word.startswith("-") or not word.isprintable():
            raise ValueError(f"{word[:60]!r}")
        else:
            models.append(word)
    if len(models) != 1:
        raise ValueError(f"{len(models)} models")
    return BuildArguments(models[0], tuple(settings), tuple(dict.fromkeys(left_out)))
