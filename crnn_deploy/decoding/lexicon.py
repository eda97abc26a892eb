"""Words that are known: as the only ones or the likelier ones of a beam, or as all that can be meant."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.ctc import BestPath, Frames, Text, encode
from crnn_deploy.decoding.confidence import Aggregate
from crnn_deploy.decoding.reading import Decode, line_of
from crnn_deploy.errors import CharacterUnknown, CrnnDeployError

__all__ = ["ClosestWord", "Lexicon", "LexiconInvalid", "read_lexicon"]


class LexiconInvalid(CrnnDeployError, ValueError):
    """A word list that cannot be used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


def read_lexicon(path: Path) -> list[str]:
    """Words of a UTF-8 file, one a line; empty lines do not count. Raises LexiconInvalid."""
    try:
        words = [word for line in path.read_text(encoding="utf-8-sig").splitlines() if (word := line.strip())]
    except FileNotFoundError:
        raise LexiconInvalid(str(path), "no such file") from None
    except UnicodeDecodeError:
        raise LexiconInvalid(str(path), "it is not UTF-8 text") from None
    except OSError as error:
        raise LexiconInvalid(str(path), error.strerror or str(error)) from None
    if not words:
        raise LexiconInvalid(str(path), "it holds no words")
    return words


# letters that Unicode does not take apart
_BASE_LETTERS = str.maketrans(
    {
        "æ": "a",
        "Æ": "A",
        "ð": "d",
        "Ð": "D",
        "ø": "o",
        "Ø": "O",
        "œ": "o",
        "Œ": "O",
        "ß": "s",
        "þ": "t",
        "Þ": "T",
    }
)
_UNKNOWN = "\0"  # state within a word that is not known; no word begins like this


class Lexicon:
    """A scorer that wants known words.

    A word is known as it is listed, all in lower or upper case, or in lower case after a capital. Whatever is
    neither letter nor digit may stand around words; within one where the list has it so (`don't`). A word
    that is not known, as soon as no known word begins like it, takes the weight `unknown`; -inf forbids it.
    Numbers are free, unless unknown words are forbidden.

    words: at least one
    unknown: log weight of a word that is not known, 0 at most
    accents: False: the network alone decides on accents, the words are known with any
    """

    ceiling = 0.0  # as a scorer's

    def __init__(self, words: Iterable[str], *, unknown: float = -8.0, accents: bool = True) -> None:
        self._plain: Callable[[str], str] = str if accents else _without_accents
        listed = {self._plain(word) for word in words}
        # a sorted list is a trie: what begins alike stands together
        self._words = sorted(listed)
        self._lower = sorted({word.lower() for word in listed})
        self._upper = sorted({word.upper() for word in listed})
        if not listed:
            raise LexiconInvalid("the lexicon", "it holds no words")
        if not unknown <= 0:
            raise ValueError(
                f"unknown words weigh {unknown}; a weight above 0 would prefer them to known ones"
            )
        self._unknown = unknown

    def start(self) -> str:
        return ""

    def step(self, state: str, char: str) -> tuple[str, float]:
        weight = 0.0
        for character in self._plain(char):
            state, more = self._step(state, character)
            weight += more
        return state, weight

    def _step(self, state: str, char: str) -> tuple[str, float]:
        in_word = char.isalnum()
        if state == _UNKNOWN:
            return (_UNKNOWN if in_word else ""), 0.0
        word = state + char
        if (in_word or state) and self._begins(word):
            return word, 0.0
        if not in_word:
            return "", self.end(state)
        letters = _without_marks(state)
        if letters != state:  # the marks have ended the word before
            _, weight = self._step("", char)
            return (_UNKNOWN if weight else char), self.end(letters) + weight
        return _UNKNOWN, self._unknown

    def end(self, state: str) -> float:
        if state in ("", _UNKNOWN) or self._known(state) or self._known(_without_marks(state)):
            return 0.0
        return self._unknown

    def _begins(self, start: str) -> bool:
        if start.isdigit() and self._unknown > -math.inf:
            return True
        return any(_begins(words, form) for words, form in self._forms(start))

    def _known(self, word: str) -> bool:
        if word.isdigit() and self._unknown > -math.inf:
            return True
        return any(_holds(words, form) for words, form in self._forms(word))

    def _forms(self, word: str) -> Iterator[tuple[Sequence[str], str]]:
        yield self._words, word
        lower = word[:1].lower() + word[1:]
        if lower == lower.lower():
            yield self._lower, lower
        if word == word.upper():
            yield self._upper, word


def _without_accents(text: str) -> str:
    letters = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return letters.translate(_BASE_LETTERS)


def _without_marks(word: str) -> str:
    while word and not word[-1].isalnum():
        word = word[:-1]
    return word


def _begins(words: Sequence[str], start: str) -> bool:
    at = bisect_left(words, start)
    return at < len(words) and words[at].startswith(start)


def _holds(words: Sequence[str], word: str) -> bool:
    at = bisect_left(words, word)
    return at < len(words) and words[at] == word


