"""Tables of characters as people write them down: in order, or each with the number of its class.

A checkpoint, a JSON or a YAML file may hold one under many names: a text or a list in the order of the
classes, a dictionary from characters to numbers or back, and the CTC blank may be written in it. What is
found here is data of strangers, so walks and sizes are bounded.
"""

from __future__ import annotations

import argparse
import codecs
import json
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from crnn_deploy.errors import shortened

__all__ = ["Candidate", "Classes", "Numbered", "Ordered", "candidates", "fitted", "table_of", "without_blank"]

MOST_TOKENS = 200_000
_LONGEST_TOKEN = 64  # code points, as a manifest has it
_MOST_VALUES = 50_000  # that are looked at for tables
_DEEPEST = 12  # settings within one another
_MOST_CANDIDATES = 40
_MOST_JSON = 2**22  # characters of a text that may be JSON
_MOST_YAML = 2**14
_MOST_YAML_TEXTS = 8  # within one another or beside one another: reading one takes its time
_SETTINGS = re.compile(r"(---\n|#[^\n]*\n|\n)*\w[\w.-]{0,80}:\s")  # as YAML begins

# names of tables, written small and without signs between the words
_NAMES = frozenset(
    (
        *("alphabet", "alphabets", "alpha", "char", "chars", "character", "characters", "charlist"),
        *("charset", "chardict", "charmap", "charvocab", "charactersset", "characterset"),
        *("characterlist", "characterdict", "characterstr", "allchars", "letters", "letter", "symbols"),
        *("chartoidx", "char2idx", "chartoindex", "char2index", "chartoint", "char2int", "chartonum"),
        *("char2num", "chartoid", "char2id", "char2label", "chartolabel", "ctoi", "c2i", "stoi", "cdict"),
        *("idxtochar", "idx2char", "indextochar", "index2char", "inttochar", "int2char", "numtochar"),
        *("num2char", "idtochar", "id2char", "label2char", "labeltochar", "itoc", "i2c", "itos", "icdict"),
        *("idx2ch", "ch2idx", "encodedict", "decodedict", "id2token", "token2id", "tokentoid", "idtotoken"),
    )
)
# names that may as well belong to something else: what they hold must look like characters
_LOOSE_NAMES = frozenset(
    (
        *("classes", "classnames", "class", "labels", "labelmap", "vocab", "vocabulary", "vocabs"),
        *("dictionary", "dict", "dictlist", "dictcharacter", "tokens", "keys", "codec", "id2label"),
        *("label2id", "labeltoidx", "label2idx", "idx2label", "labelset", "tokenlist"),
        *("charsettrain", "charsettest", "alphabettrain", "alphabettest", "encoder", "decoder"),
    )
)
# names of files that hold one
_FILE_NAMES = frozenset(
    f"{what}{kind}"
    for what in (
        "alphabet",
        "character",
        "characters",
        "characterdict",
        "char",
        "chars",
        "chardict",
        "charset",
    )
    for kind in ("file", "path", "filename", "filepath")
) | {"dictfile", "dictpath", "vocabfile", "vocabpath", "vocabularyfile", "vocabularypath", "dictionarypath"}
_LEAST_UNNAMED = 8  # tokens of a table under any other name
# how the blank is written, the surest names first
_BLANKS = (
    ("<blank>", "[blank]", "[CTCblank]", "<blk>", "[blk]", "<BLK>", "<BLANK>", "[BLANK]", "<ctc>", "<CTC>"),
    ("blank", "BLANK", "<b>", "<ctc_blank>", "<CTC_BLANK>", "ctc_blank", "␢"),
    ("<pad>", "<PAD>", "[PAD]", "[pad]", ""),
    ("ε", "ϵ", "∅"),
)
# characters that trainers put first or last for the blank
_BLANK_SIGNS = ("-", "_", "~", " ", "·", "#", "@", "^", "|", "`", "\x00")


@dataclass(frozen=True)
class Ordered:
    """Tokens in the order of their classes; the blank may be among them."""

    tokens: tuple[str, ...]


@dataclass(frozen=True)
class Numbered:
    """Tokens by the numbers of their classes; the blank may be among them."""

    tokens: Mapping[int, str]


