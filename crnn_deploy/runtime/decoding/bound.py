"""A decoder as it works with one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crnn_deploy.decoding_rule import DecodingRule
from crnn_deploy.manifest import Manifest
from crnn_deploy.runtime.decoding.ctc import BestPath, LogitsMissing

if TYPE_CHECKING:
    from crnn_deploy.runtime.decoding.alignment import Decode, Decoder

__all__ = ["bound"]


def bound(decoder: Decoder | None, manifest: Manifest) -> Decode:
    """The decoder as it works with this model; without one, what the manifest says.

    Raises LogitsMissing, and what binding the decoder raises.
    """
    if decoder is None and manifest.decoding == DecodingRule():
        return BestPath(manifest.alphabet, manifest.blank)
    if decoder is None:
        from crnn_deploy.runtime.decoding.build import decoder_of  # the best path does without

        decoder = decoder_of(manifest.decoding)
    if isinstance(decoder, str):
        raise TypeError(
            f"decoder is the text {decoder!r}; make one, such as decoder_of(DecodingRule({decoder!r})) of "
            "crnn_deploy.runtime.decoding.build"
        )
    decode = decoder.bind(manifest.alphabet, manifest.blank)
    if manifest.output == "argmax" and not isinstance(decode, BestPath):
        raise LogitsMissing("this decoder")
    return decode
