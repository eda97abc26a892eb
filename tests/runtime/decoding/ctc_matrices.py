"""Two real network outputs with published decodings (githubharald/CTCDecoder), from the shared folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crnn_deploy.runtime.decoding.ctc import Frames

_FOLDER = Path(__file__).parents[4] / "shared" / "data" / "ctc_matrices"
ALPHABET = list(" !\"#&'()*+,-./0123456789:;?" + "".join(map(chr, [*range(65, 91), *range(97, 123)])))
BLANK = 79

needs_matrices = pytest.mark.skipif(not _FOLDER.is_dir(), reason="the shared data folder is absent")


def frames(name: str) -> Frames:
    rows = (_FOLDER / name / "rnnOutput.csv").read_text().split()
    logits = np.array([[float(cell) for cell in row.split(";") if cell] for row in rows], np.float32)
    return Frames.from_logits(logits[None])


def corpus(name: str) -> str:
    return (_FOLDER / name / "corpus.txt").read_text()


def expected(name: str) -> dict[str, str]:
    """Published value of each method."""
    rows = [row.split("\t") for row in (_FOLDER / "expected.tsv").read_text().splitlines()]
    return {method: value for which, method, value in rows if which == name}