@dataclass(frozen=True)
class Candidate:
    """What may be an alphabet."""

    where: str  # its name, with the names of what it stands in
    table: Ordered | Numbered | str  # a text: why it is none
    sure: bool  # whether its name says that it is one
    named: bool = True  # whether its name may mean one


@dataclass(frozen=True)
class Classes:
    """The classes of a network as a table has them."""

    tokens: tuple[str, ...]  # in their order, the blank left out
    blank: int | None  # None: the table does not say
    by_numbers: bool = False  # whether nothing but a number left out tells the blank
    written: str = ""  # how the table writes the blank, where it does


def table_of(value: Any) -> Ordered | Numbered | str | None:
    """A value as a table of characters; a text says why a table is none; None: it is no table at all."""
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, set | frozenset):
        return "is a set, which has no order" if _are_tokens(value) else None
    if isinstance(value, bytes | bytearray):
        try:
            return _of_text(value.decode())
        except UnicodeDecodeError:
            return None
    if isinstance(value, list | tuple):
        return _of_list(value)
    return _of_pairs(list(value.items())) if isinstance(value, Mapping) else None


def fitted(table: Ordered | Numbered, classes: int, blank: int | None = None) -> Classes | str:
    """The classes of a network that has so many; a text says what does not fit.

    blank: its class as somebody gave it
    """
    written = table.tokens if isinstance(table, Ordered) else tuple(table.tokens.values())
    if len(written) == classes - 1 and (named := [token for token in written if token in _BLANKS[0]]):
        return f"{_misfit(len(written), classes)}; it writes the blank as {named[0]!r} already"
    if isinstance(table, Ordered):
        tokens = table.tokens
        if len(tokens) == classes - 1:
            return Classes(tokens, None)
        if len(tokens) == classes:
            return without_blank(tokens, blank)
        return _misfit(len(tokens), classes)
    numbers = sorted(table.tokens)
    tokens = tuple(table.tokens[number] for number in numbers)
    if len(numbers) == classes and numbers[-1] == classes - 1 and numbers[0] == 0:
        return without_blank(tokens, blank)
    if len(numbers) != classes - 1:
        return _misfit(len(numbers), classes)
    if numbers[0] < 0 or numbers[-1] >= classes:
        return (
            f"counts its characters from {numbers[0]} to {numbers[-1]}, and the network has {classes} classes"
        )
    [missing] = set(range(classes)) - set(numbers)
    if blank is not None and missing in (0, classes - 1):
        return Classes(tokens, blank)
    return Classes(tokens, missing, by_numbers=missing in (0, classes - 1))


def without_blank(tokens: tuple[str, ...], blank: int | None = None) -> Classes | str:
    """The classes of a network of which tokens name every one, the blank too.

    blank: its class as somebody gave it
    """
    found = _written_blank(tokens)
    at = found if blank is None else blank
    if at is None:
        return (
            f"has {len(tokens)} characters, as many as the network has classes, so one of them is the blank, "
            "and nothing tells which"
        )
    if found not in (None, at):
        return f"writes the blank, {tokens[found]!r}, as class {found} and not as class {at}"
    return Classes((*tokens[:at], *tokens[at + 1 :]), at, written=tokens[at])


def _written_blank(tokens: Sequence[str]) -> int | None:
    """Where the blank stands, told by how it is written."""
    for names in _BLANKS:
        at = [index for index, token in enumerate(tokens) if token in names]
        if len(at) == 1:
            return at[0]
    ends = [index for index in (0, len(tokens) - 1) if tokens[index] in _BLANK_SIGNS]
    # where both ends have a sign, a hyphen or an underscore is it, unless both are
    likely = [index for index in ends if tokens[index] in _BLANK_SIGNS[:2]] if len(ends) == 2 else ends
    return likely[0] if len(likely) == 1 else None


