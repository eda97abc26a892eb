"""Words that are expected in a text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Hotwords"]


class Hotwords:
    """A scorer that likes some words, in any case and wherever they stand.

    Every character on the way through a hotword is rewarded at once, so that the beam keeps it, and what is
    not completed is taken back.

    boost: log weight of each character of a hotword
    """

    def __init__(self, words: Sequence[str], boost: float = 1.0) -> None:
        self._words = {word.lower() for word in words if word}
        self._starts = {word[:n] for word in self._words for n in range(1, len(word) + 1)}
        self._boost = boost
        # a character earns or holds one character's weight more at most; a negative boost may take all back
        self.ceiling = max(boost, -boost * max(map(len, self._words), default=0))

    def start(self) -> tuple[str, int]:
        return "", 0

    def step(self, state: tuple[str, int], char: str) -> tuple[tuple[str, int], float]:
        before, paid = state  # what a hotword may begin with, and how many characters of it are earned
        grown = before + char.lower()
        word = next((grown[i:] for i in range(len(grown)) if grown[i:] in self._words), "")
        earned = max(0, min(len(word), len(grown) - paid)) if word else 0
        kept = next((grown[i:] for i in range(len(grown)) if grown[i:] in self._starts), "")
        kept_paid = len(kept) if word else max(0, paid - (len(grown) - len(kept)))
        weight = earned + (len(kept) - kept_paid) - (len(before) - paid)
        return (kept, kept_paid), self._boost * weight

    def end(self, state: tuple[str, int]) -> float:
        return -self._boost * (len(state[0]) - state[1])
