"""A training that turns NaN: it stops at once, and what was saved before stays sound."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from tar_training import last_of
from test_training import DIGITS, ENVIRONMENT, RECIPE, TEXTS, write_labels
from torch import Tensor

from crnn_deploy.cli.main import main
from crnn_deploy.export.checkpoints.checkpoint import CheckpointUnreadable
from crnn_deploy.export.reference import open_reference
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.training.config import Config
from crnn_deploy.training.divergence import Divergence, TrainingDiverged
from crnn_deploy.training.learner import Learner
from crnn_deploy.training.loop import train
from crnn_deploy.training.state import ResumeImpossible


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    """A training of a tiny network, which saves every other step."""
    torch.set_num_threads(1)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    labels = {"path": str(write_labels(tmp_path / "images", TEXTS))}
    return {
        "out": str(tmp_path / "run"),
        "alphabet": {"string": DIGITS},
        "recipe": str(tmp_path / "tiny.toml"),
        "network": {"name": "compact", "scale": 0.2, "hidden": 4},
        "train": [labels],
        "validation": {"same": labels},
        "steps": 6,
        "batch": 2,
        "window": 2,
        "optimizer": {"name": "adam", "lr": 0.001},
        "save_every": 2,
        "validate_every": 2,
    }


def spoiling(spoil: Callable[[Learner], Tensor | None], at: int) -> Any:
    """`Learner.learn`, which does something once it has done the step with this number, from 1."""
    learn = Learner.learn

    def learned(own: Learner, batch: Any, step: int, rate: float) -> Tensor:
        loss = learn(own, batch, step, rate)
        given = spoil(own) if step + 1 == at else None
        return loss if given is None else given

    return learned


def finite(value: Any) -> bool:
    """Whether a nest of values has no tensor that is not finite."""
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(finite, value))


def test_a_rate_that_is_too_high_ends_in_one_line_and_a_lower_one_goes_on(
    plain: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**plain, "steps": 2}))
    assert CliRunner().invoke(main, ["train", "--config", str(path)]).exit_code == 0
    sound = (tmp_path / "run" / "last.pth").read_bytes()
    path.write_text(yaml.safe_dump({**plain, "steps": 40, "log_every": 1}))
    more = ["train", "--config", str(path), "--resume"]
    result = CliRunner().invoke(main, [*more, "--set", "optimizer.lr=1e30"])
    *_, line = result.stderr.splitlines()
    assert result.exit_code == 1 and "nan" not in "".join(result.stderr.splitlines()[:-1])
    assert re.fullmatch(
        r"Error: the (loss|gradient) of step \d+ is (nan|inf) at a learning rate of 1e\+30.*; .*last\.pth "
        r"still holds step 2: go on from it with --resume at a lower learning rate, such as "
        r"--set optimizer\.lr=1e\+29",
        line,
    )
    assert (tmp_path / "run" / "last.pth").read_bytes() == sound
    assert CliRunner().invoke(main, [*more, "--set", "steps=4"]).exit_code == 0
    content = last_of(tmp_path / "run")
    assert content["training"]["step"] == 4 and finite(content)


def nan_loss(own: Learner) -> Tensor:
    return torch.tensor(math.nan)


def infinite_gradient(own: Learner) -> None:
    own.norm = torch.tensor(math.inf)


def nan_statistics(own: Learner) -> None:
    """Which no loss shows: a step normalises by its own batch."""
    name = next(name for name, _ in own._module.named_buffers() if name.endswith("running_var"))
    own._module.get_buffer(name).fill_(math.inf)


def nan_average(own: Learner) -> None:
    assert own.average is not None
    next(iter(own.average.state.values())).fill_(math.nan)


def infinite_moment(own: Learner) -> None:
    """A weight whose second moment is infinite never moves again."""
    next(iter(own.optimizer.state.values()))["exp_avg_sq"].fill_(math.inf)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (nan_loss, "the loss of step 4 is nan"),
        (infinite_gradient, "the gradient of step 4 is inf"),
        (nan_statistics, "running_var holds infinite numbers"),
        (nan_average, "average of .* holds NaN"),
        (infinite_moment, "optimiser's state 0 exp_avg_sq holds infinite numbers"),
    ],
)
@pytest.mark.parametrize("clip", [5.0, None])
def test_whatever_is_not_finite_is_not_saved(
    spoil: Any, told: str, clip: float | None, plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "learn", spoiling(spoil, 4))
    with pytest.raises(TrainingDiverged, match=f"{told}.* at a learning rate of 0.001.* still holds step 2"):
        train(Config.model_validate({**plain, "clip": clip}))
    content = last_of(plain["out"])
    assert content["training"]["step"] == 2 and finite(content)
    assert finite(torch.load(Path(plain["out"]) / "best.pth", weights_only=True))


def test_before_anything_is_saved_it_says_to_start_again(
    plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Learner, "learn", spoiling(nan_loss, 1))
    with pytest.raises(TrainingDiverged, match=r"nothing was saved yet; start again at a lower .*=0\.0001$"):
        train(Config.model_validate(plain))
    assert not (Path(plain["out"]) / "last.pth").exists()
    monkeypatch.undo()
    assert train(Config.model_validate({**plain, "steps": 1})).step == 1  # in the same folder


def test_a_scaler_may_leave_out_steps_until_it_is_at_its_end() -> None:
    """fp16: gradients overflow at first, and the factor of the losses falls until they fit."""

    def found(scale: float, loss: float, norm: float) -> str | None:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        scaler.scale(torch.ones(()))  # its factor is made when it is first used
        watch = Divergence(behind=0)
        watch.add(1, 0.1, torch.tensor(loss), torch.tensor(norm))
        return watch.found(scaler, now=False)

    assert found(65536, 2.0, math.inf) is None and found(65536, 2.0, math.nan) is None
    assert found(2.0**-11, 2.0, math.inf) == (
        "the gradient of step 1 is inf at a learning rate of 0.1, with a loss of 2"
    )
    assert found(65536, math.nan, 1.0) == "the loss of step 1 is nan at a learning rate of 0.1"


def test_on_a_gpu_a_step_is_looked_at_after_the_next() -> None:
    """So that no step waits for the one before; but at once where its weights are kept."""
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    watch, bad, good = Divergence(behind=1), torch.tensor(math.nan), torch.tensor(1.0)
    watch.add(1, 0.5, bad, good)
    assert watch.found(scaler, now=False) is None
    watch.add(2, 0.25, good, good)
    assert watch.found(scaler, now=False) == "the loss of step 1 is nan at a learning rate of 0.5"
    watch.add(3, 0.25, good, bad)
    told = watch.found(scaler, now=True)
    assert told is not None and told.startswith("the gradient of step 3 is nan")


def test_two_processes_stop_together(plain: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**plain, "optimizer": {"name": "adam", "lr": 1e30}}))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "crnn_deploy", "train", "--config", str(path)),
        ],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=120,
    )
    told = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert done.returncode != 0 and len(told) == 1 and "at a learning rate of 1e+30" in told[0]
    assert "crnn_deploy/training" not in done.stderr  # no traceback but the launcher's


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_wherever_they_come_in(
    value: float, plain: dict[str, Any], tmp_path: Path
) -> None:
    train(Config.model_validate({**plain, "steps": 2}))
    last, best = (Path(plain["out"]) / name for name in ("last.pth", "best.pth"))
    content = torch.load(last, weights_only=True)
    name = next(name for name in content["state_dict"] if name.endswith("weight"))
    content["state_dict"][name].view(-1)[0] = value
    torch.save(content, last)
    with pytest.raises(ResumeImpossible, match=f"first in {re.escape(name)}: that training diverged"):
        train(Config.model_validate({**plain, "steps": 4}), resume=True)

    content = torch.load(best, weights_only=True)
    content["state_dict"][name].view(-1)[0] = value
    torch.save(content, best)
    what = "NaN" if math.isnan(value) else "infinite numbers"
    told = rf"best\.pth: its weights hold {what} \(1 of [\d,]+ values\), first in {re.escape(name)}: "
    with pytest.raises(CheckpointUnreadable, match=told):
        open_reference(best, CheckpointSettings())
    start = {"checkpoint": str(best)}
    with pytest.raises(CheckpointUnreadable, match=told):
        train(Config.model_validate({**plain, "out": tmp_path / "other", "start": start, "alphabet": None}))
    options = ["export", "--checkpoint", str(best), "-o", str(tmp_path / "x.onnx")]
    result = CliRunner().invoke(main, options)
    [line] = result.stderr.splitlines()
    assert result.exit_code == 2 and re.match(f"Error: .*{told}", line)
