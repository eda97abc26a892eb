"""Words that are known: as the only ones or the likelier ones of a beam, or as all that can be meant."""

from __future__ import annotations

import io
import math
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.decoding_rule import Aggregate
from crnn_deploy.errors import CharacterUnknown, CrnnDeployError
from crnn_deploy.files import LineTooLong, lines, open_regular
from crnn_deploy.runtime.decoding.alignment import Decode, line_of
from crnn_deploy.runtime.decoding.compiled import compiled
from crnn_deploy.runtime.decoding.ctc import Encoder, Frames, Text, tokens_of
from crnn_deploy.runtime.decoding.repeated import with_distinct_tokens

__all__ = ["ClosestWord", "Lexicon", "LexiconInvalid", "read_lexicon"]


_MOST_WORDS = 2**22  # with all their forms they take 2 GB
_MOST_WORD = 1024  # characters


class LexiconInvalid(CrnnDeployError, ValueError):
    """A word list that cannot be used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


def read_lexicon(path: Path) -> list[str]:
    """Words of a UTF-8 file, one a line; empty lines do not count. Raises LexiconInvalid."""
    words = []
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig") as file:
            for line in lines(file, _MOST_WORD):
                words += [word for part in line.splitlines() if (word := part.strip())]
                if len(words) > _MOST_WORDS:
                    raise LexiconInvalid(str(path), f"it holds more than {_MOST_WORDS:,} words")
    except FileNotFoundError:
        raise LexiconInvalid(str(path), "no such file") from None
    except LineTooLong as error:
        raise LexiconInvalid(str(path), f"{error}; it is no list of words") from None
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
_APOSTROPHES = ("'", "\u2019")
_UNKNOWN = "\0"  # state within a word that is not known; no word begins like this


class Lexicon:
    """A scorer that wants known words.

    A word is known as it is listed, all in lower or upper case, or in lower case after a capital. Whatever is
    neither letter nor digit may stand around words; within one where the list has it so (`don't`). A word
    that is not known, as soon as no known word begins like it, takes the weight `unknown`; -inf forbids it.
    Numbers, and single letters after an apostrophe (`jacket's`), are free unless unknown words are forbidden.

    words: at least one
    unknown: log weight of a word that is not known, 0 at most
    accents: False: the network alone decides on accents, the words are known with any
    """

    ceiling = 0.0  # as a scorer's

    def __init__(self, words: Iterable[str], *, unknown: float = -6.0, accents: bool = True) -> None:
        self._plain: Callable[[str], str] = str if accents else _without_accents
        listed = {self._plain(word) for word in words}
        if not listed:
            raise LexiconInvalid("the lexicon", "it holds no words")
        lower = {word.lower() for word in listed}
        capital = {word[:1].upper() + word[1:] for word in lower}
        # a sorted list is a trie: what begins alike stands together
        self._forms = sorted(listed | lower | capital | {word.upper() for word in listed})
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
        # where a mark leads
        after = char if char in _APOSTROPHES and self._unknown > -math.inf else ""
        if state == _UNKNOWN:
            return (_UNKNOWN if in_word else after), 0.0
        if in_word and state[:1] in _APOSTROPHES:
            return (state + char, 0.0) if len(state) == 1 else self._step(state[1:], char)
        word = state + char
        if (in_word or state) and self._begins(word):
            return word, 0.0
        if not in_word:
            return after, self.end(state)
        letters = _without_marks(state)
        if letters != state:  # the marks have ended the word before
            _, weight = self._step("", char)
            return (_UNKNOWN if weight else char), self.end(letters) + weight
        return _UNKNOWN, self._unknown

    def end(self, state: str) -> float:
        if (
            state in ("", _UNKNOWN)
            or state[0] in _APOSTROPHES
            or self._known(state)
            or self._known(_without_marks(state))
        ):
            return 0.0
        return self._unknown

    def _begins(self, start: str) -> bool:
        at = bisect_left(self._forms, start)
        return (at < len(self._forms) and self._forms[at].startswith(start)) or self._free(start)

    def _known(self, word: str) -> bool:
        at = bisect_left(self._forms, word)
        return (at < len(self._forms) and self._forms[at] == word) or self._free(word)

    def _free(self, word: str) -> bool:
        return self._unknown > -math.inf and word.isdigit()


def _without_accents(text: str) -> str:
    letters = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))
    return letters.translate(_BASE_LETTERS)


def _without_marks(word: str) -> str:
    while word and not word[-1].isalnum():
        word = word[:-1]
    return word


@dataclass(frozen=True)
class ClosestWord:
    """The lexicon-based transcription of the paper (Shi et al. 2015, arXiv 1507.05717, section 2.3.2).

    Of the words within an edit distance of the best path's text, the one that is likeliest over all its
    alignments. Where there is none the text stays as it is. A word is the whole text of an image.

    words: that the text may be; those with characters that the model cannot read are left out
    distance: Levenshtein, most edits of tokens of the alphabet
    """

    words: Sequence[str] = field(repr=False)
    distance: int = 3
    aggregate: Aggregate = "min"

    def bind(self, alphabet: Sequence[str], blank: int) -> Decode:
        """Raises LexiconInvalid."""
        return with_distinct_tokens(_ClosestWordDecode(self, alphabet, blank), alphabet, blank)


class _ClosestWordDecode:
    def __init__(self, decoder: ClosestWord, alphabet: Sequence[str], blank: int) -> None:
        self._decoder, self._blank = decoder, blank
        self._tokens = tokens_of(alphabet, blank)
        encoder = Encoder(alphabet, blank)
        coded = []
        for word in decoder.words:
            try:
                coded.append(encoder(word))
            except CharacterUnknown:
                continue
        if not coded:
            raise LexiconInvalid("the lexicon", "it holds no word that the model can read")
        coded.sort()
        self._words = [np.array(labels, np.int64) for labels in coded]
        self._labels = np.concatenate(self._words).astype(np.int32)
        self._ends = np.cumsum([len(labels) for labels in coded], dtype=np.int32)
        shared = (_shared(one, other) for one, other in pairwise(coded))
        self._shared = np.array([0, *shared], np.int32)
        self._lengths = np.diff(self._ends, prepend=0)
        self._kinds = np.array([_kinds(word) for word in self._words])

    def __call__(self, frames: Frames, pixels_per_frame: Sequence[tuple[float, int]]) -> list[Text]:
        return [self._text(frames, row, pixels) for row, pixels in enumerate(pixels_per_frame)]

    def _text(self, frames: Frames, row: int, pixels: tuple[float, int]) -> Text:
        line, path = line_of(frames, row, "a lexicon"), frames.indices[row]
        if not np.isfinite(frames.probabilities[row]).all():
            return Text("", math.nan, ())
        merged = path[np.diff(path, prepend=-1) != 0]
        labels = merged[merged != self._blank]
        distance = self._decoder.distance
        # an edit changes the length by 1 at most, and two bits of the kinds
        likely = np.bitwise_count(self._kinds ^ _kinds(labels)) <= 2 * distance
        likely &= np.abs(self._lengths - len(labels)) <= distance
        words = []
        if likely.any():  # else a long text would take a large matrix for nothing
            near = _within(labels, self._labels, self._ends, self._shared, likely, distance)
            words = [self._words[word] for word in near.tolist()]
        if words:
            ends = np.cumsum([len(word) for word in words])
            scores = line.log_likelihoods(np.concatenate(words), ends, self._blank)
            if scores.max() > -math.inf:
                labels = words[int(scores.argmax())]
        return line.text(labels.tolist(), self._tokens, self._blank, pixels, self._decoder.aggregate)


def _kinds(labels: NDArray[np.int64]) -> np.uint64:
    """Which labels a word has, folded to 64 bits."""
    return np.uint64(np.bitwise_or.reduce(np.left_shift(np.uint64(1), (labels & 63).astype(np.uint64))))


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many labels two words begin with alike."""
    differ = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differ, min(len(one), len(other)))


