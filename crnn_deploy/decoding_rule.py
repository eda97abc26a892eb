"""How texts are found and how sure they are said to be, as settings that a manifest can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args

from crnn_deploy.errors import ManifestInvalid, shortened

__all__ = ["Aggregate", "DecoderName", "DecodingRule", "shown"]

Aggregate = Literal["min", "mean", "product", "likelihood"]
DecoderName = Literal["greedy", "beam", "closest-word"]

# A rule may come from a stranger's manifest, so every number and every length in it has bounds.
_BOUNDS: dict[str, tuple[float, float]] = {
    "beam_width": (1, 10_000),  # memory and time grow with it
    "nbest": (0, 10_000),  # as the beam
    "alpha": (-100, 100),  # log weights beyond these leave nothing to the network
    "beta": (-100, 100),
    "boost": (-100, 100),
    "unknown": (-10_000, 0),  # above 0 would prefer unknown words
    "min_length": (0, 10_000),  # an automaton has a state for each
    "max_length": (0, 10_000),
    "distance": (0, 64),  # more edits than most words have characters
    "temperature": (0.01, 100.0),  # float32 overflows when it divides by less; fits lie from 0.5 to 8
}
_LENGTHS = {  # characters
    "allow": 2**17,  # more than Unicode has letters of
    "block": 2**17,
    "mask": 10_000,  # an automaton has a state for each
    "pattern": 4096,  # it is read in no time
    "hotwords": 2**16,  # all together; their beginnings are kept
}
_MOST_HOTWORD = 256  # characters of one
_KINDS: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "tuple[str, ...]": (tuple,),
    "DecoderName": (str,),
    "Aggregate": (str,),
}


@dataclass(frozen=True)
class DecodingRule:
    """A decoder and its settings; those that it does not use count for nothing.

    Word lists and language models are files of their own and no part of it.
    Raises ManifestInvalid.
    """

    decoder: DecoderName = "greedy"
    beam_width: int = 10  # prefixes kept from frame to frame
    nbest: int = 0  # texts given as alternatives
    alpha: float = 0.5  # factor of the language model's log probabilities
    beta: float = 0.0  # log weight of every character, which makes up for what a language model takes
    allow: str | None = None  # characters that may stand in a text; None: all
    block: str = ""  # characters that may not
    mask: str | None = None  # one sign for each character (see `decoding.constraints.Constraint`)
    pattern: str | None = None  # regular expression of the whole text
    min_length: int = 0  # characters
    max_length: int | None = None
    hotwords: tuple[str, ...] = ()
    boost: float = 1.0  # log weight of each character of a hotword
    accents: bool = True  # of a lexicon's words; False: they weigh little, the network decides on them
    unknown: float = -6.0  # log weight of a word that a lexicon lacks
    distance: int = 3  # edits to the closest word
    aggregate: Aggregate = "min"  # how the characters' confidences become the line's
    temperature: float = 1.0  # that the logits are divided by for confidences; texts do not depend on it

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = _KINDS[str(field.type)]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise ManifestInvalid(f"{field.name} of its decoding is {shown(value)}")
            least, most = _BOUNDS.get(field.name, (-math.inf, math.inf))
            if isinstance(value, int | float) and not least <= value <= most:
                raise ManifestInvalid(
                    f"{field.name} of its decoding is {shown(value)}, not from {least:,} to {most:,}"
                )
        if self.decoder not in get_args(DecoderName) or self.aggregate not in get_args(Aggregate):
            raise ManifestInvalid(
                f"unknown decoder {shown(self.decoder)} or aggregate {shown(self.aggregate)}"
            )
        if not all(isinstance(word, str) for word in self.hotwords):
            raise ManifestInvalid(f"hotwords {shown(self.hotwords)}")
        if any(len(word) > _MOST_HOTWORD for word in self.hotwords):
            raise ManifestInvalid(f"a hotword of its decoding is longer than {_MOST_HOTWORD} characters")
        for name, longest in _LENGTHS.items():
            value = getattr(self, name)
            text = "\n".join(value) if isinstance(value, tuple) else value or ""
            if len(text) > longest:
                raise ManifestInvalid(
                    f"{name} of its decoding has {len(text):,} characters, more than {longest:,}"
                )
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ManifestInvalid(f"{name} of its decoding holds half of a surrogate pair") from error

    @property
    def constrained(self) -> bool:
        """Whether not every text is allowed."""
        return any(getattr(self, name) != _DEFAULTS[name] for name in _CONSTRAINTS)

    def to_plain(self) -> dict[str, Any]:
        """What differs from the defaults, ready for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in vars(self).items()
            if value != _DEFAULTS[name]
        }

    @classmethod
    def from_plain(cls, plain: Any) -> DecodingRule:
        """Read `to_plain`'s form. Raises ManifestInvalid."""
        if not isinstance(plain, Mapping):
            raise ManifestInvalid("its decoding is not an object")
        if unknown := set(plain) - set(_DEFAULTS):
            raise ManifestInvalid(f"unknown fields {shown(sorted(unknown))} of its decoding")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        return cls(**values)


_DEFAULTS = {field.name: field.default for field in fields(DecodingRule) if field.default is not MISSING}
_CONSTRAINTS = ("allow", "block", "mask", "pattern", "min_length", "max_length")


def shown(value: object) -> str:
    """A value from a stranger as a message may hold it: short, whatever it is."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number of thousands of digits"
    return shortened(text, 80)
