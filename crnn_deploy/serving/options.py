"""How a request wants its images read: query parameters, as the options of `infer`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.errors import did_you_mean, shortened
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.orientation import Rotate
from crnn_deploy.serving.problems import Problem

__all__ = ["NO_OPTIONS", "ReadOptions", "options_of"]

# bounds below those of a DecodingRule: a stranger's request must not keep a worker busy for seconds
_Characters = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=64)]

_USED_BY_BEAM = ("nbest", "beam_width", "hotwords", "boost")


class ReadOptions(BaseModel):
    """The options of a request; what is absent is as the model's manifest says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decoder: Annotated[
        Literal["greedy", "beam"] | None, Field(description="Find texts with this decoder.")
    ] = None
    nbest: Annotated[
        int | None, Field(ge=0, le=50, description="Give the N likeliest texts too (decoder beam).")
    ] = None
    beam_width: Annotated[
        int | None, Field(ge=1, le=50, description="Keep this many prefixes in the beam search.")
    ] = None
    allow: Annotated[_Characters | None, Field(description="Allow only these characters in a text.")] = None
    block: Annotated[_Characters | None, Field(description="Allow none of these characters in a text.")] = (
        None
    )
    mask: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=128)] | None,
        Field(
            description="Allow only texts of this form, one sign for each character: A an upper case letter, "
            "a a lower case one, L any letter, 9 a digit, X a letter or digit, * anything; any other sign, "
            "and any after a backslash, itself."
        ),
    ] = None
    pattern: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=128)] | None,
        Field(description="Allow only texts that this regular expression matches as a whole."),
    ] = None
    min_length: Annotated[
        int | None, Field(ge=0, le=256, description="Allow only texts of at least this many characters.")
    ] = None
    max_length: Annotated[
        int | None, Field(ge=0, le=256, description="Allow only texts of at most this many characters.")
    ] = None
    hotwords: Annotated[
        tuple[_Word, ...],
        Field(max_length=64, description="Expect these words in the texts (decoder beam)."),
    ] = ()
    boost: Annotated[
        float | None,
        Field(ge=0, le=100, description="Add this log weight for each character of a hotword."),
    ] = None
    chars: Annotated[
        bool, Field(description="Give each character with its confidence and its place in the image.")
    ] = False
    min_confidence: Annotated[
        float, Field(ge=0, le=1, description="Give a text below this the status low-confidence.")
    ] = 0.0
    rotate: Annotated[
        Rotate,
        Field(
            description="Read an image in several turns and keep the surest text: tall ones right and left "
            "(90), as they stand and as a column too (auto), every one upside down too (180)."
        ),
    ] = "none"

    def rule(self, manifest: Manifest) -> DecodingRule:
        """The manifest's decoding, and what the request says in its place. Raises Problem."""
        given = self.model_dump(exclude={"chars", "min_confidence", "rotate"}, exclude_defaults=True)
        decoder = given.get("decoder", manifest.decoding.decoder)
        for name in _USED_BY_BEAM:
            if name in given and decoder != "beam":
                raise Problem(422, f"{name} needs decoder=beam; this would be {decoder}")
        if "boost" in given and not (self.hotwords or manifest.decoding.hotwords):
            raise Problem(422, "boost weighs hotwords; name one with hotwords=WORD")
        return replace(manifest.decoding, **given)

    def gives_alternatives(self, manifest: Manifest) -> bool:
        """Whether texts come with others that were found."""
        nbest = manifest.decoding.nbest if self.nbest is None else self.nbest
        return nbest > 0 and (self.decoder or manifest.decoding.decoder) == "beam"

    @cached_property
    def key(self) -> tuple[Any, ...]:
        """What images must have in common to be read together."""
        values = self.model_dump(exclude={"chars", "min_confidence"})
        return tuple(values.values())


NO_OPTIONS = ReadOptions()


def options_of(given: Mapping[str, Any] | Iterable[tuple[str, str]]) -> ReadOptions:
    """Options from a mapping, or from the pairs of a query, in which `hotwords` alone may stand twice.

    Raises Problem.
    """
    if isinstance(given, Mapping):
        values = dict(given)
    else:
        values = {}
        for name, value in given:
            if name == "hotwords":
                values.setdefault(name, []).append(value)
            elif name in values:
                raise Problem(422, f"{shortened(name)} stands twice in the address; give it once")
            else:
                values[name] = value
    if not values:
        return NO_OPTIONS
    try:
        return ReadOptions.model_validate(values)
    except ValidationError as error:
        raise Problem(422, _said(error)) from None


def _said(error: ValidationError) -> str:
    """The first fault of some options, in a line."""
    first = error.errors(include_url=False, include_input=True)[0]
    name = shortened(str(first["loc"][0]) if first["loc"] else "the options")
    if first["type"] == "extra_forbidden":
        known = ["model", *ReadOptions.model_fields]
        return f"there is no option {name}{did_you_mean(name, known)}; there are {', '.join(known)}"
    value = shortened(repr(first["input"]))
    return f"{name}={value}: {first['msg'][0].lower()}{first['msg'][1:]}"
