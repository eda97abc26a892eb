"""Alphabets from files: the characters of a network in class order, the blank left out."""

from __future__ import annotations

import ast
import codecs
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import parse_json, read_regular
from crnn_deploy.recipes.tables import Numbered, Ordered, candidates, table_of

__all__ = [
    "AlphabetFile",
    "AlphabetInvalid",
    "check_alphabet",
    "check_distinct",
    "read_alphabet",
    "read_table",
]

_MOST_BYTES = 2**24  # of a file; the longest alphabets have 0.1 million
_MOST_YAML = 2**21  # characters, which take seconds
_LONGEST_PAIR = 100  # characters of a line
_START = 2**16  # bytes that are looked at for zeros
_MARKS = (  # the longer ones first: that of UTF-32 begins as that of UTF-16
    *((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32")),
    *((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")),
)
_PYTHON = re.compile(r"(?s)\s*(#[^\n]*\n\s*)*[A-Za-z_]\w*\s*=\s*([\"'\[({]|u[\"'])")
_SEPARATORS = {"\t": "\t", ",": " *, *", ";": " *; *", ":": " *: *", "=": " *= *", " ": " +"}
_LAST = {name: re.compile(f"(.+?)(?:{sign})([0-9]{{1,7}})") for name, sign in _SEPARATORS.items()}
_FIRST = {name: re.compile(f"([0-9]{{1,7}})(?:{sign})(.+)") for name, sign in _SEPARATORS.items()}


class AlphabetInvalid(CrnnDeployError, ValueError):
    """An alphabet that is missing, unreadable or holds a character twice."""


def read_alphabet(path: Path) -> tuple[str, ...]:
    """Tokens of a file, in the order of their classes: those of `read_table`. Raises AlphabetInvalid."""
    return read_table(path).tokens


@dataclass(frozen=True)
class AlphabetFile:
    """What a file says of an alphabet."""

    tokens: tuple[str, ...]  # in the order of their classes
    left_out: int | None  # the class that the file's numbers leave to the blank; None: it has no numbers


def read_table(path: Path) -> AlphabetFile:
    """An alphabet of a file in one of the forms that people keep them in.

    Text: the characters of its only line, or one token on each line; spaces count. Pairs: a token and the
    number of its class on each line, in either order. JSON and YAML: a text, a list, or a dictionary in
    either direction. Python: a text, a list or a dictionary that the file assigns to a name; its code is not
    run. In UTF-8, or what a byte order mark says.

    Raises AlphabetInvalid.
    """
    try:
        data = read_regular(path, _MOST_BYTES)
    except FileNotFoundError as error:
        raise AlphabetInvalid(
            f"no alphabet file at {path}; --alphabet-string takes the characters themselves (alphabet.string "
            "in a training)"
        ) from error
    except OSError as error:
        raise AlphabetInvalid(f"{path} cannot be read: {error.strerror}") from error
    text = _decoded(data, path).replace("\r\n", "\n")
    if "\n" not in text.strip("\r"):  # as of old Macs
        text = text.replace("\r", "\n")
    if (structured := _structured(text, path)) is not None:
        return structured
    lines = text.removesuffix("\n").split("\n")
    if len(lines) > 1 and (pairs := _pairs(lines, path)) is not None:
        return _by_number(pairs, f"{path}, which has a number on each line,", path)
    tokens = tuple(lines[0]) if len(lines) == 1 else tuple(lines)
    if "" in tokens:
        raise AlphabetInvalid(
            f"{path}: line {tokens.index('') + 1} is empty; a token has at least one character"
        )
    _refuse_yaml(lines, path)
    return AlphabetFile(check_alphabet(tokens, str(path)), None)


def _decoded(data: bytes, path: Path) -> str:
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in data[:_START]:
        raise AlphabetInvalid(f"{path} has zero bytes, as UTF-16 without a mark has; save it as UTF-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8":
            raise AlphabetInvalid(
                f"{path} is not UTF-8; convert it, such as: iconv -f GBK -t UTF-8"
            ) from error
        raise AlphabetInvalid(f"{path} begins as {encoding.upper()} and is none; save it as UTF-8") from error


def _structured(text: str, path: Path) -> AlphabetFile | None:
    """What a file of JSON, YAML or Python says; None: it is plain text."""
    suffix = path.suffix.lower()
    if suffix == ".json" or (suffix not in (".yaml", ".yml", ".py") and _may_be_json(text)):
        try:
            value = parse_json(text)
        except (ValueError, RecursionError) as error:
            if suffix != ".json":
                return None
            raise AlphabetInvalid(f"{path} is not JSON: {error}") from error
        return _of_value(value, "JSON", path) if suffix == ".json" or _holds_words(value) else None
    if suffix in (".yaml", ".yml"):
        return _of_value(_yaml(text, path), "YAML", path)
    if suffix == ".py" or _PYTHON.match(text):
        assigned = _python(text)
        if assigned or suffix == ".py":
            return _of_value(assigned, "Python", path)
    return None


def _may_be_json(text: str) -> bool:
    return text.strip()[:1] + text.strip()[-1:] in ("[]", "{}")


def _holds_words(value: Any) -> bool:
    """Whether JSON is more than characters that happen to be brackets."""
    return bool(value) and (isinstance(value, dict) or any(isinstance(item, str | list) for item in value))


def _yaml(text: str, path: Path) -> Any:
    import yaml

    if len(text) > _MOST_YAML:
        raise AlphabetInvalid(
            f"{path} has more than {_MOST_YAML:,} characters; write one character on each line"
        )
    try:
        return yaml.load(text, yaml.BaseLoader)  # every value a text: `no` and `1` are characters too
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise AlphabetInvalid(f"{path} is not YAML: {str(error).splitlines()[0]}") from error


def _python(text: str) -> dict[str, Any]:
    """The values that Python source assigns to names; nothing where it is none."""
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, Any] = {}
    for statement in body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                with suppress(ValueError, TypeError, RecursionError, MemoryError):
                    if isinstance(target, ast.Name):
                        found[target.id] = ast.literal_eval(statement.value)
    return found


def _of_value(value: Any, kind: str, path: Path) -> AlphabetFile:
    """The only table of characters in a value."""
    where = f"{path}, which is {kind},"
    table = None if kind == "Python" else table_of(value)
    found = [] if table is None else [table]
    if table is None or isinstance(table, str):
        inside = list(candidates(value))
        if kind == "Python" and not inside and isinstance(value, dict):
            # whatever its name, where it is the only one
            inside = [c for name in value for c in candidates({"alphabet": value[name]})]
        found += [candidate.table for candidate in inside]
    tables = [table for table in found if not isinstance(table, str)]
    if not tables:
        reasons = [table for table in found if isinstance(table, str)]
        raise AlphabetInvalid(
            f"{where} {reasons[0] if reasons else 'holds no list or dictionary of characters'}; write one "
            "character on each line of a text file"
        )
    if any(other != tables[0] for other in tables[1:]):
        raise AlphabetInvalid(f"{where} holds {len(tables)} tables of characters; keep one in it")
    if isinstance(tables[0], Ordered):
        return AlphabetFile(check_alphabet(tables[0].tokens, str(path)), None)
    return _by_number(tables[0], where, path)


def _by_number(table: Numbered, where: str, path: Path) -> AlphabetFile:
    """Tokens in the order of their numbers, of which one at most is left out."""
    numbers = sorted(table.tokens)
    tokens = check_alphabet(tuple(table.tokens[number] for number in numbers), str(path))
    first, last = numbers[0], numbers[-1]
    missing = sorted(set(range(first, last + 1)) - set(numbers))
    if first not in (0, 1) or len(missing) > 1 or (first == 1 and missing):
        raise AlphabetInvalid(
            f"{where} gives numbers from {first} to {last} to {len(numbers)} tokens, which are no classes; "
            "write the tokens alone, one on each line, in the order of the classes"
        )
    return AlphabetFile(tokens, missing[0] if missing else 0 if first == 1 else len(tokens))


def _pairs(lines: Sequence[str], path: Path) -> Numbered | None:
    """The pairs of token and number that every line is; None: lines are tokens."""
    for separator in _SEPARATORS:
        split = [_split(line, separator) for line in lines]
        good = [pair for pair in split if pair is not None]
        if max(3, 0.7 * len(lines)) <= len(good) < len(lines) and split[0] is not None:
            at = split.index(None)
            raise AlphabetInvalid(
                f"{path} has a number on each line but line {at + 1}; write the tokens alone, one on "
                "each line, in the order of the classes"
            )
        # a first line may say what the columns are
        if len(good) < max(2, len(lines) - 1) or (len(good) < len(lines) and split[0] is not None):
            continue
        if len(good) < len(lines) and len(lines[0]) < 5:
            continue
        table = table_of(good)
        if isinstance(table, Numbered):
            return table
        reason = table if isinstance(table, str) else "has a number on each line that is no class"
        raise AlphabetInvalid(
            f"{path} {reason}; write the tokens alone, one on each line, in the order of the classes"
        )
    return None


def _split(line: str, separator: str) -> tuple[str, str] | None:
    """A token and a number, in the order of the line."""
    if len(line) > _LONGEST_PAIR:
        return None
    for match, number in ((_LAST[separator].fullmatch(line), 2), (_FIRST[separator].fullmatch(line), 1)):
        if match is not None:
            token = match[3 - number]
            if len(token) > 2 and token[0] == token[-1] and token[0] in "'\"":
                token = token[1:-1].replace('""', '"')
            return (token, match[number]) if number == 2 else (match[number], token)
    return None


def _refuse_yaml(lines: Sequence[str], path: Path) -> None:
    if len(lines) > 1 and all(line.startswith("- ") and len(line) > 2 for line in lines):
        raise AlphabetInvalid(f"{path} looks like a list of YAML; give it the ending .yaml")


def check_alphabet(alphabet: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The alphabet itself, when it has tokens. Raises AlphabetInvalid.

    A token may be that of several classes, as in published alphabets; one may be empty, that of a class which
    puts nothing into a text.
    """
    if not any(alphabet):
        raise AlphabetInvalid(f"the alphabet of {where} is empty")
    return alphabet


def check_distinct(alphabet: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The alphabet itself, when each token stands in it once, as in one to be trained.

    Raises AlphabetInvalid.
    """
    first: dict[str, int] = {}
    for index, token in enumerate(check_alphabet(alphabet, where)):
        if token in first:
            raise AlphabetInvalid(
                f"{where}: {token!r} stands twice, as character {first[token] + 1} and {index + 1}"
            )
        first[token] = index
    return alphabet
