"""Drawn print for a model's alphabet: to calibrate it on, and to compare two forms of it.

Latin text for most alphabets; Chinese for one that has the frequent ideographs of mainland China.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crnn_deploy.datasets import Dataset, Sample
from crnn_deploy.synthesis.chinese_words import ChineseWords, read_chinese_words
from crnn_deploy.synthesis.coverage import as_drawn
from crnn_deploy.synthesis.dataset import SyntheticDataset
from crnn_deploy.synthesis.fonts import Face, Split, Tier, scan, tier_of
from crnn_deploy.synthesis.renderer import Renderer
from crnn_deploy.synthesis.texts import TextKind, TextSource, read_words, writable

__all__ = ["faces_for", "is_chinese", "printed", "printed_texts"]

_FREQUENT = range(0xB0, 0xD8)  # rows of GB 2312 in EUC-CN: its first level, 3,755 ideographs
_MOST = 0.9  # of them
_CHINESE: dict[TextKind, float] = {
    **{"chinese-word": 3, "chinese-sentence": 3, "chinese-figure": 1, "chinese-mixed": 1, "chinese-rare": 1},
    **{"word": 0.5, "number": 0.5},
}


def printed(
    alphabet: Sequence[str], split: Split, kinds: Mapping[TextKind, float], seed: int, size: int
) -> Dataset:
    """Images of printed text, clean ones and such with faults in turn.

    kinds: how often each kind of text is drawn, of those that the alphabet can write; Chinese has its own
    Raises FontsMissing, CharactersNotCovered, WordsMissing.
    """
    renderer = Renderer(faces_for(alphabet, split), tuple(alphabet))
    texts = printed_texts(alphabet, split, kinds)
    clean, faulty = (SyntheticDataset(texts, renderer, seed, flag, "both", size) for flag in (False, True))
    return _Alternating(clean, faulty)


def faces_for(alphabet: Sequence[str], split: Split) -> list[Face]:
    """The faces of one split that an alphabet is drawn with. Raises FontsMissing."""
    tier: Tier = "chinese" if is_chinese(alphabet) else tier_of(alphabet)
    return [as_drawn(face, alphabet) for face in scan(tier) if face.split == split]


def printed_texts(alphabet: Sequence[str], split: Split, kinds: Mapping[TextKind, float]) -> TextSource:
    """The texts of `printed`. Raises WordsMissing."""
    words = read_words(split)
    chinese: ChineseWords | None = None
    if is_chinese(alphabet):
        chinese, kinds = read_chinese_words(split), _CHINESE
    return TextSource(alphabet, words, writable(alphabet, words, kinds, chinese), chinese=chinese)


def is_chinese(alphabet: Sequence[str]) -> bool:
    """Whether an alphabet has nine in ten of the frequent ideographs of mainland China."""
    codes = (bytes([row, cell]) for row in _FREQUENT for cell in range(0xA1, 0xFF))
    frequent = set("".join(code.decode("gb2312", errors="ignore") for code in codes))
    return len(frequent.intersection(alphabet)) >= _MOST * len(frequent)


@dataclass(frozen=True)
class _Alternating:
    """Images of two datasets in turn."""

    even: Dataset
    odd: Dataset

    def __len__(self) -> int:
        return len(self.even)

    def __getitem__(self, index: int) -> Sample:
        return (self.odd if index % 2 else self.even)[index]
