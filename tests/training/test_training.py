"""Training: that it learns, that a resumed run is the uninterrupted one, and that bad input is told apart."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from matplotlib import get_data_path
from numpy.typing import NDArray
from tar_training import differences, last_of
from torch import nn

from crnn_deploy import Recognizer
from crnn_deploy.cli.main import main
from crnn_deploy.datasets import open_dataset
from crnn_deploy.evaluation.evaluate import evaluate
from crnn_deploy.export.exporter import export
from crnn_deploy.export.reference import open_reference
from crnn_deploy.manifest import StepRule, WidthRule
from crnn_deploy.networks.crnn import CRNN
from crnn_deploy.networks.doctr import DoctrCRNN, vgg16_bn
from crnn_deploy.networks.gitycc import GitYccCRNN
from crnn_deploy.recipes.settings import CheckpointSettings
from crnn_deploy.training import loop
from crnn_deploy.training.config import Config, DataConfig, read_config
from crnn_deploy.training.loop import PrecisionImpossible, RunExists, train
from crnn_deploy.training.model import build, train_mode
from crnn_deploy.training.sources import open_source
from crnn_deploy.training.state import ResumeImpossible

ROOT = Path(__file__).parents[2]
FONTS = get_data_path()  # matplotlib's, which every machine has
DIGITS = "0123456789"
RECIPE = """
blank = "first"
color = "gray"
height = 16
[width]
minimum = 32
maximum = 160
multiple = 8
"""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def drawn(text: str, height: int = 20) -> NDArray[np.uint8]:
    """Dark digits on light."""
    image = np.full((height, 8 + 12 * len(text)), 230, np.uint8)
    cv2.putText(image, text, (4, height - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 20, 1, cv2.LINE_AA)
    return image


def write_labels(folder: Path, texts: Sequence[str]) -> Path:
    """Images on disk and their labels."""
    folder.mkdir(exist_ok=True)
    lines = []
    for at, text in enumerate(texts):
        cv2.imwrite(str(folder / f"{at}.png"), drawn(text))
        lines.append(f"{at}.png {text}\n")
    (folder / "labels.txt").write_text("".join(lines))
    return folder / "labels.txt"


TEXTS = ["7", "42", "315", "8800", "96", "1234", "50", "607", "19", "2468", "31", "75"]


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    """A training of a tiny network on a dozen images, as its YAML file has it."""
    (tmp_path / "tiny.toml").write_text(RECIPE)
    return {
        "out": str(tmp_path / "run"),
        "alphabet": {"string": DIGITS},
        "recipe": str(tmp_path / "tiny.toml"),
        "network": {"name": "compact", "scale": 0.34, "hidden": 8},
        "train": [{"path": str(write_labels(tmp_path / "images", TEXTS))}],
        "steps": 7,
        "batch": 3,
        "window": 3,
        "optimizer": {"name": "adamw", "lr": 0.01},
        "log_every": 4,
    }


SYNTHETIC = {"synthetic": {"kinds": {"number": 1, "random": 1}, "folders": [FONTS]}}


def config_of(plain: Mapping[str, Any], **changes: Any) -> Config:
    return Config.model_validate({**plain, **changes})


class StopAfter:
    """Stands in for the signal handler: a signal comes during the step with this number."""

    def __init__(self, step: int) -> None:
        self.left = step

    def __enter__(self) -> StopAfter:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


# --- resuming ---


@pytest.mark.parametrize("source", ["disk", "drawn"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    source: str, plain: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validation = {"same": plain["train"][0]}
    shared = {**plain, "augment": True, "validation": validation, "validate_every": 3}
    if source == "drawn":
        shared["train"] = [SYNTHETIC]
    train(config_of(shared, out=tmp_path / "whole"))
    expected = last_of(tmp_path / "whole")
    assert expected["training"]["step"] == 7 and expected["training"]["best"] >= 0

    for workers in (0, 1):
        config = config_of(shared, out=tmp_path / f"parts{workers}", workers=workers)
        for stop in (2, 3):  # in the middle of a window, then of another
            with monkeypatch.context() as patched:
                patched.setattr(loop, "Stop", lambda finishes, stop=stop: StopAfter(stop))
                outcome = train(config, resume=stop != 2)
            assert outcome.stopped
        assert outcome.step == 5
        torch.manual_seed(99)  # of another process
        assert train(config, resume=True).step == 7
        found = last_of(config.out)
        assert differences(found, expected) == []
        names = sorted(path.name for path in config.out.iterdir() if path.name != "tensorboard")
        assert names == ["best.pth", *(["fonts.json"] if source == "drawn" else []), "last.pth"]


def test_the_comparison_of_checkpoints_finds_one_bit() -> None:
    a = {"x": [torch.zeros(3), {"y": 1.0}]}
    assert differences(a, {"x": [torch.zeros(3), {"y": 1.0}]}) == []
    assert differences(a, {"x": [torch.tensor([0, 0, 1e-45]), {"y": 1.0}]}) == ["/x/0"]
    assert differences(a, {"x": [torch.zeros(3), {"y": 1.5}]}) == ["/x/1/y"]


def command(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "crnn_deploy", "train", "--config", str(path), *more]


# a test run in the background has SIGINT ignored, and so would its children
WITH_SIGINT = (
    "import os, signal, sys\n"
    "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)])
def test_a_signal_saves_and_resume_goes_on(
    number: signal.Signals, workers: int, plain: dict[str, Any], tmp_path: Path
) -> None:
    """The signal goes to the whole group, as of `timeout` and Ctrl-C, so the workers get it too."""
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**plain, "steps": 100_000, "log_every": 1, "workers": workers}))
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_SIGINT, *command(path)],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 2/"):
            os.killpg(process.pid, number)
            break
    rest = process.stderr.read()
    assert process.wait(60) == 130, rest
    assert "--resume goes on" in rest and "Traceback" not in rest
    step = last_of(plain["out"])["training"]["step"]
    assert f"stopped after step {step} of 100000" in rest and step >= 2

    path.write_text(yaml.safe_dump({**plain, "steps": step + 2, "workers": workers}))
    result = CliRunner().invoke(main, ["train", "--config", str(path), "--resume"])
    assert result.exit_code == 0 and last_of(plain["out"])["training"]["step"] == step + 2


def test_a_save_that_breaks_off_leaves_the_old_file(
    plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(plain, steps=2)
    train(config)
    before = (config.out / "last.pth").read_bytes()

    def broken(content: object, file: Any) -> None:
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="no space"):
        train(config_of(plain, steps=4), resume=True)
    assert (config.out / "last.pth").read_bytes() == before
    assert not [path for path in config.out.iterdir() if path.name.startswith(".")]


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
from crnn_deploy.cli.main import main
main(sys.argv[2:])
"""


