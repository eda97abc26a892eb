"""Alphabets from files: the characters of a network in class order, the blank left out."""

from __future__ import annotations

from pathlib import Path

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import read_regular

__all__ = ["AlphabetInvalid", "check_alphabet", "read_alphabet"]

_MOST_BYTES = 2**24  # of a file; the longest alphabets have 0.1 million


class AlphabetInvalid(CrnnDeployError, ValueError):
    """An alphabet that is missing, unreadable or holds a character twice."""


def read_alphabet(path: Path) -> tuple[str, ...]:
    """Tokens of a UTF-8 file: the characters of its only line, or one token per line; spaces count.

    Raises AlphabetInvalid.
    """
    try:
        text = read_regular(path, _MOST_BYTES).decode("utf-8-sig")
    except FileNotFoundError as error:
        raise AlphabetInvalid(f"no alphabet file at {path}") from error
    except OSError as error:
        raise AlphabetInvalid(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AlphabetInvalid(f"{path} is not UTF-8; convert it, such as: iconv -f GBK -t UTF-8") from error
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return check_alphabet(tuple(lines[0]) if len(lines) == 1 else tuple(lines), str(path))


def check_alphabet(alphabet: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The alphabet itself, when each of its tokens is there once. Raises AlphabetInvalid."""
    if not alphabet:
        raise AlphabetInvalid(f"the alphabet of {where} is empty")
    first: dict[str, int] = {}
    for index, token in enumerate(alphabet):
        if not token:
            raise AlphabetInvalid(f"{where}: line {index + 1} is empty; a token has at least one character")
        if token in first:
            raise AlphabetInvalid(
                f"{where}: {token!r} stands twice, as character {first[token] + 1} and {index + 1}"
            )
        first[token] = index
    return alphabet
