"""Every error the toolkit raises on purpose: one clear line that says what to do next.

Each class also inherits the builtin that fits, so `except FileNotFoundError` works as a caller expects.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = [
    "AlphabetMismatch",
    "BackendMissing",
    "CharacterUnknown",
    "CrnnDeployError",
    "LibraryBroken",
    "LibraryMissing",
    "ManifestInvalid",
    "ManifestMissing",
    "ModelClosed",
    "ModelInvalid",
    "ModelNotFound",
    "ModelUnreadable",
    "ReadFailed",
    "RunFailed",
    "VerdictFailed",
    "amount",
    "did_you_mean",
    "first_line",
    "is_address",
    "nothing_at",
    "or_recipe",
    "printable",
    "printable_json",
    "shortened",
]


class CrnnDeployError(Exception):
    """Base of all errors that are the input's fault, not the program's.

    `exit_code` is what the command line returns: 2 for bad input, 1 for a verdict that failed.
    """

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(printable(message).splitlines()))

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process. Most classes make their message themselves, of what pickle does not know."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[CrnnDeployError], said: tuple[Any, ...], fields: dict[str, Any]) -> CrnnDeployError:
    error = kind.__new__(kind, *said)
    error.args = said
    error.__dict__.update(fields)
    return error


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its class where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """` (did you mean X?)` with the nearest of the known names, to stand behind one that is not known.

    The shortest of those that begin with what was given, else the one that differs least; nothing where none
    is near. Dashes before a name, underscores and capital letters make no difference.
    """
    if not isinstance(given, str) or not 1 < len(given) <= _LONGEST_NAME:
        return ""
    from difflib import get_close_matches

    by_form = {_form(name): name for name in known}
    begun = sorted((form for form in by_form if form.startswith(_form(given))), key=len)
    found = begun or get_close_matches(_form(given), by_form, 1)
    return f" (did you mean {by_form[found[0]]}?)" if found and _form(given) else ""


def _form(name: str) -> str:
    return name.lower().replace("_", "-").lstrip("-")


def amount(count: int, noun: str, many: str = "") -> str:
    """A number and what it counts: `1 image`, `1,200 images`; many: a plural that takes more than an s."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def nothing_at(path: Path, what: str, wanted: str) -> str:
    """That no file lies at a path, or that a folder does, where `wanted` is what to give in its place."""
    return f"{path} is a folder; give {wanted}" if os.path.isdir(path) else f"no {what} at {path}"


def is_address(text: str) -> bool:
    """Whether a text in the place of a file is an address, such as http://host/x or s3://bucket/x."""
    return _ADDRESS.match(text) is not None


def or_recipe(names: Iterable[str]) -> str:
    """`, or name the recipe ... X` with the first of the names, to stand behind a remedy; else nothing."""
    first = next(iter(names), None)
    return "" if first is None else f", or name the recipe that has them with --recipe {first}"


def shortened(text: str, most: int = 60) -> str:
    """A text of which a message shows no more than so many characters."""
    return text if len(text) <= most else f"{text[:most]}..."


def printable(text: str) -> str:
    """A text without what a terminal would obey: control characters become escapes such as \\x1b.

    Names of files, of weights and characters of an alphabet come from strangers. Halves of surrogate pairs,
    which no encoding takes, and marks that turn the direction of what follows are escaped too; line feeds and
    tabs stay.
    """
    return text if text.isprintable() else _OBEYED.sub(_escape, text)


def printable_json(text: str) -> str:
    """JSON with the same characters escaped, as JSON has it, so that its values stay what they are."""
    return text if text.isprintable() else _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


_LONGEST_NAME = 100  # characters; comparing longer ones would take long, and no name is so long
_ADDRESS = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")
_OBEYED = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


class ModelNotFound(CrnnDeployError, FileNotFoundError):
    """No model file at this path.

    wanted: what to give where it is a folder
    """

    def __init__(self, path: Path, wanted: str = "an .onnx or .engine file") -> None:
        super().__init__(nothing_at(path, "model file", wanted))


class ModelClosed(CrnnDeployError, RuntimeError):
    """A model that is used after `close`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is closed; load it again")


class ModelUnreadable(CrnnDeployError, ValueError):
    """A model file that cannot be loaded, or must not be."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class ManifestMissing(CrnnDeployError, ValueError):
    """An ONNX file that does not say how to feed it or how to read its output."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} has no crnn-deploy manifest (alphabet, blank, input rule); "
            f"give it one: crnn-deploy describe {path} --recipe NAME --alphabet FILE -o OUT.onnx"
        )


class ManifestInvalid(CrnnDeployError, ValueError):
    """A manifest that contradicts itself or was written by a newer version."""

    def __init__(self, reason: str, path: Path | None = None) -> None:
        self.reason = reason
        of = "" if path is None else f" of {path}"
        super().__init__(f"the manifest{of} is not valid: {reason}")


_HINTS = {  # by how many classes more there are than characters; a fit has one
    2: " (PaddleOCR adds a space behind those of its dictionary)",
    0: " (the blank is none of them)",
}


class AlphabetMismatch(CrnnDeployError, ValueError):
    """The alphabet plus the blank is not what the network puts out.

    owner: what holds the alphabet; recipes: the names of those that have as many characters as the network
    """

    def __init__(
        self, tokens: int, classes: int, owner: str = "the alphabet", recipes: Iterable[str] = ()
    ) -> None:
        self.tokens, self.classes = tokens, classes
        super().__init__(
            f"{owner} has {tokens} characters, so {tokens + 1} classes with the blank, "
            f"but the network puts out {classes}; pass the {classes - 1} characters it was trained on with "
            f"--alphabet{_HINTS.get(classes - tokens, '')}{or_recipe(recipes)}"
        )


class CharacterUnknown(CrnnDeployError, ValueError):
    """A character that the alphabet does not hold."""

    def __init__(self, character: str, text: str) -> None:
        super().__init__(f"the alphabet has no {character!r} (in {text!r})")
        self.character = character


class ModelInvalid(CrnnDeployError, ValueError):
    """A factory or network that does not do what a CTC recogniser does."""


class RunFailed(CrnnDeployError, RuntimeError):
    """A model that fails while it runs, or puts out what its manifest does not say."""

    def __init__(self, path: Path, shape: tuple[int, ...], reason: str) -> None:
        super().__init__(f"{path} fails on images of shape {shape}: {reason}")


class ReadFailed(CrnnDeployError, RuntimeError):
    """An image in which no text can be read though it is one."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path if path.isprintable() else repr(path)}: {reason}")


class BackendMissing(CrnnDeployError, ImportError):
    """The inference library that this model needs is not usable here."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class LibraryMissing(CrnnDeployError, ImportError):
    """A library of an optional extra that is not installed."""

    def __init__(self, purpose: str, library: str, extra: str) -> None:
        super().__init__(f"{purpose} needs {library}; run pip install 'crnn-deploy[{extra}]'")


class LibraryBroken(CrnnDeployError, ImportError):
    """A library that cannot be imported though it should be there."""

    def __init__(self, library: str, reason: str, remedy: str) -> None:
        super().__init__(f"{library} cannot be imported: {reason}; to mend it: {remedy}")


class VerdictFailed(CrnnDeployError):
    """A proof that did not hold: what was built is not kept."""

    exit_code = 1
