"""The stream of batches that a training sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.datasets import Sample
from crnn_deploy.manifest import Manifest, StepRule, WidthRule
from crnn_deploy.runtime.images.pixels import read_image
from crnn_deploy.synthesis.dataset import Style
from crnn_deploy.training.config import Config, DataConfig
from crnn_deploy.training.data import BatchStream
from crnn_deploy.training.sources import TrainingDataInvalid, open_source

DIGITS = "0123456789"


@dataclass(frozen=True)
class Listed:
    samples: Sequence[Sample]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


MANIFEST = Manifest(
    *(tuple(DIGITS), 0, "gray", 8, WidthRule(16, 64, 4), (0.5,), (0.5,), "linear"), StepRule(4, 3)
)


def stream_of(samples: Sequence[Sample], **changes: Any) -> BatchStream:
    plain = {"out": "x", "train": [{"path": "x"}], "steps": 1, "batch": 2, "window": 2}
    rank, world = changes.pop("rank", 0), changes.pop("world", 1)
    config = Config.model_validate({**plain, **changes})
    return BatchStream([(Listed(samples), 1.0)], MANIFEST, config, rank=rank, world=world)


def numbered(count: int, height: int = 8, width: int = 24) -> list[Sample]:
    return [Sample(np.full((height, width), i, np.uint8), f"{i:02}", str(i)) for i in range(count)]


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_every_image_comes_once_in_an_epoch(
    count: int, batch: int, window: int, world: int, seed: int
) -> None:
    samples = numbered(count)
    changes = {"batch": batch, "window": window, "seed": seed, "world": world}
    streams = [stream_of(samples, rank=rank, **changes) for rank in range(world)]
    windows, epochs = 0, 3
    seen: Counter[str] = Counter()
    while windows * batch * window * world < epochs * count:
        for stream in streams:
            batches = stream[windows]
            assert [len(one.texts) for one in batches] == [batch] * window
            seen.update(text for one in batches for text in one.texts)
        windows += 1
        done = windows * batch * window * world
        # by the positions that are through, each image came as often as there are whole epochs, or once more
        assert all(done // count <= seen[s.text] <= -(-done // count) for s in samples)


def test_epochs_are_in_different_orders() -> None:
    stream = stream_of(numbered(40), batch=1, window=1)
    first, second = ([stream[at + start][0].texts[0] for at in range(40)] for start in (0, 40))
    assert first != second and sorted(first) == sorted(second)
    other = stream_of(numbered(40), batch=1, window=1, seed=1)
    assert [other[at][0].texts[0] for at in range(40)] != first


@given(st.lists(st.integers(4, 90), min_size=6, max_size=20), st.integers(1, 4), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_a_batch_is_as_wide_as_its_widest_image_asks(widths: list[int], batch: int, window: int) -> None:
    samples = [
        Sample(np.full((8, width), i, np.uint8), DIGITS[i % 10], str(i)) for i, width in enumerate(widths)
    ]
    stream = stream_of([Sample(s.image, "1", s.name) for s in samples], batch=batch, window=window)
    for one in stream[0]:
        shown = ((one.images[:, 0, 0, 0] * 0.5 + 0.5) * 255).round().int().tolist()  # which images these are
        asked = [MANIFEST.width.bucket(8, widths[i], 8) for i in shown]
        assert one.images.shape == (len(one.texts), 1, 8, max(asked))


def test_labels_stand_beside_their_images() -> None:
    for one in stream_of(numbered(20), batch=3, window=3)[0]:
        shown = ((one.images[:, 0, 0, 0] * 0.5 + 0.5) * 255).round().int().tolist()
        assert list(one.texts) == [f"{i:02}" for i in shown]
        assert one.lengths.tolist() == [2] * len(shown)
        digits = "".join(DIGITS[label - 1] for label in one.labels.tolist())
        assert digits == "".join(one.texts)


def test_in_the_place_of_what_cannot_be_trained_on_stands_another() -> None:
    bad = [
        Sample(b"no image", "1", "unreadable"),
        Sample("/absent.png", "1", "absent"),
        Sample(np.zeros((8, 24), np.uint8), "1x", "unknown"),
        Sample(np.zeros((8, 24), np.uint8), "", "empty"),
        Sample(np.zeros((8, 24), np.uint8), "1234567", "seven in six steps"),
        Sample(np.zeros((8, 24), np.uint8), "11233", "five and two blanks in six steps"),
    ]
    good = [
        Sample(np.zeros((8, 24), np.uint8), "123456", "six"),
        Sample(np.zeros((8, 24), np.uint8), "11234", "five and a blank"),
    ]
    stream = stream_of([*bad, *good], batch=4, window=2)
    assert [len(one.texts) for one in stream[0]] == [4, 4]
    assert {text for one in stream[0] for text in one.texts} == {"11234", "123456"}
    assert [one.texts for one in stream[0]] == [one.texts for one in stream[0]]
    with pytest.raises(TrainingDataInvalid, match=r"none of the 7 images of train\.0 can .* dataset check"):
        _ = stream_of([*bad, bad[0]], batch=4, window=2)[0]
    with pytest.raises(TrainingDataInvalid, match="empty"):
        stream_of([])


@given(st.integers(1, 12), st.sets(st.integers(0, 11)), st.integers(1, 3), st.integers(1, 3))
@settings(deadline=None, max_examples=40)
def test_batches_stay_full_and_the_sound_samples_stay_where_they_were(
    batch: int, broken: set[int], window: int, world: int
) -> None:
    whole = numbered(12)
    if len(broken) == 12:
        broken.pop()
    torn = [Sample(b"", s.text, s.name) if at in broken else s for at, s in enumerate(whole)]
    for rank in range(world):
        size = {"batch": batch, "window": window, "rank": rank, "world": world}
        texts = [
            [text for _, text, _ in stream_of(samples, **size).samples(at)]
            for samples in (whole, torn)
            for at in range(3)
        ]
        for before, after in zip(texts[:3], texts[3:], strict=True):
            assert len(before) == len(after) and not {int(text) for text in after} & broken
            assert all(a == b for a, b in zip(before, after, strict=True) if int(a) not in broken)


def drawn(**synthetic: Any) -> DataConfig:
    return DataConfig.model_validate({"synthetic": {"kinds": {"number": 1}, **synthetic}})


def test_each_style_draws_its_own_images_of_the_same_texts() -> None:
    sets = {style: open_source(drawn(style=style), DIGITS + "+-.,:/%$", 3) for style in get_args(Style)}
    texts = {style: [found[i].text for i in range(4)] for style, found in sets.items()}
    assert texts["print"] == texts["scene"] == texts["document"]
    images = {style: [read_image(found[i].image) for i in range(4)] for style, found in sets.items()}
    assert [image.ndim for style in ("print", "scene", "document") for image in images[style][:1]] == [
        2,
        3,
        2,
    ]
    again = open_source(drawn(style="scene"), DIGITS + "+-.,:/%$", 3)
    assert all(np.array_equal(a, read_image(again[i].image)) for i, a in enumerate(images["scene"]))


@pytest.mark.parametrize("style", get_args(Style))
def test_an_empty_image_is_what_letters_would_stand_on(style: Style) -> None:
    alphabet = DIGITS + "+-.,:/%$"
    written, empty = (
        open_source(drawn(style=style, augmented=False, empty=share), alphabet, 3) for share in (0.0, 1.0)
    )
    for i in range(12):
        assert written[i].text and empty[i].text == ""
        paper, page = (read_image(found[i].image).astype(float) for found in (empty, written))
        assert paper.std(axis=(0, 1)).max() < 0.3 * page.std(axis=(0, 1)).max()


def test_a_share_of_the_images_is_empty_and_a_training_takes_them() -> None:
    source = {"synthetic": {"kinds": {"number": 1}, "empty": 0.25}}
    plain = {"out": "x", "train": [source], "steps": 1, "batch": 40, "window": 2}
    config = Config.model_validate(plain)
    dataset = open_source(config.train[0], DIGITS + "+-.,:/%$", 3)
    manifest = replace(MANIFEST, alphabet=tuple(DIGITS + "+-.,:/%$"), width=WidthRule(16, 800, 4))
    batches = BatchStream([(dataset, 1.0)], manifest, config)[0]
    lengths = torch.cat([batch.lengths for batch in batches])
    texts = [text for batch in batches for text in batch.texts]
    assert [not text for text in texts] == (lengths == 0).tolist()
    assert 8 <= texts.count("") <= 32 and len(texts) > 40


def test_empty_documents_are_no_black_and_white_noise() -> None:
    found = open_source(drawn(style="document", empty=1.0), DIGITS + "+-.,:/%$", 3)
    spread = [read_image(found[i].image).std() for i in range(60)]
    assert np.quantile(spread, 0.9) < 50  # a scanner that makes paper's grain black and white gives 100


def test_labels_of_a_batch_without_letters_are_integers() -> None:
    plain = {"out": "x", "train": [{"synthetic": {"kinds": {"number": 1}, "empty": 1.0}}], "steps": 1}
    config = Config.model_validate(plain | {"batch": 2, "window": 2})
    dataset = open_source(config.train[0], DIGITS + "+-.,:/%$", 3)
    manifest = replace(MANIFEST, alphabet=tuple(DIGITS + "+-.,:/%$"), width=WidthRule(16, 800, 4))
    assert {batch.labels.dtype for batch in BatchStream([(dataset, 1.0)], manifest, config)[0]} == {
        torch.int64
    }


def test_photographs_are_backgrounds_and_a_folder_without_them_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingDataInvalid, match=r"no photographs \(.jpg\).*training/fetch.py"):
        open_source(drawn(style="scene", photographs=tmp_path), DIGITS, 3)
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "a.jpg"), rng.integers(0, 256, (300, 400, 3), np.uint8))
    alphabet = DIGITS + "+-.,:/%$"
    with_photographs = open_source(drawn(style="scene", photographs=tmp_path), alphabet, 3)
    without = open_source(drawn(style="scene"), alphabet, 3)
    pairs = [(read_image(with_photographs[i].image), read_image(without[i].image)) for i in range(12)]
    assert not all(np.array_equal(a, b) for a, b in pairs)
