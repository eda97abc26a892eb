"""ARPA files: what is accepted gives weights that are log probabilities."""

from __future__ import annotations

import io
import math
import tempfile
from pathlib import Path

from harness import fuzz, guided

with guided():
    from crnn_deploy.runtime.decoding.lm import CharacterModel, train

stream = io.StringIO()
train(["abc ab", "cab"], 3).write(stream)
FILE = Path(tempfile.mkdtemp()) / "model.arpa"


def target(data: bytes) -> None:
    """Read it and weigh a text."""
    FILE.write_bytes(data)
    model = CharacterModel.load(FILE)
    state = model.start()
    for char in "ab cx\0":
        state, weight = model.step(state, char)
        assert math.isfinite(weight) and math.isfinite(model.end(state))


fuzz(target, [stream.getvalue().encode()])
