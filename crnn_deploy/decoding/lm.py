"""Character n-gram models: trained from text, kept as ARPA files, which KenLM and SRILM read and write too.

Smoothing is Witten and Bell's (IEEE Trans. Inf. Theory 37, 1991), interpolated: few characters never follow a
history, and how many different ones do is what it goes by.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from crnn_deploy.decoding.scoring import Scorer
from crnn_deploy.errors import CrnnDeployError, LibraryMissing

__all__ = ["CharacterModel", "KenlmModel", "LanguageModelInvalid", "open_language_model", "train"]

_BEGIN, _END, _OTHER = "<s>", "</s>", "<unk>"
_SPACE = "<space>"  # ARPA's words are parted by blanks, so a blank needs another name
_LN10 = math.log(10)
_NEVER = -99.0  # what ARPA files write for log10 of 0

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
    def read(cls, path: Path) -> CharacterModel:
        """An ARPA file over characters, with `<space>` for the blank. Raises LanguageModelInvalid."""
        grams: dict[Gram, tuple[float, float]] = {}
        order, ended = 0, False
        try:
            with path.open(encoding="utf-8") as file:
                for line in file:
                    line = line.strip("\n\r ")
                    if line.startswith("\\"):
                        ended = line == "\\end\\"
                        order = int(line[1:-7]) if line.endswith("-grams:") else 0
                    elif order and line:
                        cells = line.split()
                        if not order + 1 <= len(cells) <= order + 2:
                            raise LanguageModelInvalid(str(path), f"{line!r} is no {order}-gram")
                        backoff = float(cells[order + 1]) if len(cells) == order + 2 else 0.0
                        grams[tuple(cells[1 : order + 1])] = float(cells[0]), backoff
        except OSError as error:
            raise LanguageModelInvalid(str(path), error.strerror or str(error)) from None
        except UnicodeDecodeError:
            raise LanguageModelInvalid(str(path), "it is not UTF-8 text") from None
        except ValueError as error:
            if isinstance(error, LanguageModelInvalid):
                raise
            raise LanguageModelInvalid(str(path), f"it is no ARPA file: {error}") from None
        if not grams or not ended:
            raise LanguageModelInvalid(str(path), "it is no whole ARPA file")
        _check_characters(path, (gram[0] for gram in grams if len(gram) == 1))
        return cls(grams)


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

    Raises LibraryMissing, LanguageModelInvalid.
    """

    ceiling = 0.0  # as a scorer's: probabilities

    def __init__(self, path: Path) -> None:
        try:
            import kenlm
        except ImportError as error:
            raise LibraryMissing(f"{path.name}", "kenlm", "kenlm") from error
        try:
            settings = kenlm.Config()
            settings.show_progress, settings.arpa_complain = False, kenlm.ARPALoadComplain.NONE
            self._model: Any = kenlm.Model(str(path), settings)
        except (OSError, RuntimeError) as error:
            raise LanguageModelInvalid(str(path), f"KenLM cannot read it: {error}") from None
        self._new_state = kenlm.State

    def start(self) -> Hashable:
        state = self._new_state()
        self._model.BeginSentenceWrite(state)
        return state  # type: ignore[no-any-return]

    def step(self, state: Any, char: str) -> tuple[Hashable, float]:
        after = self._new_state()
        weight = self._model.BaseScore(state, _SPACE if char == " " else char, after)
        return after, weight * _LN10

    def end(self, state: Any) -> float:
        return float(self._model.BaseScore(state, _END, self._new_state())) * _LN10


def open_language_model(path: Path) -> Scorer:
    """A character model: ARPA files (.arpa) are read here, all others by KenLM.

    Raises LanguageModelInvalid, LibraryMissing.
    """
    if not path.is_file():
        raise LanguageModelInvalid(str(path), "no such file")
    return CharacterModel.read(path) if path.suffix == ".arpa" else KenlmModel(path)
