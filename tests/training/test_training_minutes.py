"""`train --minutes`: it stops in time and saves, and what does not fit any more is not begun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from tar_training import differences, last_of
from test_training import DIGITS, ENVIRONMENT, RECIPE, TEXTS, write_labels

from crnn_deploy import Recognizer
from crnn_deploy.cli.main import main
from crnn_deploy.metrics import Score
from crnn_deploy.training import loop
from crnn_deploy.training.config import Config
from crnn_deploy.training.learner import Learner
from crnn_deploy.training.loop import train


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    """A training of a tiny network on a dozen images, as its YAML file has it."""
    torch.set_num_threads(1)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return {
        "out": str(tmp_path / "run"),
        "alphabet": {"string": DIGITS},
        "recipe": str(tmp_path / "tiny.toml"),
        "network": {"name": "compact", "scale": 0.2, "hidden": 4},
        "train": [{"path": str(write_labels(tmp_path / "images", TEXTS))}],
        "steps": 100_000,
        "batch": 2,
        "window": 3,
    }


def run(plain: Mapping[str, Any], folder: Path, *options: str) -> Result:
    (folder / "own.yaml").write_text(yaml.safe_dump(dict(plain)))
    return CliRunner().invoke(main, ["train", "--config", str(folder / "own.yaml"), *options])


@pytest.mark.parametrize("workers", [0, 2])
def test_it_stops_in_time_saves_and_goes_on(workers: int, plain: dict[str, Any], tmp_path: Path) -> None:
    start = time.monotonic()
    result = run({**plain, "workers": workers}, tmp_path, "--minutes", "0.04")
    spent = time.monotonic() - start
    assert result.exit_code == 0, result.output
    step = last_of(plain["out"])["training"]["step"]
    told = result.stderr.splitlines()[-1]
    assert told == f"the 0.04 minutes are spent after step {step} of 100000; --resume goes on"
    assert step >= 1 and 1 < spent < 2.4 + 1  # a loaded machine is late a little

    whole = {**plain, "steps": step, "out": str(tmp_path / "whole")}
    train(Config.model_validate(whole))
    assert differences(last_of(plain["out"]), last_of(whole["out"])) == []
    assert run({**plain, "steps": step + 4}, tmp_path, "--resume").exit_code == 0
    more = {**whole, "steps": step + 4, "out": str(tmp_path / "more")}
    train(Config.model_validate(more))
    assert differences(last_of(plain["out"]), last_of(more["out"])) == []


def test_a_training_that_ends_before_says_nothing_of_time(plain: dict[str, Any], tmp_path: Path) -> None:
    result = run({**plain, "steps": 2}, tmp_path, "--minutes", "5")
    assert result.exit_code == 0 and "minutes" not in result.stderr
    assert last_of(plain["out"])["training"]["step"] == 2


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "soon"])
def test_minutes_are_a_positive_number(minutes: str, plain: dict[str, Any], tmp_path: Path) -> None:
    result = run(plain, tmp_path, "--minutes", minutes)
    assert result.exit_code == 2 and "--minutes" in result.stderr
    assert not Path(plain["out"]).exists()


class Time:
    """A clock that stands still but for what the test lets pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        learn, save = Learner.learn, loop._Run._save_training
        self.saved: list[float] = []

        def learning(*arguments: Any) -> Any:
            self.now += 1
            return learn(*arguments)

        def saving(*arguments: Any) -> None:
            save(*arguments)
            self.now += 5
            self.saved.append(self.now)

        monkeypatch.setattr(Learner, "learn", learning)
        monkeypatch.setattr(loop._Run, "_save_training", saving)


def test_a_step_is_not_begun_when_the_save_after_it_would_be_late(
    plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = Time(monkeypatch)
    outcome = train(Config.model_validate({**plain, "save_every": 4}), until=130.0)
    # saves after steps 4 and 8 take until 118; each needs a second, a stop 5 and the wait for a window 1
    assert passed.saved == [109.0, 118.0, 128.0]
    assert (outcome.step, outcome.late, outcome.stopped) == (13, True, False)


def test_a_validation_that_would_not_fit_is_left_out(
    plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = Time(monkeypatch)
    begun: list[float] = []

    def validate(*_: Any, **__: Any) -> dict[str, Score]:
        begun.append(passed.now)
        passed.now += 50
        return {"same": Score()}

    monkeypatch.setattr(loop, "validate", validate)
    config = {**plain, "steps": 9, "validate_every": 3, "validation": {"same": plain["train"][0]}}
    outcome = train(Config.model_validate(config), until=200.0)
    assert begun == [103.0]  # of 50 seconds each; the one after step 6 would have begun at 156
    assert (outcome.step, outcome.late, outcome.scores) == (9, True, {})
    assert last_of(plain["out"])["training"]["step"] == 9


def test_a_first_validation_that_takes_too_long_is_broken_off(
    plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passed = Time(monkeypatch)
    monkeypatch.setattr("crnn_deploy.training.validate._CHUNK", 2)
    read = Recognizer.try_read
    chunks: list[float] = []

    def reading(*arguments: Any) -> Any:
        chunks.append(passed.now)
        passed.now += 20
        return read(*arguments)

    monkeypatch.setattr(Recognizer, "try_read", reading)
    config = {**plain, "validate_every": 3, "validation": {"same": plain["train"][0]}}
    outcome = train(Config.model_validate(config), until=150.0)
    assert chunks == [103.0, 123.0, 143.0]  # of 12 images, 6 in three chunks
    assert outcome.late and outcome.scores == {} and outcome.step == 4
    assert not (tmp_path / "run" / "best.pth").exists()
    assert last_of(plain["out"])["training"]["step"] == 4


RANKS = """
import json, os, sys, time
from pathlib import Path
from crnn_deploy.training.config import read_config
from crnn_deploy.training.learner import Learner
from crnn_deploy.training.loop import train
rank = int(os.environ["RANK"])
outcome = train(read_config(Path(sys.argv[1])), until=time.monotonic() if rank else None)
Path(sys.argv[2], f"{rank}.json").write_text(json.dumps([outcome.step, outcome.late]))
"""


def test_all_processes_stop_when_one_has_no_more_time(plain: dict[str, Any], tmp_path: Path) -> None:
    path, script = tmp_path / "own.yaml", tmp_path / "ranks.py"
    script.write_text(RANKS)
    path.write_text(yaml.safe_dump(plain))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(script), str(path), str(tmp_path)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)] == [[1, True]] * 2
    assert last_of(plain["out"])["training"]["step"] == 1
    assert os.listdir(plain["out"]).count("last.pth") == 1
