"""Training on WebDataset tars: exact, whatever the workers, the ranks, the stops and where the tars lie."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from namespaces import alone, needs_namespaces
from tar_training import DIGITS, config_of, differences, last_of, pack_digits

from benchmarks.cluster.object_store import installed
from crnn_deploy.datasets import open_dataset
from crnn_deploy.manifest import Manifest, StepRule, WidthRule
from crnn_deploy.training.data import BatchStream
from crnn_deploy.training.loop import train
from crnn_deploy.training.sources import open_source
from crnn_deploy.training.survey import survey

ROOT = Path(__file__).parents[2]
MANIFEST = Manifest(
    *(tuple(DIGITS), 0, "gray", 16, WidthRule(32, 160, 8), (0.5,), (0.5,), "linear"), StepRule(4, 3)
)


def run(tmp_path: Path, name: str, **changes: Any) -> Mapping[str, Any]:
    config = config_of(tmp_path, name, **changes)
    train(config)
    return last_of(config.out)


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    pack_digits(tmp_path, str(tmp_path / "shards"))
    whole = run(tmp_path, "whole")
    for stop in (1, 11, 17):
        run(tmp_path, f"stopped{stop}", steps=stop)
        train(config_of(tmp_path, f"stopped{stop}"), resume=True)
        assert differences(last_of(tmp_path / f"stopped{stop}"), whole) == []


def test_workers_change_nothing(tmp_path: Path) -> None:
    pack_digits(tmp_path, str(tmp_path / "shards"))
    assert differences(run(tmp_path, "two", workers=2), run(tmp_path, "none")) == []


def test_the_number_of_joined_shards_cannot_change_on_the_way(tmp_path: Path) -> None:
    pack_digits(tmp_path, str(tmp_path / "shards"))
    run(tmp_path, "x", steps=2)
    source = {"path": str(tmp_path / "shards"), "joined": 3}
    with pytest.raises(ValueError, match="another train"):
        train(config_of(tmp_path, "x", train=[source]), resume=True)


@pytest.mark.parametrize("part", [(0.0, 1.0), (0.3, 1.0)])
def test_ranks_share_out_the_samples_and_stay_in_the_joined_shards(
    tmp_path: Path, part: tuple[float, float]
) -> None:
    pack_digits(tmp_path, str(tmp_path / "shards"))
    source = {"path": str(tmp_path / "shards"), "part": part, "joined": 2}
    config = config_of(tmp_path, "x", train=[source], batch=1, window=2)
    dataset = open_source(config.train[0], DIGITS, 0)
    inside = {dataset[at].text for at in range(len(dataset))}
    streams = [BatchStream([(dataset, 1.0)], MANIFEST, config, rank=rank, world=3) for rank in range(3)]
    seen: list[str] = []
    for window in range(len(dataset) // 6):
        own = [[text for batch in stream[window] for text in batch.texts] for stream in streams]
        assert [len(texts) for texts in own] == [2, 2, 2]
        seen += [text for texts in own for text in texts]
    assert len(seen) == len(set(seen)) and set(seen) <= inside
    whole = open_dataset(str(tmp_path / "shards"))
    shard_of = {whole[at].text: at // 10 for at in range(len(whole))}
    for at in range(0, len(seen) - 6, 6):  # shards that have begun before a window and go on behind it
        later, before = {shard_of[text] for text in seen[at + 6 :]}, {shard_of[text] for text in seen[:at]}
        assert len(later & before) <= 2


def test_a_sample_that_cannot_be_used_is_replaced_near_by(tmp_path: Path) -> None:
    pack_digits(tmp_path, str(tmp_path / "shards"), broken=7)
    config = config_of(tmp_path, "x", batch=1, window=2)
    dataset = open_source(config.train[0], DIGITS, 0)
    stream = BatchStream([(dataset, 1.0)], MANIFEST, config)
    texts = [text for window in range(len(dataset) // 2) for batch in stream[window] for text in batch.texts]
    assert len(texts) == len(dataset) // 2 * 2
    assert (
        differences(run(tmp_path, "two", workers=2, max_dropped=0.5), run(tmp_path, "one", max_dropped=0.5))
        == []
    )


def test_a_shard_that_is_lost_ends_the_training_and_nothing_stands_in_its_place(tmp_path: Path) -> None:
    pack_digits(tmp_path, str(tmp_path / "shards"))
    whole = run(tmp_path, "whole")
    run(tmp_path, "lost", steps=2)
    shard = tmp_path / "shards" / "000003.tar"  # which the survey does not look at
    kept = shard.read_bytes()
    shard.write_bytes(kept[:3000] + bytes(100) + kept[3100:])
    for workers in (0, 1):
        with pytest.raises(ValueError, match=r"000003.tar: is not a tar, or is torn"):
            train(config_of(tmp_path, "lost", workers=workers, steps=30), resume=True)
    shard.write_bytes(kept)
    train(config_of(tmp_path, "lost"), resume=True)
    assert differences(last_of(tmp_path / "lost"), whole) == []


def test_the_survey_looks_at_some_shards(tmp_path: Path) -> None:
    pack_digits(tmp_path, str(tmp_path / "shards"))
    found = survey(open_dataset(str(tmp_path / "shards")), MANIFEST, ignore_case=False)
    assert (found.samples, found.looked_at, found.read) == (64, 34, 34)  # the last shard has four
    assert "of 64 samples 34 were looked at" in found.told()


def test_images_that_training_sees_are_those_of_the_tars(tmp_path: Path) -> None:
    pack_digits(tmp_path, str(tmp_path / "shards"))
    dataset = open_dataset(str(tmp_path / "shards"))
    config = config_of(tmp_path, "x", batch=1, window=1)
    stream = BatchStream([(dataset, 1.0)], MANIFEST, config)
    seen = [next(iter(stream.samples(window))) for window in range(len(dataset))]
    assert {text for _, text, _ in seen} == {dataset[at].text for at in range(len(dataset))}
    assert all(isinstance(pixels, np.ndarray) for pixels, _, _ in seen)


@needs_namespaces
def test_on_s3(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    if not (kinds := installed()):
        pytest.skip("no S3 server is installed: see benchmarks/cluster/object_store.py")
    command = f"OBJECT_STORE={kinds[0]} TMPDIR={tmp_path} $python -m pytest -q -p no:cacheprovider"
    tests = Path(__file__).parent / "training_on_s3.py"
    done = alone(f"cd {ROOT} && {command} --basetemp {tmp_path / 'tmp'} {tests}", tmp_path, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