@dataclass(frozen=True)
class ClosestWord:
    """The lexicon-based transcription of the paper (Shi et al. 2015, arXiv 1507.05717, section 2.3.2).

    Of the words within an edit distance of the best path's text, the one that is likeliest over all its
    alignments. Where there is none the text stays as it is. A word is the whole text of an image.

    words: that the text may be; those with characters that the model cannot read are left out
    distance: Levenshtein, most edits
    """

    words: Sequence[str] = field(repr=False)
    distance: int = 3
    aggregate: Aggregate = "min"

    def bind(self, alphabet: Sequence[str], blank: int) -> Decode:
        """Raises LexiconInvalid."""
        return _ClosestWordDecode(self, alphabet, blank)


class _ClosestWordDecode:
    def __init__(self, decoder: ClosestWord, alphabet: Sequence[str], blank: int) -> None:
        self._decoder, self._blank = decoder, blank
        self._tokens = (*alphabet[:blank], "", *alphabet[blank:])
        self._best_path = BestPath(alphabet, blank)
        self._alphabet = alphabet
        readable = []
        for word in dict.fromkeys(decoder.words):
            try:
                encode(word, alphabet, blank)
            except CharacterUnknown:
                continue
            readable.append(word)
        if not readable:
            raise LexiconInvalid("the lexicon", "it holds no word that the model can read")
        self._index = _Index(readable)

    def __call__(self, frames: Frames, pixels_per_frame: Sequence[tuple[float, int]]) -> list[Text]:
        texts = []
        for row, best in enumerate(self._best_path(frames, pixels_per_frame)):
            line = line_of(frames, row, "a lexicon")
            words = self._index.near(best.text, self._decoder.distance)
            coded = [encode(word, self._alphabet, self._blank) for word in words]
            if not coded:
                coded = [encode(best.text, self._alphabet, self._blank)] if best.text else [[]]
            scores = [line.log_likelihood(labels, self._blank) for labels in coded]
            at = int(np.argmax(scores))
            if scores[at] == -math.inf:
                texts.append(best)
                continue
            texts.append(
                line.text(
                    coded[at], self._tokens, self._blank, pixels_per_frame[row], self._decoder.aggregate
                )
            )
        return texts


class _Index:
    """Words by Levenshtein distance: a filter by length and letters, then Myers' bit-parallel algorithm
    (J. ACM 46, 1999; Hyyro's form for whole strings) on all that is left at once."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._lengths = np.array([len(word) for word in words])
        self._codes = np.zeros((len(words), int(self._lengths.max(initial=1))), np.uint32)
        for row, word in enumerate(words):
            self._codes[row, : len(word)] = [ord(character) for character in word]
        self._letters = np.array([_letters(word) for word in words], np.uint64)

    def near(self, text: str, distance: int) -> list[str]:
        """Words within a distance of a text, the nearest first."""
        # an edit changes the length by one at most, and two bits of the letters at most
        bits = np.bitwise_count(self._letters ^ np.uint64(_letters(text)))
        left = np.flatnonzero((np.abs(self._lengths - len(text)) <= distance) & (bits <= 2 * distance))
        if not len(left):
            return []
        distances = self._distances(text, left)
        near = np.flatnonzero(distances <= distance)
        return [self._words[left[i]] for i in near[np.argsort(distances[near], kind="stable")]]

    def _distances(self, text: str, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        if not text:
            return self._lengths[rows]
        if len(text) > 64:  # more than a machine word holds
            return np.array([_levenshtein(text, self._words[row]) for row in rows.tolist()])
        one, full = np.uint64(1), np.uint64(2 ** len(text) - 1)
        high = np.uint64(1 << (len(text) - 1))
        where = {c: sum(1 << i for i, other in enumerate(text) if other == c) for c in set(text)}
        codes, lengths = self._codes[rows], self._lengths[rows]
        positive = np.full(len(rows), full, np.uint64)
        negative = np.zeros(len(rows), np.uint64)
        distances = np.full(len(rows), len(text))
        for column in range(int(lengths.max())):
            matches = np.zeros(len(rows), np.uint64)
            for character, mask in where.items():
                matches[codes[:, column] == ord(character)] = mask
            diagonal = (((matches & positive) + positive) ^ positive) | matches | negative
            up = negative | (~(diagonal | positive) & full)
            down = positive & diagonal
            inside = column < lengths
            distances += np.where(inside, ((up & high) != 0).astype(np.int64) - ((down & high) != 0), 0)
            up = ((up << one) | one) & full
            down = (down << one) & full
            positive = down | (~(diagonal | up) & full)
            negative = up & diagonal
        return distances


def _letters(word: str) -> int:
    """Which characters a word has, folded to 64 bits."""
    found = 0
    for character in word:
        found |= 1 << (ord(character) & 63)
    return found


def _levenshtein(one: str, other: str) -> int:
    row = list(range(len(other) + 1))
    for i, character in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, candidate in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (character != candidate))
    return row[-1]
