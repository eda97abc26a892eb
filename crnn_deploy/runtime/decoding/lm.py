"""Character n-gram models: trained from text, kept as ARPA files, which KenLM and SRILM read and write too.

Smoothing is Witten and Bell's (IEEE Trans. Inf. Theory 37, 1991), interpolated: few characters never follow a
history, and how many different ones do is what it goes by.
"""

from __future__ import annotations

import math
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.files import LineTooLong, lines, open_regular
from crnn_deploy.runtime.decoding.kenlm_process import Context, KenlmFailed, KenlmProcess
from crnn_deploy.runtime.decoding.scoring import Scorer

__all__ = ["CharacterModel", "KenlmModel", "LanguageModelInvalid", "open_language_model", "train"]

_BEGIN, _END, _OTHER = "<s>", "</s>", "<unk>"
_SPACE = "<space>"  # ARPA's words are parted by blanks, so a blank needs another name
_LN10 = math.log(10)
_NEVER = -99.0  # what ARPA files write for log10 of 0
_MOST_LINE = 2**16  # bytes; characters have a few
_MOST_ORDER = 20  # of n-grams; `lm train` writes 12 at most, KenLM reads 6 as it is built
_MOST_GRAMS = 2**24  # they take 5 GB here
_MOST_DIGITS = 15  # of a count
_MOST_WEIGHT = 1000.0  # of a log10 probability
_MOST_BACKOFF = 100.0  # of a log10 backoff weight, which may be above 0

Gram = tuple[str, ...]


class LanguageModelInvalid(CrnnDeployError, ValueError):
    """A language model that cannot be used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class CharacterModel:
    """A backoff n-gram model over characters (tokens of an alphabet), as a scorer.

    grams: for each n-gram its log10 probability and its log10 backoff weight; it must have <unk>
    """

    ceiling = 0.0  # as a scorer's: probabilities

    def __init__(self, grams: Mapping[Gram, tuple[float, float]]) -> None:
        self.grams = grams
        self.order = max(map(len, grams))

    def start(self) -> Gram:
        return self._history((_BEGIN,))

    def step(self, state: Gram, char: str) -> tuple[Gram, float]:
        word = _SPACE if char == " " else char
        if (word,) not in self.grams:
            word = _OTHER
        return self._history((*state, word)), self._log10(state, word) * _LN10

    def end(self, state: Gram) -> float:
        return self._log10(state, _END) * _LN10

    def _history(self, words: Gram) -> Gram:
        """As much of the words as a longer n-gram may begin with."""
        kept = words[-(self.order - 1) :] if self.order > 1 else ()
        while kept and kept not in self.grams:
            kept = kept[1:]
        return kept

    def _log10(self, history: Gram, word: str) -> float:
        backoff = 0.0
        while (found := self.grams.get((*history, word))) is None:
            if not history:
                return backoff + _NEVER
            backoff += self.grams.get(history, (0.0, 0.0))[1]
            history = history[1:]
        return backoff + found[0]

    def write(self, stream: IO[str]) -> None:
        """As an ARPA file."""
        by_order: dict[int, list[Gram]] = defaultdict(list)
        for gram in self.grams:
            by_order[len(gram)].append(gram)
        stream.write("\\data\\\n")
        stream.writelines(f"ngram {n}={len(by_order[n])}\n" for n in sorted(by_order))
        for n in sorted(by_order):
            stream.write(f"\n\\{n}-grams:\n")
            for gram in sorted(by_order[n]):
                probability, backoff = self.grams[gram]
                end = f"\t{backoff:.6g}" if n < self.order else ""
                stream.write(f"{probability:.7g}\t{' '.join(gram)}{end}\n")
        stream.write("\n\\end\\\n")

    @classmethod
    def load(cls, path: Path) -> CharacterModel:
        """An ARPA file over characters, with `<space>` for the blank. Raises LanguageModelInvalid."""
        try:
            with open_regular(path) as file:
                grams = _grams(_arpa_lines(file))
        except OSError as error:
            raise LanguageModelInvalid(str(path), error.strerror or str(error)) from None
        except LineTooLong as error:
            raise LanguageModelInvalid(str(path), f"{error}; it is no ARPA file") from None
        except UnicodeDecodeError:
            raise LanguageModelInvalid(str(path), "it is not UTF-8 text") from None
        except ValueError as error:
            raise LanguageModelInvalid(str(path), str(error)) from None
        _check_characters(path, (gram[0] for gram in grams if len(gram) == 1))
        return cls(grams)


def _arpa_lines(file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Numbers and contents of the lines that are not empty. Raises ValueError, LineTooLong."""
    for number, line in enumerate(lines(file, _MOST_LINE), 1):
        if text := line.decode().strip("\n\r "):
            yield number, text


