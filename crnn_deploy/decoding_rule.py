"""How texts are found and how sure they are said to be, as settings that a manifest can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, get_args

from crnn_deploy.errors import ManifestInvalid

__all__ = ["Aggregate", "DecoderName", "DecodingRule"]

Aggregate = Literal["min", "mean", "product", "likelihood"]
DecoderName = Literal["greedy", "beam", "closest-word"]

_LARGEST = 10_000  # of any number in a rule
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
                raise ManifestInvalid(f"{field.name} of its decoding is {value!r}")
            if isinstance(value, int | float) and not abs(value) <= _LARGEST:
                raise ManifestInvalid(f"{field.name} of its decoding is {value}, beyond {_LARGEST:,}")
        if self.decoder not in get_args(DecoderName) or self.aggregate not in get_args(Aggregate):
            raise ManifestInvalid(f"unknown decoder {self.decoder!r} or aggregate {self.aggregate!r}")
        if self.beam_width < 1 or self.nbest < 0 or self.distance < 0 or self.temperature <= 0:
            raise ManifestInvalid(
                f"a beam of {self.beam_width} with {self.nbest} alternatives, a distance of {self.distance}, "
                f"a temperature of {self.temperature}"
            )
        if self.unknown > 0:
            raise ManifestInvalid(f"a weight of {self.unknown} for unknown words, which would prefer them")
        if not all(isinstance(word, str) for word in self.hotwords):
            raise ManifestInvalid(f"hotwords {self.hotwords!r}")

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
            raise ManifestInvalid(f"unknown fields {sorted(unknown)} of its decoding")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        return cls(**values)


_DEFAULTS = {field.name: field.default for field in fields(DecodingRule) if field.default is not MISSING}
_CONSTRAINTS = ("allow", "block", "mask", "pattern", "min_length", "max_length")
