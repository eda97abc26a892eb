"""What stands on signs, shop fronts, posters and packages: short, often in capitals."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from crnn_deploy.synthesis.figures import clock, digits, integer, one_of, phone, price
from crnn_deploy.synthesis.lexicon import Language, Vocabulary, is_held_out
from crnn_deploy.synthesis.phrases import phrases

__all__ = ["Signs"]

# Characters of a single word and how often: about as in the words of ICDAR 2015's incidental scene text,
# with a few shorter ones, which that set leaves out.
_LENGTHS = {
    1: 0.5, 2: 3, 3: 18, 4: 24, 5: 17, 6: 13, 7: 10.5, 8: 6.5, 9: 4, 10: 2.3, 11: 1.2, 12: 0.6, 13: 0.3,
    14: 0.2, 15: 0.1,
}  # fmt: skip
_SHARES: dict[Language, float] = {"en": 0.72, "fr": 0.1, "de": 0.08, "es": 0.05, "it": 0.05}
_FLATTER = 0.5  # power of a word's frequency: signs say "the" less often than texts do
_UNITS = ("g", "kg", "ml", "L", "m", "km", "cm", "W", "GB", "x", "st", "th")
_SITES = ("com", "com", "net", "org", "co.uk", "de", "fr", "it", "es", "com.sg", "sg", "eu")


class Signs:
    """Draws what signs say.

    alphabet: characters that may stand in them
    vocabularies: words and their frequencies; two words in three are drawn from them

    Of the words of shops and streets in `phrases.toml` those that are held out are never drawn; proper names
    are in both splits.
    """

    def __init__(self, alphabet: Collection[str], vocabularies: Sequence[Vocabulary]) -> None:
        self._alphabet = frozenset(alphabet)
        given = [vocabulary.writable(alphabet) for vocabulary in vocabularies]
        known = [vocabulary for vocabulary in given if vocabulary is not None]
        self._words: list[str] = [word for vocabulary in known for word in vocabulary.words]
        self._cumulated, self._of_length = _by_length(known)
        self._shop = [word for word in phrases("signs", "shop") if not is_held_out(word)]

    def draw(self, rng: np.random.Generator) -> str:
        """A word mostly; a phrase of two or three, a number, a code or a web address; at times nothing,
        where the alphabet writes no word."""
        kind = rng.random()
        if kind < 0.70:
            return self._marked(self._word(rng), rng)
        if kind < 0.85:
            return self._phrase(rng)
        if kind < 0.97:
            return self._figures(rng)
        return self._site(rng)

    def _word(self, rng: np.random.Generator) -> str:
        return self._cased(self._plain(rng), rng)

    def _plain(self, rng: np.random.Generator) -> str:
        origin = rng.random()
        if origin < 0.66 and self._words:
            return self._frequent(rng)
        if origin < 0.82 and self._shop:
            return one_of(self._shop, rng)
        return one_of(phrases("signs", "names"), rng) if origin < 0.9 else self._brand(rng)

    def _frequent(self, rng: np.random.Generator) -> str:
        """A word of the vocabularies: first its length, then one of that length by its frequency."""
        length = int(np.searchsorted(self._cumulated, rng.random() * self._cumulated[-1]))
        positions, cumulated = self._of_length[min(length, len(self._of_length) - 1)]
        at = int(np.searchsorted(cumulated, rng.random() * cumulated[-1]))
        return self._words[int(positions[min(at, len(positions) - 1)])]

    @staticmethod
    def _brand(rng: np.random.Generator) -> str:
        """An invented name."""
        return "".join(one_of(phrases("signs", part), rng) for part in ("starts", "middles", "ends"))

    @staticmethod
    def _cased(word: str, rng: np.random.Generator) -> str:
        case = rng.random()
        if case < 0.52:
            return word.upper()
        if case < 0.79:
            return word[:1].upper() + word[1:]
        if case < 0.97:
            return word.lower()
        # as logotypes mix them
        return "".join(c.upper() if rng.random() < 0.6 else c.lower() for c in word)

    def _marked(self, word: str, rng: np.random.Generator) -> str:
        """At times with a mark before or after."""
        kind = rng.random()
        if kind > 0.09:
            return word
        if kind < 0.02:
            return word + ("'S" if word.isupper() else "'s")
        if kind < 0.025:
            return word + "&" + self._word(rng)[:3]
        if kind < 0.035:
            return f"{word}-{self._word(rng)}"
        if kind < 0.04:
            return one_of(("@", "#", "(", '"', "'"), rng) + word
        return word + one_of("!!!.....,,:?)\"'&", rng)

    def _phrase(self, rng: np.random.Generator) -> str:
        words = [self._plain(rng) for _ in range(2 if rng.random() < 0.7 else 3)]
        case = rng.random()
        if case < 0.6:
            words = [word.upper() for word in words]
        elif case < 0.85:
            words = [word[:1].upper() + word[1:] for word in words]
        if rng.random() < 0.12:
            words.insert(1, one_of(("&", "&", "+", "-", "and", "x"), rng))
        if rng.random() < 0.12:
            words.append(one_of((integer(rng, 2), f"{integer(rng, 2)}%", f"No.{integer(rng, 2)}"), rng))
        return " ".join(words) + ("!" if rng.random() < 0.06 else "")

    @staticmethod
    def _figures(rng: np.random.Generator) -> str:
        letter = "ABCDEFGHJKLMNPRSTUVWXYZ"
        plate = "".join(one_of(letter, rng) for _ in range(int(rng.integers(2, 4))))
        money = one_of("$$$€£", rng)
        forms = (
            integer(rng, 4),
            digits(rng, 1, 4),
            f"{rng.integers(1, 10)}0%",
            f"{integer(rng, 2)}%",
            f"{money}{price(rng, 2)}",
            f"{money}{integer(rng, 3)}",
            f"{money} {integer(rng, 2)}",
            f"{price(rng, 2, ',')} €",
            price(rng, 2),
            phone(rng),
            clock(rng),
            f"{rng.integers(1, 13)}{one_of(('am', 'pm', 'AM', 'PM'), rng)}",
            f"{rng.integers(1900, 2031)}",
            f"{one_of('BLP', rng)}{rng.integers(1, 8)}",
            f"{one_of(letter, rng)}{rng.integers(1, 30)}",
            f"{one_of('BLGF', rng)}{rng.integers(1, 6)}-{rng.integers(1, 60):02}",
            f"#{rng.integers(1, 9):02}-{rng.integers(1, 200):02}",
            f"{rng.integers(1, 400)}{one_of('ABCabc', rng)}",
            f"{plate}{digits(rng, 2, 4)}",
            f"{plate} {digits(rng, 4)}{one_of(letter, rng)}",
            f"{integer(rng, 3)}{one_of(_UNITS, rng)}",
            f"{integer(rng, 3)}-{integer(rng, 3)}",
            f"{rng.integers(2, 10)}/{rng.integers(2, 10)}",
            f"{int(integer(rng, 8)):,}",
        )
        return one_of(forms, rng)

    def _site(self, rng: np.random.Generator) -> str:
        name = (self._brand(rng) if rng.random() < 0.5 else self._plain(rng)).lower().replace("'", "")
        start = one_of(("www.", "www.", "", "http://", "WWW."), rng)
        site = f"{start}{name}.{one_of(_SITES, rng)}"
        return site.upper() if start == "WWW." else site


def _by_length(
    vocabularies: Sequence[Vocabulary],
) -> tuple[NDArray[np.float64], list[tuple[NDArray[np.int64], NDArray[np.float64]]]]:
    """For each length that there are words of: how often it and all before it are drawn; and these words'
    positions among all with their cumulated weights."""
    lengths: list[int] = []
    weights: list[float] = []
    for vocabulary in vocabularies:
        own = vocabulary.shares**_FLATTER
        weights += (own / own.sum() * _SHARES[vocabulary.language]).tolist()
        lengths += map(len, vocabulary.words)
    of, weight = np.array(lengths, np.int64), np.array(weights, np.float64)
    there = [length for length in _LENGTHS if (of == length).any()]
    found = [(np.flatnonzero(of == length), np.cumsum(weight[of == length])) for length in there]
    return np.cumsum([_LENGTHS[length] for length in there], dtype=np.float64), found