def _grams(numbered: Iterator[tuple[int, str]]) -> dict[Gram, tuple[float, float]]:
    """The n-grams of an ARPA file, each order after the ones below it. Raises ValueError."""
    number, line = 0, ""
    told: list[int] = []  # how many n-grams of each order the head tells of
    for number, line in numbered:
        if line.startswith("ngram "):
            of, _, digits = line.removeprefix("ngram ").replace(" ", "").partition("=")
            if of != str(len(told) + 1) or len(told) == _MOST_ORDER or not _is_count(digits):
                raise ValueError(f"line {number}: {line[:80]!r} is not the count of order {len(told) + 1}")
            told.append(int(digits))
        elif line.startswith("\\") and line != "\\data\\":
            break
    if sum(told) > _MOST_GRAMS:
        raise ValueError(
            f"it has {sum(told):,} n-grams, more than {_MOST_GRAMS:,}; make a binary file of it with KenLM's "
            "build_binary, which the extra kenlm reads"
        )
    grams: dict[Gram, tuple[float, float]] = {}
    for order, count in enumerate(told, 1):
        if line != f"\\{order}-grams:":
            raise ValueError(f"line {number}: {line[:80]!r} stands where \\{order}-grams: should")
        most = len(grams) + count
        for number, line in numbered:
            if line.startswith("\\") and (line == "\\end\\" or line.endswith("-grams:")):
                break
            gram, weights = _gram(number, line, order)
            if gram in grams:
                raise ValueError(f"line {number}: {' '.join(gram)[:80]!r} stands there twice")
            grams[gram] = weights
            if len(grams) > most:
                raise ValueError(f"line {number}: more {order}-grams than its head says, {count:,}")
        if len(grams) < most:
            raise ValueError(f"it ends or goes on after fewer {order}-grams than its head says, {count:,}")
    if not grams or line != "\\end\\":
        raise ValueError("it is no whole ARPA file")
    return grams