def test_a_full_disk_names_the_file_and_the_run_goes_on(plain: dict[str, Any], tmp_path: Path) -> None:
    """Files may not grow beyond a limit, which fails as a full disk does."""
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**plain, "steps": 2}))
    assert CliRunner().invoke(main, ["train", "--config", str(path)]).exit_code == 0
    last = Path(plain["out"]) / "last.pth"
    before = last.read_bytes()
    path.write_text(yaml.safe_dump({**plain, "steps": 4}))

    def limited(size: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", LIMITED, str(size), "train", "--config", str(path), "--resume"],
            capture_output=True,
            text=True,
            env=ENVIRONMENT,
        )
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        return done.stderr.splitlines()[-1]

    said = limited(len(before) // 2)
    assert said.startswith(f"Error: cannot write {last}: ") and "go on with --resume" in said
    assert limited(10).startswith(f"Error: cannot write {last.with_name('tensorboard')}: ")
    assert last.read_bytes() == before
    assert not [path for path in last.parent.iterdir() if path.name.startswith(".")]
    assert CliRunner().invoke(main, ["train", "--config", str(path), "--resume"]).exit_code == 0
    assert last_of(plain["out"])["training"]["step"] == 4


def test_a_training_goes_on_where_nobody_listens(plain: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({**plain, "steps": 4, "log_every": 1}))
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command(path), stderr=write, stdout=subprocess.PIPE, env=ENVIRONMENT)
    os.close(write)
    assert done.returncode == 0 and last_of(plain["out"])["training"]["step"] == 4