def candidates(content: Any, *, deepest: int = _DEEPEST) -> Iterator[Candidate]:
    """Every table of characters in a value, under the names that people give them; the nearest first."""
    waiting: deque[tuple[str, Any, int]] = deque([("", content, 0)])
    seen: dict[int, Any] = {}  # by identity, and kept: what is gone may leave its identity to another
    looked = found = in_yaml = 0
    while waiting and looked < _MOST_VALUES and found < _MOST_CANDIDATES:
        where, value, depth = waiting.popleft()
        looked += 1
        items = _items(value)
        if id(value) in seen or depth > deepest:
            continue
        seen[id(value)] = value
        for name, inner in items:
            if not isinstance(name, str) or len(name) > 256:
                continue
            inner = _unwrapped(inner)
            place = f"{where}.{name}" if where else name
            if (candidate := _candidate(place, name, inner)) is not None:
                found += 1
                yield candidate
            if yaml := in_yaml < _MOST_YAML_TEXTS and _is_yaml(inner):
                in_yaml += 1
            if yaml or isinstance(inner, Mapping | argparse.Namespace | list | tuple) or _is_json(inner):
                waiting.append((place, inner, depth + 1))


def _candidate(where: str, name: str, value: Any) -> Candidate | None:
    key = re.sub(r"[^a-z0-9]", "", name.lower())
    if key in _FILE_NAMES:
        named = isinstance(value, str) and 0 < len(value) <= 4096
        return Candidate(where, f"names the file {shortened(value)}", True) if named else None
    sure, named = key in _NAMES, key in _NAMES or key in _LOOSE_NAMES
    if _is_json(value):
        value = _parsed(value)
    table = table_of(value)
    if sure and table is None and _holds_something_else(value):
        table = "holds its characters in a form that is not understood"
    if table is None or (isinstance(table, Ordered) and len(table.tokens) < 2):
        return None
    if sure:
        return Candidate(where, table, True)
    return (
        Candidate(where, table, False, named)
        if _looks_like_one(table, 2 if named else _LEAST_UNNAMED)
        else None
    )


def _looks_like_one(table: Ordered | Numbered | str, least: int) -> bool:
    """Whether a table under a name that may mean anything holds characters."""
    if isinstance(table, str):
        return False
    tokens = table.tokens if isinstance(table, Ordered) else tuple(table.tokens.values())
    long = sum(len(token) != 1 for token in tokens)
    return len(tokens) >= least and long <= max(3, len(tokens) // 5) and len(set(tokens)) > 0.9 * len(tokens)


def _holds_something_else(value: Any) -> bool:
    """Whether a value may be a table in a form of its own, as numbers in place of characters."""
    if isinstance(value, list | tuple):
        return len(value) > 2 and all(isinstance(item, int | list | tuple) for item in value)
    return isinstance(value, bytes) or hasattr(value, "dtype")


def _items(value: Any) -> list[tuple[Any, Any]]:
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping):
        return list(value.items())[:_MOST_VALUES]
    # of a list the settings in it, as of the steps of a pipeline
    if isinstance(value, list | tuple) and len(value) <= 64:
        return [(str(at), inner) for at, inner in enumerate(value) if not isinstance(inner, str)]
    return []


def _unwrapped(value: Any) -> Any:
    """What lies in the nodes of OmegaConf, and the words of an array of NumPy."""
    for _ in range(2):
        if isinstance(value, argparse.Namespace):
            inner = vars(value)
            value = inner.get("_content", inner.get("_val", value))
    if isinstance(value, list) and any(isinstance(v, argparse.Namespace) for v in value):
        return [vars(v).get("_val", v) if isinstance(v, argparse.Namespace) else v for v in value]
    if isinstance(value, dict) and any(isinstance(v, argparse.Namespace) for v in value.values()):
        return {
            name: vars(v).get("_val", v) if isinstance(v, argparse.Namespace) else v
            for name, v in value.items()
        }
    texts = getattr(value, "texts", None)
    return texts if isinstance(texts, list) else value


def _is_json(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 8 < len(value) <= _MOST_JSON
        and value.lstrip()[:1] + value.rstrip()[-1:] in ("{}", "[]")
    )


def _is_yaml(value: Any) -> bool:
    """Whether it is a text that looks like settings in YAML, on more than one line."""
    return (
        isinstance(value, str)
        and len(value) <= _MOST_YAML
        and "\n" in value.strip()
        and _SETTINGS.match(value) is not None
    )


