"""Orders of samples: each once in an epoch, local in shards, the same wherever one begins."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from crnn_deploy.training.order import ByShards, Permuted

sizes = st.lists(st.integers(0, 7), min_size=1, max_size=9).filter(any)


def by_shards(sizes: list[int], joined: int, seed: int = 0, source: int = 0) -> ByShards:
    return ByShards(np.concatenate(([0], np.cumsum(sizes))), joined, seed, source)


@given(sizes, st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_every_sample_comes_once_in_an_epoch(sizes: list[int], joined: int, seed: int) -> None:
    order, size = by_shards(sizes, joined, seed), sum(sizes)
    for epoch in range(3):
        assert sorted(map(order.index, range(epoch * size, (epoch + 1) * size))) == list(range(size))


@given(sizes, st.integers(1, 10), st.integers(0, 3))
def test_joined_shards_are_left_before_the_next_begin(sizes: list[int], joined: int, epoch: int) -> None:
    order, total = by_shards(sizes, joined), sum(sizes)
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    shards = [int(shard_of[order.index(position)]) for position in range(epoch * total, (epoch + 1) * total)]
    places = {shard: [at for at, one in enumerate(shards) if one == shard] for shard in set(shards)}
    for at in range(total):
        # those that have begun and are not done
        assert sum(where[0] <= at <= where[-1] for where in places.values()) <= joined
        assert set(shards[at:]) | set(shards[: at + 1]) == set(shards)
        assert shards[at] in order.ahead(epoch * total + at)[:joined]


@given(sizes, st.integers(1, 10))
def test_what_comes_next_is_told_ahead(sizes: list[int], joined: int) -> None:
    order, total = by_shards(sizes, joined), sum(sizes)
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    for one, other in pairwise(range(3 * total)):
        assert shard_of[order.index(other)] in order.ahead(one)


@given(sizes, st.integers(1, 10), st.lists(st.integers(0, 200), min_size=1, max_size=30))
def test_a_position_tells_its_sample_whatever_was_asked_before(
    sizes: list[int], joined: int, positions: list[int]
) -> None:
    order = by_shards(sizes, joined)
    assert [order.index(at) for at in positions] == [by_shards(sizes, joined).index(at) for at in positions]


def test_orders_differ_by_epoch_seed_source_and_joined_shards() -> None:
    def epoch(order: ByShards | Permuted, number: int = 0) -> list[int]:
        return [order.index(position) for position in range(100 * number, 100 * number + 100)]

    orders = [
        epoch(by_shards([10] * 10, *numbers)) for numbers in ((4, 0, 0), (4, 1, 0), (4, 0, 1), (3, 0, 0))
    ]
    orders += [epoch(by_shards([10] * 10, 4), 1), epoch(Permuted(100, 0, 0)), epoch(Permuted(100, 0, 0), 1)]
    assert len({tuple(order) for order in orders}) == len(orders)


def test_the_order_of_a_source_on_disk_is_what_it_was() -> None:
    """So that a training that began before goes on with the same images."""
    order = Permuted(7, 3, 1)
    for epoch in (0, 5, 2**32 + 5):
        expected = np.random.default_rng((3, 1, epoch % 2**32)).permutation(7).tolist()
        assert [order.index(epoch * 7 + at) for at in range(7)] == expected
    assert list(order.instead(9)) == [12, 13, 7, 8, 9, 10, 11]


@given(sizes, st.integers(1, 10), st.integers(0, 100))
@settings(max_examples=50)
def test_in_the_place_of_a_sample_stand_those_of_the_joined_shards_first(
    sizes: list[int], joined: int, position: int
) -> None:
    order, total = by_shards(sizes, joined), sum(sizes)
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    instead = list(order.instead(position))
    near = set(order.ahead(position)[: min(joined, len(sizes))])
    count = len(instead) - total
    assert {int(shard_of[order.index(at)]) for at in instead[:count]} <= near
    assert sorted(set(instead)) == list(
        range(position - position % total, position - position % total + total)
    )
