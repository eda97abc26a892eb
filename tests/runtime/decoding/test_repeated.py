"""Alphabets in which classes share a token or have none: texts as the published decoders say them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from crnn_deploy.runtime.decoding.beam import Beam
from crnn_deploy.runtime.decoding.confidence import Confidence
from crnn_deploy.runtime.decoding.constraints import Constraint
from crnn_deploy.runtime.decoding.ctc import Encoder, Frames, decode, decode_indices
from crnn_deploy.runtime.decoding.greedy import Greedy
from crnn_deploy.runtime.decoding.lexicon import ClosestWord

PIXELS = [(1.0, 1000)]


def published(path: list[int], alphabet: tuple[str, ...], blank: int, ignored: set[int]) -> str:
    """As mmocr's CTCPostProcessor and the converters of crnn.pytorch and EasyOCR read a best path."""
    text, before = "", blank
    for index in path:
        if index not in (before, blank) and index not in ignored:
            text += alphabet[index - (index > blank)]
        before = index
    return text


def frames_of(path: list[int], classes: int) -> Frames:
    logits = np.random.default_rng(len(path)).normal(0, 0.1, (1, len(path), classes)).astype(np.float32)
    logits[0, np.arange(len(path)), path] += 8
    return Frames.from_logits(logits)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=30),
    st.lists(st.sampled_from(["a", "b", "", "<UKN>"]), min_size=6, max_size=6).filter(any),
    st.integers(0, 6),
)
def test_the_best_path_is_the_published_one(path: list[int], alphabet: list[str], blank: int) -> None:
    tokens = tuple(alphabet)
    ignored = {i + (i >= blank) for i, token in enumerate(tokens) if not token}
    expected = published(path, tokens, blank, ignored)
    [text] = decode(frames_of(path, 7), tokens, blank, PIXELS)
    assert text.text == expected == decode_indices(path, tokens, blank)
    assert "".join(char.char for char in text.chars) == expected and all(char.char for char in text.chars)
    assert 0 < text.confidence <= 1


def folded(logits: NDArray[np.float32], groups: list[list[int]]) -> NDArray[np.float32]:
    """The log probabilities of a network in which each group of classes is one."""
    probabilities = np.exp(logits.astype(np.float64) - logits.max(axis=2, keepdims=True))
    probabilities /= probabilities.sum(axis=2, keepdims=True)
    summed = np.stack([probabilities[:, :, group].sum(axis=2) for group in groups], axis=2)
    log_probs: NDArray[np.float32] = np.log(summed).astype(np.float32)
    return log_probs


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 2**32 - 1))
def test_beams_and_constraints_and_lexicons_see_one_class_for_each_token(seed: int) -> None:
    """Of blank, a, b, a, no token, b: as of blank, a, b with the sums."""
    logits = np.random.default_rng(seed).normal(0, 2, (1, 7, 6)).astype(np.float32)
    several, one = ("a", "b", "a", "", "b"), ("a", "b")
    frames = Frames.from_logits(logits)
    plain = Frames.from_logits(folded(logits, [[0, 4], [1, 3], [2, 5]]))
    # a decoder may begin with the likeliest classes, which are those of the best path as it stands
    plain = Frames(np.array([0, 1, 2, 1, 0, 2])[frames.indices], plain.probabilities, plain.logits)
    rows = np.arange(7)
    assert plain.logits is not None
    plain = Frames(plain.indices, np.exp(plain.logits[:, rows, plain.indices[0]]), plain.logits)
    for decoder in (
        Beam(width=8),
        Beam(width=8, nbest=4),
        Beam(width=8, constraint=Constraint(longest=2)),
        Greedy(Constraint(longest=2)),
        Greedy(Constraint(mask="aa")),
        Greedy(Constraint(pattern="a*b")),
        ClosestWord(("ab", "ba", "aab", "b")),
        Confidence(Beam(width=8), "mean"),
    ):
        [found] = decoder.bind(several, 0)(frames, PIXELS)
        [expected] = decoder.bind(one, 0)(plain, PIXELS)
        assert found.text == expected.text, decoder
        assert found.confidence == pytest.approx(expected.confidence, abs=1e-4), decoder
        assert [a.text for a in found.alternatives] == [a.text for a in expected.alternatives], decoder
        scores = [a.score for a in expected.alternatives]
        assert [a.score for a in found.alternatives] == pytest.approx(scores, abs=1e-3)


def test_encoding_takes_the_last_class_of_a_token() -> None:
    """As the dictionaries of crnn.pytorch's and EasyOCR's converters, where the last entry stays."""
    alphabet = ("a", "b", "a", "")
    assert Encoder(alphabet, 0)("aba") == [{c: i + 1 for i, c in enumerate(alphabet)}[c] for c in "aba"]


def test_distinct_tokens_are_left_as_they_are() -> None:
    frames = frames_of([0, 1, 2, 0], 3)
    [one] = Beam(width=4).bind(("a", "b"), 0)(frames, PIXELS)
    assert type(Beam(width=4).bind(("a", "b"), 0)).__name__ == "BeamDecode" and one.text == "ab"


def test_mmocrs_unknown_class_is_said_in_a_recipe(tmp_path: Path) -> None:
    """mmocr 1.x with `with_unknown`: characters, then the blank (<PAD>), then <UKN>, which it prints."""
    import torch

    from crnn_deploy.export.reference import open_reference
    from crnn_deploy.networks.mmocr import MmocrCRNN
    from crnn_deploy.recipes.settings import CheckpointSettings

    torch.manual_seed(0)
    torch.save(MmocrCRNN(32, 1, 12, 4, widths=(2, 2, 2, 2, 2, 2, 2)).state_dict(), tmp_path / "x.pth")
    recipe = tmp_path / "own.toml"
    fed = CheckpointSettings(recipe=str(recipe), activation="relu")
    characters = '"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"'
    for lines, token in (
        (f'blank = 10\nalphabet = [{characters}, "<UKN>"]', "<UKN>"),
        (f'blank = 10\nalphabet = [{characters}, ""]', ""),
        (f'alphabet = [{characters}, "<PAD>", "<UKN>"]', "<UKN>"),
    ):
        recipe.write_text(f'base = "mmocr"\n{lines}\n')
        manifest = open_reference(tmp_path / "x.pth", fed).manifest
        assert manifest.blank == 10 and manifest.classes == 12
        assert decode_indices([1, 1, 10, 11, 11, 1], manifest.alphabet, manifest.blank) == f"1{token}1"
