"""How sure a line is, from how sure its characters are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from crnn_deploy.decoding_rule import Aggregate

__all__ = ["aggregated"]


def aggregated(
    aggregate: Aggregate, chars: Sequence[float], blanks: float, log_likelihood: Callable[[], float]
) -> float:
    """Confidence of a line, 0-1.

    chars: of each character the probability of its likeliest frame
    blanks: smallest probability of the blank, which is the confidence of an empty text
    log_likelihood: of the text, all its alignments together; "likelihood" is its geometric mean per character
    """
    if aggregate == "likelihood":
        return min(1.0, math.exp(log_likelihood() / max(1, len(chars))))
    if not chars:
        return blanks
    if aggregate == "min":
        return min(chars)
    return math.prod(chars) if aggregate == "product" else sum(chars) / len(chars)
