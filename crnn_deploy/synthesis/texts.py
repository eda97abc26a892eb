"""Texts to draw: words, numbers, codes, lines, random characters, and what books, signs and receipts say.

Words come from the system's word lists; those of sentences and signs from `lexicon`, which also tells the
words that are held out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.synthesis.chinese_texts import CHINESE_KINDS, ChineseKind, ChineseTexts
from crnn_deploy.synthesis.chinese_words import ChineseWords
from crnn_deploy.synthesis.fonts import Split
from crnn_deploy.synthesis.lexicon import Vocabulary, is_held_out
from crnn_deploy.synthesis.receipts import Receipts
from crnn_deploy.synthesis.sentences import Sentences
from crnn_deploy.synthesis.signs import Signs

__all__ = ["KINDS", "WORD_LISTS", "TextKind", "TextSource", "TextsImpossible", "read_words", "writable"]

WORD_LISTS = (Path("/usr/share/dict/american-english"), Path("/usr/share/dict/british-english"))
TextKind = Literal[
    "word", "number", "code", "address", "line", "random", "sentence", "sign", "receipt", ChineseKind
]
KINDS = get_args(TextKind)
_LONGEST_WORD = 18  # characters
_LONGEST_LINE = 36  # characters
_LONGEST_RANDOM = 12  # characters
_TRIES = 10_000  # before a kind of text is said not to fit an alphabet
_FEW = 100  # tries that a text may need of a kind that is drawn without being asked for
_ACCENTED = {
    "a": "àáâãäåæ", "c": "ç", "d": "ð", "e": "èéêë", "i": "ìíîï", "n": "ñ", "o": "òóôõöøœ", "s": "šß",
    "t": "þ", "u": "ùúûü", "y": "ýÿ", "z": "ž",
}  # fmt: skip
_CURRENCIES = "$€£¥¢"
_MARKS = ",.;:!?"
_BRACKETS = ("()", "[]", "{}", '""', "''", "«»", "<>", "**", "__")
_SYLLABLES = (
    *("ba", "co", "di", "fu", "ga", "he", "ji", "ko", "lu", "ma", "ne", "pi", "qua", "ro", "sy", "tu", "va"),
    *("wo", "xe", "zy", "str", "ing", "tion", "ster", "ble", "nd"),
)


class TextsImpossible(CrnnDeployError, ValueError):
    """An alphabet that lacks what a kind of text is made of."""

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"the alphabet cannot write texts of kind {kind!r}; leave that kind out (there are: "
            f"{', '.join(KINDS)})"
        )


def read_words(split: Split, paths: Sequence[Path] = WORD_LISTS) -> list[str]:
    """Words of one split, sorted; syllables strung together where no word list is installed."""
    found = [path for path in paths if path.is_file()]
    words = {word for path in found for word in path.read_text(encoding="utf-8").split()}
    if not words:
        _say_syllables()
        rng = np.random.default_rng(0)
        words = {"".join(rng.choice(_SYLLABLES, rng.integers(2, 6))) for _ in range(20_000)}
    return sorted(
        word
        for word in words
        if len(word) <= _LONGEST_WORD
        and not word.endswith("'s")
        and (is_held_out(word) == (split == "held-out"))
    )


@cache
def _say_syllables() -> None:
    """Once, and not for each set of images."""
    print(
        "no word list is installed: drawn words are random syllables (apt-get install wamerican wbritish "
        "brings English words)",
        file=sys.stderr,
    )


class TextSource:
    """Draws texts that an alphabet can write.

    alphabet: characters that may stand in a text
    words: as `read_words` gives them
    weights: how often each kind of `KINDS` is taken
    vocabularies: of sentences and signs, as `lexicon.read_vocabularies` gives them; none: `words`, each as
        often as the other
    chinese: of the kinds in Chinese, as `chinese_words.read_chinese_words` gives them
    """

    def __init__(
        self,
        alphabet: Sequence[str],
        words: Sequence[str],
        weights: Mapping[TextKind, float],
        vocabularies: Sequence[Vocabulary] = (),
        chinese: ChineseWords | None = None,
    ) -> None:
        self._alphabet = frozenset(alphabet)
        self._words = words
        self._kinds: list[TextKind] = [kind for kind in KINDS if weights.get(kind, 0) > 0]
        total = sum(weights[kind] for kind in self._kinds)
        self._bounds = np.cumsum([weights[kind] / total for kind in self._kinds])[:-1]
        visible = sorted(character for character in self._alphabet if not character.isspace())
        self._visible = [character for character in visible if len(character) == 1]
        self._makers: dict[TextKind, Callable[[np.random.Generator], str]] = {
            "word": self._punctuated_word,
            "number": self._number,
            "code": self._code,
            "address": self._address,
            "line": self._line,
            "random": self._random,
            "receipt": Receipts(words).draw,
        }
        frequent = vocabularies or (Vocabulary("en", words, np.full(len(words), 1 / len(words))),)
        if "sentence" in self._kinds:
            self._makers["sentence"] = Sentences(self._alphabet, frequent).draw
        if "sign" in self._kinds:
            self._makers["sign"] = Signs(self._alphabet, frequent).draw
        if chinese is None and set(CHINESE_KINDS) & set(self._kinds):
            raise ValueError("kinds in Chinese need `chinese`, as read_chinese_words gives it")
        if chinese is not None:
            for kind, maker in ChineseTexts(self._alphabet, chinese, words).makers().items():
                self._makers[kind] = maker
        self._currencies = "".join(c for c in _CURRENCIES if c in self._alphabet)

    def sample(self, rng: np.random.Generator, *, tries: int = _TRIES) -> str:
        """A text: no space at its ends, no two spaces together.

        tries: texts that are made until the alphabet can write one
        Raises TextsImpossible.
        """
        kind = self._kinds[int(np.searchsorted(self._bounds, rng.random()))]
        for _ in range(tries):
            text = " ".join(self._makers[kind](rng).split())
            if text and self._alphabet.issuperset(text):
                return text
        raise TextsImpossible(kind)

    def _word(self, rng: np.random.Generator) -> str:
        word = self._words[int(rng.integers(len(self._words)))]
        case = rng.random()
        if case < 0.45:
            word = word.lower()
        elif case < 0.7:
            word = word[:1].upper() + word[1:]
        else:
            word = word.upper()
        return self._accented(word, rng) if rng.random() < 0.12 else word

    def _accented(self, word: str, rng: np.random.Generator) -> str:
        """The word with about a third of its letters changed for accented ones."""
        letters = []
        for letter in word:
            others = _ACCENTED.get(letter.lower())
            if others and rng.random() < 0.35:
                other = others[rng.integers(len(others))]
                upper = other.upper()
                letter = other if letter.islower() or len(upper) > 1 else upper
            letters.append(letter)
        return "".join(letters)

    def _punctuated_word(self, rng: np.random.Generator) -> str:
        word = self._word(rng)
        shape = rng.random()
        if shape < 0.8:
            return word
        if shape < 0.88:
            return word + _MARKS[rng.integers(len(_MARKS))]
        if shape < 0.93:
            return word.join(_BRACKETS[rng.integers(len(_BRACKETS))])
        if shape < 0.96:
            return word + ("'s" if word[-1:].islower() else "'S")
        return word + "-/&+_"[rng.integers(5)] + self._word(rng)

    def _number(self, rng: np.random.Generator) -> str:
        def digits(low: int, high: int) -> str:
            return "".join(map(str, rng.integers(0, 10, rng.integers(low, high + 1)).tolist()))

        def integer(high: int) -> str:
            return str(int(rng.integers(0, 10 ** rng.integers(1, high + 1))))

        shape = int(rng.integers(0, 16))
        if shape < 3:
            return integer(8)
        if shape < 5:
            return f"{'+-'[rng.integers(2)] if rng.random() < 0.4 else ''}{integer(4)}.{digits(1, 4)}"
        if shape == 5:
            return f"{int(rng.integers(1000, 10**8)):,}".replace(",", ",.' "[rng.integers(4)])
        if shape < 8 and self._currencies:
            sign = self._currencies[rng.integers(len(self._currencies))]
            price = f"{integer(4)}{'.,'[rng.integers(2)]}{digits(2, 2)}"
            return [f"{sign}{price}", f"{price}{sign}", f"{price} {sign}", f"{sign} {price}"][rng.integers(4)]
        if shape == 8:
            return f"{integer(3)}%"
        if shape == 9:
            return f"{rng.integers(0, 24):02}:{rng.integers(60):02}" + (
                f":{rng.integers(60):02}" if rng.random() < 0.4 else ""
            )
        if shape < 12:
            day, month, year = rng.integers(1, 32), rng.integers(1, 13), rng.integers(1900, 2060)
            mark = "/.-"[rng.integers(3)]
            return [
                f"{day:02}{mark}{month:02}{mark}{year}",
                f"{year}{mark}{month:02}{mark}{day:02}",
                f"{day}{mark}{month}{mark}{year % 100:02}",
            ][rng.integers(3)]
        if shape == 12:
            return f"+{digits(1, 2)} {digits(2, 3)} {digits(3, 4)} {digits(3, 4)}"
        if shape == 13:
            return f"({digits(3, 3)}) {digits(3, 3)}-{digits(4, 4)}"
        if shape == 14:
            return f"{integer(3)}{'x/-:=<>*±×'[rng.integers(10)]}{integer(3)}"
        return f"{'-' if rng.random() < 0.6 else '#'}{integer(5)}"

    def _code(self, rng: np.random.Generator) -> str:
        """Capitals and digits in groups, as of plates, serial numbers and flights."""
        letters, digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
        groups = []
        for _ in range(rng.integers(1, 4)):
            kind = int(rng.integers(3))
            characters = (letters, digits, letters + digits)[kind]
            groups.append(
                "".join(characters[i] for i in rng.integers(0, len(characters), rng.integers(1, 6)))
            )
        return ("", "-", " ", "/", ".")[rng.integers(5)].join(groups)

    def _address(self, rng: np.random.Generator) -> str:
        """A mail or web address, a file name, a tag."""
        name, site = self._word(rng).lower(), self._word(rng).lower()
        end = ("com", "org", "net", "de", "fr", "es", "io", "co.uk")[rng.integers(8)]
        return [
            f"{name}{'._-'[rng.integers(3)]}{rng.integers(100)}@{site}.{end}",
            f"{name}@{site}.{end}",
            f"www.{site}.{end}",
            f"http://{site}.{end}/{name}",
            f"{name}_{site}.{('pdf', 'jpg', 'txt', 'py')[rng.integers(4)]}",
            f"{'#@~$'[rng.integers(4)]}{name}",
        ][rng.integers(6)]

    def _line(self, rng: np.random.Generator) -> str:
        """Two words or more, with the marks that stand between words."""
        style = rng.random()
        parts: list[str] = []
        for at in range(int(rng.integers(2, 8))):
            if rng.random() < 0.12:
                part = self._number(rng)
            else:
                part = self._words[int(rng.integers(len(self._words)))]
                if rng.random() < 0.06:
                    part = self._accented(part, rng)
                if style < 0.15:
                    part = part.upper()
                elif style < 0.3 or (at == 0 and style < 0.8):
                    part = part[:1].upper() + part[1:]
            mark = rng.random()
            if mark < 0.12:
                part += _MARKS[rng.integers(len(_MARKS))]
            elif mark < 0.15:
                part = part.join(_BRACKETS[rng.integers(len(_BRACKETS))])
            elif mark < 0.17:
                part += " " + "-&+/|=*"[rng.integers(7)]
            if parts and sum(map(len, parts)) + len(parts) + len(part) > _LONGEST_LINE:
                break
            parts.append(part)
        return " ".join(parts)

    def _random(self, rng: np.random.Generator) -> str:
        """Characters of the alphabet, each as likely as the other; a space between some."""
        if not self._visible:
            return ""
        chosen = [
            self._visible[i] for i in rng.integers(0, len(self._visible), rng.integers(1, _LONGEST_RANDOM))
        ]
        if " " in self._alphabet and len(chosen) > 4 and rng.random() < 0.3:
            chosen[int(rng.integers(1, len(chosen) - 1))] = " "
        return "".join(chosen)


def writable(
    alphabet: Sequence[str],
    words: Sequence[str],
    weights: Mapping[TextKind, float],
    chinese: ChineseWords | None = None,
) -> dict[TextKind, float]:
    """Of some kinds of text those that an alphabet can write; random characters where it can write none."""
    found: dict[TextKind, float] = {}
    for kind, weight in weights.items():
        with suppress(TextsImpossible):
            source = TextSource(alphabet, words, {kind: weight}, chinese=chinese)
            source.sample(np.random.default_rng(0), tries=_FEW)
            found[kind] = weight
    return found or {"random": 1}
