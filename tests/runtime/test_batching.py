"""Batches hold images of one width, every image once, and no more than asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from crnn_deploy.runtime.batching import batches

widths_of_images = st.lists(st.integers(1, 6), max_size=60)


@given(widths_of_images, st.integers(1, 9))
def test_every_image_is_in_one_batch_of_its_width(widths: list[int], size: int) -> None:
    images = [np.full((1, 2, width), index, np.float32) for index, width in enumerate(widths)]
    made = list(batches(enumerate(images), size))
    assert sorted(index for batch in made for index in batch.indices) == list(range(len(images)))
    for batch in made:
        assert 1 <= len(batch.indices) <= size
        assert batch.images.flags.c_contiguous
        np.testing.assert_array_equal(batch.images, np.stack([images[i] for i in batch.indices]))
    # as few as can be: all of a width are full but its last
    assert len(made) == sum(-(-count // size) for count in Counter(widths).values())


def test_a_full_batch_leaves_before_the_next_image_is_asked_for() -> None:
    asked: list[int] = []

    def images() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for index, width in enumerate([4, 8, 4, 8]):
            asked.append(index)
            yield index, np.zeros((1, 2, width), np.float32)

    made = batches(images(), 2)
    assert next(made).indices == (0, 2)
    assert asked == [0, 1, 2]
    assert [batch.indices for batch in made] == [(1, 3)]
