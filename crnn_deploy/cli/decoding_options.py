"""Options of how texts are found, for the commands that read images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from crnn_deploy.cli.options import FILE, confidence_option
from crnn_deploy.cli.values import OneOf

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
        type=FILE,
        help="Read known words from this file, one a line. beam prefers them. closest-word gives the "
        "likeliest of those within --distance edits of what it read, or what it read if there is none.",
    ),
    click.option(
        "--lm",
        metavar="FILE",
        type=FILE,
        help="Weigh texts with this language model over characters: an .arpa file (crnn-deploy lm train "
        "writes one), or another file that KenLM reads.",
    ),
)
_NBEST = click.option(
    "--nbest",
    metavar="N",
    type=click.IntRange(0, 10_000),
    help="Give the N likeliest texts as well, with their scores (natural logarithms).",
)
_SETTINGS = (
    click.option(
        "--accents/--ignore-accents",
        default=None,
        show_default="accents",
        help="Find words of the lexicon only with their accents (--accents), or with any accents or none "
        "(--ignore-accents).",
    ),
    click.option(
        "--unknown",
        metavar="X",
        type=click.FloatRange(-10_000, 0),
        show_default="-6",
        help="Add this log weight to a text's score for each word that is not in the lexicon.",
    ),
    click.option(
        "--beam-width",
        metavar="N",
        type=click.IntRange(1, 10_000),
        show_default="10",
        help="Keep this many beginnings of texts in the beam search.",
    ),
    click.option(
        "--alpha",
        metavar="X",
        type=click.FloatRange(0, 100),
        show_default="0.5",
        help="Multiply the language model's log probabilities by this factor.",
    ),
    click.option(
        "--beta",
        metavar="X",
        type=click.FloatRange(-100, 100),
        show_default="0",
        help="Add this log weight to a text's score for each character.",
    ),
    click.option(
        "--hotword",
        "hotwords",
        metavar="WORD",
        multiple=True,
        help="Expect this word in the texts. Repeat the option for more words.",
    ),
    click.option(
        "--boost",
        metavar="X",
        type=click.FloatRange(0, 100),
        show_default="1",
        help="Add this log weight to a text's score for each character of a hotword.",
    ),
    click.option("--allow", metavar="CHARS", help="Allow only these characters in a text."),
    click.option("--block", metavar="CHARS", help="Allow none of these characters in a text."),
    click.option(
        "--mask",
        metavar="MASK",
        help="Allow only texts of this form, with one sign for each character: A is an upper case letter, a "
        "is a lower case letter, L is any letter, 9 is a digit, X is a letter or digit, * is anything. Any "
        "other sign stands for itself, and so does any sign after a backslash.",
    ),
    click.option(
        "--pattern",
        metavar="REGEX",
        help="Allow only texts that this regular expression matches as a whole.",
    ),
    click.option(
        "--min-length",
        metavar="N",
        type=click.IntRange(0, 10_000),
        help="Allow only texts of at least this many characters.",
    ),
    click.option(
        "--max-length",
        metavar="N",
        type=click.IntRange(0, 10_000),
        help="Allow only texts of at most this many characters.",
    ),
    click.option(
        "--distance",
        metavar="N",
        type=click.IntRange(0, 64),
        show_default="3",
        help="Take only words that are at most this many edits away from what was read.",
    ),
    confidence_option,
)


def decoding_options(*, files: bool = True, several: bool = False) -> Callable[..., Any]:
    """Add the options that `rule_given` and `decoder_given` read.

    files: word lists and language models among them
    several: whether --decoder may be repeated, to compare; it comes as a tuple then, and --nbest has no use
    """
    decoder = click.option(
        "--decoder",
        type=OneOf(_DECODERS),
        multiple=several,
        show_default="as the model's manifest says" if files else "greedy",
        help="Find texts with this decoder (docs/decoding.md compares them).",
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        nbest = () if several else (_NBEST,)
        for option in reversed((decoder, *(_FILES if files else ()), *nbest, *_SETTINGS)):
            command = option(command)
        return command

    return decorate


def _is_given(value: Any) -> bool:
    return value is not None and value != ()


def _flag(name: str) -> str:
    """How an option is written."""
    return _FLAGS.get(name, f"--{name.replace('_', '-')}")


def rule_given(manifest: Manifest, given: Mapping[str, Any]) -> DecodingRule:
    """The manifest's rule with what the user gave in its place. Raises ManifestInvalid, UsageError."""
    values = {name: value for name, value in given.items() if _is_given(value)}
    decoder = values.get("decoder", manifest.decoding.decoder)
    for name in ("allow", "block", "mask", "pattern", "hotwords"):
        given_texts = values.get(name, ())
        if any(not text for text in ((given_texts,) if isinstance(given_texts, str) else given_texts)):
            raise click.UsageError(f"{_flag(name)} is empty; leave it out where nothing is meant")
    for name in values:
        if decoder not in _USED_BY.get(name, _DECODERS):
            needed = " or ".join(_USED_BY[name])
            raise click.UsageError(f"{_flag(name)} needs --decoder {needed}; this would be {decoder}")
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
        raise click.UsageError(
            "--unknown weighs words that are not in a lexicon; give the lexicon with --lexicon FILE"
        )
    if given["accents"] is not None and given["lexicon"] is None:
        raise click.UsageError(
            "--ignore-accents is for the words of a lexicon; give the lexicon with --lexicon FILE"
        )
    if given["boost"] is not None and not rule.hotwords:
        raise click.UsageError("--boost weighs hotwords; name one with --hotword WORD")
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
