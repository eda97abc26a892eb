"""Words of five languages with their frequencies, and which words are held out.

The frequencies are those of wordfreq (Robyn Speer, 2022, doi:10.5281/zenodo.7199437; code Apache-2.0, data
CC BY-SA 4.0). One word in ten is held out, told by a hash of its letters without case and accents, so that no
form of a held-out word is ever trained on.
"""

from __future__ import annotations

import hashlib
import sys
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.fonts import Split

__all__ = ["LANGUAGES", "Language", "Vocabulary", "is_held_out", "read_vocabularies"]

Language = Literal["en", "fr", "de", "es", "it"]
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


@cache
def read_vocabularies(split: Split) -> tuple[Vocabulary, ...]:
    """The frequent words of each language that belong to a split.

    None where wordfreq is not installed, which is said once on stderr.
    """
    try:
        from wordfreq import get_frequency_list
    except ImportError:
        _say_absent()
        return ()
    found = []
    for language in LANGUAGES:
        # a list of the words whose frequency is 10 ** (-at / 100), for each at
        levels = get_frequency_list(language, "best")
        every = ((word, 10 ** (-at / 100)) for at, words in enumerate(levels) for word in words)
        rows = list(islice(((w, f) for w, f in every if _is_word(w, language)), _WORDS))
        own = [(w, f) for w, f in rows if is_held_out(w) == (split == "held-out")]
        shares = np.array([f for _, f in own])
        found.append(Vocabulary(language, [w for w, _ in own], shares / shares.sum()))
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
