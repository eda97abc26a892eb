"""From settings to a decoder: the one place where the command line, the manifest and Python meet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.runtime.decoding.confidence import Confidence
from crnn_deploy.runtime.decoding.greedy import Greedy

if TYPE_CHECKING:
    from crnn_deploy.runtime.decoding.alignment import Decoder
    from crnn_deploy.runtime.decoding.constraints import Constraint
    from crnn_deploy.runtime.decoding.scoring import Scorer

__all__ = ["decoder_of", "language_model"]

_LEAST_KNOWN = 0.05  # of the letters and digits of an alphabet, by a language model for it

# what accents weigh where they shall not decide: a word as it is listed is preferred a little
_ACCENTS = 0.15


def decoder_of(
    rule: DecodingRule, *, lexicon: Sequence[str] = (), language_model: Scorer | None = None
) -> Decoder:
    """The decoder that a rule describes.

    lexicon: words, for the decoders beam and closest-word
    language_model: for the decoder beam
    Raises LexiconInvalid where closest-word has no words.
    """
    decoder = _decoder(rule, lexicon, language_model)
    if (rule.aggregate, rule.temperature) == ("min", 1):  # what decoders say by themselves
        return decoder
    return Confidence(decoder, rule.aggregate, rule.temperature)


def _decoder(rule: DecodingRule, lexicon: Sequence[str], language_model: Scorer | None) -> Decoder:
    # imported where they are used: numba takes a while, and the best path does without
    if rule.decoder == "greedy":
        return Greedy(_constraint(rule))
    if rule.decoder == "closest-word":
        from crnn_deploy.runtime.decoding.lexicon import ClosestWord, LexiconInvalid

        if not lexicon:
            raise LexiconInvalid("the decoder closest-word", "it has no words; give it a lexicon")
        return ClosestWord(tuple(lexicon), rule.distance)
    from crnn_deploy.runtime.decoding.beam import Beam
    from crnn_deploy.runtime.decoding.hotwords import Hotwords
    from crnn_deploy.runtime.decoding.lexicon import Lexicon

    scorers: list[tuple[Scorer, float]] = []
    if lexicon:
        scorers.append((Lexicon(lexicon, unknown=rule.unknown), 1.0 if rule.accents else _ACCENTS))
        if not rule.accents:
            scorers.append((Lexicon(lexicon, unknown=rule.unknown, accents=False), 1.0))
    if language_model is not None:
        scorers.append((language_model, rule.alpha))
    if rule.hotwords:
        scorers.append((Hotwords(rule.hotwords, rule.boost), 1.0))
    return Beam(
        width=rule.beam_width,
        scorers=tuple(scorers),
        bonus=rule.beta,
        constraint=_constraint(rule),
        nbest=rule.nbest,
    )


def _constraint(rule: DecodingRule) -> Constraint | None:
    if not rule.constrained:
        return None
    from crnn_deploy.runtime.decoding.constraints import Constraint

    return Constraint(
        allow=rule.allow,
        block=rule.block,
        mask=rule.mask,
        pattern=rule.pattern,
        shortest=rule.min_length,
        longest=rule.max_length,
    )


def language_model(path: Path, alphabet: Sequence[str]) -> Scorer:
    """The language model in a file, for a recogniser with this alphabet.

    Raises LanguageModelInvalid (of another alphabet too), LibraryMissing.
    """
    from crnn_deploy.runtime.decoding.lm import LanguageModelInvalid, open_language_model
    from crnn_deploy.runtime.decoding.scoring import steps_of

    model = open_language_model(path)
    start = model.start()
    judged = [token for token in alphabet if token.isalnum()]
    # whatever a model does not know is one word to it, of one weight
    [(_, unknown), *answers] = steps_of(model, [(start, token) for token in ("\U0010ffff", *judged)])
    known = [weight for _, weight in answers if weight != unknown]
    if len(known) < _LEAST_KNOWN * len(judged):
        raise LanguageModelInvalid(
            str(path),
            f"a language model of another alphabet: of the {len(judged)} letters and digits that the "
            f"recogniser reads it knows {len(known)}",
        )
    return model