def _parsed(text: str) -> Any:
    """JSON, or YAML of several settings, or the text itself."""
    with suppress(ValueError, RecursionError):
        return json.loads(text)
    if _is_yaml(text):
        import yaml

        with suppress(ValueError, RecursionError, yaml.YAMLError):
            return yaml.load(text, yaml.BaseLoader)  # every value a text: `no` and `1` are characters too
    return text


def _of_text(text: str) -> Ordered | str | None:
    if len(text) > MOST_TOKENS:
        return f"has {len(text):,} characters, more than any alphabet"
    if re.search(r"\.(txt|json|ya?ml|csv|py|dict|pkl)$", text.strip()):
        return f"names the file {shortened(text.strip())}"
    with suppress(LookupError, ValueError):  # `charset` may as well be an encoding
        codecs.lookup(text)
        return None
    for separator in (",", " ", "|"):
        parts = tuple(text.split(separator))
        if len(parts) > 4 and all(len(part) == 1 for part in parts):
            return Ordered(parts)
    lines = text.replace("\r\n", "\n").strip("\n").split("\n")
    if len(lines) > 1:  # one token on each, or a text that has the end of a line among its characters
        each = "" not in lines and 2 * sum(len(line) == 1 for line in lines) > len(lines)
        return Ordered(tuple(lines) if each else tuple(text))
    return Ordered(tuple(lines[0]))


def _are_tokens(items: Collection[Any]) -> bool:
    return len(items) > 0 and all(isinstance(item, str) for item in items)


def _of_list(items: Sequence[Any]) -> Ordered | Numbered | str | None:
    if len(items) > MOST_TOKENS:
        return f"has {len(items):,} entries, more than any alphabet"
    if items and all(isinstance(item, list | tuple) and len(item) == 2 for item in items):
        return _of_pairs(list(items))
    if len(items) > 1 and sum(item is None for item in items) == 1:
        items = ["" if item is None else item for item in items]  # no character: the blank
    if items and all(isinstance(item, list | tuple) and len(item) == 1 for item in items):
        items = [item[0] for item in items]
    if not _are_tokens(items):
        return None
    if len(items) == 1:  # a text within a list
        return _of_text(items[0])
    if any(len(item) > _LONGEST_TOKEN for item in items):
        return f"holds a text of more than {_LONGEST_TOKEN} characters"
    return Ordered(tuple(items))


def _of_pairs(pairs: Sequence[tuple[Any, Any]]) -> Numbered | str | None:
    """Characters and numbers, whichever comes first."""
    if not 2 <= len(pairs) <= MOST_TOKENS:
        return None
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
    readings = [
        (numbers, texts)
        for given, texts in ((firsts, seconds), (seconds, firsts))
        if _are_tokens(texts) and (numbers := _whole(given)) is not None
    ]
    if len(readings) == 2:  # digits on both sides: characters are short
        by_kind = [r for r, given in zip(readings, (firsts, seconds), strict=True) if _are_numbers(given)]
        shortest = [r for r in readings if max(map(len, r[1])) == 1]
        chosen = by_kind if len(by_kind) == 1 else shortest
        if len(chosen) != 1:
            return "has digits beside digits; which of them are the classes cannot be told"
        readings = chosen
    if not readings:
        return None
    [(numbers, texts)] = readings
    if any(len(text) > _LONGEST_TOKEN for text in texts):
        return f"holds a text of more than {_LONGEST_TOKEN} characters"
    table: dict[int, str] = {}
    for number, text in zip(numbers, texts, strict=True):
        if number in table:
            return f"gives the class {number} to {table[number]!r} and to {text!r}"
        table[number] = text
    if max(numbers) - min(numbers) > len(numbers):
        return f"has numbers that are no classes (from {min(numbers)} to {max(numbers)} for {len(numbers)})"
    return Numbered(table)


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)


def _whole(values: Sequence[Any]) -> list[int] | None:
    """Whole numbers, or their digits."""
    found = []
    for value in values:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,7}", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 10**7:
            return None
        found.append(value)
    return found


def _misfit(tokens: int, classes: int) -> str:
    return f"has {tokens} characters, and the network has {classes} classes, one of them the blank"
