"""How well texts were read: counts that are exact and add up, and the figures that follow from them.

Texts are compared code point by code point, as they are: `é` in one code point and in two are different.
Where labels mix the two forms, bring labels and predictions to one (`unicodedata.normalize`) beforehand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

__all__ = ["Score", "Z", "alphanumeric", "score", "wilson"]

Z = 1.959963984540054  # of the standard normal distribution, two-sided 95 %


@dataclass(frozen=True)
class Score:
    """Counts over a number of images; two scores add up to the score of all their images.

    Of no images, or no characters, the figures that would divide by them are NaN.
    """

    images: int = 0
    exact: int = 0  # predictions that equal the truth
    alphanumeric: int = 0  # that equal it once both went through `alphanumeric`
    edits: int = 0  # Levenshtein distances, summed
    characters: int = 0  # code points of the truths
    normalized_edits: Fraction = Fraction(0)  # of each image edits / max(length of either text), summed

    def __add__(self, other: Score) -> Score:
        return Score(
            self.images + other.images,
            self.exact + other.exact,
            self.alphanumeric + other.alphanumeric,
            self.edits + other.edits,
            self.characters + other.characters,
            self.normalized_edits + other.normalized_edits,
        )

    @property
    def accuracy(self) -> float:
        """Share of exact predictions, 0-1."""
        return _ratio(self.exact, self.images)

    @property
    def alphanumeric_accuracy(self) -> float:
        """Share of predictions right but for case and marks, 0-1: the figure of scene-text benchmarks."""
        return _ratio(self.alphanumeric, self.images)

    @property
    def cer(self) -> float:
        """Character error rate: all edits / all characters of the truths; may exceed 1."""
        return _ratio(self.edits, self.characters)

    @property
    def one_minus_ned(self) -> float:
        """1 - mean of edits / max(length of either text), 0-1 (ICDAR 2019 ArT, arXiv 1909.07145)."""
        return float(1 - self.normalized_edits / self.images) if self.images else math.nan

    def to_plain(self) -> dict[str, Any]:
        """Counts and figures, ready for JSON; NaN is None, intervals are 95 %."""
        figures = {
            "accuracy": self.accuracy,
            "alphanumeric_accuracy": self.alphanumeric_accuracy,
            "cer": self.cer,
            "one_minus_ned": self.one_minus_ned,
        }
        return {
            "images": self.images,
            "exact": self.exact,
            "alphanumeric": self.alphanumeric,
            "edits": self.edits,
            "characters": self.characters,
            "normalized_edits": str(self.normalized_edits),
            **{name: None if math.isnan(value) else value for name, value in figures.items()},
            "accuracy_interval": wilson(self.exact, self.images),
            "alphanumeric_accuracy_interval": wilson(self.alphanumeric, self.images),
        }


def score(pairs: Iterable[tuple[str, str | None]]) -> Score:
    """Score of (truth, prediction) pairs.

    A prediction of None says that nothing could be read, not even an empty text: it is wrong whatever the
    truth, with every character of the truth missing.
    """
    from rapidfuzz.distance import Levenshtein  # the thin runtime, which takes `wilson`, does without

    images = exact = loose = edits = characters = 0
    by_length: Counter[int] = Counter()  # edits by the length of the longer text: few fractions to add
    for truth, prediction in pairs:
        images += 1
        characters += len(truth)
        if prediction is None:
            edits += len(truth)
            by_length[1] += 1
            continue
        exact += truth == prediction
        loose += alphanumeric(truth) == alphanumeric(prediction)
        distance = Levenshtein.distance(truth, prediction)
        edits += distance
        by_length[max(len(truth), len(prediction), 1)] += distance
    normalized = sum((Fraction(count, length) for length, count in by_length.items()), Fraction(0))
    return Score(images, exact, loose, edits, characters, normalized)


def alphanumeric(text: str) -> str:
    """Lower case, letters and digits alone (`str.lower`, `str.isalnum`).

    Of ASCII text it is what the scene-text benchmarks compare (github.com/clovaai/
    deep-text-recognition-benchmark, test.py). They drop every other letter; here letters and digits of all
    scripts count, or a wrong `é` would be right. Combining marks are dropped, as they are no letters. Where
    nothing is left of a truth (`?!`), a prediction of which nothing is left either is right.
    """
    return "".join(filter(str.isalnum, text.lower()))


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927), within 0-1; (0, 1) of no trials."""
    if not trials:
        return 0.0, 1.0
    share, z2 = successes / trials, Z * Z
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    reach = Z * math.sqrt(share * (1 - share) / trials + z2 / (4 * trials * trials)) / (1 + z2 / trials)
    low = 0.0 if successes == 0 else centre - reach  # exactly there, but for rounding
    high = 1.0 if successes == trials else centre + reach
    return low, high


def _ratio(count: int, total: int) -> float:
    return count / total if total else math.nan
