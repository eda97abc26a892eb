"""The path of a training on a GPU, on a CPU: what only CUDA has stands in, and all else is the real thing.

The stand-ins are streams that do their work at once and note what they are asked for, pinning that copies and
remembers its memory, and an accelerator that PyTorch's DataLoader is told of, whose thread pins the windows.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from matplotlib import get_data_path
from tar_training import differences, last_of
from test_training import DIGITS, RECIPE
from torch import Tensor, nn

from crnn_deploy.cli.main import main
from crnn_deploy.synthesis.font_pack import write_font_pack
from crnn_deploy.training import copies, data, learner, loop
from crnn_deploy.training.config import Config, OptimizerConfig
from crnn_deploy.training.data import BatchStream, TrainingBatch, batches_from
from crnn_deploy.training.learner import Learner
from crnn_deploy.training.loop import train
from crnn_deploy.training.model import build
from crnn_deploy.training.optimize import Average, optimizer_of
from crnn_deploy.training.sources import open_sources

CPU = torch.device("cpu")
MATPLOTLIB = Path(get_data_path()) / "fonts" / "ttf"


class PaperCuda:
    """Notes, in their order, what a training asks of CUDA."""

    def forget(self) -> None:
        """Of a training that was begun again."""
        for noted in (self.events, self.sources, self.handed_over):
            noted.clear()

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        self.pinned: set[int] = set()  # addresses of storages
        self.pinned_by: set[str] = set()  # names of threads
        self.sources: list[Tensor] = []  # what is copied to the device
        self.handed_over: list[Tensor] = []
        self.side, self.steps = PaperStream(self, "side"), PaperStream(self, "steps")
        pin = torch.clone

        def pin_memory(tensor: Tensor) -> Tensor:
            copy = pin(tensor)
            self.pinned.add(copy.untyped_storage().data_ptr())
            self.pinned_by.add(threading.current_thread().name)
            kept.append(copy)  # an address is not given to another
            return copy

        kept: list[Tensor] = []

        @contextmanager
        def stream(side: PaperStream) -> Iterator[None]:
            assert side is self.side
            self.events.append("copy")
            yield

        streams: dict[str, Any] = {
            "Stream": lambda device: self.side,
            "stream": stream,
            "current_stream": lambda device: self.steps,
        }
        for name, value in streams.items():
            monkeypatch.setattr(torch.cuda, name, value)
        accelerator: dict[str, Any] = {
            "is_available": lambda: True,
            # asked by optimisers, with check_available, whether a graph is being recorded
            "current_accelerator": lambda check_available=False: None if check_available else CPU,
            "current_device_index": lambda: 0,
            "set_device_index": lambda index: None,
        }
        for name, value in accelerator.items():
            monkeypatch.setattr(torch.accelerator, name, value)
        monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
        monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: self._record(tensor, stream))
        for module in (copies, loop, learner):
            monkeypatch.setattr(module, "is_asynchronous", lambda device: True)
        learn, copied = Learner.learn, copies._copied

        def copying(batch: TrainingBatch, device: torch.device) -> TrainingBatch:
            self.sources += [batch.images, batch.labels]
            return copied(batch, device)

        monkeypatch.setattr(copies, "_copied", copying)

        def learning(own: Learner, batch: TrainingBatch, step: int, rate: float) -> Tensor:
            self.events.append("step")
            return learn(own, batch, step, rate)

        monkeypatch.setattr(Learner, "learn", learning)

    def _record(self, tensor: Tensor, stream: PaperStream) -> None:
        assert stream is self.steps
        self.handed_over.append(tensor)

    def holds(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self.pinned


class PaperStream:
    def __init__(self, cuda: PaperCuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: PaperStream) -> None:
        self.cuda.events.append(f"{self.name} wait for {other.name}")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "fonts.tar.xz"
    write_font_pack(path, folders=[MATPLOTLIB], word_lists=[])
    return path


@pytest.fixture
def plain(tmp_path: Path, pack: Path) -> dict[str, Any]:
    torch.set_num_threads(1)
    (tmp_path / "tiny.toml").write_text(RECIPE)
    synthetic = {"kinds": {"number": 1, "random": 1}, "folders": [str(tmp_path / "none")]}
    held_out = {**synthetic, "augmented": False, "size": 4}
    return {
        "out": str(tmp_path / "run"),
        "alphabet": {"string": DIGITS},
        "recipe": str(tmp_path / "tiny.toml"),
        "network": {"name": "compact", "scale": 0.2, "hidden": 4},
        "train": [{"synthetic": synthetic}],
        "validation": {"numbers": {"synthetic": held_out}},
        "font_pack": str(pack),
        "steps": 7,
        "batch": 3,
        "window": 2,
        "workers": 2,
        "precision": "bf16",
    }


def test_a_dry_run(plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bf16, from pinned batches of two workers that draw from a font pack, with an end to its time."""
    slow = {**plain, "steps": 100_000, "optimizer": {"name": "sgd", "lr": 0.01}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(slow))
    command = ["train", "--config", str(tmp_path / "own.yaml"), "--minutes"]
    with monkeypatch.context() as patch:
        cuda = PaperCuda(patch)
        steps, minutes = 0, 0.05
        while steps <= 2:  # on a busy machine the set-up alone may take the time
            shutil.rmtree(slow["out"], ignore_errors=True)
            cuda.forget()
            stopped = CliRunner().invoke(main, [*command, str(minutes)])
            assert stopped.exit_code == 0 and "minutes are spent" in stopped.stderr, stopped.output
            if (Path(slow["out"]) / "last.pth").exists():
                steps = last_of(slow["out"])["training"]["step"]
            minutes *= 3
        # each batch is copied before the step of the one before begins, and waited for before its own
        turn = ["steps wait for side", "copy", "step"]
        assert cuda.events == ["copy", *(turn * steps)] and steps > 2
        assert len(cuda.handed_over) == 2 * steps  # images and labels of each step
        assert len(cuda.sources) == 2 * (steps + 1) and all(map(cuda.holds, cuda.sources))
        assert cuda.pinned_by and threading.current_thread().name not in cuda.pinned_by

        slow["steps"] = steps + 3
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(slow))
        resumed = CliRunner().invoke(main, [*command, "5", "--resume"])
        assert resumed.exit_code == 0 and "numbers: exact" in resumed.stdout, resumed.output
    train(Config.model_validate({**slow, "out": str(tmp_path / "cpu")}))
    assert differences(last_of(slow["out"]), last_of(tmp_path / "cpu")) == []


