"""Training: exact resumption, data, schedules, finetuning, and what a configuration may say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crnn_deploy.datasets import open_dataset
from crnn_deploy.manifest import Manifest
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.networks.doctr import DoctrCRNN
from crnn_deploy.networks.gitycc import GitYccCRNN
from crnn_deploy.networks.mobilenet import mobilenet_v3_small
from crnn_deploy.recognizer import Recognizer
from crnn_deploy.stages.export import export
from crnn_deploy.stages.reference import Settings, open_reference
from crnn_deploy.stages.verify import verify
from crnn_deploy.training import state
from crnn_deploy.training.config import Config, ConfigInvalid, ScheduleConfig, read_config
from crnn_deploy.training.data import Stream, TrainingDataInvalid, open_source, open_sources
from crnn_deploy.training.loop import PrecisionImpossible, RunExists, train
from crnn_deploy.training.model import build
from crnn_deploy.training.optimize import factor

ROOT = Path(__file__).parents[1]
DIGITS = "0123456789"
FONTS = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf")
TINY: dict[str, Any] = {"name": "crnn", "scale": 0.0625, "hidden": 8}
DRAWN: dict[str, Any] = {
    "synthetic": {"kinds": {"number": 1, "random": 1}, "folders": [FONTS], "augmented": True}
}


def draw(path: Path, text: str, width: int) -> None:
    """An image of digits, of the width asked for."""
    image = np.full((32, width, 3), 230, np.uint8)
    for at, digit in enumerate(text):
        place = (4 + at * (width - 8) // len(text), 24)
        cv2.putText(image, digit, place, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (20, 20, 20), 2)
    cv2.imwrite(str(path), image)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images of one to five digits and their labels."""
    folder = tmp_path_factory.mktemp("digits")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(20):
        text = "".join(rng.permutation(list(DIGITS))[: 1 + i % 5])
        draw(folder / f"{i}.png", text, 40 + 20 * len(text) + i)
        lines.append(f"{i}.png {text}\n")
    path = folder / "labels.txt"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def config_of(out: Path, labels: Path, **changes: Any) -> Config:
    plain: dict[str, Any] = {
        "out": str(out),
        "alphabet": {"string": DIGITS},
        "recipe": "paper",
        "network": TINY,
        "train": [{"path": str(labels)}],
        "validation": {"own": {"path": str(labels)}},
        "augment": True,
        "steps": 7,
        "batch": 4,
        "window": 3,
        "ema": 0.9,
        "schedule": {"name": "onecycle"},
        "validate_every": 3,
        "save_every": 100,
    }
    return Config.model_validate(plain | changes)


