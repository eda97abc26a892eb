"""Words of five languages with their frequencies, and which words are held out.

The frequencies are those of wordfreq (Robyn Speer, 2022, doi:10.5281/zenodo.7199437; code Apache-2.0, data
CC BY-SA 4.0). One word in ten is held out, told by a hash of its letters without case and accents, so that no
form of a held-out word is ever trained on.
"""

from __future__ import annotations

import hashlib
import json
import sys
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.fonts import Split

__all__ = [
    *("LANGUAGES", "Frequencies", "Language", "Vocabulary", "is_held_out", "read_frequencies"),
    "read_vocabularies",
]

Language = Literal["en", "fr", "de", "es", "it"]
Frequencies = dict[Language, list[tuple[int, list[str]]]]
LANGUAGES: tuple[Language, ...] = get_args(Language)

_HELD_OUT = 10  # one word in so many
_WORDS = 30_000  # of each language, the most frequent
_LONGEST = 24  # characters
_ALONE = {"en": "ai", "fr": "aày", "de": "", "es": "aeouy", "it": "aeioè"}  # words of one letter


@dataclass(frozen=True)
class Vocabulary:
    """Words of one language, the most frequent first, and the share of each in running text."""

    language: Language
    words: Sequence[str]
    shares: NDArray[np.float64]  # (words,), of the sum 1

    def writable(self, alphabet: Collection[str]) -> Vocabulary | None:
        """The words that an alphabet writes in small letters and in capitals; None where it writes none."""
        known = frozenset(alphabet)
        kept = [at for at, word in enumerate(self.words) if known.issuperset(word + word.upper())]
        if not kept:
            return None
        shares = self.shares[kept]
        return Vocabulary(self.language, [self.words[at] for at in kept], shares / shares.sum())


def is_held_out(word: str) -> bool:
    """Whether a word is one of those that are never trained on."""
    letters = unicodedata.normalize("NFD", word.casefold())
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return hashlib.blake2b(plain.encode(), digest_size=2).digest()[0] % _HELD_OUT == 0


def read_frequencies() -> Frequencies | None:
    """The most frequent words of each language by level, a word of level n being 10 ** (-n / 100) of a text.

    None where wordfreq is not installed.
    """
    try:
        from wordfreq import get_frequency_list
    except ImportError:
        return None
    found: Frequencies = {}
    for language in LANGUAGES:
        levels = get_frequency_list(language, "best")
        every = ((at, word) for at, words in enumerate(levels) for word in words)
        kept = islice(((at, word) for at, word in every if _is_word(word, language)), _WORDS)
        found[language] = [
            (at, [word for _, word in words]) for at, words in groupby(kept, key=itemgetter(0))
        ]
    return found


@cache
def read_vocabularies(split: Split, path: Path | None = None) -> tuple[Vocabulary, ...]:
    """The frequent words of each language that belong to a split.

    path: a file of frequencies as a font pack has one, JSON of what `read_frequencies` gives; None: wordfreq

    None are given where wordfreq is not installed, which is said once on stderr.
    """
    frequencies = json.loads(path.read_bytes()) if path else read_frequencies()
    if frequencies is None:
        _say_absent()
        return ()
    found = []
    for language, levels in frequencies.items():
        rows = [(word, 10 ** (-at / 100)) for at, words in levels for word in words]
        own = [(word, share) for word, share in rows if is_held_out(word) == (split == "held-out")]
        shares = np.array([share for _, share in own])
        found.append(Vocabulary(language, [word for word, _ in own], shares / shares.sum()))
    return tuple(found)


def _is_word(word: str, language: Language) -> bool:
    if len(word) == 1:
        return word in _ALONE[language]
    bare = word.replace("'", "").replace("-", "")
    return bare.isalpha() and len(word) <= _LONGEST and word[0].isalpha() and word[-1].isalpha()


@cache
def _say_absent() -> None:
    """Once, and not for each set of images."""
    print(
        "wordfreq is not installed: sentences and signs are made of the word lists alone "
        "(pip install wordfreq brings the words of five languages)",
        file=sys.stderr,
    )
