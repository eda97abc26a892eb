"""Words that are expected in a text."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Hotwords"]

_State = tuple[str, tuple[bool, ...]]


class Hotwords:
    """A scorer that likes some words, in any case and wherever they stand.

    Every character on the way through a hotword is rewarded at once, so that the beam keeps it, and what is
    not completed is taken back: in the end a text has the weight of its characters that lie in hotwords.

    boost: log weight of each character of a hotword
    """

    def __init__(self, words: Sequence[str], boost: float = 1.0) -> None:
        self._words = {word.lower() for word in words if word}
        self._starts = {word[:n] for word in self._words for n in range(1, len(word) + 1)}
        self._boost = boost
        # a character brings its own weight at most; where the weight is negative, taking back brings more
        self.ceiling = max(boost, -boost * max(map(len, self._words), default=0))

    def start(self) -> _State:
        """What a hotword may begin with, and which of its characters lie in a hotword already."""
        return "", ()

    def step(self, state: _State, char: str) -> tuple[_State, float]:
        weight = 0
        before, earned = state
        for character in char.lower():
            pending = earned.count(False)
            grown, earned = before + character, (*earned, False)
            word = next((grown[i:] for i in range(len(grown)) if grown[i:] in self._words), "")
            if word:
                weight += earned[-len(word) :].count(False)
                earned = (*earned[: -len(word)], *[True] * len(word))
            before = next((grown[i:] for i in range(len(grown)) if grown[i:] in self._starts), "")
            earned = earned[len(earned) - len(before) :]
            weight += earned.count(False) - pending
        return (before, earned), self._boost * weight

    def end(self, state: _State) -> float:
        return -self._boost * state[1].count(False)
