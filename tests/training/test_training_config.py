"""What a training is told, and the rates and optimisers that come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from crnn_deploy.cli.main import main
from crnn_deploy.training.config import Config, ConfigInvalid, ScheduleConfig, read_config
from crnn_deploy.training.optimize import factor, optimizer_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    """A configuration as its YAML file has it."""
    return {
        "out": str(tmp_path / "run"),
        "alphabet": {"string": "0123456789"},
        "train": [{"path": str(tmp_path / "labels.txt")}],
        "steps": 7,
        "batch": 3,
        "optimizer": {"name": "adamw", "lr": 0.01},
    }


def torch_schedule(make: Any, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("steps", [1, 7, 100])
@pytest.mark.parametrize(
    ("schedule", "reference"),
    [
        (
            ScheduleConfig(name="step", every=3, gamma=0.5),
            lambda o, n: lr_scheduler.StepLR(o, 3, 0.5),
        ),
        (
            ScheduleConfig(name="multistep", at=(2, 5, 60), gamma=0.3),
            lambda o, n: lr_scheduler.MultiStepLR(o, [2, 5, 60], 0.3),
        ),
        (ScheduleConfig(name="onecycle"), lambda o, n: lr_scheduler.OneCycleLR(o, 1.0, total_steps=n)),
        (ScheduleConfig(name="cosine"), lambda o, n: lr_scheduler.CosineAnnealingLR(o, n)),
        (ScheduleConfig(name="constant"), lambda o, n: lr_scheduler.ConstantLR(o, 1.0)),
    ],
    ids=["step", "multistep", "onecycle", "cosine", "constant"],
)
def test_the_rate_is_that_of_torch(schedule: ScheduleConfig, reference: Any, steps: int) -> None:
    if schedule.name == "onecycle" and steps == 1:
        pytest.skip("PyTorch divides by zero")
    expected = torch_schedule(lambda optimizer: reference(optimizer, steps), steps)
    found = [factor(schedule, step, steps) for step in range(steps)]
    # PyTorch's OneCycleLR ends at 4e-6 of its top, this one at 0
    assert found == pytest.approx(expected, abs=5e-6 if schedule.name == "onecycle" else 1e-9)


@given(
    name=st.sampled_from(["constant", "step", "multistep", "onecycle", "cosine", "trapezoid"]),
    warmup=st.integers(0, 50),
    steps=st.integers(1, 200),
    every=st.integers(1, 200),
    at=st.lists(st.integers(0, 200), min_size=1, max_size=3),
    gamma=st.floats(0.01, 1),
    decay=st.floats(0, 1),
    place=st.floats(0, 1, exclude_max=True),
)
def test_a_rate_is_a_share_of_the_full_one(
    name: Any, warmup: int, steps: int, every: int, at: list[int], gamma: float, decay: float, place: float
) -> None:
    warmup = 0 if name == "onecycle" else warmup
    schedule = ScheduleConfig(name=name, warmup=warmup, every=every, at=tuple(at), gamma=gamma, decay=decay)
    assert 0 <= factor(schedule, int(place * steps), steps) <= 1
    if name == "trapezoid" and decay * steps >= 1:
        assert factor(schedule, steps - 1, steps) <= 1 / (decay * steps) + 1e-12


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop", "sgd", "adadelta"])
def test_every_optimiser_is_torchs_and_decays_matrices_alone(name: str, plain: dict[str, Any]) -> None:
    kinds = {"adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop", "sgd": "SGD", "adadelta": "Adadelta"}
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2))
    module[2].weight.requires_grad_(False)
    settings = {"name": name, "lr": 0.5, "weight_decay": 0.1}
    optimizer = optimizer_of(module, Config.model_validate({**plain, "optimizer": settings}).optimizer)
    assert type(optimizer).__name__ == kinds[name]
    decayed, others = optimizer.param_groups
    assert [p.shape for p in decayed["params"]] == [module[0].weight.shape]
    assert len(others["params"]) == 4
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.1, 0)
    assert decayed["lr"] == 0.5


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (("optimizer.lr=-1",), "optimizer.lr"),
        (("optimizer.lr=.nan",), "optimizer.lr"),
        (("optimizer.lr=.inf",), "optimizer.lr"),
        (("optimizer.betas=[0.9, 1]",), "optimizer.betas.1"),
        (("optimizer.name=lion",), "optimizer.name"),
        (("optimiser.lr=1",), "optimiser"),
        (("train.0.part=[0.5, 0.5]",), "train.0.part"),
        (("train.0.part=[0.9, 0.1]",), "train.0.part"),
        (("train.0.part=[0.1, .nan]",), "train.0.part"),
        (("train.0.path=null",), "train.0: .*either `path` or `synthetic`"),
        (("train.0.synthetic.kinds.word=1",), "train.0: .*either `path` or `synthetic`"),
        (("train.0={synthetic: {kinds: {}}}",), "train.0.synthetic.kinds"),
        (("train.0={synthetic: {kinds: {verse: 1}}}",), "train.0.synthetic.kinds.verse"),
        (("train.0={synthetic: {kinds: {word: 1}, style: cartoon}}",), "train.0.synthetic.style"),
        (
            ("train.0={synthetic: {kinds: {word: 1}, photographs: x}}",),
            "train.0.synthetic: .*`style: scene`",
        ),
        (("network.head=8",), "network: .*`head` belongs to the network `compact`"),
        (("network.depths=[1, 2]",), "network: .*`depths` belongs to the network `compact`"),
        (("network={name: compact, widths: [1, 2, 3]}",), "network.widths"),
        (("network={name: compact, scale: 2, widths: [1, 2, 3, 4, 5]}",), "network: .*leave one out"),
        (("train=[]",), "train"),
        (("steps=0",), "steps"),
        (("seed=-1",), "seed"),
        (("batch=1.5", "steps=x"), r"(batch|steps): .*\(and 1 more\)"),
        (("train.0.weight=0",), r"train\.0\.weight: .*0$"),  # and nothing else: the list is not too short
        (("ema=1",), "ema"),
        (("alphabet.file=x.txt",), "alphabet: .*string and file"),
        (("alphabet={}",), "alphabet: .*not none"),
        (("schedule.name=step",), "schedule: .*`every`"),
        (("schedule.name=multistep",), "schedule: .*`at`"),
        (("schedule={name: onecycle, warmup: 5}",), "schedule: .*`warmup`"),
        (("train.1.path=x",), "train is a list of 1"),
        (("train.-1.path=x",), "train is a list of 1"),
        (("train.first.path=x",), "train is a list of 1"),
        (("train.7=x",), "train is a list of 1"),
        (("steps.many=1",), "steps holds a value"),
        (("out.0.x=1",), "out holds a value"),
        (("steps=[1",), "steps=.*not YAML"),
        (("steps=2020-99-99",), "steps=.*not YAML"),
        (("steps=" + "[" * 3000 + "]" * 3000,), "steps=.*not YAML: its values are nested too deep"),
        (("steps=" + "9" * 5000,), "steps=.*not YAML: it holds a number of more than 4,300 digits"),
        (("steps=0x" + "f" * 5000,), "steps: Input should be less than or equal to 10"),
        (("steps",), "key=value"),
        (("=5",), "key=value"),
        (("a..b=5",), "key=value"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(
    changes: tuple[str, ...], named: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(plain))
    with pytest.raises(ConfigInvalid, match=named):
        read_config(path, changes)
    arguments = [argument for change in changes for argument in ("--set", change)]
    result = CliRunner().invoke(main, ["train", "--config", str(path), *arguments])
    assert result.exit_code != 0
    assert result.stdout == "" and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("Error: ") and "unexpected" not in result.stderr


DEEP, DIGITS = b"a: " + b"[" * 3000 + b"]" * 3000, b"a: " + b"9" * 5000


@pytest.mark.parametrize(
    "content", [b"", b"[1, 2]", b"a: [", b"a: \xff", b"a: 2020-99-99", b"just words", DEEP, DIGITS]
)
def test_a_file_that_is_no_configuration(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    with pytest.raises(ConfigInvalid, match="no configuration at"):
        read_config(path)
    path.write_bytes(content)
    with pytest.raises(ConfigInvalid, match=r"own\.yaml (is not a YAML file|holds no keys)"):
        read_config(path)


def test_keys_are_set_at_any_depth(plain: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(plain))
    config = read_config(
        path, ("optimizer.lr=1e-4", "train.0.part=[0, 0.5]", "schedule.name=cosine", "clip=null", "out=a=b")
    )
    assert config.optimizer.lr == 1e-4 and config.optimizer.name == "adamw"
    assert config.train[0].part == (0, 0.5) and config.train[0].path == plain["train"][0]["path"]
    assert config.schedule.name == "cosine" and config.clip is None and config.out == Path("a=b")


@pytest.mark.parametrize("path", sorted((ROOT / "training").glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_of_the_project_is_valid(path: Path) -> None:
    read_config(path)
