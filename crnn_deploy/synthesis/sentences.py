"""Stretches of running text as books, letters and articles have them: a line cut out of its page."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence

import numpy as np

from crnn_deploy.synthesis.figures import digits, integer, one_of
from crnn_deploy.synthesis.lexicon import Language, Vocabulary

__all__ = ["Sentences"]

_SHARES: dict[Language, float] = {"en": 0.40, "fr": 0.25, "de": 0.20, "es": 0.075, "it": 0.075}
_SHORTEST, _LONGEST = 10, 75  # characters
_DRAWN = 64  # words that are drawn together
_VOWELS = "aeiouyhàâéèêîôû"
_ELISIONS: dict[Language, tuple[str, ...]] = {
    "fr": ("l'", "d'", "qu'", "l'", "d'", "n'", "s'", "c'", "j'", "m'"),
    "it": ("l'", "dell'", "un'", "all'", "d'"),
}
_ENGLISH_QUOTES = ('""', '""', "''")
_QUOTES: dict[Language, tuple[str, ...]] = {
    "en": _ENGLISH_QUOTES,
    "fr": ("«»", "«»", '""'),
    "de": ('""', "»«", '""'),
    "es": ("«»", '""'),
    "it": ("«»", '""'),
}
_NAMES = (
    *("Smith", "Martin", "Weber", "Rossi", "Garcia", "Poincare", "Dubois", "Schmidt", "Brown", "Novak"),
    *("Paul", "Anna", "Marie", "Hans", "Luca", "Carlos", "Emma", "Jean", "Karl", "Alice", "Henry", "Peter"),
    *("Paris", "London", "Berlin", "Roma", "Madrid", "Lyon", "Wien", "Oxford", "Milano", "Dunkerque"),
    *("André", "François", "Müller", "José", "Zoé", "Jürgen", "Núñez", "Hélène", "Niccolò", "Besançon"),
)
_ABBREVIATIONS: dict[Language, tuple[str, ...]] = {
    "en": ("Mr.", "Mrs.", "Dr.", "etc.", "e.g.", "i.e.", "p.", "vol.", "No.", "St.", "cf."),
    "fr": ("M.", "Mme", "etc.", "p.", "cf.", "t.", "Dr", "vol.", "St", "MM.", "éd."),
    "de": ("z.B.", "d.h.", "usw.", "Dr.", "Nr.", "bzw.", "S.", "vgl.", "u.a.", "Prof."),
    "es": ("Sr.", "Sra.", "etc.", "pág.", "Dr.", "núm.", "D."),
    "it": ("Sig.", "ecc.", "pag.", "Dott.", "n.", "cfr.", "es."),
}


class Sentences:
    """Draws lines of running text.

    alphabet: characters that may stand in them
    vocabularies: words and their frequencies; languages are weighted as English 40 %, French 25 %,
        German 20 %, Spanish and Italian 7.5 % each, where a language is given at all
    """

    def __init__(self, alphabet: Collection[str], vocabularies: Sequence[Vocabulary]) -> None:
        self._alphabet = frozenset(alphabet)
        given = [vocabulary.writable(alphabet) for vocabulary in vocabularies]
        self._vocabularies = [vocabulary for vocabulary in given if vocabulary is not None]
        weights = np.array([_SHARES[vocabulary.language] for vocabulary in self._vocabularies])
        self._bounds = np.cumsum(weights) / weights.sum()
        self._cumulated = [np.cumsum(vocabulary.shares) for vocabulary in self._vocabularies]

    def draw(self, rng: np.random.Generator) -> str:
        """A line of 10 to 75 characters; nothing where the alphabet writes no word or has no space."""
        if not self._vocabularies or " " not in self._alphabet:
            return ""
        at = min(int(np.searchsorted(self._bounds, rng.random())), len(self._bounds) - 1)
        return _Line(self._vocabularies[at], self._cumulated[at], self._alphabet, rng).text()


class _Line:
    """One line in the making, with the habits of its typist."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        cumulated: np.ndarray[tuple[int], np.dtype[np.float64]],
        alphabet: frozenset[str],
        rng: np.random.Generator,
    ) -> None:
        self._language = vocabulary.language
        drawn = np.searchsorted(cumulated, rng.random(_DRAWN) * cumulated[-1])
        self._words = [vocabulary.words[min(at, len(vocabulary.words) - 1)] for at in drawn.tolist()]
        self._alphabet, self._rng = alphabet, rng
        self._spaced = self._language == "fr" and rng.random() < 0.7  # before ; : ! ? and inside « »
        self._spaced_all = rng.random() < 0.05  # before commas and full stops too
        self._unspaced = rng.random() < 0.06  # commas with no space after them
        self._capital = rng.random() < 0.45  # the line begins a sentence

    def text(self) -> str:
        rng = self._rng
        target = int(rng.integers(_SHORTEST, _LONGEST + 1))
        line, closing = "", ""  # a bracket or quote that is open, and its end
        if rng.random() < 0.1:
            line = one_of(("- ", "-", "- ", "* ", "— ", "– "), rng)
            line = line if self._alphabet.issuperset(line) else "- "
        for word in self._words:
            part = self._part(word)
            self._capital = False
            if not closing and rng.random() < 0.05:
                opening, closing = self._pair()
                part = opening + part
            elif closing and rng.random() < 0.35:
                part, closing = part + closing, ""
            mark = self._mark()
            line += part + mark
            if len(line) >= target:
                break
            if not (self._unspaced and mark.endswith(",")):
                line += " "
        line = self._cut(line + closing)
        style = rng.random()
        if style < 0.05:
            return self._capitals(line)
        return line.title() if style < 0.06 else line

    def _part(self, word: str) -> str:
        """A word as it stands in a text, or what stands in a word's place."""
        rng, language = self._rng, self._language
        kind = rng.random()
        if kind < 0.02:
            return one_of(
                [integer(rng, 4), f"{rng.integers(1500, 2030)}", f"{integer(rng, 2)},{digits(rng, 2)}"], rng
            )
        if kind < 0.03:
            return self._known(_ABBREVIATIONS[language], word)
        if kind < 0.055:
            return self._known(_NAMES, word)
        if kind < 0.07:
            return f"{word}-{self._words[int(rng.integers(_DRAWN))]}"
        if kind < 0.075 and language in ("fr", "de", "en"):
            word = one_of(("M. ", "A. ", "J.-P. ", "H. "), rng) + word.capitalize()
        if word[0] in _VOWELS and rng.random() < 0.4 and (elisions := _ELISIONS.get(language)):
            word = one_of(elisions, rng) + word
        noun = language == "de" and len(word) > 4 and rng.random() < 0.3
        if self._capital or noun or rng.random() < 0.03 or word in ("i", "i'm", "i'll", "i've", "i'd"):
            return word[0].upper() + word[1:]
        return word

    def _known(self, options: Sequence[str], otherwise: str) -> str:
        chosen = one_of(tuple(options), self._rng)
        return chosen if self._alphabet.issuperset(chosen) else otherwise

    def _pair(self) -> tuple[str, str]:
        """Brackets or quotes, with the spaces that French sets inside."""
        pair = one_of(("()", *_QUOTES[self._language]), self._rng)
        opening, closing = pair[0], pair[1]
        if not self._alphabet.issuperset(opening + closing):
            return "(", ")"
        return (f"{opening} ", f" {closing}") if opening == "«" and self._spaced else (opening, closing)

    def _mark(self) -> str:
        """What follows a word: mostly nothing. A sentence's end makes the next word begin with a capital."""
        rng = self._rng
        at = rng.random()
        if at > 0.155:
            return ""
        if at < 0.065:
            return " ," if self._spaced_all else ","
        if at < 0.11:
            self._capital = True
            return " ." if self._spaced_all else "."
        if at < 0.115:
            return "..."
        if at < 0.125:
            return one_of((" -", " -", " —", " –"), rng) if {"—", "–"} <= self._alphabet else " -"
        mark = one_of(";:!??!", rng)
        self._capital = mark in "!?"
        return f" {mark}" if self._spaced or self._spaced_all else mark

    def _cut(self, line: str) -> str:
        """The line as the page's edge leaves it: no longer than the longest, a word at times broken."""
        rng = self._rng
        line = line.strip()
        start = line.rfind(" ") + 1
        low = max(2, _SHORTEST - start - 1)  # letters of the word's first part, which a hyphen follows
        high = min(len(line) - start - 2, _LONGEST - start - 1)
        long = len(line) > _LONGEST
        if (long or rng.random() < 0.12) and line[start:].isalpha() and low <= high:
            return line[: start + int(rng.integers(low, high + 1))] + "-"
        while len(line) > _LONGEST:
            line = line.rpartition(" ")[0]
        return line.strip()

    def _capitals(self, line: str) -> str:
        """All capitals; French typists leave their accents away as often as not."""
        upper = line.upper()
        if self._language in ("fr", "it", "es") and self._rng.random() < 0.5:
            parts = unicodedata.normalize("NFD", upper)
            upper = "".join(c for c in parts if not unicodedata.combining(c))
        return upper if self._alphabet.issuperset(upper) and len(upper) <= _LONGEST else line
