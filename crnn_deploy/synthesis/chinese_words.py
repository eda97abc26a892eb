"""Chinese words with their frequencies, of wordfreq (code Apache-2.0, data CC BY-SA 4.0)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.errors import CrnnDeployError
from crnn_deploy.synthesis.fonts import Split
from crnn_deploy.synthesis.lexicon import is_held_out

__all__ = ["ChineseWords", "Levels", "WordsMissing", "read_chinese_levels", "read_chinese_words"]

Levels = list[tuple[int, list[str]]]

_LONGEST = 8  # characters
_TEMPER = (
    0.75  # power of the frequencies: rare words come more often than in running text, frequent ones less
)
_FIRST, _LAST = "\u4e00", "\u9fff"


class WordsMissing(CrnnDeployError, ImportError):
    """No Chinese words on this machine."""

    def __init__(self) -> None:
        super().__init__("texts in Chinese take their words from wordfreq: pip install wordfreq")


@dataclass(frozen=True)
class ChineseWords:
    """Words of ideographs alone, the most frequent first."""

    words: tuple[str, ...]
    shares: NDArray[np.float64]  # (words,), how often each is drawn, of the sum 1
    split: Split


def read_chinese_levels() -> Levels | None:
    """Words of ideographs alone by level, a word of level n being 10 ** (-n / 100) of a text.

    None where wordfreq is not installed.
    """
    try:
        from wordfreq import get_frequency_list
    except ImportError:
        return None
    levels = (
        (at, list(filter(_is_word, words))) for at, words in enumerate(get_frequency_list("zh", "best"))
    )
    return [(at, words) for at, words in levels if words]


@cache
def read_chinese_words(split: Split, path: Path | None = None) -> ChineseWords:
    """The words of one split. Single characters belong to both, to the smaller at a tenth of their share.

    path: a file as a font pack has one, JSON of what `read_chinese_levels` gives; None: wordfreq

    Raises WordsMissing.
    """
    levels = json.loads(path.read_bytes()) if path else read_chinese_levels()
    if levels is None:
        raise WordsMissing
    rows = [
        (word, 10 ** (-at / 100 * _TEMPER))
        for at, words in levels
        for word in words
        if len(word) == 1 or is_held_out(word) == (split == "held-out")
    ]
    alone = 0.1 if split == "held-out" else 1.0  # so that they do not outweigh one word in ten
    shares = np.array([share * (alone if len(word) == 1 else 1.0) for word, share in rows])
    return ChineseWords(tuple(word for word, _ in rows), shares / shares.sum(), split)


def _is_word(word: str) -> bool:
    return len(word) <= _LONGEST and all(_FIRST <= character <= _LAST for character in word)