def test_adam_is_one_kernel_where_there_is_a_gpu(
    plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch has that kernel for CPUs too; its weights are those of the other one within rounding."""
    plain |= {"steps": 3, "precision": "fp32", "validation": {}}
    train(Config.model_validate({**plain, "out": plain["out"] + "-cpu"}))
    with monkeypatch.context() as patch:
        PaperCuda(patch)
        train(Config.model_validate({**plain, "steps": 2}))
        train(Config.model_validate(plain), resume=True)
    torch.manual_seed(Config.model_validate(plain).seed)
    start = build(Config.model_validate(plain)).weights.state_dict()
    found, expected = last_of(plain["out"]), last_of(plain["out"] + "-cpu")
    assert {group["fused"] for group in found["training"]["optimizer"]["param_groups"]} == {True}
    assert {group["fused"] for group in expected["training"]["optimizer"]["param_groups"]} == {None}
    moved, apart = (
        torch.cat(
            [(to[name] - at[name]).abs().flatten() for name, to_value in to.items() if to_value.ndim > 1]
        )
        for to, at in ((expected["state_dict"], start), (found["state_dict"], expected["state_dict"]))
    )
    assert moved.mean() > 0 and apart.mean() < 0.01 * moved.mean()


def test_batches_are_the_same_pinned_shared_or_by_a_pipe(
    plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain |= {
        "font_pack": None,
        "train": [{"synthetic": {"kinds": {"random": 1}, "folders": [str(MATPLOTLIB)]}}],
    }
    config = Config.model_validate(plain)
    manifest = build(config).manifest
    stream = BatchStream(open_sources(config, manifest.alphabet), manifest, config)
    expected = [batch for window in range(2) for batch in stream[window]]

    def same(found: Iterator[TrainingBatch]) -> bool:
        pairs = list(zip(found, expected, strict=True))
        return all(
            torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels)
            and torch.equal(a.lengths, b.lengths) and a.texts == b.texts
            for a, b in pairs
        )  # fmt: skip

    assert same(batches_from(stream, 0, 4, 2, workers=0))
    assert same(batches_from(stream, 0, 4, 2, workers=2))
    monkeypatch.setattr(data, "_SHARED", tmp_path)
    usage = type("Usage", (), {"total": 4096})  # as of a container that gives little
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    piped = data._SentWindow.of(expected, shared=False)
    assert not isinstance(piped.images, Tensor) and same(iter(piped.split()))
    monkeypatch.setattr(
        torch.Tensor, "share_memory_", lambda tensor: pytest.fail("images went by shared memory")
    )
    assert same(batches_from(stream, 0, 4, 2, workers=2))


def test_the_average_is_that_of_each_tensor_by_itself() -> None:
    """Bit for bit what `lerp` makes of one tensor after the other."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.LSTM(8, 8))
    average = Average(module, 0.9)
    expected: Mapping[str, Tensor] = {name: value.clone() for name, value in module.state_dict().items()}
    for step in range(1, 30):
        for value in module.state_dict().values():
            value.add_(1) if value.dtype == torch.int64 else value.add_(torch.randn_like(value))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                expected[name].lerp_(value, 1 - decay)
            else:
                expected[name].copy_(value)
        assert differences(average.state, expected) == []
    own = {name: value.clone() for name, value in module.state_dict().items()}
    with average.swapped():
        assert differences(module.state_dict(), dict(expected)) == []
    assert differences(module.state_dict(), own) == []


def test_only_adam_has_that_kernel() -> None:
    module = nn.Linear(2, 2)
    for name in ("sgd", "rmsprop", "adadelta"):
        config = OptimizerConfig.model_validate({"name": name})
        assert not optimizer_of(module, config, fused=True).param_groups[0].get("fused")