@compiled
def _within(
    said: NDArray[np.int64],
    labels: NDArray[np.int32],
    ends: NDArray[np.int32],
    shared: NDArray[np.int32],
    likely: NDArray[np.bool_],
    distance: int,
) -> NDArray[np.int64]:
    """Which words of a sorted list are within an edit distance (Levenshtein) of what was said.

    labels: of all words, one after the other, each up to its end
    shared: how many labels a word begins with as the one before it does
    likely: which words may be near; those that are too long or too short must not be
    Rows of the distance matrix are kept for the next word, and words are passed over whose beginning is too
    far already: the list is a trie that is walked in order.
    """
    length, far = len(said), distance + 1
    deepest = length + distance
    rows = np.full((deepest + 1, length + 1), far)  # for each beginning of a word and of what was said
    for j in range(min(length, distance) + 1):
        rows[0, j] = j
    found = np.empty(len(ends), np.int64)
    count = 0
    known = 0  # rows that hold for the word at hand
    dead = deepest + 1  # no word that begins as the last one for so many labels is near
    start = 0
    for word in range(len(ends)):
        end = ends[word]
        size = end - start
        known = min(known, shared[word])
        if known < dead:
            dead = deepest + 1
        if known < dead and likely[word]:
            for i in range(known + 1, size + 1):
                label = labels[start + i - 1]
                closest = far
                before = far  # to the left in this row
                for j in range(max(0, i - distance), min(length, i + distance) + 1):
                    value = before + 1
                    if j < i + distance:
                        value = min(value, rows[i - 1, j] + 1)
                    if j:
                        value = min(value, rows[i - 1, j - 1] + (said[j - 1] != label))
                    before = min(value, far)
                    rows[i, j] = before
                    closest = min(closest, before)
                known = i
                if closest == far:
                    dead = i
                    break
            if known == size and dead > size and rows[size, length] <= distance:
                found[count] = word
                count += 1
        start = end
    return found[:count]