def _is_count(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS


def _gram(number: int, line: str, order: int) -> tuple[Gram, tuple[float, float]]:
    cells = line.split()
    if not order + 1 <= len(cells) <= order + 2:
        raise ValueError(f"line {number}: {line[:80]!r} is no {order}-gram")
    try:
        probability, backoff = float(cells[0]), float(cells[order + 1]) if len(cells) == order + 2 else 0.0
    except ValueError:
        raise ValueError(f"line {number}: {line[:80]!r} has no numbers where an ARPA file has them") from None
    if not (-_MOST_WEIGHT <= probability <= 0 and -_MOST_WEIGHT <= backoff <= _MOST_BACKOFF):
        raise ValueError(f"line {number}: {line[:80]!r} has no log10 probabilities")
    return tuple(cells[1 : order + 1]), (probability, backoff)


def _check_characters(path: Path, words: Iterable[str]) -> None:
    """Refuse a model over words: a scorer of characters would find all of them unknown."""
    known = [word for word in words if word not in (_BEGIN, _END, _OTHER, _SPACE)]
    long = [word for word in known if len(word) > 4]
    if 2 * len(long) > len(known):
        raise LanguageModelInvalid(str(path), f"a model over words such as {long[0]!r}, not over characters")


def train(lines: Iterable[str], order: int = 6) -> CharacterModel:
    """A model of texts, one a line, by single code points.

    Raises LanguageModelInvalid where there is no text.
    """
    if order < 1:
        raise ValueError(f"order {order}; an n-gram has a character at least")
    counts: list[Counter[Gram]] = [Counter() for _ in range(order)]
    texts = 0
    for line in lines:
        text = line.strip("\r\n")
        if not text:
            continue
        texts += 1
        words = [_BEGIN, *(_SPACE if character.isspace() else character for character in text), _END]
        for n in range(1, order + 1):
            counts[n - 1].update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    if not texts:
        raise LanguageModelInvalid("the training text", "it is empty")
    del counts[0][_BEGIN,]  # never predicted
    vocabulary = len(counts[0]) + 1  # and <unk>
    grams: dict[Gram, tuple[float, float]] = {}
    # of the histories of each length: how often they were seen, and with how many different words after
    for n, counted in enumerate(counts, 1):
        seen, different = _after(counted)
        for gram, count in counted.items():
            history = gram[:-1]
            lower = 10 ** grams[gram[1:]][0] if n > 1 else 1 / vocabulary
            share = (count + different[history] * lower) / (seen[history] + different[history])
            grams[gram] = math.log10(share), 0.0
        if n == 1:
            grams[_OTHER,] = math.log10(different[()] / vocabulary / (seen[()] + different[()])), 0.0
            grams[_BEGIN,] = _NEVER, 0.0
        for history in seen:
            if history:
                weight = math.log10(different[history] / (seen[history] + different[history]))
                grams[history] = grams[history][0], weight
    return CharacterModel(grams)


def _after(counted: Mapping[Gram, int]) -> tuple[dict[Gram, int], dict[Gram, int]]:
    seen: dict[Gram, int] = defaultdict(int)
    different: dict[Gram, int] = defaultdict(int)
    for gram, count in counted.items():
        seen[gram[:-1]] += count
        different[gram[:-1]] += 1
    return seen, different


class KenlmModel:
    """A character model in one of KenLM's files, ARPA or binary (Heafield 2011), as a scorer.

    A process of its own has it (`kenlm_process`). Raises LibraryMissing, LanguageModelInvalid.
    """

    ceiling = 0.0  # as a scorer's: probabilities

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with open_regular(path) as file:
                size = file.seek(0, os.SEEK_END)
            self._process = KenlmProcess(path, size)
            self._start = self._process.start
        except (OSError, ValueError) as error:
            raise LanguageModelInvalid(str(path), getattr(error, "strerror", None) or str(error)) from None
        except KenlmFailed as error:
            raise LanguageModelInvalid(str(path), str(error)) from None

    def __reduce__(self) -> tuple[type[KenlmModel], tuple[Path]]:
        """Another process opens the file anew."""
        return KenlmModel, (self._path.absolute(),)

    def start(self) -> Context:
        return self._start

    def step(self, state: Context, char: str) -> tuple[Context, float]:
        [answer] = self.steps([(state, char)])
        return answer

    def steps(self, questions: Sequence[tuple[Context, str]]) -> list[tuple[Context, float]]:
        """As `step` of each; all are asked at once. Raises LanguageModelInvalid."""
        asked = [(state[0], _SPACE if char == " " else char) for state, char in questions]
        try:
            return [(after, weight * _LN10) for after, weight in self._process.ask(asked)]
        except KenlmFailed as error:
            raise LanguageModelInvalid(str(self._path), str(error)) from None

    def end(self, state: Context) -> float:
        return state[1] * _LN10


def open_language_model(path: Path) -> Scorer:
    """A character model: ARPA files (.arpa) are read here, all others by KenLM.

    Raises LanguageModelInvalid, LibraryMissing.
    """
    if not path.exists():
        raise LanguageModelInvalid(str(path), "no such file")
    return CharacterModel.load(path) if path.suffix == ".arpa" else KenlmModel(path)
