"""Texts that are drawn to prove a model."""

from __future__ import annotations

import re

import pytest

from crnn_deploy.synthesis.designs import CharactersNotCovered
from crnn_deploy.synthesis.fonts import FontsMissing


@pytest.mark.parametrize(
    ("alphabet", "drawn"),
    [
        ("0123456789", "[0-9]+"),
        ("的一是不了人我在有他", "[的一是不了人我在有他]+"),
        ("abcdefghij klmnopqrstuvwxyz", "[a-z ]+"),
    ],
)
def test_text_is_drawn_that_the_alphabet_can_write(alphabet: str, drawn: str) -> None:
    from crnn_deploy.parity.proof_images import held_out

    try:
        dataset = held_out(alphabet, 4)
        samples = [dataset[at] for at in range(4)]
    except (CharactersNotCovered, FontsMissing) as error:  # no Chinese fonts on many machines
        pytest.skip(str(error))
    assert all(re.fullmatch(drawn, sample.text) for sample in samples)