def content(out: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(out / state.LAST, weights_only=True)
    return loaded


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Where two saved states differ, to the bit; what names the run itself is passed over."""
    if path in (".training.config",):
        return []
    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [path]
    if isinstance(one, dict):
        found = [] if one.keys() == other.keys() else [path]
        return found + [d for key in one for d in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple):
        found = [] if len(one) == len(other) else [path]
        return found + [
            d
            for i, (a, b) in enumerate(zip(one, other, strict=True))
            for d in differences(a, b, f"{path}.{i}")
        ]
    return [] if one == other else [path]


@pytest.mark.parametrize("source", ["on disk", "drawn"])
@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch, source: str, optimizer: str
) -> None:
    changes: dict[str, Any] = {"optimizer": {"name": optimizer, "momentum": 0.5}}
    if source == "drawn":
        changes["train"] = [DRAWN, {"path": str(labels), "weight": 0.5}]
    train(config_of(tmp_path / "whole", labels, **changes))

    parts = config_of(tmp_path / "parts", labels, **changes, save_every=1)
    saved = state.save_training

    def save_and_stop(*arguments: Any, **named: Any) -> None:
        saved(*arguments, **named)
        if named["step"] in (2, 4):  # in the middle of the first window, and of the second
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(state, "save_training", save_and_stop)
    stops = [train(parts).step]
    while stops[-1] < parts.steps:
        stops.append(train(parts, resume=True).step)
    assert len(stops) == 3
    assert differences(content(tmp_path / "whole"), content(tmp_path / "parts")) == []


def test_workers_change_nothing(tmp_path: Path, labels: Path) -> None:
    train(config_of(tmp_path / "none", labels, steps=4))
    train(config_of(tmp_path / "two", labels, steps=4, workers=2))
    assert differences(content(tmp_path / "none"), content(tmp_path / "two")) == []


def command(config: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "crnn_deploy", "train", "--config", str(config), *arguments]


def test_sigterm_saves_and_resume_goes_on(tmp_path: Path, labels: Path) -> None:
    config = tmp_path / "run.yaml"
    plain = json.loads(config_of(tmp_path / "run", labels, steps=5000, log_every=1).model_dump_json())
    config.write_text(yaml.safe_dump(plain), encoding="utf-8")
    process = subprocess.Popen(command(config), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 5/"):
            process.send_signal(signal.SIGTERM)
            break
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert "--resume goes on" in rest
    step = content(tmp_path / "run")["training"]["step"]
    assert 5 <= step < 5000
    again = subprocess.run(command(config), capture_output=True, text=True, timeout=120)
    assert again.returncode == 2 and again.stderr.count("\n") == 1 and "--resume" in again.stderr
    on = command(config, "--resume", "--set", f"steps={step + 2}")
    done = subprocess.run(on, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("own: exact ")
    assert content(tmp_path / "run")["training"]["step"] == step + 2


def test_two_processes_keep_equal_weights(tmp_path: Path, labels: Path) -> None:
    config = tmp_path / "run.yaml"
    plain = json.loads(config_of(tmp_path / "run", labels, steps=4).model_dump_json())
    config.write_text(yaml.safe_dump(plain), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = command(config)[1:]
    done = subprocess.run([*launch, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    saved = content(tmp_path / "run")["training"]
    assert (saved["world"], saved["step"]) == (2, 4)


def test_processes_share_a_window_and_no_sample(tmp_path: Path, labels: Path) -> None:
    config = config_of(tmp_path, labels, augment=False)
    model = build(config)
    sources = open_sources(config, model.manifest.alphabet)

    def texts(rank: int, world: int) -> Counter[str]:
        stream = Stream(sources, model.manifest, config, rank=rank, world=world)
        return Counter(text for _, text, _ in stream.samples(0))

    both = texts(0, 2) + texts(1, 2)
    assert sum(texts(0, 2).values()) == sum(texts(1, 2).values()) == config.batch * config.window
    whole = Stream(sources, model.manifest, config_of(tmp_path, labels, augment=False, batch=8))
    assert both == Counter(text for _, text, _ in whole.samples(0))


def test_every_image_once_an_epoch_in_another_order(tmp_path: Path, labels: Path) -> None:
    config = config_of(tmp_path, labels, augment=False)
    model = build(config)
    stream = Stream(open_sources(config, model.manifest.alphabet), model.manifest, config)
    dataset = open_dataset(str(labels))
    everything = Counter(dataset[i].text for i in range(len(dataset)))
    drawn = [text for window in range(5) for _, text, _ in stream.samples(window)]  # 60 = 3 x 20
    epochs = [drawn[:20], drawn[20:40], drawn[40:]]
    assert all(Counter(epoch) == everything for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_batch_is_as_wide_as_its_widest_image(tmp_path: Path, labels: Path) -> None:
    config = config_of(tmp_path, labels, augment=False)
    model = build(config)
    stream = Stream(open_sources(config, model.manifest.alphabet), model.manifest, config)
    own = {
        text: model.manifest.width.bucket(pixels.shape[0], pixels.shape[1], model.manifest.height)
        for pixels, text, _ in stream.samples(0)
    }
    batches = stream[0]
    assert len(batches) == config.window
    assert Counter(text for batch in batches for text in batch.texts) == Counter(own.keys())
    widths = [batch.images.shape[3] for batch in batches]
    assert all(batch.images.shape[3] == max(own[text] for text in batch.texts) for batch in batches)
    ordered = sorted(batches, key=lambda batch: batch.images.shape[3])
    for narrow, wide in pairwise(ordered):
        assert max(own[t] for t in narrow.texts) <= min(own[t] for t in wide.texts)
    assert len(set(widths)) > 1
    for batch in batches:
        assert batch.lengths.tolist() == [len(text) for text in batch.texts]
        assert batch.labels.tolist() == [1 + DIGITS.index(c) for text in batch.texts for c in text]


def test_unusable_samples_are_left_out(tmp_path: Path, labels: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    draw(folder / "good.png", "12", 80)
    draw(folder / "narrow.png", "1", 12)
    (folder / "broken.png").write_bytes(b"no image")
    lines = ["good.png 12", "good.png 1a", "broken.png 3", "narrow.png 1111111111111111111111111111111"]
    path = folder / "labels.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    config = config_of(tmp_path, path, augment=False, batch=4, window=1)
    model = build(config)
    stream = Stream(open_sources(config, model.manifest.alphabet), model.manifest, config)
    assert [text for _, text, _ in stream.samples(0)] == ["12"]
    with pytest.raises(TrainingDataInvalid, match="dataset check") as error:
        train(config_of(tmp_path / "run", path, batch=2, window=2))
    assert "\n" not in str(error.value)


def test_parts_of_a_dataset_share_no_image(labels: Path, tmp_path: Path) -> None:
    twice = tmp_path / "labels.txt"  # equal images under two names
    entries = [line.split(" ") for line in labels.read_text(encoding="utf-8").splitlines()]
    lines = []
    for name, text in entries:
        for copy in ("a", "b"):
            (tmp_path / f"{copy}{name}").write_bytes((labels.parent / name).read_bytes())
            lines.append(f"{copy}{name} {text}")
    twice.write_text("\n".join(lines), encoding="utf-8")
    config = config_of(tmp_path, twice)
    seen = []
    for part in ((0.0, 0.6), (0.6, 1.0)):
        source = config.train[0].model_copy(update={"part": part})
        dataset = open_source(source, DIGITS, 0)
        seen.append({Path(str(dataset[i].image)).read_bytes() for i in range(len(dataset))})
    assert not seen[0] & seen[1]
    assert len(seen[0] | seen[1]) == 20 and min(map(len, seen)) > 2


def test_a_tiny_network_learns_and_its_export_reads_the_same(tmp_path: Path, labels: Path) -> None:
    config = config_of(
        tmp_path / "run",
        labels,
        augment=False,
        network={"name": "compact", "scale": 0.25, "hidden": 32},
        recipe=str(ROOT / "training" / "latin.toml"),
        steps=400,
        batch=10,
        window=2,
        optimizer={"name": "adamw", "lr": 0.01},
        validate_every=400,
    )
    outcome = train(config)
    assert outcome.scores["own"].exact == 20, outcome.scores
    reference = open_reference(tmp_path / "run" / "best.pth", Settings())  # neither recipe nor alphabet given
    assert reference.manifest.alphabet == tuple(DIGITS)
    assert reference.manifest.width == build(config).manifest.width
    result = export(reference, tmp_path / "model.onnx")
    assert result.report.passed
    compared = verify(
        tmp_path / "run" / "best.pth", result.path, Settings(), images=str(labels.parent), tolerance=1e-4
    )
    assert compared.passed and compared.images == 20
    dataset = open_dataset(str(labels))
    recognizer = Recognizer.load(tmp_path / "model.onnx")
    assert [t.text for t in recognizer.read([s.image for s in map(dataset.__getitem__, range(20))])] == [
        dataset[i].text for i in range(20)
    ]


NETWORKS = {
    "crnn.pytorch": lambda: CRNN(32, 1, 11, hidden=8, widths=(4, 4, 8, 8, 8, 8, 8)),
    "gitycc": lambda: GitYccCRNN(32, 1, 11, mapped=8, hidden=8, widths=(4, 4, 8, 8, 8, 8, 8)),
    "doctr-mobilenet-small": lambda: DoctrCRNN(mobilenet_v3_small(3), 576, 8, 11),
}


@pytest.mark.parametrize("recipe", NETWORKS)
@pytest.mark.parametrize("blank", ["first", "last"])
def test_another_alphabet_keeps_the_rows_of_shared_characters(
    tmp_path: Path, labels: Path, recipe: str, blank: str
) -> None:
    torch.manual_seed(0)
    checkpoint = tmp_path / "old.pth"
    torch.save(NETWORKS[recipe]().state_dict() | {}, checkpoint)
    rules = tmp_path / "rules.toml"
    rules.write_text(f'base = "{recipe}"\nalphabet = "{DIGITS}"\nblank = "{blank}"\n', encoding="utf-8")
    start = {"checkpoint": str(checkpoint), "recipe": str(rules)}
    config = config_of(tmp_path / "run", labels, start=start, alphabet={"string": "98x7"})
    old = open_reference(checkpoint, Settings(str(rules)))
    new = build(config)
    assert new.manifest.alphabet == ("9", "8", "x", "7")
    assert new.manifest.blank == (0 if blank == "first" else 4)

    def rows(module: torch.nn.Module, manifest: Manifest) -> dict[str, tuple[list[float], float]]:
        head = [m for m in module.modules() if isinstance(m, torch.nn.Linear)][-1]
        tokens = [*manifest.alphabet[: manifest.blank], "blank", *manifest.alphabet[manifest.blank :]]
        return {
            token: (head.weight[i].detach().tolist(), float(head.bias[i].detach()))
            for i, token in enumerate(tokens)
        }

    before, after = rows(old.module, old.manifest), rows(new.module, new.manifest)
    assert {token for token in after if after[token] == before.get(token)} == {"blank", "7", "8", "9"}


def test_frozen_convolutions_do_not_move(tmp_path: Path, labels: Path) -> None:
    train(config_of(tmp_path / "first", labels))
    start = {"checkpoint": str(tmp_path / "first" / "last.pth"), "freeze_cnn": True}
    before = build(config_of(tmp_path / "x", labels, start=start, alphabet=None)).weights.state_dict()
    train(config_of(tmp_path / "second", labels, start=start, alphabet=None, ema=0.0))
    after = content(tmp_path / "second")["state_dict"]
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved and not any(name.startswith("cnn.") for name in moved)
    assert any(name.startswith("rnn.1.embedding") for name in moved)
    assert any("running_mean" in name for name in after)


SCHEDULERS = {
    "step": (
        ScheduleConfig(name="step", every=7, gamma=0.5),
        lambda o, n: torch.optim.lr_scheduler.StepLR(o, 7, 0.5),
    ),
    "multistep": (
        ScheduleConfig(name="multistep", at=(5, 20), gamma=0.2),
        lambda o, n: torch.optim.lr_scheduler.MultiStepLR(o, [5, 20], 0.2),
    ),
    "cosine": (
        ScheduleConfig(name="cosine"),
        lambda o, n: torch.optim.lr_scheduler.CosineAnnealingLR(o, n),
    ),
    "onecycle": (
        ScheduleConfig(name="onecycle"),
        lambda o, n: torch.optim.lr_scheduler.OneCycleLR(o, 1.0, n, cycle_momentum=False),
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [40, 101])
def test_schedules_are_pytorchs(name: str, steps: int) -> None:
    config, scheduler_of = SCHEDULERS[name]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    scheduler = scheduler_of(optimizer, steps)
    for step in range(steps):
        assert factor(config, step, steps) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-4)
        optimizer.step()
        scheduler.step()


@given(
    st.sampled_from(["constant", "step", "multistep", "onecycle", "cosine", "trapezoid"]),
    st.integers(1, 3000),
    st.integers(0, 500),
    st.floats(0, 1),
)
def test_a_factor_lies_between_0_and_1(name: Any, steps: int, warmup: int, decay: float) -> None:
    config = ScheduleConfig(name=name, warmup=warmup, decay=decay, every=10, at=(3, 50))
    for step in {0, steps // 2, steps - 1}:
        assert 0 <= factor(config, step, steps) <= 1
    if name == "trapezoid" and decay * steps > 10 and not warmup:
        assert factor(config, steps - 1, steps) <= 1 / 10
        assert factor(config, 0, steps) == 1 or decay > 1 - 1 / steps


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "a misspelt key": (("optimiser.lr=1",), "optimiser"),
    "a wrong value": (("optimizer.lr=fast",), "optimizer.lr"),
    "a negative number": (("steps=-1",), "steps"),
    "not a number": (("optimizer.lr=.nan",), "optimizer.lr"),
    "an unknown schedule": (("schedule.name=magic",), "schedule.name"),
    "no equals sign": (("steps",), "steps"),
    "no such entry": (("train.7.path=x",), "train.7"),
    "a name for a number": (("train.first.path=x",), "train.first"),
    "keys below a value": (("seed.inner=1",), "seed"),
    "broken YAML": (("steps=[1",), "steps"),
    "a part upside down": (("train.0.part=[0.8, 0.2]",), "part"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_configuration_names_its_key(tmp_path: Path, labels: Path, case: str) -> None:
    path = tmp_path / "run.yaml"
    plain = json.loads(config_of(tmp_path / "run", labels).model_dump_json())
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    changes, key = BAD[case]
    with pytest.raises(ConfigInvalid) as error:
        read_config(path, changes)
    assert key in str(error.value) and "\n" not in str(error.value)


def test_changes_reach_nested_keys(tmp_path: Path, labels: Path) -> None:
    path = tmp_path / "run.yaml"
    plain = json.loads(config_of(tmp_path / "run", labels).model_dump_json())
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    changed = read_config(path, ("optimizer.lr=0.5", "train.0.part=[0.2, 0.7]", "start.checkpoint=a b.pth"))
    assert changed.optimizer.lr == 0.5
    assert changed.train[0].part == (0.2, 0.7)
    assert changed.start is not None and changed.start.checkpoint == Path("a b.pth")


@pytest.mark.parametrize("content", ["", "- a list\n", "out: [1\n", "\x00"])
def test_a_file_that_is_no_configuration(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigInvalid) as error:
        read_config(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_another_training_is_not_overwritten_or_resumed(tmp_path: Path, labels: Path) -> None:
    config = config_of(tmp_path / "run", labels, steps=3)
    with pytest.raises(state.ResumeImpossible, match="nothing to resume"):
        train(config, resume=True)
    train(config)
    with pytest.raises(RunExists, match="--resume"):
        train(config)
    with pytest.raises(state.ResumeImpossible, match="batch"):
        train(config_of(tmp_path / "run", labels, steps=6, batch=5), resume=True)
    last = tmp_path / "run" / state.LAST
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(state.ResumeImpossible, match="truncated"):
        train(config_of(tmp_path / "run", labels, steps=6), resume=True)


def test_precisions(tmp_path: Path, labels: Path) -> None:
    assert train(config_of(tmp_path / "bf16", labels, steps=1, precision="bf16")).step == 1
    if not torch.cuda.is_available():
        with pytest.raises(PrecisionImpossible):
            train(config_of(tmp_path / "fp16", labels, precision="fp16"))


def test_a_failed_save_leaves_the_old_file(
    tmp_path: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path / "run", labels, steps=2, validation={})
    train(config)
    before = (tmp_path / "run" / state.LAST).read_bytes()

    def fail(content: object, file: Any) -> None:
        file.write(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        train(config_of(tmp_path / "run", labels, steps=3, validation={}), resume=True)
    assert (tmp_path / "run" / state.LAST).read_bytes() == before
    assert [p.name for p in (tmp_path / "run").iterdir() if p.suffix == ".pth"] == [state.LAST]
    assert not list((tmp_path / "run").glob(".*"))
