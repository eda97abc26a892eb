"""Text that is drawn for the alphabet of a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.synthesis.designs import CharactersNotCovered
from crnn_deploy.synthesis.fonts import FontsMissing, Split
from crnn_deploy.synthesis.printed import is_chinese, printed, printed_texts
from crnn_deploy.synthesis.texts import TextKind

ROOT = Path(__file__).parents[2]
KINDS: dict[TextKind, float] = {"word": 3.0, "number": 1.0, "line": 1.0}


def gb2312(*options: str) -> str:
    command = [sys.executable, str(ROOT / "training" / "gb2312.py"), *options]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode()[:-1]


def kanji() -> str:
    """The 2,965 frequent ideographs of Japan: JIS X 0208's first level."""
    codes = (bytes([row, cell]) for row in range(0xB0, 0xD0) for cell in range(0xA1, 0xFF))
    return "".join(code.decode("euc_jp", errors="ignore") for code in codes)


def test_an_alphabet_is_chinese_that_has_the_frequent_ideographs_of_mainland_china() -> None:
    assert is_chinese(gb2312()) and is_chinese(gb2312("--level", "1"))
    assert len(kanji()) == 2965 and not is_chinese(kanji())
    assert not is_chinese("abcdefghijklmnopqrstuvwxyz") and not is_chinese(gb2312()[:2000])


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_a_chinese_alphabet_gets_chinese_text_in_its_characters(split: Split) -> None:
    pytest.importorskip("wordfreq")
    alphabet = gb2312()
    texts = printed_texts(alphabet, split, KINDS)
    found = [texts.sample(np.random.default_rng(at)) for at in range(300)]
    ideographs = [sum("\u4e00" <= character <= "\u9fff" for character in text) for text in found]
    assert set("".join(found)) <= set(alphabet)
    assert sum(ideographs) > 0.6 * sum(map(len, found))
    assert max(map(len, found)) <= 40 and len(set(found)) > 280


def test_other_alphabets_get_the_kinds_that_were_asked_for() -> None:
    texts = printed_texts("0123456789", "held-out", KINDS)
    assert set("".join(texts.sample(np.random.default_rng(at)) for at in range(50))) <= set("0123456789")


def test_every_second_image_has_faults() -> None:
    try:
        dataset = printed("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "held-out", {"word": 1.0}, 3, 60)
        images = [dataset[at].image for at in range(60)]
    except (CharactersNotCovered, FontsMissing) as error:
        pytest.skip(str(error))
    steepest = [np.abs(np.diff(read_image(image).astype(int), axis=1)).max() for image in images]
    assert np.median(steepest[::2]) > 1.3 * np.median(steepest[1::2])  # blur and low contrast
