"""Options of how texts are found, for the commands that read images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from crnn_deploy.decoding_rule import DecodingRule
    from crnn_deploy.manifest import Manifest
    from crnn_deploy.runtime.decoding.alignment import Decoder

__all__ = ["decoder_given", "decoders_given", "decoding_options", "rule_given"]

_DECODERS = ("greedy", "beam", "closest-word")
_ANY_TEXT = ("greedy", "beam")  # those that follow constraints
_USED_BY = {
    "beam_width": ("beam",),
    "nbest": ("beam",),
    "lexicon": ("beam", "closest-word"),
    "lm": ("beam",),
    "alpha": ("beam",),
    "beta": ("beam",),
    "accents": ("beam",),
    "unknown": ("beam",),
    "hotwords": ("beam",),
    "boost": ("beam",),
    "distance": ("closest-word",),
    **dict.fromkeys(("allow", "block", "mask", "pattern", "min_length", "max_length"), _ANY_TEXT),
}
_FLAGS = {"hotwords": "--hotword", "accents": "--ignore-accents"}  # where the option is not the field's name

_FILES = (
    click.option(
        "--lexicon",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Known words, one a line: the likelier ones (beam), or all that is meant (closest-word).",
    ),
    click.option(
        "--lm",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="Language model over characters: .arpa (crnn-deploy lm train), or any that KenLM reads.",
    ),
)
_SETTINGS = (
    click.option(
        "--accents/--ignore-accents",
        default=None,
        help="Whether a lexicon's words are known with their accents alone.  [default: accents]",
    ),
    click.option(
        "--unknown",
        type=click.FloatRange(-10_000, 0),
        help="Log weight of a word that the lexicon lacks.  [default: -6]",
    ),
    click.option("--beam-width", type=click.IntRange(1, 10_000), help="Prefixes kept.  [default: 10]"),
    click.option(
        "--nbest",
        metavar="N",
        type=click.IntRange(0, 10_000),
        help="Also give the N likeliest texts with their scores (natural logarithms).",
    ),
    click.option(
        "--alpha", type=click.FloatRange(0, 100), help="Factor of the language model.  [default: 0.5]"
    ),
    click.option(
        "--beta", type=click.FloatRange(-100, 100), help="Log weight of each character.  [default: 0]"
    ),
    click.option(
        "--hotword",
        "hotwords",
        metavar="WORD",
        multiple=True,
        help="A word that is expected; may be repeated.",
    ),
    click.option(
        "--boost", type=click.FloatRange(0, 100), help="Log weight of a hotword's character.  [default: 1]"
    ),
    click.option("--allow", metavar="CHARS", help="Characters that may stand in a text, and no others."),
    click.option("--block", metavar="CHARS", help="Characters that may not."),
    click.option(
        "--mask",
        metavar="MASK",
        help="One sign a character: A upper case, a lower case, L letter, 9 digit, X letter or digit, "
        "* any; others (all after a backslash) themselves.",
    ),
    click.option("--pattern", metavar="REGEX", help="Regular expression of the whole text."),
    click.option("--min-length", type=click.IntRange(0, 10_000), help="Characters."),
    click.option("--max-length", type=click.IntRange(0, 10_000), help="Characters."),
    click.option(
        "--distance", type=click.IntRange(0, 64), help="Most edits to the closest word.  [default: 3]"
    ),
    click.option(
        "--confidence",
        "aggregate",
        type=click.Choice(["min", "mean", "product", "likelihood"]),
        help="A line's from its characters'; likelihood: of the text, per character.  [default: min]",
    ),
)


def decoding_options(*, files: bool = True, several: bool = False) -> Callable[..., Any]:
    """Add the options that `rule_given` and `decoder_given` read.

    files: word lists and language models among them
    several: whether --decoder may be repeated; it comes as a tuple then
    """
    decoder = click.option(
        "--decoder",
        type=click.Choice(_DECODERS),
        multiple=several,
        help="How texts are found"
        + ("; repeat it to compare." if several else ".")
        + "  [default: as the model's manifest says, else greedy]",
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((decoder, *(_FILES if files else ()), *_SETTINGS)):
            command = option(command)
        return command

    return decorate


def _is_given(value: Any) -> bool:
    return value is not None and value != ()


def rule_given(manifest: Manifest, given: Mapping[str, Any]) -> DecodingRule:
    """The manifest's rule with what the user gave in its place. Raises ManifestInvalid, UsageError."""
    values = {name: value for name, value in given.items() if _is_given(value)}
    decoder = values.get("decoder", manifest.decoding.decoder)
    for name in values:
        if decoder not in _USED_BY.get(name, _DECODERS):
            needed = " or ".join(_USED_BY[name])
            flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
            raise click.UsageError(f"{flag} needs --decoder {needed}; this would be {decoder}")
    rule = {name: value for name, value in values.items() if name not in ("lexicon", "lm")}
    return replace(manifest.decoding, **rule)


def decoder_given(manifest: Manifest, given: Mapping[str, Any]) -> Decoder | None:
    """The decoder that the user asked for; None where nothing was given.

    Raises UsageError, LexiconInvalid, LanguageModelInvalid, LibraryMissing.
    """
    if not any(map(_is_given, given.values())):
        return None
    from crnn_deploy.runtime.decoding.build import decoder_of, language_model

    rule = rule_given(manifest, given)
    if given["alpha"] is not None and given["lm"] is None:
        raise click.UsageError("--alpha weighs a language model; name it with --lm FILE")
    if given["unknown"] is not None and given["lexicon"] is None:
        raise click.UsageError("--unknown weighs words that a lexicon lacks; name it with --lexicon FILE")
    words: list[str] = []
    if given["lexicon"] is not None:
        from crnn_deploy.runtime.decoding.lexicon import read_lexicon

        words = read_lexicon(given["lexicon"])
    elif rule.decoder == "closest-word":
        raise click.UsageError("--decoder closest-word needs its words: --lexicon FILE")
    model = None if given["lm"] is None else language_model(given["lm"], manifest.alphabet)
    return decoder_of(rule, lexicon=words, language_model=model)


def decoders_given(manifest: Manifest, given: Mapping[str, Any]) -> dict[str, Decoder | None]:
    """Decoders by name, where --decoder may be repeated: each with the settings that it uses.

    Raises what `decoder_given` raises.
    """
    names = given["decoder"] or (manifest.decoding.decoder,)
    if len(set(names)) < len(names):
        raise click.UsageError("a --decoder is named twice")
    if len(names) == 1:
        one = decoder_given(manifest, {**given, "decoder": given["decoder"][0] if given["decoder"] else None})
        return {names[0]: one}
    found = {}
    for name in names:
        used = {
            option: value if name in _USED_BY.get(option, _DECODERS) else None
            for option, value in given.items()
        }
        found[name] = decoder_given(manifest, {**used, "decoder": name})
    for option, value in given.items():
        if _is_given(value) and not set(_USED_BY.get(option, _DECODERS)) & set(names):
            decoder_given(manifest, {**given, "decoder": names[0]})  # says which one it needs
    return found
