"""Plans of inputs for tests, and the images that they give."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from crnn_deploy.cluster.plan import Chunk, write_plan
from crnn_deploy.cluster.sources import Item, Planned, open_chunk, plan_of
from crnn_deploy.stores.store import Stores, open_store


def parquet(file: Path, group: int = 4, schema: pa.Schema | None = None, /, **columns: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, schema), file, row_group_size=group)


IMAGES = [bytes([number]) * (number * 100) for number in range(1, 22)]


def planned(inputs: Sequence[str], most: int = 3, **options: Any) -> list[Planned]:
    chunks = list(plan_of(inputs, most, Stores(inputs), **options))
    assert [one.chunk.number for one in chunks] == list(range(len(chunks)))
    return chunks


def listed(inputs: Sequence[str], most: int = 3, **options: Any) -> list[str]:
    """Names of inputs that are files."""
    chunks = planned(inputs, most, **options)
    assert all(one.chunk.kind == "paths" and one.chunk.count == len(one.names) <= most for one in chunks)
    assert all(len(one.names) == most for one in chunks[:-1])
    return [name for one in chunks for name in one.names]


def items(inputs: Sequence[str], output: Path, most: int = 3, **options: Any) -> list[Item]:
    """All images, by way of a plan that was written and of another process's Stores."""
    store, path = open_store(str(output))
    plan = write_plan(store.below(path), plan_of(inputs, most, Stores(inputs), **options))
    stores = pickle.loads(pickle.dumps(Stores(inputs)))
    found: list[Item] = []
    for chunk in plan:
        source = str(output / chunk.source) if chunk.listed else chunk.source
        opened = open_chunk(
            Chunk(**{**{n: getattr(chunk, n) for n in Chunk.__slots__}, "source": source}), stores
        )
        names, some = opened.names, list(opened)
        assert names == [one.name for one in some] == opened.names
        assert chunk.count in (None, len(some))
        found += some
    return found