class Code:
    def __reduce__(self) -> Any:
        return (print, ("this must never be printed",))


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "x"},
        {"step": -1},
        {"best": None},
        {"rng": torch.zeros(3)},
        {"optimizer": {"state": {0: 1}, "param_groups": 7}},
        {"config": "{}"},
        {"config": 5},
        {"code": Code()},
        None,
    ],
)
def test_a_broken_state_is_not_gone_on_with(
    changes: dict[str, Any] | None, plain: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    train(config_of(plain, steps=1))
    last = Path(plain["out"]) / "last.pth"
    content = torch.load(last, weights_only=True)
    content["training"] = None if changes is None else {**content["training"], **changes}
    torch.save(content, last)
    with pytest.raises(ResumeImpossible, match="not the state of a training"):
        train(config_of(plain, steps=2), resume=True)
    assert "never" not in capfd.readouterr().out


def test_what_cannot_go_on(plain: dict[str, Any], tmp_path: Path) -> None:
    config = config_of(plain, steps=1)
    with pytest.raises(ResumeImpossible, match="nothing to resume"):
        train(config, resume=True)
    train(config)
    with pytest.raises(RunExists, match="--resume"):
        train(config)
    for changes, named in (
        ({"batch": 4}, "batch"),
        ({"seed": 1, "window": 4}, "seed, window"),
        ({"augment": True}, "augment"),
        ({"optimizer": {"name": "sgd", "lr": 0.01}}, "optimizer"),
        ({"alphabet": {"string": DIGITS[::-1]}}, "alphabet"),
        ({"network": {"name": "compact", "scale": 0.5}}, "network"),
    ):
        with pytest.raises(ResumeImpossible, match=f"another {named};"):
            train(config_of(plain, steps=2, **changes), resume=True)
    slower = {"name": "adamw", "lr": 0.001}
    assert train(config_of(plain, steps=2, optimizer=slower), resume=True).step == 2
    last = config.out / "last.pth"
    whole = last.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"another file"):
        last.write_bytes(content)
        with pytest.raises(ResumeImpossible, match="truncated"):
            train(config, resume=True)


