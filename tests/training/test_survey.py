"""What is said of the training images before the first step, and what a bad record costs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from test_training import DIGITS, ENVIRONMENT, RECIPE, drawn

from crnn_deploy.cli.main import main
from crnn_deploy.datasets import Sample
from crnn_deploy.manifest import Manifest, StepRule, WidthRule
from crnn_deploy.training.survey import survey

TEXTS = [f"{number:03}" for number in range(100, 140)]


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return {
        "out": str(tmp_path / "run"),
        "alphabet": {"string": DIGITS},
        "recipe": str(tmp_path / "tiny.toml"),
        "network": {"name": "compact", "scale": 0.2, "hidden": 4},
        "steps": 2,
        "batch": 2,
        "window": 2,
        "validate_every": 1,
        "save_every": 2,
    }


def png(text: str) -> bytes:
    return bytes(cv2.imencode(".png", drawn(text))[1].tobytes())


def labelled(folder: Path, changes: Mapping[int, str | None], garbage: tuple[int, ...] = ()) -> str:
    """Forty images and their labels; changes: other labels, or None for an image that is not there."""
    folder.mkdir()
    for at, text in enumerate(TEXTS):
        if changes.get(at, text) is not None:
            (folder / f"{at}.png").write_bytes(b"garbage" if at in garbage else png(text))
    lines = [f"{at}.png\t{changes.get(at) or text}\n" for at, text in enumerate(TEXTS)]
    (folder / "labels.txt").write_text("".join(lines))
    return str(folder / "labels.txt")


def packed(path: Path, changes: Mapping[str, bytes | None]) -> str:
    values: dict[str, bytes | None] = {"num-samples": b"40"}
    for number, text in enumerate(TEXTS, 1):
        values |= {f"image-{number:09d}": png(text), f"label-{number:09d}": text.encode()}
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for key, value in {**values, **changes}.items():
            if value is not None:
                transaction.put(key.encode(), value)
    return str(path)


def run(plain: Mapping[str, Any], source: str, folder: Path, *options: str) -> Result:
    data = {"train": [{"path": source}], "validation": {"same": {"path": source}}}
    (folder / "own.yaml").write_text(yaml.safe_dump({**plain, **data}))
    return CliRunner().invoke(main, ["train", "--config", str(folder / "own.yaml"), *options])


def test_every_reason_is_counted_and_too_much_of_it_is_refused(plain: dict[str, Any], tmp_path: Path) -> None:
    changes: dict[int, str | None] = {0: "1é", 1: "zzé", 2: None, 3: None, 4: None, 5: "9" * 30}
    source = labelled(tmp_path / "data", changes, garbage=(6,))
    result = run(plain, source, tmp_path)
    [line] = result.stderr.splitlines()
    assert result.exit_code == 2 and line.startswith(f"Error: train.0 {source}: 33 of 40 samples are used; ")
    for told in (
        "3 image missing",
        "2 characters outside the alphabet ('é', 'z'; as in '1é')",
        "1 image that cannot be read",
        "1 label longer than its image has time steps",
        "more than max_dropped=0.05",
    ):
        assert told in line
    assert not (tmp_path / "run").exists()

    result = run(plain, source, tmp_path, "--set", "max_dropped=0.175")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines()[0].startswith(
        f"train.0 {source}: 33 of 40 samples are used; left out: "
    )
    [validated] = [line for line in result.stderr.splitlines() if line.startswith("step 2  same")]
    assert "/40 = " in validated and "4 could not be read and count as wrong: " in validated
    assert str(tmp_path / "data" / "2.png") in validated


def test_where_all_is_sound_one_line_says_so(plain: dict[str, Any], tmp_path: Path) -> None:
    source = labelled(tmp_path / "data", {})
    result = run(plain, source, tmp_path)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0] == f"train.0 {source}: 40 of 40 samples are used"


def test_nothing_usable_is_refused_whatever_may_be_dropped(plain: dict[str, Any], tmp_path: Path) -> None:
    source = labelled(tmp_path / "data", dict.fromkeys(range(40), "x"))
    result = run(plain, source, tmp_path, "--set", "max_dropped=1")
    assert result.exit_code == 2 and "0 of 40 samples are used" in result.stderr


@pytest.mark.parametrize(
    ("changes", "counted", "key"),
    [
        ({"label-000000020": None}, "1 label missing", "label-000000020 is missing"),
        ({"image-000000020": None}, "1 image missing", "image-000000020 is missing"),
        ({"label-000000020": b"Stra\xdfe"}, "1 label that cannot be read", "label-000000020 is not UTF-8"),
        ({"image-000000020": b"garbage"}, "1 image that cannot be read", "image-000000020: not an image"),
        ({"label-000000040": None}, "1 label missing", "label-000000040 is missing"),
    ],
)
def test_a_bad_record_ends_neither_a_training_nor_an_evaluation(
    changes: dict[str, bytes | None], counted: str, key: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    source = packed(tmp_path / "x.lmdb", changes)
    result = run(plain, source, tmp_path)
    assert result.exit_code == 0, result.stderr
    assert f"39 of 40 samples are used; left out: {counted}" in result.stderr.splitlines()[0]
    assert "1 could not be read and count as wrong" in result.stderr and key in result.stderr
    report = tmp_path / "report.json"
    command = ["evaluate", str(tmp_path / "run" / "last.pth"), source, "--json-file", str(report)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1 and key in result.stderr.splitlines()[0]
    plain_report = json.loads(report.read_text())
    assert plain_report["overall"]["images"] == 40 and plain_report["failed"] == 1
    [failure] = plain_report["failures"]
    assert failure["name"] == f"{source} {key[:15]}" and key in failure["reason"]


def test_evaluate_names_some_on_stderr_and_all_in_the_report(plain: dict[str, Any], tmp_path: Path) -> None:
    train = labelled(tmp_path / "data", {})
    assert run(plain, train, tmp_path).exit_code == 0
    for at in range(25):
        (tmp_path / "data" / f"{at}.png").unlink()
    report = tmp_path / "report.json"
    command = ["evaluate", str(tmp_path / "run" / "last.pth"), train, "--json-file", str(report)]
    lines = CliRunner().invoke(main, command).stderr.splitlines()
    assert "none of its first images is there" in lines[0]
    assert lines[21:] == ["and 5 more; --json-file FILE lists them all", "25 of 40 images failed"]
    assert len(json.loads(report.read_text())["failures"]) == 25


def test_one_process_of_two_says_it(plain: dict[str, Any], tmp_path: Path) -> None:
    source = labelled(tmp_path / "data", dict.fromkeys(range(10), "x"))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**plain, "train": [{"path": source}]}))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "crnn_deploy", "train", "--config", str(tmp_path / "own.yaml")),
        ],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
    )
    told = [line for line in done.stderr.splitlines() if "30 of 40 samples are used" in line]
    assert done.returncode != 0 and len(told) == 1 and told[0].startswith("Error: ")


@dataclass(frozen=True)
class SomeShards:
    """Texts in shards, of which some hold none: a part of the samples, told by a hash."""

    texts: Sequence[str]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Sample:
        return Sample(drawn(self.texts[index]), self.texts[index], str(index))

    def glance(self, index: int) -> str:
        return self.texts[index]

    def fetch_ahead(self, shards: Sequence[int]) -> None: ...


def test_shards_without_samples_are_not_those_that_are_looked_at() -> None:
    shards = SomeShards(["101", "102"], np.array([0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2]))
    manifest = Manifest(
        *(tuple(DIGITS), 0, "gray", 16, WidthRule(16, 128, 4), (0.5,), (0.5,), "linear"), StepRule(4, 3)
    )
    found = survey(shards, manifest, ignore_case=False)
    assert (found.looked_at, found.share) == (2, 0.0)