def test_an_alphabet_file_that_changed_is_another_training(plain: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "alphabet.txt"
    path.write_text(DIGITS)
    config = config_of(plain, steps=1, alphabet={"file": str(path)})
    train(config)
    path.write_text(DIGITS[::-1])
    with pytest.raises(ResumeImpossible, match="another alphabet;"):
        train(config, resume=True)


# --- several processes ---

RANKS = """
import json, os, sys
from pathlib import Path
import torch
from crnn_deploy.training import loop
from crnn_deploy.training.config import read_config
from crnn_deploy.training.data import BatchStream
from crnn_deploy.training.sources import open_source
built = []
build = loop.build
loop.build = lambda config: built.append(build(config)) or built[-1]
config = read_config(Path(sys.argv[1]))
outcome = loop.train(config)
[model] = built
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
source = open_source(config.train[0], model.manifest.alphabet, 0)
window = BatchStream([(source, 1.0)], model.manifest, config, rank=rank, world=world)[0]
weights = {name: value.tolist() for name, value in model.weights.named_parameters()}
told = {"step": outcome.step, "texts": [t for batch in window for t in batch.texts], "weights": weights}
Path(sys.argv[2], f"{rank}.json").write_text(json.dumps(told))
"""


def test_two_processes_train_one_network(plain: dict[str, Any], tmp_path: Path) -> None:
    path, script = tmp_path / "own.yaml", tmp_path / "ranks.py"
    script.write_text(RANKS)
    network = {"name": "compact", "scale": 0.2, "hidden": 4}
    texts = [str(100 + i) for i in range(12)]  # one window of two processes is the whole dataset
    source = {"path": str(write_labels(tmp_path / "two", texts))}
    path.write_text(
        yaml.safe_dump(
            {
                **plain,
                "network": network,
                "train": [source],
                "batch": 2,
                "window": 3,
                "validation": {"v": source},
            }
        )
    )
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launcher, str(script), str(path), str(tmp_path)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first["step"] == second["step"] == 7
    assert first["weights"] == second["weights"]
    assert last_of(plain["out"])["training"]["world"] == 2
    assert len(first["texts"]) == len(second["texts"]) == 6
    assert sorted(first["texts"] + second["texts"]) == texts
    with pytest.raises(ResumeImpossible, match="number of processes"):
        train(read_config(path), resume=True)


# --- learning ---


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run that learned eight images by heart, and their labels."""
    folder = tmp_path_factory.mktemp("learned")
    (folder / "tiny.toml").write_text(RECIPE)
    labels = write_labels(folder / "images", TEXTS[:8])
    plain = {
        "out": folder / "run",
        "alphabet": {"string": DIGITS},
        "recipe": str(folder / "tiny.toml"),
        "network": {"name": "compact", "scale": 0.5, "hidden": 24},
        "train": [{"path": str(labels)}],
        "validation": {"same": {"path": str(labels)}},
        "steps": 400,
        "batch": 4,
        "window": 4,  # images of a batch are nearly of one width, so each is learned as it is read
        "optimizer": {"name": "adam", "lr": 0.01},
        "schedule": {"name": "onecycle"},
        "ema": 0.9,
        "validate_every": 100,
    }
    outcome = train(Config.model_validate(plain))
    assert outcome.scores["same"].exact == 8
    return folder / "run", labels


def test_a_network_learns_and_is_exported_and_read(learned: tuple[Path, Path], tmp_path: Path) -> None:
    run, labels = learned
    reference = open_reference(run / "best.pth", CheckpointSettings())  # neither recipe nor alphabet
    assert reference.manifest.alphabet == tuple(DIGITS)
    assert (reference.manifest.height, reference.manifest.width) == (16, WidthRule(32, 160, 8))
    assert reference.manifest.steps == StepRule(4, 3)
    assert export(reference, tmp_path / "x.onnx").report.passed
    recognizer = Recognizer.load(tmp_path / "x.onnx")
    images = [labels.parent / f"{at}.png" for at in range(8)]
    assert [text.text for text in recognizer.read(images)] == TEXTS[:8]


def test_validation_scores_as_evaluate_does(learned: tuple[Path, Path], tmp_path: Path) -> None:
    """On other digits, of which the network reads some right and some wrong."""
    run, _ = learned
    labels = write_labels(tmp_path / "others", [*TEXTS[:4], *TEXTS[8:], "99", "880"])
    plain = torch.load(run / "last.pth", weights_only=True)["training"]["config"]
    config = Config.model_validate_json(plain)
    changes = {"out": tmp_path / "run", "steps": 1, "validation": {"others": DataConfig(path=str(labels))}}
    start = {"checkpoint": str(run / "best.pth")}
    slow = config.optimizer.model_copy(update={"lr": 1e-3})
    config = Config.model_validate({**config.model_dump(), **changes, "start": start, "optimizer": slow})
    inside = train(config).scores["others"]
    export(open_reference(tmp_path / "run" / "best.pth", CheckpointSettings()), tmp_path / "x.onnx")
    outside = evaluate(
        Recognizer.load(tmp_path / "x.onnx"), {"others": open_dataset(str(labels))}, chunk=8, workers=1
    )
    assert inside == outside.overall
    assert inside.images == 10 and 0 < inside.exact < 10


def test_truths_are_lowered_where_labels_are(
    learned: tuple[Path, Path], plain: dict[str, Any], tmp_path: Path
) -> None:
    """Or the best network would be that of the images whose truth is lower-case by chance."""
    labels = write_labels(tmp_path / "upper", ["AB"])
    upper = {"path": str(labels)}
    config = config_of(
        {**plain, "train": [upper]}, alphabet={"string": "ab"}, ignore_case=True, validation={"same": upper},
        steps=60, window=1, batch=1, ema=0.5, validate_every=60,
    )  # fmt: skip
    assert train(config).scores["same"].exact == 1


# --- starting from a checkpoint ---


def crnn_pytorch() -> nn.Module:
    return CRNN(32, 1, 11, hidden=6, widths=(4, 4, 4, 4, 8, 8, 8))


def doctr() -> nn.Module:
    return DoctrCRNN(vgg16_bn(3), 512, 4, 11)


def gitycc() -> nn.Module:
    return GitYccCRNN(32, 1, 11, 5, 6, widths=(4, 4, 4, 4, 8, 8, 8))


@pytest.mark.parametrize(
    ("network", "head", "recipe", "blank"),
    [
        (crnn_pytorch, "rnn.1.embedding", "crnn.pytorch", "first"),
        (doctr, "linear", "doctr-vgg16", "last"),
        (gitycc, "dense", "gitycc", "first"),
    ],
)
def test_another_alphabet_keeps_the_rows_of_shared_characters(
    network: Any, head: str, recipe: str, blank: str, plain: dict[str, Any], tmp_path: Path
) -> None:
    old = network()
    checkpoint = tmp_path / "old.pth"
    torch.save({"state_dict": old.state_dict(), "alphabet": DIGITS}, checkpoint)
    own = "9x3é0"
    start = {"checkpoint": str(checkpoint), "recipe": recipe}
    model = build(config_of(plain, start=start, alphabet={"string": own}))
    assert model.manifest.alphabet == tuple(own)
    assert model.manifest.blank == (0 if blank == "first" else len(own))
    before, after = old.get_submodule(head), model.weights.get_submodule(head)
    assert isinstance(before, nn.Linear) and isinstance(after, nn.Linear)
    assert after.out_features == len(own) + 1
    shift = int(blank == "first")
    rows = {own.index(c) + shift: DIGITS.index(c) + shift for c in "930"}
    rows[model.manifest.blank] = 0 if blank == "first" else 10
    for new, was in rows.items():
        assert torch.equal(after.weight[new], before.weight[was])
        assert torch.equal(after.bias[new], before.bias[was])
    kept, given = model.weights.state_dict(), old.state_dict()
    assert all(torch.equal(kept[name], given[name]) for name in given if not name.startswith(head))
    channels, width = model.manifest.channels, model.manifest.width.minimum
    logits = model.module(torch.zeros(1, channels, model.manifest.height, width))
    assert logits.shape == (1, model.manifest.steps(width), len(own) + 1)


def test_a_frozen_cnn_does_not_move_in_a_single_bit(plain: dict[str, Any], tmp_path: Path) -> None:
    old = crnn_pytorch()
    for buffer in old.buffers():
        if buffer.dtype == torch.float32:
            buffer.uniform_(0.5, 1.5)
    torch.save(old.state_dict(), tmp_path / "old.pth")
    recipe = tmp_path / "own.toml"
    recipe.write_text('base = "paper"\nalphabet = "0123456789"\n')
    start = {"checkpoint": str(tmp_path / "old.pth"), "recipe": str(recipe), "freeze_cnn": True}
    validation = {"same": plain["train"][0]}
    config = config_of(
        plain, start=start, alphabet=None, steps=4, validation=validation, validate_every=2,
        optimizer={"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
    )  # fmt: skip
    train(config)
    content, before = last_of(config.out), old.state_dict()
    for weights in (content["state_dict"], content["state_dict_ema"]):
        changed = {name for name in before if not torch.equal(before[name], weights[name])}
        assert changed == {name for name in before if name.startswith("rnn.")}


# --- what it stumbles over ---


@pytest.mark.parametrize("workers", [0, 1])
def test_unusable_data_ends_in_one_line(workers: int, plain: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    unknown = {**plain, "alphabet": {"string": "abc"}, "workers": workers}
    impossible = {"synthetic": {"kinds": {"word": 1}, "folders": [FONTS]}}
    for content, told in (
        (unknown, "0 of 12 samples are used; left out: 12 characters outside the alphabet"),
        ({**plain, "train": [impossible], "workers": workers}, "cannot write texts of kind 'word'"),
    ):
        path.write_text(yaml.safe_dump({**content, "out": str(tmp_path / f"{len(told)}")}))
        result = CliRunner().invoke(main, ["train", "--config", str(path)])
        [line] = result.stderr.splitlines()
        assert line.startswith("Error: ") and told in line and "Traceback" not in line
        assert "unexpected" not in line and result.exit_code != 0


def test_parts_are_disjoint_and_whole_and_skip_what_is_broken(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "images", [f"{i}" for i in range(40)] + ["0", "1"])  # two repeat
    (labels.parent / "7.png").unlink()
    parts = [(0.0, 0.3), (0.3, 0.8), (0.8, 1.0)]
    found = [open_source(DataConfig(path=str(labels), part=part), DIGITS, 0) for part in parts]
    texts = [[part[i].text for i in range(len(part))] for part in found]
    assert sorted(t for part in texts for t in part) == sorted([*map(str, range(40)), "0", "1"])
    assert all(len(part) >= 4 for part in texts)
    for text in "01":  # equal images stay together
        assert sorted(part.count(text) for part in texts) == [0, 0, 2]


# --- number formats ---


def test_bf16_takes_a_step(plain: dict[str, Any]) -> None:
    config = config_of(plain, steps=1, precision="bf16")
    train(config)
    weights = last_of(config.out)["state_dict"]
    start = build(config).weights.state_dict()
    assert all(value.dtype != torch.bfloat16 and value.isfinite().all() for value in weights.values())
    assert not torch.equal(weights["classifier.weight"], start["classifier.weight"])


def test_fp16_needs_a_gpu(plain: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PrecisionImpossible, match="fp16 needs a GPU; on a CPU take bf16"):
        train(config_of(plain, precision="fp16"))
    assert not Path(plain["out"]).exists()


def test_frozen_layers_stay_in_evaluation_mode() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.LSTM(2, 2))
    train_mode(module, True)
    assert [layer.training for layer in module] == [False, False, True]
    train_mode(module, False)
    assert all(layer.training for layer in module)


def test_kept_checkpoints(plain: dict[str, Any]) -> None:
    config = config_of(plain, steps=5, keep_every=2)
    started = time.time()
    train(config)
    names = [path.name for path in sorted(config.out.glob("*.pth"))]
    assert names == ["last.pth", "step-0000002.pth", "step-0000004.pth"]
    assert all(path.stat().st_mtime >= started - 1 for path in config.out.glob("*.pth"))
    assert open_reference(config.out / names[1], CheckpointSettings()).manifest.alphabet == tuple(DIGITS)
